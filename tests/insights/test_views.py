from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from manymetrics.outcomes import Reason
from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.session import open_session
from manymetrics_insights.views import VIEW_NAMES, View, read_views
from tests.insights.lakes import NOON, Lake, Row

Ask = Callable[[str], list[Row]]


@pytest.mark.parametrize("view", read_views(), ids=VIEW_NAMES)
def test_a_view_documents_its_columns_in_their_order(lake: Lake, view: View) -> None:
    described = open_session(Folder(lake.data_dir)).connection.execute(f"DESCRIBE {view.name}").fetchall()

    assert [row[0] for row in described] == list(view.columns)
    assert all(view.columns.values())
    assert view.doc.startswith("One row is ")


@pytest.mark.parametrize("view", read_views(), ids=VIEW_NAMES)
def test_a_view_has_types_that_athena_has_too(lake: Lake, view: View) -> None:
    described = open_session(Folder(lake.data_dir)).connection.execute(f"DESCRIBE {view.name}").fetchall()

    assert {row[1] for row in described} <= {"VARCHAR", "TIMESTAMP", "DATE", "INTEGER", "BIGINT", "DOUBLE"}


def test_identifies_are_the_identify_events(lake: Lake, rows_of: Ask) -> None:
    lake.append_events(
        {"type": "identify", "message_id": "1", "user_id": "ann", "traits": '{"plan":"pro"}'}, {"type": "track"}
    )

    assert rows_of("SELECT message_id, user_id, traits FROM identifies") == [
        {"message_id": "1", "user_id": "ann", "traits": '{"plan":"pro"}'}
    ]


def test_pages_are_the_page_events_by_the_names_of_the_web(lake: Lake, rows_of: Ask) -> None:
    page = {"context_page_url": "https://shop.example/a?b=c", "context_page_path": "/a", "context_page_title": "A"}
    rest = {"context_page_search": "?b=c", "context_page_referrer": "https://other.example/"}
    lake.append_events({"type": "page", "event": "Home", **page, **rest}, {"type": "screen"})

    assert rows_of("SELECT name, url, path, title, search, referrer FROM pages") == [
        {
            "name": "Home",
            "url": "https://shop.example/a?b=c",
            "path": "/a",
            "title": "A",
            "search": "?b=c",
            "referrer": "https://other.example/",
        }
    ]


def test_the_catalog_counts_each_kind_of_event_its_last_30_days_and_its_persons(lake: Lake, rows_of: Ask) -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    days_ago = [now - timedelta(days=29, hours=23), now - timedelta(days=30, hours=1)]
    lake.append_events(
        {"event": "Buy", "event_time": days_ago[0], "anonymous_id": "a"},
        {"event": "Buy", "event_time": days_ago[1], "user_id": "ann", "anonymous_id": "a"},
        {"event": "Buy", "event_time": days_ago[1], "anonymous_id": "ann"},
        {"event": "Buy", "event_time": days_ago[1], "type": "page"},
        {"type": "identify", "event_time": days_ago[1], "user_id": "ann"},
    )

    rows = rows_of("SELECT * EXCLUDE (first_seen, last_seen) FROM event_catalog ORDER BY type DESC, event")

    keys = ("project_id", "type", "event", "events", "events_30_days", "persons")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        ("shop", "track", "Buy", 3, 1, 2),
        ("shop", "page", "Buy", 1, 0, 0),
        ("shop", "identify", None, 1, 0, 1),
    ]
    assert rows_of("SELECT first_seen, last_seen FROM event_catalog WHERE type = 'track'") == [
        {"first_seen": days_ago[1], "last_seen": days_ago[0]}
    ]


def test_an_event_is_late_past_the_hour_and_changes_settled_days_past_72(lake: Lake, rows_of: Ask) -> None:
    hours = timedelta(hours=1)
    microsecond = timedelta(microseconds=1)
    lags = [timedelta(), hours, hours + microsecond, 72 * hours, 72 * hours + microsecond]
    events: list[Row] = [{"received_at": NOON, "event_time": NOON - lag} for lag in lags]
    lake.append_events(*events)

    assert rows_of("SELECT events, late_events, late_share, settled_late_events FROM data_quality") == [
        {"events": 5, "late_events": 3, "late_share": 0.6, "settled_late_events": 1}
    ]


def test_a_day_of_dead_letters_only_is_a_row_too_and_so_is_an_unreadable_record(lake: Lake, rows_of: Ask) -> None:
    lake.append_dead_letters(
        {"dead_letter_id": "d1"},
        {"dead_letter_id": "d1", "stage": "replayed"},
        {"dead_letter_id": "d1", "stage": "replayed"},
        {"project_id": None, "reason": "unreadable_record"},
    )

    columns = "project_id, day, events, late_share, lag_p50_ms, dead_letters, dead_letters_invalid_json"
    rows = rows_of(f"SELECT {columns}, replayed_dead_letters FROM data_quality ORDER BY project_id NULLS FIRST")
    assert [tuple(row.values()) for row in rows] == [
        (None, NOON.date(), 0, None, None, 1, 0, 0),
        ("shop", NOON.date(), 0, None, None, 1, 1, 1),
    ]


def test_data_quality_has_a_column_for_every_reason() -> None:
    view = next(view for view in read_views() if view.name == "data_quality")

    assert [name for name in view.columns if name.startswith("dead_letters_")] == [f"dead_letters_{r}" for r in Reason]


def test_data_quality_is_that_of_a_plain_program_in_a_random_world(lake: Lake, rows_of: Ask) -> None:
    chance = random.Random(11)
    events: list[Row] = [random_event(chance) for _ in range(800)]
    dead: list[Row] = [random_dead_letter(chance) for _ in range(200)]
    lake.append_events(*events)
    lake.append_dead_letters(*dead)

    found = rows_of("SELECT * FROM data_quality")

    assert sorted(found, key=str) == sorted(plain_quality(events, dead), key=str)


def random_event(chance: random.Random) -> Row:
    received = NOON + timedelta(hours=chance.randint(0, 60), microseconds=chance.randrange(10**6))
    lag = timedelta(milliseconds=round(chance.expovariate(1 / 10 ** chance.randint(1, 8))) - 20)
    return {
        "project_id": chance.choice(["shop", "blog"]),
        "received_at": received,
        "event_time": received - lag,
        "repairs": chance.choice(
            [None, "nan", "group_id_placeholder", "user_id_placeholder", "anonymous_id_placeholder,x"]
        ),
    }


def random_dead_letter(chance: random.Random) -> Row:
    return {
        "project_id": chance.choice(["shop", "news"]),
        "received_at": NOON + timedelta(hours=chance.randint(0, 60)),
        "reason": chance.choice(list(Reason)).value,
    }


def plain_quality(events: list[Row], dead: list[Row]) -> list[Row]:
    stored: dict[tuple[object, object], list[Row]] = defaultdict(list)
    refused: dict[tuple[object, object], Counter[object]] = defaultdict(Counter)
    for event in events:
        stored[event["project_id"], day_of(event)].append(event)
    for letter in dead:
        refused[letter["project_id"], day_of(letter)][letter["reason"]] += 1
    return [quality_of(key, stored[key], refused[key]) for key in set(stored) | set(refused)]


def day_of(row: Row) -> object:
    received = row["received_at"]
    assert isinstance(received, datetime)
    return received.date()


def quality_of(key: tuple[object, object], events: list[Row], reasons: Counter[object]) -> Row:
    lags = sorted((e["received_at"] - e["event_time"]) / timedelta(milliseconds=1) for e in events)  # type: ignore[operator]
    late = sum(lag > 3_600_000 for lag in lags)
    return {
        "project_id": key[0],
        "day": key[1],
        "events": len(events),
        "late_events": late,
        "late_share": late / len(events) if events else None,
        "settled_late_events": sum(lag > 72 * 3_600_000 for lag in lags),
        "lag_p50_ms": nearest_rank(lags, 50),
        "lag_p95_ms": nearest_rank(lags, 95),
        "repaired_events": sum(e["repairs"] is not None for e in events),
        "placeholder_ids": sum("r_id_p" in str(e["repairs"]) or "s_id_p" in str(e["repairs"]) for e in events),
        "dead_letters": reasons.total(),
        **{f"dead_letters_{reason}": reasons[reason.value] for reason in Reason},
        "replayed_dead_letters": 0,
    }


def nearest_rank(ordered: list[float], percent: int) -> float | None:
    return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else None
