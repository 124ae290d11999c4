"""Events as a browser sends them through Segment's analytics.js, about 1 kB each; the same ones in each run.

A seeded generator, so that two runs of the bench, and the servers within one, are compared on equal bytes.
"""

import json
import random
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from functools import cache
from uuid import UUID

WRITE_KEY = "wk_OnlyForTheBenchYes12345"  # opens nothing: the servers of the bench run on 127.0.0.1 for a minute

_BEGIN = datetime(2026, 1, 5, 9, tzinfo=UTC)
_AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
)
_NAMES = ("Product Viewed", "Product Added", "Checkout Started", "Order Completed", "Products Searched")
_PAGES = ("Linen shirts", "Winter coats", "Gläser & Tassen", "Kids", "Sale")


def event(number: int) -> dict[str, object]:
    """The event of that number; what it holds depends on nothing else."""
    chance = random.Random(number)
    person = chance.randrange(20_000)
    page = chance.choice(_PAGES)
    path = f"/shop/{chance.randrange(900)}/item-{chance.randrange(90_000)}"
    at = _BEGIN + timedelta(milliseconds=number * 40)
    return {
        "messageId": f"ajs-next-{int(at.timestamp())}-{UUID(int=chance.getrandbits(128))}",
        "type": "track",
        "event": chance.choice(_NAMES),
        "anonymousId": str(UUID(int=person)),
        "userId": f"user_{person}",
        "timestamp": _iso(at),
        "originalTimestamp": _iso(at),
        "context": {
            "page": {
                "path": path,
                "referrer": "https://www.google.com/",
                "search": "?utm_source=newsletter&utm_medium=email&utm_campaign=january",
                "title": f"{page} - The Example Shop",
                "url": f"https://shop.example.com{path}?utm_source=newsletter&utm_medium=email&utm_campaign=january",
            },
            "userAgent": chance.choice(_AGENTS),
            "locale": chance.choice(("en-US", "de-DE", "pt-BR")),
            "timezone": "Europe/Berlin",
            "library": {"name": "analytics.js", "version": "npm:next-1.76.1"},
            "campaign": {"source": "newsletter", "medium": "email", "name": "january"},
            "screen": {"width": 1920, "height": 1080},
        },
        "properties": {
            "product_id": f"sku-{chance.randrange(9_000)}",
            "category": page,
            "price": chance.randrange(100, 30_000) / 100,
            "currency": "EUR",
            "quantity": chance.randrange(1, 5),
            "position": chance.randrange(40),
        },
        "integrations": {},
    }


def http_request(first: int, events: int) -> bytes:
    """One whole request: ``POST /v1/track`` for a single event, else ``POST /v1/batch``, with the key as Basic auth."""
    sent_at = _iso(_BEGIN + timedelta(milliseconds=first * 40 + 900))
    if events == 1:
        path, content = "/v1/track", {**event(first), "sentAt": sent_at}
    else:
        path, content = "/v1/batch", {"batch": [event(first + n) for n in range(events)], "sentAt": sent_at}
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    head = (
        f"POST {path} HTTP/1.1\r\n"
        "Host: 127.0.0.1\r\n"
        f"Authorization: Basic {b64encode(f'{WRITE_KEY}:'.encode()).decode()}\r\n"
        "Content-Type: application/json\r\n"
        f"User-Agent: {_AGENTS[0]}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def event_bytes(number: int) -> bytes:
    """An event with a messageId of its own, made in a microsecond: the rest repeats after a thousand."""
    before, after = _around_message_id(number % 1_000)
    return b"%b%036d%b" % (before, number, after)


@cache
def _around_message_id(number: int) -> tuple[bytes, bytes]:
    message = event(number)
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    before, _, after = text.partition(str(message["messageId"]))
    return before.encode(), after.encode()


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
