"""Prices with their sources, and measured figures: all of them known, each said where it comes from."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from manymetrics_cli.cost.measured import BATCHES, MEASURED_FILE, MeasuredError, read_measured
from manymetrics_cli.cost.prices import PRICES_FILE, read_prices
from manymetrics_cli.cost.report import unverified
from tests.bench import engines, lambda_api
from tests.bench.report import Part


def prices_with(folder: Path, **changes: object) -> Path:
    prices = {**json.loads(PRICES_FILE.read_bytes()), **changes}
    path = folder / "prices.json"
    path.write_text(json.dumps({name: value for name, value in prices.items() if value is not None}))
    return path


def test_each_price_has_a_unit_and_the_page_it_was_read_on_or_is_named_as_unverified() -> None:
    prices = read_prices()

    assert date.fromisoformat(prices.as_of) >= date(2026, 11, 25)
    assert unverified(prices) == ["kinesis_long_retention", "cloudfront_request"]
    for price in prices.by_name().values():
        assert price.unit
        assert price.usd > 0
        assert price.source is None or price.source.startswith("https://")


@pytest.mark.parametrize(
    "changes",
    [
        {"kms_key": None},  # missing
        {"kms_keys": {"usd": 1, "per": 1, "unit": "key", "source": None}},  # unknown
        {"kms_key": {"usd": 1, "per": 1, "unit": "key"}},  # says nothing of its source
        {"kms_key": {"usd": "1", "per": 1, "unit": "key", "source": None}},
    ],
)
def test_a_price_that_is_missing_unknown_or_half_said_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = prices_with(tmp_path, **changes)

    with pytest.raises(msgspec.ValidationError):
        read_prices(path)


def test_the_shipped_figures_are_named_with_their_date_and_commit() -> None:
    shipped = json.loads(MEASURED_FILE.read_bytes())

    measured = read_measured()

    assert measured.name == f"measured {shipped['measured_on']}, commit {shipped['commit'][:7]}"
    figures = shipped["figures"]["Lambda: the API's CPU"]
    assert measured.api_cpu_ms[20] == pytest.approx(
        figures["product us an event of 20, awslambdaric counted"] * 20 / 1_000
    )


@pytest.mark.parametrize(("events", "cpu_ms"), [(1, 1), (20, 2), (100, 6), (60, 4), (180, 10)])
def test_a_request_between_the_measured_sizes_is_on_the_line_between_them(events: int, cpu_ms: float) -> None:
    measured = replace(read_measured(), api_cpu_ms={1: 1, 20: 2, 100: 6})

    assert measured.api_request_cpu_ms(events) == pytest.approx(cpu_ms)


def test_a_record_is_packed_as_the_largest_measured_one_that_it_reaches() -> None:
    measured = replace(read_measured(), stream_ratio={1: 0.5, 3: 0.4, 20: 0.2})

    assert [measured.stream_bytes(events, 1_000) for events in (1, 2, 3, 19, 20, 100)] == pytest.approx(
        [500, 1_000, 1_200, 7_600, 4_000, 20_000]
    )


def test_the_figures_of_a_bench_go_before_the_shipped_ones(tmp_path: Path) -> None:
    part = lambda_api._part(
        [{1: (1, 2), 20: (3, 4), 100: (5, 6)}], [{1: (7_000, 8_000), 20: (500, 9), 100: (200, 9)}], [50, 90, 10]
    )
    of_engines = engines._part(
        {
            (way, size): engines.Cost(5, 6, 7 + number, 8 + number, 9)
            for way in ("arrow", "spark", "spark, class archive")
            for number, size in enumerate(BATCHES)
        }
    )

    measured = read_measured(bench_file(tmp_path, part, of_engines))

    assert measured.api_cpu_ms == pytest.approx({1: 7, 20: 10, 100: 20})
    assert (measured.plain_tracker_cpu_ms, measured.api_start_ms) == (8, 50)
    spark = measured.engines["spark"]
    assert (spark.cold_cpu_ms, spark.cold_wall_ms) == (5e3, 6e3)
    assert (spark.warm_cpu_ms, spark.warm_wall_ms) == ((7e3, 8e3, 9e3), (8e3, 9e3, 10e3))
    assert spark.s3_writes == read_measured().engines["spark"].s3_writes
    assert "commit abc" in measured.name
    assert "missing there" in measured.name


def bench_file(folder: Path, *parts: Part) -> Path:
    path = folder / "bench.json"
    path.write_text(json.dumps({"commit": "abc", "figures": {part.title: part.figures for part in parts}}))
    return path


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "can't be read"),
        ("[", "not what"),
        ('{"ratios": {}}', "not what"),
        ('{"figures": {}}', "none of the fig"),
    ],
)
def test_a_file_that_is_no_bench_is_refused(tmp_path: Path, text: str | None, complaint: str) -> None:
    path = tmp_path / "bench.json"
    if text is not None:
        path.write_text(text)

    with pytest.raises(MeasuredError, match=complaint):
        read_measured(path)
