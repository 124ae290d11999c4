"""One micro-batch after the other into real tables: what is stored, what isn't, and what the books say."""

from __future__ import annotations

import base64
import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from manymetrics.outcomes import Reason
from manymetrics.tables import DEAD_LETTERS, EVENTS, Column, Table
from manymetrics_processor import pipeline
from manymetrics_processor.arrow_engine import ArrowEngine
from manymetrics_processor.decode import StreamRecord
from manymetrics_processor.lake import Lake
from manymetrics_processor.maintenance import maintain
from manymetrics_processor.rows import row_of
from manymetrics_processor.storage import open_parquet
from manymetrics_processor.window import Window
from tests.integration.micro_batches import (
    NOW,
    SHARD,
    STREAM,
    books,
    counts,
    make_lake,
    message_ids,
    record,
    rows,
    track,
)

BAD = {"type": "track", "event": "E"}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return make_lake(tmp_path)


def test_good_and_bad_events_of_one_batch_each_go_their_way(lake: Lake) -> None:
    first = record(1, track("a"), BAD, track("b", event="Other"), track("a"))
    second = record(2, b"[1]", track("b"), {"type": "nonsense"})

    committed = pipeline.run([second, first], STREAM, lake, Window())

    assert committed.outcomes == [b"sxsd", b"xdx"]
    assert counts(committed.books) == {
        "received": 7,
        "stored": 2,
        "duplicate": 2,
        "dead_lettered:no_identity": 1,
        "dead_lettered:not_an_object": 1,
        "dead_lettered:unknown_type": 1,
    }
    assert books(lake) == committed.books
    assert [(row["message_id"], row["event"], row["_sequence"], row["_position"]) for row in rows(lake)] == [
        ("a", "E", "1", 0),
        ("b", "Other", "1", 2),
    ]
    letters = [(row["reason"], row["raw"], row["_sequence"], row["_position"]) for row in rows(lake, DEAD_LETTERS)]
    assert letters == [
        ("no_identity", '{"type":"track","event":"E"}', "1", 1),
        ("not_an_object", "[1]", "2", 0),
        ("unknown_type", '{"type":"nonsense"}', "2", 2),
    ]


def test_one_bad_event_costs_none_of_999_good_ones(lake: Lake) -> None:
    events = [track(f"m{number}") for number in range(999)]

    pipeline.run([record(1, *events[:500], b'{"broken', *events[500:])], STREAM, lake, Window())

    assert len(rows(lake)) == 999
    [letter] = rows(lake, DEAD_LETTERS)
    assert (letter["raw"], letter["reason"], letter["replayable"]) == ('{"broken', "invalid_json", 1)


def test_an_unreadable_record_becomes_one_dead_letter_with_its_bytes(lake: Lake) -> None:
    damaged = StreamRecord(SHARD, 2, b"\x01\0\0\0\x09 not a record \xff", NOW)

    committed = pipeline.run([record(1, track("a")), damaged, record(3, track("b"))], STREAM, lake, Window())

    assert committed.outcomes == [b"s", b"x", b"s"]
    assert counts(committed.books) == {"received": 3, "stored": 2, "dead_lettered:unreadable_record": 1}
    [letter] = rows(lake, DEAD_LETTERS)
    assert base64.b64decode(letter["raw"]) == damaged.data
    assert (letter["raw_encoding"], letter["replayable"], letter["project_id"]) == ("base64", 0, None)


def test_a_fault_of_ours_in_one_event_is_a_dead_letter_and_stops_no_other(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_rows_of(monkeypatch, "b")

    committed = pipeline.run([record(1, track("a"), track("b"), track("c"))], STREAM, lake, Window())

    assert committed.outcomes == [b"sxs"]
    [letter] = rows(lake, DEAD_LETTERS)
    assert (letter["reason"], letter["detail"]) == (Reason.UNPROCESSABLE.value, "ZeroDivisionError")


def break_rows_of(monkeypatch: pytest.MonkeyPatch, message_id: str) -> None:
    def broken(event: Any, *rest: Any) -> Any:  # noqa: ANN401  # as the real one
        return 1 // 0 if event.message_id == message_id else row_of(event, *rest)

    monkeypatch.setattr("manymetrics_processor.decode.row_of", broken)


def test_a_file_that_can_not_be_written_whole_leaves_nothing_behind(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_a_full_disk(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pq.ParquetWriter, "write_table", on_a_full_disk)
        with pytest.raises(OSError, match="No space left"):
            pipeline.run([record(1, track("m-1"))], STREAM, lake, Window())

    assert list(tmp_path.rglob("*.parquet")) == []
    pipeline.run([record(1, track("m-1"))], STREAM, lake, Window())
    assert message_ids(lake) == ["m-1"]


@pytest.mark.parametrize("again", [[1, 2], [2, 1], [1], [2]])
def test_a_batch_that_comes_again_in_whole_or_in_part_changes_nothing(lake: Lake, again: list[int]) -> None:
    batch = {1: record(1, track("a"), BAD), 2: record(2, track(None), track("a"))}
    pipeline.run(batch.values(), STREAM, lake, Window())
    before = rows(lake), rows(lake, DEAD_LETTERS), books(lake), lake.load(EVENTS).metadata.snapshots

    committed = pipeline.run([batch[sequence] for sequence in again], STREAM, lake, Window())

    assert committed.outcomes == [None] * len(again)
    assert (rows(lake), rows(lake, DEAD_LETTERS), books(lake), lake.load(EVENTS).metadata.snapshots) == before


def test_a_slice_that_overlaps_what_was_committed_adds_only_the_rest(lake: Lake) -> None:
    batch = [record(1, track("a"), BAD), record(2, track("b")), record(3, track("c"), BAD)]
    pipeline.run(batch[:2], STREAM, lake, Window())

    committed = pipeline.run(batch[1:], STREAM, lake, Window())

    assert committed.outcomes == [None, b"sx"]
    assert counts(committed.books) == {"received": 5, "stored": 3, "dead_lettered:no_identity": 2}
    assert len(rows(lake, DEAD_LETTERS)) == 2


def test_shards_have_watermarks_of_their_own_and_share_their_ids(lake: Lake) -> None:
    pipeline.run([record(7, track("a"), shard="s-7")], STREAM, lake, Window())

    committed = pipeline.run([record(3, track("b"), track("a"), shard="s-3")], STREAM, lake, Window())

    assert committed.outcomes == [b"sd"]
    assert committed.books.watermarks == {"s-7": "7", "s-3": "3"}


def test_a_batch_of_duplicates_alone_moves_the_watermark(lake: Lake) -> None:
    pipeline.run([record(1, track("a"))], STREAM, lake, Window())

    pipeline.run([record(2, track("a"))], STREAM, lake, Window())

    assert books(lake).watermark(SHARD) == 2
    assert message_ids(lake) == ["a"]


def test_a_batch_of_dead_letters_alone_moves_the_watermark(lake: Lake) -> None:
    pipeline.run([record(1, BAD)], STREAM, lake, Window())

    assert books(lake).watermark(SHARD) == 1
    assert pipeline.run([record(1, BAD)], STREAM, lake, Window()).outcomes == [None]


def test_a_stream_made_again_beside_kept_tables_loses_nothing(lake: Lake) -> None:
    kept = Window()
    pipeline.run([record(1, track("a"), BAD), record(2, track("b"))], "local:old", lake, kept)

    pipeline.run([record(1, track("c"), BAD), record(2, track("d"), track("a"))], "local:new", lake, kept)

    assert message_ids(lake) == ["a", "b", "c", "d"]
    assert len(rows(lake, DEAD_LETTERS)) == 2
    assert counts(books(lake, "local:old")) == {"received": 3, "stored": 2, "dead_lettered:no_identity": 1}
    assert counts(books(lake, "local:new")) == {
        "received": 4,
        "stored": 2,
        "duplicate": 1,
        "dead_lettered:no_identity": 1,
    }


# --- resends ----------------------------------------------------------------------------------------------


def test_a_resend_in_a_later_commit_is_a_duplicate(lake: Lake) -> None:
    window = Window()
    pipeline.run([record(1, track("a"))], STREAM, lake, window)

    committed = pipeline.run([record(2, track("a", event="Changed", userId="v"))], STREAM, lake, window)

    assert committed.outcomes == [b"d"]
    assert [row["event"] for row in rows(lake)] == ["E"]


def test_a_resend_after_a_restart_is_a_duplicate(lake: Lake, tmp_path: Path) -> None:
    pipeline.run([record(1, track("a"))], STREAM, lake, Window())

    assert pipeline.run([record(2, track("a"))], STREAM, make_lake(tmp_path), Window()).outcomes == [b"d"]


def test_two_projects_may_use_one_id(lake: Lake) -> None:
    batch = [record(1, track("a")), record(2, track("a"), project_id="other")]

    assert pipeline.run(batch, STREAM, lake, Window()).outcomes == [b"s", b"s"]


@pytest.mark.parametrize("kept", [True, False], ids=["one process", "restarted"])
@pytest.mark.parametrize(
    ("days", "outcome"), [(0, b"d"), (7, b"d"), (8, b"s"), (-7, b"d"), (-8, b"s"), (-30, b"s"), (30, b"s")]
)
def test_a_resend_counts_as_one_up_to_seven_days_apart_either_way(
    lake: Lake, days: int, outcome: bytes, *, kept: bool
) -> None:
    window = Window(7)
    pipeline.run([record(1, track("a"))], STREAM, lake, window)

    committed = pipeline.run([record(2, track("a"), day=days)], STREAM, lake, window if kept else Window(7))

    assert committed.outcomes == [outcome]


def test_a_late_event_of_another_process_is_known_to_a_later_one(lake: Lake, tmp_path: Path) -> None:
    window = Window(7)
    pipeline.run([record(1, track("a"))], STREAM, lake, window)
    pipeline.run([record(1, track("late"), day=2)], "theirs", make_lake(tmp_path), Window())
    pipeline.run([record(2, track("b"), day=10)], STREAM, lake, window)

    committed = pipeline.run([record(3, track("late"), day=5), record(4, track("a"), day=5)], STREAM, lake, window)

    assert committed.outcomes == [b"d", b"d"]


@pytest.mark.parametrize("kept", [True, False], ids=["one process", "restarted"])
def test_the_windows_length_is_a_setting(lake: Lake, *, kept: bool) -> None:
    window = Window(0)
    pipeline.run([record(1, track("a"))], STREAM, lake, window)

    committed = pipeline.run(
        [record(2, track("a")), record(3, track("a"), day=1)], STREAM, lake, window if kept else Window(0)
    )

    assert committed.outcomes == [b"d", b"s"]


Between = Callable[[Lake, Lake, Window], None]


def nothing(_ours: Lake, _theirs: Lake, _window: Window) -> None:
    pass


def a_dead_letter_of_ours(ours: Lake, _theirs: Lake, window: Window) -> None:
    pipeline.run([record(5, BAD)], STREAM, ours, window)


def a_duplicate_of_ours(ours: Lake, _theirs: Lake, window: Window) -> None:
    pipeline.run([record(5, track("ours"))], STREAM, ours, window)


def a_new_event_of_ours(ours: Lake, _theirs: Lake, window: Window) -> None:
    pipeline.run([record(5, track("new"))], STREAM, ours, window)


def their_maintenance(_ours: Lake, theirs: Lake, _window: Window) -> None:
    maintain(theirs, keep_snapshots=1)


def their_merge_of_twenty_commits(_ours: Lake, theirs: Lake, _window: Window) -> None:
    for number in range(20):
        pipeline.run([record(number, track(f"theirs-{number}"))], "theirs-2", theirs, Window())
    maintain(theirs, keep_snapshots=2)


@pytest.mark.parametrize(
    "between",
    [
        nothing,
        a_dead_letter_of_ours,
        a_duplicate_of_ours,
        a_new_event_of_ours,
        their_maintenance,
        their_merge_of_twenty_commits,
    ],
)
def test_what_another_process_stored_meanwhile_is_known(lake: Lake, tmp_path: Path, between: Between) -> None:
    window, theirs = Window(), make_lake(tmp_path)
    pipeline.run([record(1, track("ours"))], STREAM, lake, window)
    pipeline.run([record(1, track("theirs"))], "theirs", theirs, Window())
    between(lake, theirs, window)

    committed = pipeline.run([record(9, track("theirs"), track("ours"))], STREAM, lake, window)

    assert committed.outcomes == [b"dd"]
    assert len(message_ids(lake)) == len(set(message_ids(lake)))


def test_an_event_that_another_process_stores_while_ours_is_encoded_is_stored_once(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window, theirs = Window(), make_lake(tmp_path)
    raced = list[Table]()

    def overtaken(engine: ArrowEngine, table: Table, *rest: Any) -> Any:  # noqa: ANN401  # as the real one
        if not raced:
            raced.append(table)
            pipeline.run([record(1, track("a"))], "theirs", theirs, Window())
        return real(engine, table, *rest)

    real = ArrowEngine.stage
    monkeypatch.setattr(ArrowEngine, "stage", overtaken)
    committed = pipeline.run([record(1, track("a"), track("b"))], STREAM, lake, window)

    assert raced == [EVENTS]
    assert committed.outcomes == [b"ds"]
    assert message_ids(lake) == ["a", "b"]


# --- what it costs ----------------------------------------------------------------------------------------


class Reads:
    """How many data files the window reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, real = 0, open_parquet

        def counting(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # as the real one
            self.count += 1
            return real(*arguments, **options)

        monkeypatch.setattr("manymetrics_processor.window.open_parquet", counting)


def test_a_running_process_reads_no_file_of_its_own_however_many_there_are(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, own = Reads(monkeypatch), Window()

    for number in range(20):
        pipeline.run([record(number, track(f"m{number}"), BAD)], STREAM, lake, own)
        if number % 10 == 9:
            maintain(lake, keep_snapshots=3)

    assert (reads.count, len(own)) == (0, 20)


def test_of_another_processs_commits_each_file_is_read_once(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, theirs = Window(), make_lake(tmp_path)
    pipeline.run([record(0, track("m"))], STREAM, lake, own)
    for number in range(5):
        pipeline.run([record(number, track(f"theirs-{number}"))], "theirs", theirs, Window())
    reads = Reads(monkeypatch)

    for number in range(1, 6):
        pipeline.run([record(number, track(f"m{number}"))], STREAM, lake, own)

    assert reads.count == 5


def test_the_window_holds_no_ids_of_days_that_are_past(lake: Lake) -> None:
    own = Window(2)

    for day in range(12):
        pipeline.run([record(day, *[track(f"m{day}-{number}") for number in range(10)], day=day)], STREAM, lake, own)

    assert len(own) <= 10 * (2 + 1 + 1)


# --- the tables -------------------------------------------------------------------------------------------


NEWER = replace(EVENTS, columns=(*EVENTS.columns, Column("new", "long", "New.")))


@pytest.fixture
def newer_version(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, the processor is of a version with one more column."""
    return lambda: monkeypatch.setattr("manymetrics_processor.lake.TABLES", (NEWER, DEAD_LETTERS))


def test_a_column_that_a_newer_version_brings_is_added_and_older_rows_have_null_there(
    tmp_path: Path, newer_version: Callable[[], None]
) -> None:
    lake = make_lake(tmp_path)
    pipeline.run([record(1, track("old"))], STREAM, lake, Window())

    newer_version()
    newer = make_lake(tmp_path)

    field = newer.load(EVENTS).schema().find_field("new")
    assert (field.field_id, field.doc, field.required) == (len(NEWER.columns), "New.", False)
    assert [(row["message_id"], row["new"]) for row in rows(newer, NEWER)] == [("old", None)]
    pipeline.run([record(2, track("young"), track("old"))], STREAM, newer, Window())
    assert message_ids(newer) == ["old", "young"]


def test_two_processes_may_add_a_column_at_once(
    tmp_path: Path, newer_version: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_lake(tmp_path)
    newer_version()
    real, raced = Lake.load, list[Table]()

    def overtaken(lake: Lake, table: Table) -> Any:  # noqa: ANN401  # as the real one
        iceberg = real(lake, table)
        if not raced:
            raced.append(table)
            first.ensure_tables()
        return iceberg

    monkeypatch.setattr(Lake, "load", overtaken)
    make_lake(tmp_path).ensure_tables()

    names = [field.name for field in first.load(EVENTS).schema().fields]
    assert names == [*EVENTS.column_names, "new"]
