"""Compute a month's bill by component: events -> requests -> records -> micro-batches, each priced.

List prices, no free tier. GB are 2**30 bytes. Figures that are neither prices nor measured are constants here, and
``assumptions`` prints them with each bill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil
from typing import Final

from manymetrics_cli.cost.measured import Measured
from manymetrics_cli.cost.prices import Prices
from manymetrics_cli.cost.stack import Architecture, Stack, Traffic

HOURS: Final = 730.0
SECONDS: Final = HOURS * 3_600
GB: Final = 2**30

FULL_CORE_MB: Final = 1_769  # below it a function has a share of a core (AWS Lambda developer guide, "memory")
CORE_FACTOR: Final = 1.5  # assumed: how many times slower Lambda's core is than the measured one
PUT_WAIT_MS: Final = 5.0  # assumed: a response from Kinesis to Lambda
COMMIT_WAIT_MS: Final = 500.0  # assumed: the responses of Glue and S3 that a commit waits for, about 15
ENVIRONMENT_HOURS: Final = 2.0  # assumed: how long Lambda keeps an environment in use
ANSWER_BYTES: Final = 400  # assumed: headers and body of a response
COMMIT_LOG_BYTES: Final = 1_000  # assumed: the line with its metrics and Lambda's own lines; requests are not logged
REQUEST_LOG_BYTES: Final = 4_400  # of a plain tracker: 3.4 kB of its own (measured), 1 kB of Lambda's (assumed)
DATA_KEY_S: Final = 300.0  # Kinesis reuses a data key this long; for S3's bucket key assumed: AWS says "time-limited"
KMS_A_DATA_KEY: Final = 2.0  # KMS calls: one generates it, one decrypts it
DAYS: Final = HOURS / 24
MAINTENANCE_RUNS: Final = HOURS + DAYS  # one per hour, and one per day that looks for orphans: infra/processor.tf
KEPT_SNAPSHOTS, EXPIRED_AT_ONCE = 100, 50  # the latter is a minimum: handler.py
RUN_WAIT_MS: Final = 2_000.0  # assumed: a maintenance run's wait for Glue and S3
REWRITES: Final = 2.0  # assumed: how often a byte of the tables is rewritten by merges
METADATA_BYTES: Final = 150_000.0  # assumed: per commit, including what it replaces
STRANGERS: Final = 50_000.0  # assumed: scanners' requests per month; each gets 404 or 401
STRANGER_MS: Final = 5.0  # assumed
KEY_ROTATIONS: Final = 2  # billed rotations of a key, each as one more key: after one year, and after two
IMAGES_KEPT: Final = 2  # the current one and one to roll back to
IMAGE_GB: Final = {"spark": 0.8, "arrow": 0.4}  # assumed: compressed, as ECR bills it

GATEWAY_BYTES: Final = 512 * 1024  # the unit in which an HTTP API meters a request
GATEWAY_TIER: Final = 300e6  # requests per month at the first price
PUT_UNIT_BYTES: Final = 25 * 1024
SHARD_BYTES_A_S: Final = 2**20
SHARD_RECORDS_A_S: Final = 1_000
ON_DEMAND_SHARDS: Final = 4  # initial shards of an on-demand stream
INVOCATION_RECORDS: Final = 10_000
INVOCATION_BYTES: Final = 6_000_000  # of an event source mapping; records are base64 in it
SDK_BYTES: Final = 8_500  # compressed, sdk-js/README.md
RECORD_FRAME_BYTES: Final = 500  # of the JSON around a record


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the bill: ``usd`` per month; ``why`` explains the amount."""

    component: str
    usd: float
    why: str
    ingests: bool = False  # part of ingestion: edge, function, stream


@dataclass(frozen=True, slots=True)
class Bill:
    """The bill of one month."""

    lines: tuple[Line, ...]
    shards: int
    api_ms: int
    processor_ms: int
    key_rotations_usd: float  # the part of it that starts after one year and is complete after two
    cold_usd: float  # extra cost if every window met a cold start of the processor

    @property
    def usd(self) -> float:
        return sum(line.usd for line in self.lines)

    @property
    def ingestion_usd(self) -> float:
        return sum(line.usd for line in self.lines if line.ingests)

    @property
    def dominating(self) -> Line:
        return max(self.lines, key=lambda line: line.usd)


@dataclass(frozen=True, slots=True)
class _Flow:
    """The volumes of a month."""

    requests: float
    record_bytes: float
    shards: int
    commits: float
    api_ms: int
    commit_ms: int
    environments: int

    @property
    def records(self) -> float:
        return self.requests  # the API on Lambda packs a request into one record


def make_bill(stack: Stack, traffic: Traffic, prices: Prices, measured: Measured) -> Bill:
    """Compute the month's bill."""
    flow = _flow(stack, traffic, measured)
    lines = [
        _edge(stack, traffic, flow, prices),
        _api_function(stack, flow, prices, measured),
        _data_out(flow, prices),
        _stream(stack, traffic, flow, prices),
        _processor(stack, flow, prices, measured),
        _maintenance(stack, traffic, flow, prices, measured),
        *_storage(stack, traffic, flow, prices, measured),
        *_watching(stack, flow, prices),
        _keys(stack, flow, prices),
    ]
    if traffic.athena_gb:
        lines.append(
            Line("Athena", prices.athena_scanned.of(traffic.athena_gb), f"{traffic.athena_gb:,.0f} GB scanned")
        )
    if traffic.sdk_loads:
        lines.append(_sdk(traffic, prices))
    return Bill(
        tuple(lines),
        flow.shards,
        flow.api_ms,
        flow.commit_ms,
        prices.kms_key.of(KEY_ROTATIONS * _own_keys(stack)),
        _processor(stack, flow, prices, measured, starts=flow.commits).usd
        - _processor(stack, flow, prices, measured).usd,
    )


def marginal(stack: Stack, traffic: Traffic, prices: Prices, measured: Measured) -> tuple[float, float]:
    """Return what the next million events add, in USD: to the bill, and to ingestion (edge, function, stream)."""
    now = make_bill(stack, traffic, prices, measured)
    then = make_bill(stack, replace(traffic, events=traffic.events + 1e6), prices, measured)
    return then.usd - now.usd, then.ingestion_usd - now.ingestion_usd


def break_evens(stack: Stack, traffic: Traffic, prices: Prices, measured: Measured) -> tuple[bool, list[float]]:
    """Return whether provisioned is cheaper at low volume, and the monthly volumes at which the cheaper mode changes.

    Compares the whole bills, from a thousand events to a trillion; a provisioned stream gets the shards its peak needs.
    """

    def provisioned_saves(events: float) -> bool:
        of_both = (
            make_bill(replace(stack, stream_mode=mode), replace(traffic, events=events), prices, measured).usd
            for mode in ("on_demand", "provisioned")
        )
        return next(of_both) >= next(of_both)

    grid = [10 ** (3 + step / 20) for step in range(181)]
    turns = []
    for low, high in pairwise(grid):
        before = provisioned_saves(low)
        if before != provisioned_saves(high):
            turns.append(_turn(low, high, provisioned_saves))
    return provisioned_saves(grid[0]), turns


def _turn(low: float, high: float, test: Callable[[float], bool]) -> float:
    """Return where the test's result changes, to within 1 in 10,000."""
    before = test(low)
    while high / low > 1.0001:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if test(middle) == before else (low, middle)
    return high


def billed_ms(cpu_ms: float, wall_ms: float, wait_ms: float, memory_mb: int) -> int:
    """Convert seconds measured on a whole core to the milliseconds that Lambda bills."""
    return ceil(CORE_FACTOR * max(wall_ms, cpu_ms * FULL_CORE_MB / memory_mb) + wait_ms)


def _flow(stack: Stack, traffic: Traffic, measured: Measured) -> _Flow:
    requests = traffic.events / traffic.events_a_request
    if stack.is_plain_tracker:
        cpu_ms, record_bytes = measured.plain_tracker_cpu_ms, traffic.event_bytes
    else:
        cpu_ms = measured.api_request_cpu_ms(traffic.events_a_request)
        record_bytes = measured.stream_bytes(traffic.events_a_request, traffic.event_bytes)
    shards = _shards(stack, traffic, requests, record_bytes)
    commits = _commits(stack, requests, record_bytes, shards)
    engine = measured.engines[stack.engine]
    commit_cpu_ms, commit_wall_ms = engine.commit_ms(traffic.events / max(1.0, commits))
    api_ms = billed_ms(cpu_ms, cpu_ms, PUT_WAIT_MS, stack.api_memory_mb)
    return _Flow(
        requests=requests,
        record_bytes=record_bytes,
        shards=shards,
        commits=commits,
        api_ms=api_ms,
        commit_ms=billed_ms(commit_cpu_ms, commit_wall_ms, COMMIT_WAIT_MS, stack.processor_mb),
        environments=max(1, ceil(traffic.peak * requests / SECONDS * api_ms / 1e3)),
    )


def _shards(stack: Stack, traffic: Traffic, records: float, record_bytes: float) -> int:
    if stack.stream_mode == "on_demand":
        return ON_DEMAND_SHARDS
    peak_records_a_s = traffic.peak * records / SECONDS
    return max(
        stack.shard_count,
        ceil(peak_records_a_s * record_bytes / SHARD_BYTES_A_S),
        ceil(peak_records_a_s / SHARD_RECORDS_A_S),
    )


def _commits(stack: Stack, records: float, record_bytes: float, shards: int) -> float:
    """Estimate commits: one invocation per shard and window with a record; a full one doesn't wait for its window."""
    full = min(INVOCATION_RECORDS, INVOCATION_BYTES / (record_bytes * 4 / 3 + RECORD_FRAME_BYTES))
    windows = SECONDS / max(stack.window_seconds, 1) * shards
    return max(min(windows, records), records / full)


def _edge(stack: Stack, traffic: Traffic, flow: _Flow, prices: Prices) -> Line:
    if stack.ingress == "function_url":
        return Line("function URL", 0.0, "no separate charge", ingests=True)
    metered = _strangers(stack) + flow.requests * ceil(traffic.events_a_request * traffic.event_bytes / GATEWAY_BYTES)
    usd = prices.http_api_first_300m.of(min(metered, GATEWAY_TIER))
    usd += prices.http_api_above.of(max(0.0, metered - GATEWAY_TIER))
    return Line("HTTP API", usd, f"{_count(metered)} requests", ingests=True)


def _api_function(stack: Stack, flow: _Flow, prices: Prices, measured: Measured) -> Line:
    start_ms = billed_ms(measured.api_start_ms, measured.api_start_ms, 0, stack.api_memory_mb)
    ms = flow.requests * flow.api_ms + _starts(flow.environments, flow.requests) * start_ms
    ms += _strangers(stack) * STRANGER_MS
    requests = flow.requests + _strangers(stack)
    usd = _lambda_usd(prices, stack.api_architecture, stack.api_memory_mb, requests, ms)
    why = f"{_count(flow.requests)} x {flow.api_ms} ms at {stack.api_memory_mb} MB"
    return Line("API function", usd, why, ingests=True)


def _strangers(stack: Stack) -> float:
    return 0.0 if stack.is_plain_tracker else STRANGERS


def _starts(environments: float, invocations: float) -> float:
    return min(invocations, environments * HOURS / ENVIRONMENT_HOURS)


def _data_out(flow: _Flow, prices: Prices) -> Line:
    gb = flow.requests * ANSWER_BYTES / GB
    return Line("data out to the internet", prices.data_out.of(gb), f"{gb:,.2f} GB")


def _stream(stack: Stack, traffic: Traffic, flow: _Flow, prices: Prices) -> Line:
    if stack.stream_mode == "on_demand":
        gb_in = flow.records * ceil(flow.record_bytes / 1024) * 1024 / GB
        gb_out = flow.records * flow.record_bytes / GB
        usd = prices.kinesis_on_demand_stream.of(HOURS)
        usd += prices.kinesis_on_demand_in.of(gb_in) + prices.kinesis_on_demand_out.of(gb_out)
        return Line("Kinesis", usd, f"on demand, {gb_in:,.1f} GB", ingests=True)
    units = flow.records * ceil(flow.record_bytes / PUT_UNIT_BYTES)
    usd = prices.kinesis_shard.of(HOURS * flow.shards) + prices.kinesis_put_unit.of(units)
    if stack.stream_retention_hours > 24:
        usd += prices.kinesis_long_retention.of(HOURS * flow.shards)
    needs = "" if flow.shards == stack.shard_count else f", for a peak of {traffic.peak:g}x the mean"
    return Line(
        "Kinesis",
        usd,
        f"provisioned, {flow.shards} shard{'s' * (flow.shards > 1)}{needs}; {_count(units)} PUT units",
        ingests=True,
    )


def _processor(stack: Stack, flow: _Flow, prices: Prices, measured: Measured, starts: float | None = None) -> Line:
    if starts is None:
        starts = _starts(flow.shards, flow.commits)
    ms = flow.commits * flow.commit_ms + starts * _cold_ms(stack, measured)
    usd = _lambda_usd(prices, stack.processor_architecture, stack.processor_mb, flow.commits, ms)
    why = f"{_count(flow.commits)} x {flow.commit_ms:,} ms at {stack.processor_mb:,} MB, {stack.engine}"
    return Line("processor function", usd, why)


def _cold_ms(stack: Stack, measured: Measured) -> int:
    engine = measured.engines[stack.engine]
    return billed_ms(engine.cold_cpu_ms, engine.cold_wall_ms, 0, stack.processor_mb)


def _maintenance(stack: Stack, traffic: Traffic, flow: _Flow, prices: Prices, measured: Measured) -> Line:
    """Price maintenance: with Arrow under either engine, in the committing processor, by commits and by runs.

    Cold starts of runs are assumed as often as those of any environment.
    """
    of, runs = measured.maintenance, MAINTENANCE_RUNS
    cpu_ms = flow.commits * (of.file_ms + of.snapshot_ms) + traffic.events * of.event_us / 1e3
    cpu_ms += runs * of.run_ms + DAYS * of.orphans_ms
    starts = _starts(1, runs) * _cold_ms(stack, measured)
    ms = billed_ms(cpu_ms, cpu_ms, runs * RUN_WAIT_MS, stack.processor_mb) + starts
    usd = _lambda_usd(prices, stack.processor_architecture, stack.processor_mb, runs, ms)
    return Line("maintenance", usd, f"{_count(runs)} runs: small files, snapshots, orphans")


def _lambda_usd(prices: Prices, architecture: Architecture, memory_mb: int, invocations: float, ms: float) -> float:
    """Price a function; ``ms``: of all invocations together."""
    second = prices.lambda_arm if architecture == "arm64" else prices.lambda_x86
    return prices.lambda_request.of(invocations) + second.of(ms / 1e3 * memory_mb / 1024)


def _storage(stack: Stack, traffic: Traffic, flow: _Flow, prices: Prices, measured: Measured) -> Iterator[Line]:
    engine = measured.engines[stack.engine]
    gb = traffic.months_kept * traffic.events * traffic.event_bytes * measured.table_ratio / GB
    of = measured.maintenance
    writes = flow.commits * engine.s3_writes
    reads = flow.commits * (engine.s3_reads + 1 + of.snapshot_reads)  # plus one for the merge
    reads += _runs_that_read_all(flow) * KEPT_SNAPSHOTS * of.kept_snapshot_reads
    reads += MAINTENANCE_RUNS * of.run_reads + DAYS * of.orphans_reads
    archived = ""
    if stack.archive:
        gb += traffic.months_kept * flow.records * flow.record_bytes / GB
        writes += flow.commits
        archived = ", with the raw archive"
    kept = f"{gb:,.2f} GB: {traffic.months_kept:g} x the month's data{archived}"
    if stack.lake_version_days and not stack.is_plain_tracker:
        month = traffic.events * traffic.event_bytes * measured.table_ratio + flow.commits * METADATA_BYTES
        older = REWRITES * month * stack.lake_version_days / DAYS / GB
        kept, gb = f"{kept}; {older:,.2f} GB of older versions", gb + older
    yield Line("S3 storage", prices.s3_stored.of(gb), kept)
    usd = prices.s3_write.of(writes) + prices.s3_read.of(reads)
    yield Line("S3 requests", usd, f"{_count(writes)} PUT and LIST, {_count(reads)} GET and HEAD")
    requests = flow.commits * engine.glue_requests
    yield Line("Glue catalog", prices.glue_request.of(requests), f"{_count(requests)} requests")
    gb = IMAGES_KEPT * IMAGE_GB[stack.engine]
    yield Line("ECR", prices.ecr_stored.of(gb), f"{gb:,.2f} GB: {IMAGES_KEPT} images of the processor")


def _runs_that_read_all(flow: _Flow) -> float:
    """Return the runs that expire snapshots in a process that has yet to read the kept ones."""
    commits_an_hour = flow.commits / HOURS
    hours_between = max(1.0, EXPIRED_AT_ONCE / commits_an_hour)
    return HOURS / hours_between * min(1.0, hours_between / ENVIRONMENT_HOURS)


def _watching(stack: Stack, flow: _Flow, prices: Prices) -> Iterator[Line]:
    gb = flow.commits * COMMIT_LOG_BYTES / GB
    if stack.is_plain_tracker:
        gb += flow.requests * REQUEST_LOG_BYTES / GB
    yield Line("CloudWatch logs", prices.logs_in.of(gb), f"{gb:,.2f} GB")
    yield Line("CloudWatch metrics", prices.metric.of(stack.metrics), f"{stack.metrics} of the processor's")
    yield Line("CloudWatch alarms", prices.alarm.of(stack.alarms), f"{stack.alarms}")
    yield Line("CloudWatch dashboard", prices.dashboard.of(stack.dashboards), f"{stack.dashboards}")


def _keys(stack: Stack, flow: _Flow, prices: Prices) -> Line:
    """Price KMS. Each starting environment decrypts the write keys: keys_parameter.py.

    Each environment has its own credentials, and with them its own data key for writing to the stream.
    """
    requests = 0.0
    if not stack.is_plain_tracker:
        requests += _starts(flow.environments, flow.requests)
    if stack.encrypted:
        windows = SECONDS / DATA_KEY_S
        writers = flow.environments * min(windows, flow.requests)
        requests += KMS_A_DATA_KEY * (writers + windows * flow.shards + min(windows, flow.commits))
    keys = _own_keys(stack)
    usd = prices.kms_key.of(keys * (1 + KEY_ROTATIONS)) + prices.kms_request.of(requests)
    return Line("KMS", usd, f"{keys} key with {KEY_ROTATIONS} rotations, {_count(requests)} requests")


def _own_keys(stack: Stack) -> int:
    return int(stack.encrypted and stack.pays_for_key)


def _sdk(traffic: Traffic, prices: Prices) -> Line:
    gb = traffic.sdk_loads * SDK_BYTES / GB
    usd = prices.cloudfront_request.of(traffic.sdk_loads) + prices.cloudfront_out.of(gb)
    return Line("CloudFront", usd, f"{_count(traffic.sdk_loads)} SDK downloads not served from browser caches")


def _count(number: float) -> str:
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:,.4g}{unit}"
    return f"{number:,.0f}"
