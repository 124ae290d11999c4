"""GET /metrics, in the Prometheus text format: the outcome of every event, from the committed books."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from manymetrics import telemetry
from manymetrics.outcomes import RequestOutcome


@dataclass(frozen=True, slots=True)
class Books:
    """The committed books, and the backlog. ``outcomes``: stored, duplicate, dead_lettered:<reason>."""

    received: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    pending_records: int | None = 0
    lag_seconds: float = 0.0
    stalled_seconds: float = 0.0
    geoip_unusable: int = 0


BooksReader = Callable[[], Books]


class _Families(Collector):
    def __init__(self, read_books: BooksReader | None) -> None:
        self._read_books = read_books

    def collect(self) -> Iterable[Metric]:
        yield _requests()
        if self._read_books is not None:
            books = self._books(self._read_books)
            readable = books is not None and books.pending_records is not None
            yield GaugeMetricFamily(
                "manymetrics_data_readable",
                "1; 0 if the books or the stream can't be read (e.g. a full disk), whose metrics are then left out.",
                value=readable,
            )
            yield from _events(books) if books is not None else ()

    @staticmethod
    def _books(read: BooksReader) -> Books | None:
        try:
            return read()
        except (OSError, sqlite3.Error):
            return None


def render_metrics(read_books: BooksReader | None) -> tuple[bytes, str]:
    """Return the body and its content type."""
    registry = CollectorRegistry()
    registry.register(_Families(read_books))
    return generate_latest(registry), CONTENT_TYPE_LATEST


def _requests() -> Metric:
    requests = CounterMetricFamily(
        "manymetrics_requests", "Requests since this process started, by outcome.", labels=["outcome"]
    )
    for outcome in RequestOutcome:
        requests.add_metric([outcome.value], telemetry.request_counts[outcome])
    return requests


def _events(books: Books) -> Iterator[Metric]:
    yield CounterMetricFamily("manymetrics_events_received", "Events read from the stream.", value=books.received)
    events = CounterMetricFamily(
        "manymetrics_events", "Events by outcome; they add up to the number received.", labels=["outcome", "reason"]
    )
    for name, count in books.outcomes.items():
        outcome, _, reason = name.partition(":")
        events.add_metric([outcome, reason], count)
    yield events
    if books.pending_records is None:
        return
    yield GaugeMetricFamily(
        "manymetrics_stream_pending_records", "Records not yet committed.", value=books.pending_records
    )
    yield GaugeMetricFamily(
        "manymetrics_stream_lag_seconds", "Age of the oldest record not yet committed.", value=books.lag_seconds
    )
    yield GaugeMetricFamily(
        "manymetrics_committer_stalled_seconds",
        "Seconds that records have waited without any commit; alert at 60.",
        value=books.stalled_seconds,
    )
    yield GaugeMetricFamily(
        "manymetrics_geoip_unusable_files",
        "GeoIP files that can't be used; events get no place from them. `manymetrics doctor` says why.",
        value=books.geoip_unusable,
    )
