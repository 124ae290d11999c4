"""Few words for small worlds: what tests by hand are written with."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count

from tests.insights.oracle.ground import Question
from tests.insights.oracle.oracle import answer
from tests.insights.oracle.people import Row

CHECKS: list[Callable[[Question, list[Row], datetime], None]] = []  # what every question of `ask` goes through, too
MARCH = datetime(2026, 3, 1)
LATER = datetime(2026, 6, 1)
_numbers = count()


def at(text: str) -> datetime:
    """``2 13:00`` is 1 pm on March 2; ``2`` its midnight."""
    day, _, clock = text.partition(" ")
    hours, minutes, seconds = (*clock.split(":"), "0", "0")[:3] if clock else ("0", "0", "0")
    return MARCH + timedelta(days=int(day) - 1, hours=int(hours), minutes=int(minutes), seconds=float(seconds))


def event(name: str | None, time: str, user: str | None = "ann", /, **fields: object) -> Row:
    """A track event of a user on a device of theirs; properties as JSON of a dict."""
    row: Row = {
        "message_id": f"m{next(_numbers):06}",
        "project_id": "p",
        "type": "track",
        "event": name,
        "user_id": user,
        "anonymous_id": user and f"device of {user}",
        "event_time": at(time),
        "received_at": at(time),
    }
    row |= fields
    for column in ("properties", "traits"):
        if isinstance(row.get(column), dict):
            row[column] = json.dumps(row[column])
    return row


def page(path: str, time: str, user: str = "ann", /, **fields: object) -> Row:
    return event(None, time, user, type="page", context_page_path=path, **fields)


def stream(text: str, user: str = "ann", /, **fields: object) -> list[Row]:
    """Events of March 1: ``A@0 B@1`` is A at midnight and B at one minute past."""
    rows = []
    for word in text.split():
        name, minutes = word.split("@")
        rows.append(event(name, f"1 0:{float(minutes):g}:0", user, **fields))
        rows[-1]["event_time"] = MARCH + timedelta(minutes=float(minutes))
    return rows


def ask(insight: str, rows: list[Row], /, **options: object) -> list[Row]:
    """The answer's rows as dicts, over March and asked in June unless the options say otherwise."""
    complete_through = options.pop("complete_through", LATER)
    assert isinstance(complete_through, datetime)
    march = {} if insight in ("persons", "timeline") else {"from": "2026-03-01", "to": "2026-04-01"}
    question: Row = {"insight": insight, **march} | {
        {"start_at": "from", "return_": "return"}.get(name, name): value for name, value in options.items()
    }
    for check in CHECKS:
        check(question, rows, complete_through)
    found = answer(question, rows, complete_through)
    return [dict(zip(_columns(question), row, strict=True)) for row in found]


def _columns(question: Row) -> tuple[str, ...]:
    insight = question["insight"]
    if insight == "sessions" and question.get("detail"):
        insight = "session details"
    return COLUMNS[str(insight)]


COLUMNS = {
    "trends": ("series", "segment", "bucket", "value", "incomplete"),
    "funnel": (
        "segment",
        "bucket",
        "step",
        "label",
        "persons",
        "from_previous",
        "from_first",
        "dropped",
        "median_s",
        "p90_s",
        "average_s",
        "immature",
    ),
    "retention": ("segment", "cohort", "size", "n", "returned", "rate", "mature"),
    "lifecycle": ("bucket", "new", "returning", "resurrecting", "dormant", "active", "incomplete"),
    "stickiness": ("days", "persons"),
    "sessions": (
        "segment",
        "bucket",
        "sessions",
        "persons",
        "bounced",
        "engaged",
        "converted",
        "pages",
        "events",
        "duration_average_s",
        "duration_median_s",
        "incomplete",
    ),
    "session details": (
        "person_id",
        "person_kind",
        "start",
        "end",
        "entry_page",
        "exit_page",
        "source",
        "campaign",
        "pages",
        "events",
        "engaged",
        "converted",
    ),
    "paths": ("step", "from", "to", "count", "persons"),
    "persons": ("person_id", "person_kind", "first_seen", "last_seen", "events", "traits"),
    "timeline": ("event_time", "type", "event", "session", "message_id", "summary"),
}


def column(rows: list[Row], *names: str) -> list[object]:
    """One column as a list, several as a list of tuples."""
    return [row[names[0]] if len(names) == 1 else tuple(row[name] for name in names) for row in rows]
