"""Orders and web vitals for the portable SQL of the docs."""

from __future__ import annotations

from typing import Any

from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.decode.row import DAY_US
from tests.integration.micro_batches import NOW, Event, record

TEA, CUP = {"sku": "tea", "quantity": 2}, {"sku": "cup", "quantity": 1}
ORDERS: list[dict[str, Any]] = [
    {"country": "UK", "products": [TEA, CUP]},
    {"country": "UK", "products": [TEA, None]},
    {"country": "DE", "products": [CUP, {"sku": "größe", "quantity": 3}]},
    {"country": "DE", "products": []},
    {"country": "DE", "products": 7},
    {"country": "FR"},
    {"products": [CUP]},
]
# Path, page load, report, lcp. A load's last report counts, and one without lcp has none.
VITALS = [
    ("/a", "1", 1, 100),
    ("/a", "1", 2, 150),
    ("/a", "2", 1, 300),
    ("/a", "3", 1, 900),
    ("/a", "4", 1, 4_000),
    ("/a", "5", 1, None),
    ("/b", "6", 10, 70.5),
    ("/b", "6", 9, 60),
]


def portable_records(first: int) -> list[StreamRecord]:
    """One record, numbered ``first``. The events happened in the hours before NOW."""
    events: list[Event | bytes] = [_track(n, "Order Completed", given) for n, given in enumerate(ORDERS)]
    for number, (path, load, report, lcp) in enumerate(VITALS, len(events)):
        properties = {"pageLoadId": load, "report": report, **({} if lcp is None else {"lcp": lcp})}
        events.append(_track(number, "Web Vitals", properties) | {"context": {"page": {"path": path}}})
    return [record(first, *events, project_id="portable", request_id="portable")]


def _track(number: int, event: str, properties: dict[str, Any]) -> Event:
    return {
        "type": "track",
        "event": event,
        "messageId": f"portable-{number}",
        "userId": f"u-{number % 3}",
        "originalTimestamp": (NOW - number * DAY_US // 3) // 1000,
        "properties": properties,
    }
