"""Prices a kept stack's usage from CloudWatch, line by line, next to the result of `manymetrics cost`.

    CloudWatch -> usage -> dollars a month | the model's bill for the same events | differences

Usage that AWS bills but CloudWatch doesn't report (requests to S3, KMS and Glue) is listed, and left to Cost Explorer.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from manymetrics_cli.cost.bill import CORE_FACTOR, FULL_CORE_MB, GB, HOURS, PUT_WAIT_MS, make_bill
from manymetrics_cli.cost.measured import read_measured
from manymetrics_cli.cost.prices import Prices, read_prices
from manymetrics_cli.cost.stack import Stack as PricedStack
from manymetrics_cli.cost.stack import Traffic
from sample.conformance.extras import Doors
from sample.conformance.functions import Report, api_reports
from sample.conformance.probe import ProbeFailedError, Run
from sample.conformance.stack import Stack
from sample.conformance.world import ConformanceError, World

LEAST_HOURS = 12.0  # S3 reports its storage once a day
MOST_RATIO, SMALL_USD = 1.25, 0.05  # a line may exceed the model's by this ratio, plus this amount a month
_PERIOD_S = 3_600


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage since the stack was created, except for ``stored_bytes`` and ``hours``."""

    hours: float
    requests: float
    api_calls: float
    api_gb_s: float
    processor_calls: float
    processor_gb_s: float
    records: float
    log_bytes: float
    stored_bytes: float
    scanned_bytes: float
    events: float
    alarms: int


@dataclass(frozen=True, slots=True)
class Compared:
    """A line of the bill, in dollars a month. ``measured`` None: not reported by CloudWatch."""

    component: str
    model: float
    measured: float | None

    @property
    def is_above(self) -> bool:
        """Whether it costs more than the model's, beyond the tolerance."""
        return self.measured is not None and self.measured > self.model * MOST_RATIO + SMALL_USD


def measure(world: World, stack: Stack) -> int:
    """Write the comparison and measured.json. Returns 1 if a line is above the model's."""
    hours = (time.time() - stack.marker.started_at) / 3_600
    if hours < LEAST_HOURS:
        raise ConformanceError(
            f"The stack is {hours:.1f} hours old, and AWS reports its storage once a day: run this when it is a day "
            "old, or --destroy it."
        )
    outputs = stack.outputs()
    lines = compare(read_usage(world, stack, hours), stack.marker.variables, read_prices())
    page = world.build.parent / f"{world.build.name}-bill.md"
    page.write_text(as_markdown(lines, hours))
    run = Run(world, stack, outputs, Doors({}, {}), float(stack.marker.variables["batch_window_s"]))
    try:
        by_size, every = api_reports(run)
        path = write_measured(world.build / "measured.json", by_size, every)
        print(f"{path}: for manymetrics cost --measured {path}", flush=True)
    except ProbeFailedError as error:
        print(f"No measured.json: {error}", flush=True)
    above = [line.component for line in lines if line.is_above]
    print(f"The bill is in {page}" + (f"; above the model: {', '.join(above)}" if above else ""), flush=True)
    return 1 if above else 0


def read_usage(world: World, stack: Stack, hours: float) -> Usage:
    """Read the usage from CloudWatch."""
    name = stack.marker.name
    apis = [one["values"]["id"] for one in stack.resources() if one["type"] == "aws_apigatewayv2_api"]
    buckets = [one["values"]["bucket"] for one in stack.resources() if one["type"] == "aws_s3_bucket"]
    alarms = [one for one in stack.resources() if one["type"] == "aws_cloudwatch_metric_alarm"]
    of = _Sums(world, hours)
    memory = {
        kind: world.client("lambda").get_function_configuration(FunctionName=f"{name}-{kind}")["MemorySize"]
        for kind in ("api", "processor")
    }

    def calls(kind: str) -> float:
        return of("AWS/Lambda", "Invocations", FunctionName=f"{name}-{kind}")

    def gb_s(kind: str) -> float:
        return of("AWS/Lambda", "Duration", FunctionName=f"{name}-{kind}") / 1e3 * float(memory[kind]) / 1024

    return Usage(
        hours=hours,
        requests=sum(of("AWS/ApiGateway", "Count", ApiId=api) for api in apis),
        api_calls=calls("api"),
        api_gb_s=gb_s("api"),
        processor_calls=calls("processor"),
        processor_gb_s=gb_s("processor"),
        records=of("AWS/Kinesis", "IncomingRecords", StreamName=name),
        log_bytes=sum(
            of("AWS/Logs", "IncomingBytes", LogGroupName=f"/aws/lambda/{name}-{kind}") for kind in ("api", "processor")
        ),
        stored_bytes=sum(
            of.last("AWS/S3", "BucketSizeBytes", BucketName=bucket, StorageType="StandardStorage") for bucket in buckets
        ),
        scanned_bytes=of("AWS/Athena", "ProcessedBytes", WorkGroup=name),
        events=of("ManyMetrics", "stored", Database=name.replace("-", "_")),
        alarms=len(alarms),
    )


class _Sums:
    """CloudWatch metrics since the stack was created."""

    def __init__(self, world: World, hours: float) -> None:
        self._client, self._now = world.client("cloudwatch"), datetime.now(UTC)
        self._since = self._now - timedelta(hours=hours + 1)

    def __call__(self, namespace: str, metric: str, **dimensions: str) -> float:
        return sum(float(one["Sum"]) for one in self._points(namespace, metric, "Sum", dimensions))

    def last(self, namespace: str, metric: str, **dimensions: str) -> float:
        """Return the latest average; 0 if there is none."""
        points = sorted(self._points(namespace, metric, "Average", dimensions), key=lambda one: str(one["Timestamp"]))
        return float(points[-1]["Average"]) if points else 0.0

    def _points(self, namespace: str, metric: str, statistic: str, dimensions: Mapping[str, str]) -> list[Any]:
        told: list[Any] = self._client.get_metric_statistics(
            Namespace=namespace,
            MetricName=metric,
            Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
            StartTime=self._since,
            EndTime=self._now + timedelta(hours=1),
            Period=_PERIOD_S if statistic == "Sum" else 24 * _PERIOD_S,
            Statistics=[statistic],
        )["Datapoints"]
        return told


def compare(usage: Usage, variables: Mapping[str, Any], prices: Prices) -> list[Compared]:
    """Compare the model's lines for the same events with the usage, in dollars a month."""
    month = HOURS / usage.hours
    architecture = variables["processor"]["architecture"]
    priced = PricedStack(
        engine=variables["engine"],
        window_seconds=variables["batch_window_s"],
        processor_architecture=architecture,
        alarms=usage.alarms,
    )
    traffic = Traffic(
        events=max(1.0, usage.events * month),
        events_a_request=max(1.0, usage.events / usage.records) if usage.records else 1.0,
        athena_gb=usage.scanned_bytes / GB * month,
    )
    bill = make_bill(priced, traffic, prices, read_measured())
    measured = _measured(usage, month, prices, architecture)
    model = {line.component: line.usd for line in bill.lines}
    model["KMS"] -= bill.key_rotations_usd  # in later years
    model["processor function"] += model.pop("maintenance")  # one function does both
    return [Compared(component, usd, measured.get(component)) for component, usd in model.items()]


def _measured(usage: Usage, month: float, prices: Prices, architecture: str) -> dict[str, float]:
    processor_s = prices.lambda_arm if architecture == "arm64" else prices.lambda_x86
    return {
        "HTTP API": prices.http_api_first_300m.of(usage.requests * month),
        "API function": prices.lambda_request.of(usage.api_calls * month)
        + prices.lambda_arm.of(usage.api_gb_s * month),
        "Kinesis": prices.kinesis_shard.of(HOURS) + prices.kinesis_put_unit.of(usage.records * month),
        "processor function": prices.lambda_request.of(usage.processor_calls * month)
        + processor_s.of(usage.processor_gb_s * month),
        "S3 storage": prices.s3_stored.of(usage.stored_bytes / GB),
        "CloudWatch logs": prices.logs_in.of(usage.log_bytes * month / GB),
        "CloudWatch alarms": prices.alarm.of(usage.alarms),
        "Athena": prices.athena_scanned.of(usage.scanned_bytes / GB * month),
    }


def write_measured(path: Path, by_size: Mapping[int, Sequence[Report]], every: Sequence[Report]) -> Path:
    """Write the API's figures in the format of `manymetrics cost --measured`.

    They are converted to CPU of the bench's machine, so that the model's result is the duration that Lambda reported.
    """
    figures: dict[str, float] = {}
    for size, reports in by_size.items():
        if reports:
            ms = statistics.mean(one.duration_ms for one in reports) - PUT_WAIT_MS
            cpu_ms = max(0.01, ms) / CORE_FACTOR * min(1.0, reports[0].memory_mb / FULL_CORE_MB)
            figures[f"product us an event of {size}, awslambdaric counted"] = cpu_ms * 1e3 / size
    inits = [one.init_ms * min(1.0, one.memory_mb / FULL_CORE_MB) for one in every if one.init_ms is not None]
    if inits:
        figures["product ms to start"] = statistics.mean(inits) / CORE_FACTOR
    told = {"measured_on": f"{datetime.now(UTC):%Y-%m-%d}, AWS", "figures": {"Lambda: the API's CPU": figures}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=1) + "\n")
    read_measured(path)  # raises MeasuredError if the command would not accept it
    return path


def as_markdown(lines: Sequence[Compared], hours: float) -> str:
    """Format the lines as a table, in dollars a month."""
    rows = [
        f"| {line.component} | {line.model:.2f} | "
        f"{'not reported' if line.measured is None else f'{line.measured:.2f}'} | "
        f"{'above the model' if line.is_above else ''} |"
        for line in lines
    ]
    about = (
        f"{hours:.1f} hours of a stack, as US dollars a month at list price, next to `manymetrics cost` for the same "
        "events. CloudWatch doesn't report requests to S3, Glue and KMS: see Cost Explorer a day later."
    )
    head = ["# ManyMetrics on AWS: the bill", "", about, "", "| line | model | measured | |", "|---|--:|--:|---|"]
    return "\n".join([*head, *rows, ""])
