"""Bills that were worked out by hand, and what must be true of every bill."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise, product
from typing import get_args

import msgspec
import pytest

from manymetrics_cli.cost import bill as model
from manymetrics_cli.cost.bill import Bill, break_evens, make_bill, marginal
from manymetrics_cli.cost.measured import EngineFigures, MaintenanceFigures, Measured, read_measured
from manymetrics_cli.cost.prices import read_prices
from manymetrics_cli.cost.stack import PLAIN_TRACKER, Engine, Ingress, Mode, Stack, Traffic
from manymetrics_processor.ingest import processor as handler

PRICES = read_prices()
HAND = Measured(  # round figures, to work with by hand
    name="by hand",
    api_cpu_ms={1: 1.0, 20: 2.0, 100: 6.0},
    api_start_ms=10.0,
    plain_tracker_cpu_ms=2.0,
    engines={
        "spark": EngineFigures((64, 100, 140), (64, 100, 140), 1000, 1000, 4, 2, 5),  # 4 us an event from 1,000 on
        "arrow": EngineFigures((20, 50, 90), (30, 60, 100), 500, 600, 6, 5, 4),
    },
    maintenance=MaintenanceFigures(10, 10, 10, 20, 5, 100, 50, 500, 400),
    stream_ratio={1: 0.5, 3: 0.4, 20: 0.2},
    table_ratio=0.2,
)
STACK = Stack(
    api_memory_mb=2048, processor_memory_mb=2048
)  # more than a whole core: time is what was measured, times 1.5, and the wait
STACKS = [
    replace(Stack(), ingress=ingress, engine=engine, stream_mode=mode, shard_count=shards)
    for ingress, engine, mode, shards in product(get_args(Ingress), get_args(Engine), get_args(Mode), (1, 5))
]
VOLUMES = [10 ** (step / 4) for step in range(49)]  # of 1 event to a trillion


def usd(bill: Bill) -> dict[str, float]:
    return {line.component: line.usd for line in bill.lines}


def test_ten_million_events_by_hand() -> None:
    bill = make_bill(STACK, Traffic(10e6), PRICES, HAND)

    # 10,000,000 / 20 = 500,000 requests and records of 20 x 1,000 x 0.2 = 4,000 bytes.
    # A month has 730 x 3,600 = 2,628,000 s, so 8,760 windows of 300 s, each with 1,141.55 events.
    assert usd(bill) == pytest.approx(
        {
            "HTTP API": 0.55,  # 500,000 and 50,000 of strangers, x $1/M
            # ceil(1.5 x 2 + 5) = 8 ms x 500,000 = 4,000 s; 365 starts of 15 ms = 5.475 s; 5 ms x 50,000 = 250 s; x 2 GB
            # = 8,510.95 GB-s.
            "API function": 0.11 + 8_510.95 * 1.33334e-5,  # requests: 550,000 x $0.2/M
            "data out to the internet": 500_000 * 400 / 2**30 * 0.09,
            "Kinesis": 10.95 + 0.007,  # 730 x $0.015; 500,000 units x $0.014/M
            # 64 + 141.55 x 0.004 = 64.57 ms. ceil(1.5 x 64.57 + 500) = 597 ms x 8,760 = 5,229.72 s; 365 starts of 1.5 s
            # = 547.5 s; x 2 GB = 11,554.44 GB-s.
            "processor function": 8_760 * 0.2e-6 + 11_554.44 * 1.66667e-5,
            # 730 hours and 365 / 12 days: 760.42 runs, each 2 s of waiting: 1,520.833 s. CPU: 10,000,000 x 10 us
            # + 8,760 x 20 ms + 760.42 x 100 ms + 30.42 x 500 ms = 366.45 s, x 1.5 = 549.675 s. 2,070,509 ms, and 365
            # starts of 1.5 s = 547.5 s; x 2 GB.
            "maintenance": 760.4166667 * 0.2e-6 + 5_236.018 * 1.66667e-5,
            # A month's 2 GB and 8,760 commits of 150 kB, written twice: what was replaced stays for 7 of 30.42 days.
            "S3 storage": (10e6 * 200 + 2 * (10e6 * 200 + 8_760 * 150_000) * 7 / (730 / 24)) / 2**30 * 0.023,
            # Two reads by the commit, one to merge, 20 to expire; a run's 50, a look's 400. 12 commits an hour: 50
            # expire at once each 4.17 hours, 175.2 times, always in a new process, which reads 100 of 5 reads.
            "S3 requests": 8_760 * 4 * 5e-6 + (8_760 * 23 + 175.2 * 500 + 760.4166667 * 50 + 30.4166667 * 400) * 0.4e-6,
            "Glue catalog": 8_760 * 5 * 1e-6,
            "ECR": 0.16,  # 2 images of 0.8 GB x $0.10
            "CloudWatch logs": 8_760 * 1_000 / 2**30 * 0.5,
            "CloudWatch metrics": 0.6,  # 2 x $0.30
            "CloudWatch alarms": 1.0,  # 10 x $0.10
            "CloudWatch dashboard": 3.0,
            # 365 starts. 8,760 times five minutes: 2 for the writer, 2 the shard, 2 the bucket. x $0.03 / 10,000.
            "KMS": 3.0 + 52_925 * 3e-6,
        },
        rel=1e-9,
    )
    assert bill.usd == pytest.approx(sum(usd(bill).values()))
    assert bill.ingestion_usd == pytest.approx(0.55 + 0.22348 + 10.957, abs=0.0001)
    assert bill.key_rotations_usd == 2.0
    # 8,395 more starts of 1.5 s x 2 GB.
    assert bill.cold_usd == pytest.approx(8_395 * 3 * 1.66667e-5)
    assert bill.dominating.component == "Kinesis"


def test_a_processor_on_arm64_costs_a_fifth_less_by_the_second() -> None:
    x86, arm = (
        usd(make_bill(replace(STACK, processor_architecture=one), Traffic(10e6), PRICES, HAND))
        for one in ("x86_64", "arm64")
    )

    assert {name for name in x86 if x86[name] != arm[name]} == {"processor function", "maintenance"}
    assert arm["processor function"] == pytest.approx(8_760 * 0.2e-6 + 11_554.44 * 1.33334e-5)  # GB-s as above


def test_a_full_invocation_does_not_wait_for_its_window() -> None:
    bill = make_bill(STACK, Traffic(1e9), PRICES, HAND)

    # A record of 4,000 bytes is 4,000 x 4/3 + 500 = 5,833.3 in an invocation of 6,000,000: 1,028.57 of them.
    # 50,000,000 / 1,028.57 = 48,611.1 commits, more than 8,760 windows. Each has 20,571 events: 140 + 571 x 0.004 ms.
    # ceil(1.5 x 142.29 + 500) = 714 ms.
    ms = 48_611.11 * 714 + 365 * 1_500
    assert usd(bill)["processor function"] == pytest.approx(48_611.11 * 0.2e-6 + ms / 1e3 * 2 * 1.66667e-5, rel=1e-6)
    assert bill.processor_ms == 714


@pytest.mark.parametrize(
    ("events", "cpu_ms"),
    [(1, 20), (1_000, 20), (4_000, 30), (10_000, 50), (15_000, 70), (20_000, 90), (50_000, 210)],
)
def test_a_commit_costs_what_its_size_does(events: float, cpu_ms: float) -> None:
    # 1,000 events take 20 ms, and fewer no less; 10,000 take 50, 20,000 take 90, and each 1,000 more 4.
    assert HAND.engines["arrow"].commit_ms(events) == pytest.approx((cpu_ms, cpu_ms + 10))


def test_many_snapshots_expire_each_hour_half_the_time_in_a_process_that_has_read_what_is_kept() -> None:
    before, after = (
        usd(make_bill(STACK, Traffic(1e9), PRICES, replace(HAND, maintenance=replace(HAND.maintenance, **reads))))
        for reads in ({"kept_snapshot_reads": 0}, {"kept_snapshot_reads": 5})
    )

    # 48,611 commits are 67 an hour, more than 50; a process lives for two hours: 365 x 100 x 5 reads.
    assert after["S3 requests"] - before["S3 requests"] == pytest.approx(365 * 500 * 0.4e-6)


def test_the_bill_expires_snapshots_as_the_processor_does() -> None:
    assert (model.KEPT_SNAPSHOTS, model.EXPIRED_AT_ONCE) == (handler.KEEP_SNAPSHOTS, handler.EXPIRE_AT_ONCE)


def test_a_function_below_a_whole_core_takes_longer() -> None:
    # 256 MB is 256 / 1,769 of a core: 2 ms become 13.82, x 1.5 = 20.73, + 5 = 25.73.
    assert make_bill(Stack(), Traffic(1e6), PRICES, HAND).api_ms == 26


def test_the_gateway_is_metered_by_512_kb_and_cheaper_above_300_million_requests() -> None:
    small = make_bill(STACK, Traffic(10e9), PRICES, HAND)  # 500 million requests: 300 x $1 + 200.05 x $0.90
    large = make_bill(
        STACK, Traffic(1e6, events_a_request=1_000), PRICES, HAND
    )  # 1,000 of 1 MB: 2 units each, and strangers

    assert usd(small)["HTTP API"] == pytest.approx(480.045)
    assert usd(large)["HTTP API"] == pytest.approx(52_000 * 1e-6)


def test_a_stream_on_demand_by_hand() -> None:
    bill = make_bill(replace(STACK, stream_mode="on_demand"), Traffic(10e6), PRICES, HAND)

    # 730 x $0.04 = $29.20; in: 500,000 x 4 kB (4,000 bytes, rounded up) x $0.08; out: 500,000 x 4,000 bytes x $0.04.
    expected = 29.2 + 500_000 * 4_096 / 2**30 * 0.08 + 500_000 * 4_000 / 2**30 * 0.04
    assert usd(bill)["Kinesis"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("events", "shards"),
    [
        (1e9, 1),
        # 500,000,000 records / 2,628,000 s x 4 = 761 a second, of 4,000 bytes: 3.04 MB, of which a shard takes 1.05.
        (10e9, 3),
    ],
)
def test_a_provisioned_stream_has_the_shards_that_its_peak_needs(events: float, shards: int) -> None:
    assert make_bill(STACK, Traffic(events), PRICES, HAND).shards == shards


def test_the_figures_for_the_options() -> None:
    plain, full = Traffic(10e6), Traffic(10e6, months_kept=3, athena_gb=2_048, sdk_loads=1e6)
    stack = replace(STACK, archive=True, stream_retention_hours=168, pays_for_key=False)

    before, after = (usd(make_bill(*which, PRICES, HAND)) for which in ((STACK, plain), (stack, full)))

    assert after["Athena"] == pytest.approx(10)  # 2 TB x $5
    assert after["CloudFront"] == pytest.approx(1 + 1e6 * 8_500 / 2**30 * 0.085)
    assert after["Kinesis"] - before["Kinesis"] == pytest.approx(730 * 0.02)
    assert before["KMS"] - after["KMS"] == pytest.approx(3)  # a key, and its two rotations
    # 200 bytes an event in the table, 4,000 / 20 = 200 in the archive, for three months instead of one.
    assert after["S3 storage"] - before["S3 storage"] == pytest.approx(10e6 * 200 * (3 * 2 - 1) / 2**30 * 0.023)
    assert "Athena" not in before
    assert "CloudFront" not in before


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_more_events_cost_more(stack: Stack) -> None:
    bills = [make_bill(stack, Traffic(events), PRICES, read_measured()).usd for events in VOLUMES]

    assert [(less, more) for less, more in pairwise(bills) if less >= more] == []


@pytest.mark.parametrize("stack", [stack for stack in STACKS if stack.ingress == "http_api"], ids=str)
@pytest.mark.parametrize("events_a_request", [1, 20, 1_000])
def test_a_function_url_is_cheaper_than_an_http_api_at_any_volume(stack: Stack, events_a_request: int) -> None:
    for events in VOLUMES:
        traffic = Traffic(events, events_a_request=events_a_request)
        by_gateway, by_url = (
            make_bill(replace(stack, ingress=ingress), traffic, PRICES, HAND).usd
            for ingress in ("http_api", "function_url")
        )
        assert by_url < by_gateway


def test_one_shard_is_cheaper_than_on_demand_at_any_volume() -> None:
    assert break_evens(STACK, Traffic(1), PRICES, HAND) == (True, [])


def test_where_eight_shards_are_cheaper_than_on_demand_by_hand() -> None:
    # Eight shards cost 8 x $10.95 - $29.20 = $58.40 more than a stream on demand, which has four. Four more shards also
    # ask KMS 4 x 17,520 times, $0.21024, and start 4 x 365 processors of 1.5 s at 2 GB: 4,380 GB-s, $0.0730.
    more = 58.4 + 0.21024 + 4_380 * 1.66667e-5
    # An event costs, on demand, 4,096 / 20 bytes x $0.08 and 200 bytes x $0.04 a GB; provisioned, $0.014 / M / 20.
    less = (4_096 / 20 * 0.08 + 200 * 0.04) / 2**30 - 0.014e-6 / 20
    # There, invocations are full on either: 133 million records / 1,028.57 are more than 8 x 8,760 windows.
    at_first, turns = break_evens(replace(STACK, shard_count=8), Traffic(1), PRICES, HAND)

    assert at_first is False
    assert turns == pytest.approx([more / less], rel=2e-4)  # 2.67 billion


@pytest.mark.parametrize(("shards", "peak"), [(3, 4), (8, 4), (1, 60)])
def test_the_cheaper_stream_changes_at_each_break_even(shards: int, peak: float) -> None:
    stack, measured = Stack(shard_count=shards), read_measured()

    provisioned, turns = break_evens(stack, Traffic(1, peak=peak), PRICES, measured)

    assert turns
    for turn in turns:
        for events, expected in ((turn / 1.001, provisioned), (turn * 1.001, not provisioned)):
            fixed, on_demand = (
                make_bill(replace(stack, stream_mode=mode), Traffic(events, peak=peak), PRICES, measured).usd
                for mode in ("provisioned", "on_demand")
            )
            assert (fixed < on_demand) is expected
        provisioned = not provisioned


def test_the_next_million_by_hand() -> None:
    whole, ingestion = marginal(STACK, Traffic(100e6), PRICES, HAND)

    # 50,000 requests x ($1 + $0.2 + $0.014) / M, and 8 ms x 2 GB each.
    assert ingestion == pytest.approx(50_000 * 1.214e-6 + 50_000 * 0.016 * 1.33334e-5, rel=1e-6)
    assert whole > ingestion


def test_events_are_taken_in_for_seven_cents_a_million_or_one_and_a_half_by_function_url() -> None:
    costs = [
        marginal(Stack(ingress=ingress), Traffic(100e6), PRICES, read_measured())[1]
        for ingress in ("http_api", "function_url")
    ]

    assert costs[0] <= 0.07
    assert costs[1] <= 0.015


@pytest.mark.parametrize(("events", "usd"), [(1e6, 18), (10e6, 19), (100e6, 27), (1e9, 91.5)])
def test_a_month_of_the_first_year_costs_no_more_than_was_meant(events: float, usd: float) -> None:
    """Then the key's rotations come. 90 was meant for a billion, before strangers, images and versions were counted."""
    bill = make_bill(Stack(), Traffic(events), PRICES, read_measured())

    assert bill.usd - bill.key_rotations_usd <= usd


def test_a_plain_tracker_pays_for_each_event_and_its_log_by_hand() -> None:
    bill = usd(make_bill(PLAIN_TRACKER, Traffic(1e6, events_a_request=1), PRICES, HAND))

    # 2 ms x 1,769 / 128 x 1.5 + 5 = 46.46: 47 ms at 1/8 GB, on x86; 365 starts of ceil(1.5 x 10 x 13.82) = 208 ms.
    seconds = 1e6 * 0.047 + 365 * 0.208
    assert bill["API function"] == pytest.approx(0.2 + seconds / 8 * 1.66667e-5, rel=1e-9)
    assert bill["HTTP API"] == pytest.approx(1.0)
    assert bill["CloudWatch logs"] == pytest.approx((1e6 * 4_400 + 8_760 * 1_000) / 2**30 * 0.5)
    assert sum(bill[name] for name in ("KMS", "CloudWatch alarms", "CloudWatch dashboard", "CloudWatch metrics")) == 0


@pytest.mark.parametrize("name", PRICES.by_name())
def test_every_price_is_of_some_bill(name: str) -> None:
    free = msgspec.structs.replace(PRICES, **{name: msgspec.structs.replace(PRICES.by_name()[name], usd=0.0)})
    traffic = Traffic(100e9, athena_gb=1, sdk_loads=1)
    stacks = [Stack(stream_retention_hours=48), Stack(stream_mode="on_demand"), PLAIN_TRACKER]

    assert any(make_bill(one, traffic, free, HAND).usd < make_bill(one, traffic, PRICES, HAND).usd for one in stacks)


def test_the_bill_counts_the_metrics_that_the_processor_puts(capsys: pytest.CaptureFixture[str]) -> None:
    class Held:
        days_held = 1

        def __len__(self) -> int:
            return 0

    handler._put_metrics([], Held(), "shop")  # type: ignore[arg-type]  # all that it asks of a window

    [directive] = json.loads(capsys.readouterr().out)["_aws"]["CloudWatchMetrics"]
    assert len(directive["Metrics"]) * len(directive["Dimensions"]) == Stack().metrics
