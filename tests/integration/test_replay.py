"""Dead letters sent again: each at most once, in its old place, with the books balanced."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from manymetrics.limits import MAX_EVENT_BYTES
from manymetrics.tables import DEAD_LETTERS, EVENTS
from manymetrics_processor.decode import arrow as columns
from manymetrics_processor.decode import batch as decode_module
from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.decode.ids import place_digest
from manymetrics_processor.decode.row import make_row
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.lake import Lake
from manymetrics_processor.lake.maintenance import maintain
from manymetrics_processor.operations import replay_dead_letters as replay
from manymetrics_processor.operations.replay_dead_letters import Report
from tests.integration.micro_batches import (
    NOW,
    SHARD,
    STREAM,
    books,
    counts,
    make_lake,
    message_ids,
    packed,
    record,
    rows,
    track,
)

BAD = {"type": "track", "event": "E"}
BROKEN = "a fault of ours"  # the name of the events that the broken version can't process


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return make_lake(tmp_path)


@pytest.fixture
def broken_version(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """While a test says nothing else, rows of some events can't be made; calling it mends that."""

    def broken(event: Any, *rest: Any) -> Any:  # noqa: ANN401  # as the real one
        return 1 // 0 if event.event == BROKEN else make_row(event, *rest)

    monkeypatch.setattr("manymetrics_processor.decode.batch.make_row", broken)
    return lambda: monkeypatch.setattr("manymetrics_processor.decode.batch.make_row", make_row)


def unprocessable(message_id: str | None, **fields: object) -> dict[str, Any]:
    return track(message_id, event=BROKEN, **fields)


def as_columns(one: dict[str, Any], *names: str) -> tuple[object, ...]:
    return tuple(one[name] for name in names)


def test_a_mended_fault_is_replayed_as_the_row_that_it_would_have_been(
    lake: Lake, broken_version: Callable[[], None]
) -> None:
    envelope = {"context": b'{"locale":"de"}', "anonymous_id": b'"a-1"'}
    stamp: dict[str, Any] = {"day": -20, "key_kind": "browser", "ip": "192.0.2.7", **envelope}
    pipeline.run([record(4, track("a"), unprocessable("b"), **stamp)], STREAM, lake, Window())
    broken_version()

    report = replay.replay(lake, Window())

    assert report == Report(stored=1)
    knew = ("received_at", "context_ip", "context_locale", "anonymous_id", "key_kind", "request_id", "project_id")
    same = (*knew, "_stream", "_shard")
    first, replayed = rows(lake)
    assert as_columns(replayed, *same) == as_columns(first, *same)
    assert as_columns(replayed, "message_id", "_sequence", "_position") == ("b", "4", 1)
    assert replayed["received_at"] == (datetime.fromtimestamp(NOW / 1e6, UTC) - timedelta(days=20)).replace(tzinfo=None)


def test_a_second_replay_changes_nothing(lake: Lake, broken_version: Callable[[], None]) -> None:
    pipeline.run([record(1, unprocessable("a"), unprocessable(None), BAD)], STREAM, lake, Window())
    broken_version()
    replay.replay(lake, Window())
    before = rows(lake), rows(lake, DEAD_LETTERS), books(lake, replay.STREAM)

    report = replay.replay(lake, Window())

    assert report == Report(still_refused={"no_identity": 1})
    assert (rows(lake), rows(lake, DEAD_LETTERS), books(lake, replay.STREAM)) == before


def test_a_replay_after_maintenance_and_a_restart_changes_nothing(
    lake: Lake, tmp_path: Path, broken_version: Callable[[], None]
) -> None:
    pipeline.run([record(1, unprocessable("a"), unprocessable(None))], STREAM, lake, Window())
    broken_version()
    replay.replay(lake, Window())
    maintain(lake, keep_snapshots=1)
    before = rows(lake)

    assert replay.replay(make_lake(tmp_path), Window()) == Report()
    assert rows(lake) == before


def test_an_event_without_an_id_gets_the_one_of_its_first_place(lake: Lake, broken_version: Callable[[], None]) -> None:
    pipeline.run([record(4, track("a"), unprocessable(None))], STREAM, lake, Window())
    broken_version()

    replay.replay(lake, Window())

    made = str(uuid.UUID(bytes=place_digest((STREAM, SHARD, "4", 1))))
    assert message_ids(lake) == sorted(["a", made])


def test_an_event_that_its_client_sent_again_meanwhile_is_a_duplicate(
    lake: Lake, broken_version: Callable[[], None]
) -> None:
    pipeline.run([record(1, unprocessable("a"))], STREAM, lake, Window())
    broken_version()
    pipeline.run([record(2, track("a"))], STREAM, lake, Window())

    assert replay.replay(lake, Window()) == Report(duplicate=1)
    assert replay.replay(lake, Window()) == Report()
    assert message_ids(lake) == ["a"]


def test_an_event_that_its_client_sends_again_after_the_replay_is_a_duplicate(
    lake: Lake, broken_version: Callable[[], None]
) -> None:
    server = Window()
    pipeline.run([record(1, unprocessable("a"), track("b"))], STREAM, lake, server)
    broken_version()
    replay.replay(lake, Window())

    assert pipeline.run([record(2, track("a"))], STREAM, lake, server).outcomes == [b"d"]


def test_the_same_event_in_two_dead_letters_is_stored_once(lake: Lake, broken_version: Callable[[], None]) -> None:
    pipeline.run([record(1, unprocessable("a"), unprocessable("a"))], STREAM, lake, Window())
    broken_version()

    assert replay.replay(lake, Window()) == Report(stored=1, duplicate=1)
    assert replay.replay(lake, Window()) == Report()


def test_what_is_still_refused_is_counted_by_reason_and_stays(lake: Lake) -> None:
    pipeline.run([record(1, BAD, BAD, b"[1]", b'{"broken')], STREAM, lake, Window())
    before = rows(lake, DEAD_LETTERS)

    report = replay.replay(lake, Window())

    assert report == Report(still_refused={"no_identity": 2, "not_an_object": 1, "invalid_json": 1})
    assert rows(lake, DEAD_LETTERS) == before


def test_an_event_that_was_not_kept_whole_is_not_replayed(lake: Lake) -> None:
    too_large = b'{"type":"track","event":"E","userId":"u","p":"%s"}' % (b"x" * MAX_EVENT_BYTES)
    unreadable = StreamRecord(SHARD, 2, b"\x01 not ours", NOW)
    pipeline.run([record(1, too_large), unreadable], STREAM, lake, Window())

    assert replay.replay(lake, Window()) == Report(not_whole=2)
    letters = rows(lake, DEAD_LETTERS)
    assert [(one["reason"], one["replayable"], len(one["raw"]) <= 65_536) for one in letters] == [
        ("too_large", 0, True),
        ("unreadable_record", 0, True),
    ]


def test_bytes_that_are_not_utf_8_are_replayed_as_they_came(lake: Lake) -> None:
    raw = b'{"type":"track","event":"\xff"}'
    pipeline.run([StreamRecord(SHARD, 1, packed([raw]), NOW)], STREAM, lake, Window())

    assert [one["raw_encoding"] for one in rows(lake, DEAD_LETTERS)] == ["base64"]
    assert replay.replay(lake, Window()) == Report(still_refused={"invalid_json": 1})


def test_only_what_is_chosen_is_replayed(lake: Lake, broken_version: Callable[[], None]) -> None:
    pipeline.run(
        [record(1, unprocessable("a")), record(2, unprocessable("b"), project_id="other")], STREAM, lake, Window()
    )
    broken_version()

    assert replay.replay(lake, Window(), lambda letter: letter["project_id"] == "other") == Report(stored=1)
    assert message_ids(lake) == ["b"]


def test_a_dry_run_stores_nothing(lake: Lake, broken_version: Callable[[], None]) -> None:
    pipeline.run([record(1, unprocessable("a"), BAD)], STREAM, lake, Window())
    broken_version()
    before = rows(lake), rows(lake, DEAD_LETTERS)

    report = replay.replay(lake, Window(), dry_run=True)

    assert report == Report(stored=1, still_refused={"no_identity": 1})
    assert (rows(lake), rows(lake, DEAD_LETTERS)) == before


class CrashError(BaseException):
    """As by kill -9."""


def test_a_crash_between_rows_and_marks_is_mended_by_the_next_replay(
    lake: Lake, broken_version: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.run([record(1, unprocessable("a"), unprocessable(None))], STREAM, lake, Window())
    broken_version()
    with monkeypatch.context() as crashing:
        crashing.setattr("manymetrics_processor.operations.replay_dead_letters._mark", _crash)
        with pytest.raises(CrashError):
            replay.replay(lake, Window())
    assert len(rows(lake)) == 2

    mended = replay.replay(lake, Window())

    assert mended == Report(duplicate=2)
    assert len(rows(lake)) == 2
    assert replay.replay(lake, Window()) == Report()


def _crash(*_arguments: object) -> None:
    raise CrashError


def test_replays_in_parts_send_each_letter_once(
    lake: Lake, broken_version: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manymetrics_processor.operations.replay_dead_letters._AT_ONCE", 3)
    for number in range(3):
        events = [unprocessable(f"m{number}-{at}") for at in range(4)]
        pipeline.run([record(number, *events, day=-number)], STREAM, lake, Window())
    broken_version()

    assert replay.replay(lake, Window()) == Report(stored=12)
    assert len(set(message_ids(lake))) == 12


def test_two_replays_at_once_store_each_event_once(
    lake: Lake, tmp_path: Path, broken_version: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.run([record(1, unprocessable("a"), unprocessable(None))], STREAM, lake, Window())
    broken_version()
    theirs, reports = make_lake(tmp_path), list[Report]()

    def overtaken(*arguments: Any) -> Any:  # noqa: ANN401  # as the real one
        if not reports:
            reports.append(Report())
            reports[0] = replay.replay(theirs, Window())
        return pipeline.commit(*arguments)

    monkeypatch.setattr("manymetrics_processor.operations.replay_dead_letters.commit", overtaken)
    ours = replay.replay(lake, Window())

    assert (reports[0], ours) == (Report(stored=2), Report(duplicate=2))
    assert len(rows(lake)) == 2


def test_the_books_balance_and_agree_with_the_tables_after_a_replay(
    lake: Lake, broken_version: Callable[[], None]
) -> None:
    pipeline.run([record(1, track("a"), unprocessable("b"), unprocessable("a"), BAD)], STREAM, lake, Window())
    broken_version()

    replay.replay(lake, Window())

    streams = books(lake), books(lake, replay.STREAM)
    assert [counts(one) for one in streams] == [
        {"received": 4, "stored": 1, "dead_lettered:no_identity": 1, "dead_lettered:unprocessable": 2},
        {"received": 2, "stored": 1, "duplicate": 1},
    ]
    assert sum(one.stored for one in streams) == len(rows(lake))
    marks = [(one["stage"], one["reason"], one["raw"] is None) for one in rows(lake, DEAD_LETTERS)]
    assert sorted(marks) == [
        ("event", "no_identity", False),
        ("event", "unprocessable", False),
        ("event", "unprocessable", False),
        ("replayed", "unprocessable", True),
        ("replayed", "unprocessable", True),
    ]


def test_a_mark_has_the_id_and_day_of_its_letter(lake: Lake, broken_version: Callable[[], None]) -> None:
    pipeline.run([record(1, unprocessable("a"), day=-3)], STREAM, lake, Window())
    broken_version()

    replay.replay(lake, Window())

    first, second = rows(lake, DEAD_LETTERS)
    same = ("dead_letter_id", "received_at", "_stream", "_shard", "_sequence", "_position")
    assert as_columns(first, *same) == as_columns(second, *same)


def test_a_replay_of_nothing_commits_nothing(lake: Lake) -> None:
    assert replay.replay(lake, Window()) == Report()
    assert lake.load(EVENTS).metadata.snapshots == []


def test_a_letter_that_can_not_be_stored_stays_one_and_costs_no_other(
    lake: Lake, broken_version: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.run([record(1, *(unprocessable(one) for one in ("a", "poison", "b", "c")))], STREAM, lake, Window())
    broken_version()
    real = columns.to_arrow

    def to_arrow(table: Any, of: Any) -> Any:  # noqa: ANN401  # as the real one
        if table == EVENTS and any("poison" in row for row in of):
            raise ValueError
        return real(table, of)

    with monkeypatch.context() as broken:
        broken.setattr(decode_module, "to_arrow", to_arrow)
        report = replay.replay(lake, Window())

    assert (report.stored, report.still_refused) == (3, {"unstorable": 1})
    assert message_ids(lake) == ["a", "b", "c"]
    assert replay.replay(lake, Window()).stored == 1
    assert message_ids(lake) == ["a", "b", "c", "poison"]
