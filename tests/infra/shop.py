"""A small shop's three weeks, for questions that have answers: two visitors, one of whom buys and comes again."""

from __future__ import annotations

from typing import Any

from manymetrics_processor.decode.batch import StreamRecord
from tests.integration.micro_batches import NOW, SHARD, Event, packed

MINUTE_US, DAY_US = 60_000_000, 86_400_000_000
NOW_IN_SQL = "timestamp '2025-11-24 13:13:20'"  # NOW


def shop_records(first: int) -> list[StreamRecord]:
    """In the order of their sequence numbers, from ``first`` on. The events fall into the 21 days before NOW."""
    batches: list[tuple[int, list[Event | bytes]]] = [
        (21, [_page("ann", 1), _cart("ann", 2, "Teapot", "29"), _track("ann", 3, "Order Completed", total="29")]),
        (20, [_page("bob", 1), _cart("bob", 1, "Teapot", "29"), _cart("bob", 2, "Blue cup", "12"), _error("bob", 2)]),
        (14, [_page("ann", 1), _vitals("ann", 2, "1", "poor"), _vitals("ann", 3, "2", "good")]),
        (1, [_page("ann", 1), _error("ann", 2), b"no event"]),
    ]
    return [
        StreamRecord(SHARD, number, packed(_timed(events, ago), day=-ago, request_id=f"shop-{ago}"), NOW)
        for number, (ago, events) in enumerate(batches, first)
    ]


def _timed(events: list[Event | bytes], ago: int) -> list[Event | bytes]:
    """Each has its minute, a message id and its visitor's session of that day."""
    for number, event in enumerate(events):
        if isinstance(event, dict):
            minute = event.pop("minute")
            event["messageId"] = f"shop-{ago}-{number}"
            event["originalTimestamp"] = (NOW - ago * DAY_US + minute * MINUTE_US) // 1000
            event["context"] = {"page": {"path": "/tea"}, "sessionId": f"{event['anonymousId']}-{ago}"}
    return events


def _track(who: str, minute: int, event: str, /, **properties: str) -> dict[str, Any]:
    return {"type": "track", "event": event, "anonymousId": who, "minute": minute, "properties": properties}


def _page(who: str, minute: int) -> dict[str, Any]:
    return {"type": "page", "anonymousId": who, "minute": minute}


def _cart(who: str, minute: int, product: str, price: str) -> dict[str, Any]:
    return _track(who, minute, "Added to Cart", product=product, price=price)


def _vitals(who: str, minute: int, report: str, rating: str) -> dict[str, Any]:
    return _track(who, minute, "Web Vitals", pageLoadId="load", report=report, lcpRating=rating, clsRating="good")


def _error(who: str, minute: int) -> dict[str, Any]:
    return _track(who, minute, "Error", name="TypeError", message="x is null")
