"""What every catalog and engine does alike, from one micro-batch to what the tables and the books say."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from msgspec import structs
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.types import StringType

from manymetrics.books import parse_books, property_name
from manymetrics.events import Rejected
from manymetrics.outcomes import Reason
from manymetrics.records import pack_again, unpack
from manymetrics.tables import DEAD_LETTERS, EVENTS, TABLES, Column, Table
from manymetrics_api.sinks import MemorySink
from manymetrics_processor.decode.arrow import arrow_schema
from manymetrics_processor.decode.batch import StreamRecord, decode
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.errors import CommitStateUnknownError, ConflictError
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.lake import CommitContentionError, Lake, live_files
from manymetrics_processor.lake.maintenance import MERGE_FROM_FILES, maintain
from manymetrics_processor.lake.object_storage import open_parquet
from manymetrics_processor.lake.scan import read_files
from manymetrics_processor.operations.replay_dead_letters import STREAM as REPLAY_STREAM
from manymetrics_processor.operations.replay_dead_letters import replay
from tests.contract.conftest import Store
from tests.events_corpus import read_cases, request_of
from tests.in_process import ask, make_app
from tests.integration.micro_batches import NOW, SHARD, STREAM, books, counts, message_ids, record, rows, track

BAD = {"type": "track", "event": "E"}


@pytest.fixture
def lake(store: Store) -> Lake:
    return store.lake


def test_two_databases_of_a_catalog_see_nothing_of_each_other(store: Store) -> None:
    one, other = store.lake, store.beside("shop_eu")
    pipeline.run([record(1, track("a"), track("b"), BAD)], STREAM, one, Window())

    committed = pipeline.run([record(1, track("a"))], STREAM, other, Window())

    assert committed.outcomes == [b"s"]  # no duplicate, and not past the watermark
    assert (message_ids(one), len(rows(one, DEAD_LETTERS))) == (["a", "b"], 1)
    assert (message_ids(other), len(rows(other, DEAD_LETTERS))) == (["a"], 0)
    assert counts(books(other)) == {"received": 1, "stored": 1}
    assert {one.load(table).location() for table in TABLES}.isdisjoint(other.load(table).location() for table in TABLES)
    maintain(other, keep_snapshots=1)
    assert message_ids(store.another()) == ["a", "b"]


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


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_rows_and_types_are_those_that_were_decoded_whatever_was_sent(table: Table, lake: Lake) -> None:
    batch = decode(_corpus(), STREAM)
    decoded = batch.events if table is EVENTS else batch.letters
    iceberg = lake.load(table)

    lake._engine.append(table, iceberg, lake.stage(table, iceberg, decoded), SUMMARY, {})

    after = lake.load(table)
    found = read_files(table, after, live_files(after))
    assert found.schema.types == decoded.table.schema.types
    assert _in_place_order(found) == _in_place_order(decoded.table)
    assert found.num_rows > 10


SUMMARY = {"manymetrics.operation": "ingest"}


def _in_place_order(data: pa.Table) -> list[dict[str, Any]]:
    ordered: list[dict[str, Any]] = data.sort_by(
        [(name, "ascending") for name in ("_sequence", "_position")]
    ).to_pylist()
    return ordered


def _corpus() -> list[StreamRecord]:
    sink = MemorySink()
    app = make_app(sink)
    for case in read_cases().values():
        ask(app, *request_of(case))
    return [StreamRecord(SHARD, number, data, NOW) for number, data in enumerate(sink.records, 1)]


def test_a_batch_of_several_days_is_a_file_a_day_each_in_the_tables_order(lake: Lake) -> None:
    batch = [record(n, *(track(f"m{n}-{i}", event=f"E{i * 7 % 5}") for i in range(50)), day=n % 3) for n in range(9)]

    pipeline.run(batch, STREAM, lake, Window())

    files = list(live_files(lake.load(EVENTS)))
    assert len({file.partition[0] for file in files}) == len(files) == 3
    for file in files:
        found = open_parquet(lake.io, file.file_path).read(list(EVENTS.sort)).to_pylist()
        assert found == sorted(found, key=lambda row: tuple(row.values()))
        assert len(found) == 150


# --- what comes again -----------------------------------------------------------------------------------


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


# --- resends --------------------------------------------------------------------------------------------


def test_a_resend_in_a_later_commit_is_a_duplicate(lake: Lake) -> None:
    window = Window()
    pipeline.run([record(1, track("a"))], STREAM, lake, window)

    committed = pipeline.run([record(2, track("a", event="Changed", userId="v"))], STREAM, lake, window)

    assert committed.outcomes == [b"d"]
    assert [row["event"] for row in rows(lake)] == ["E"]


def test_a_resend_after_a_restart_is_a_duplicate(lake: Lake, store: Store) -> None:
    pipeline.run([record(1, track("a"))], STREAM, lake, Window())

    assert pipeline.run([record(2, track("a"))], STREAM, store.another(), Window()).outcomes == [b"d"]


def test_two_projects_may_use_one_id(lake: Lake) -> None:
    batch = [record(1, track("a")), record(2, track("a"), project_id="other")]

    assert pipeline.run(batch, STREAM, lake, Window()).outcomes == [b"s", b"s"]


def test_a_late_event_of_another_process_is_known_to_a_later_one(lake: Lake, store: Store) -> None:
    window = Window(7)
    pipeline.run([record(1, track("a"))], STREAM, lake, window)
    pipeline.run([record(1, track("late"), day=2)], "theirs", store.another(), Window())
    pipeline.run([record(2, track("b"), day=10)], STREAM, lake, window)

    committed = pipeline.run([record(3, track("late"), day=5), record(4, track("a"), day=5)], STREAM, lake, window)

    assert committed.outcomes == [b"d", b"d"]


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


@pytest.mark.parametrize(
    "between",
    [
        nothing,
        a_dead_letter_of_ours,
        a_duplicate_of_ours,
        a_new_event_of_ours,
        their_maintenance,
    ],
)
def test_what_another_process_stored_meanwhile_is_known(lake: Lake, store: Store, between: Between) -> None:
    window, theirs = Window(), store.another()
    pipeline.run([record(1, track("ours"))], STREAM, lake, window)
    pipeline.run([record(1, track("theirs"))], "theirs", theirs, Window())
    between(lake, theirs, window)

    committed = pipeline.run([record(9, track("theirs"), track("ours"))], STREAM, lake, window)

    assert committed.outcomes == [b"dd"]
    assert len(message_ids(lake)) == len(set(message_ids(lake)))


def test_an_event_that_another_process_stores_while_ours_is_encoded_is_stored_once(
    lake: Lake, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    window, theirs = Window(), store.another()
    raced = list[Table]()

    def overtaken(table: Table, *rest: Any) -> Any:  # noqa: ANN401  # as the real one
        if not raced:
            raced.append(table)
            pipeline.run([record(1, track("a"))], "theirs", theirs, Window())
        return real(table, *rest)

    real = lake._engine.stage
    monkeypatch.setattr(lake._engine, "stage", overtaken)
    committed = pipeline.run([record(1, track("a"), track("b"))], STREAM, lake, window)

    assert raced == [EVENTS]
    assert committed.outcomes == [b"ds"]
    assert message_ids(lake) == ["a", "b"]


# --- the commit -----------------------------------------------------------------------------------------


def test_rows_and_books_are_of_one_snapshot_and_the_property_says_the_same(lake: Lake) -> None:
    for number in range(3):
        pipeline.run([record(number, track(f"m{number}"), BAD)], STREAM, lake, Window())

    iceberg, key = lake.load(EVENTS), property_name(STREAM)
    told = [_summary(one) for one in iceberg.metadata.snapshots]
    assert [(one["total-records"], one["manymetrics.operation"]) for one in told] == [
        (str(number), "ingest") for number in (1, 2, 3)
    ]
    assert [counts(parse_books(STREAM, one))["received"] for one in told] == [2, 4, 6]
    assert iceberg.properties[key] == told[-1][key]


def _summary(snapshot: Snapshot) -> dict[str, str]:
    assert snapshot.summary is not None
    return snapshot.summary.additional_properties | {"operation": snapshot.summary.operation.value}


def test_a_commit_without_files_is_a_snapshot(lake: Lake) -> None:
    snapshot_id = lake._engine.append(EVENTS, lake.load(EVENTS), [], SUMMARY, {"manymetrics.test": "ours"})

    after = lake.load(EVENTS)
    assert after.metadata.current_snapshot_id == snapshot_id
    assert after.properties["manymetrics.test"] == "ours"


Theirs = Callable[[Lake], object]


def they_append(theirs: Lake) -> None:
    pipeline.run([record(50, track("theirs"))], "theirs", theirs, Window())


def they_append_nothing(theirs: Lake) -> None:
    theirs._engine.append(EVENTS, theirs.load(EVENTS), [], SUMMARY, {"manymetrics.test": "theirs"})


def they_maintain(theirs: Lake) -> None:
    maintain(theirs, keep_snapshots=1, older_than_s=3_600)  # so what was just read can be read on


def they_expire_all_but_one(theirs: Lake) -> None:
    maintain(theirs, keep_snapshots=1)


def they_set_a_property(theirs: Lake) -> None:
    with theirs.load(EVENTS).transaction() as transaction:
        transaction.set_properties({"theirs": "1"})


def they_add_a_column(theirs: Lake) -> None:
    with theirs.load(EVENTS).update_schema() as update:
        update.add_column("theirs", StringType())


def _commit_some(lake: Lake, before: Theirs) -> list[str]:
    """A commit each, as many as maintenance merges where that comes next. Returns the message ids."""
    ids = [f"m{number}" for number in range(MERGE_FROM_FILES + 2 if before is they_maintain else 2)]
    for number, one in enumerate(ids):
        pipeline.run([record(number, track(one))], STREAM, lake, Window())
    return ids


@pytest.mark.parametrize("files", [1, 0], ids=["rows", "no rows"])
@pytest.mark.parametrize("commit", [they_append, they_append_nothing, they_maintain])
def test_a_snapshot_of_somebody_else_is_a_conflict_which_changes_nothing(
    store: Store, lake: Lake, commit: Theirs, files: int
) -> None:
    _commit_some(lake, commit)
    iceberg = lake.load(EVENTS)
    ours = lake.stage(EVENTS, iceberg, decode([record(60, track("ours"))], STREAM).events)[:files]
    commit(store.another())
    before = lake.load(EVENTS).metadata

    with pytest.raises(ConflictError):
        lake._engine.append(EVENTS, iceberg, ours, SUMMARY, {"manymetrics.test": "ours"})

    assert lake.load(EVENTS).metadata == before
    lake._engine.append(EVENTS, lake.load(EVENTS), ours, SUMMARY, {"manymetrics.test": "ours"})  # and then it goes
    assert message_ids(lake).count("ours") == files
    assert lake.load(EVENTS).properties["manymetrics.test"] == "ours"


@pytest.mark.parametrize(
    "change", [they_append, they_append_nothing, they_maintain, they_set_a_property, they_add_a_column]
)
def test_what_somebody_else_does_between_our_look_and_our_commit_stays_and_ours_is_there_once(
    store: Store, lake: Lake, monkeypatch: pytest.MonkeyPatch, change: Theirs
) -> None:
    theirs = store.another()
    before = _commit_some(lake, change)
    real, done = lake._engine.append, list[object]()

    def overtaken(*arguments: Any) -> int:  # noqa: ANN401  # as the real one
        if not done:
            done.append(change(theirs))
        return real(*arguments)

    monkeypatch.setattr(lake._engine, "append", overtaken)
    pipeline.run([record(70, track("ours"))], STREAM, lake, Window())

    iceberg = lake.load(EVENTS)
    assert message_ids(lake) == sorted(["ours", *before, *(["theirs"] if change is they_append else [])])
    assert counts(books(lake)) == {"received": len(before) + 1, "stored": len(before) + 1}
    assert iceberg.properties.get("theirs") == ("1" if change is they_set_a_property else None)
    assert ("theirs" in iceberg.schema().column_names) == (change is they_add_a_column)


@pytest.mark.parametrize("lands", [True, False])
def test_a_commit_of_which_nobody_knows_whether_it_landed_is_there_once(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, *, lands: bool
) -> None:
    real, unknown = lake._engine.append, list[str]()

    def unanswered(table: Table, *rest: Any) -> int:  # noqa: ANN401  # as the real one
        if table.name not in unknown:
            unknown.append(table.name)
            if lands:
                real(table, *rest)
            raise CommitStateUnknownError("no answer")
        return real(table, *rest)

    monkeypatch.setattr(lake._engine, "append", unanswered)
    pipeline.run([record(1, track("a"), BAD), record(2, track("a"))], STREAM, lake, Window())

    assert unknown == ["dead_letters", "events"]
    assert message_ids(lake) == ["a"]
    assert len(rows(lake, DEAD_LETTERS)) == 1
    assert counts(books(lake)) == {"received": 3, "stored": 1, "duplicate": 1, "dead_lettered:no_identity": 1}


def test_a_batch_that_loses_every_race_is_untouched_and_can_be_delivered_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*_arguments: object) -> int:
        raise ConflictError("another process committed first")

    with monkeypatch.context() as patched:
        patched.setattr(lake._engine, "append", lose)
        with pytest.raises(CommitContentionError):
            pipeline.run([record(1, track("a"))], STREAM, lake, Window())

    assert (message_ids(lake), books(lake).received) == ([], 0)
    assert pipeline.run([record(1, track("a"))], STREAM, lake, Window()).outcomes == [b"s"]


# --- the watermark --------------------------------------------------------------------------------------


def their_snapshots(lake: Lake) -> None:
    """More of them than are kept, and none that speaks of a stream."""
    for _ in range(3):
        lake._engine.append(EVENTS, lake.load(EVENTS), [], {}, {})
    maintain(lake, keep_snapshots=1)


def the_property_is_unset(lake: Lake) -> None:
    with lake.load(EVENTS).transaction() as transaction:
        transaction.remove_properties(property_name(STREAM))


@pytest.mark.parametrize(
    "happens", [they_expire_all_but_one, their_snapshots, the_property_is_unset, they_add_a_column]
)
def test_the_watermark_outlives_expiry_foreign_snapshots_and_an_unset_property(
    store: Store, lake: Lake, happens: Theirs
) -> None:
    batch = [record(1, track("a"), BAD), record(2, track(None))]
    pipeline.run(batch, STREAM, lake, Window())
    before = books(lake)
    happens(store.another())

    committed = pipeline.run(batch, STREAM, lake, Window())

    assert committed.outcomes == [None, None]
    assert books(lake) == before
    assert (len(rows(lake)), len(rows(lake, DEAD_LETTERS))) == (2, 1)


def arriving(at_s: float, of: StreamRecord) -> StreamRecord:
    """The record, that arrived so long after NOW."""
    return of._replace(arrived_at=NOW + round(at_s * 1e6))


def times(lake: Lake) -> dict[str, float]:
    """By shard, when the newest committed record arrived, in seconds after NOW."""
    return {shard: (at - NOW) / 1e6 for shard, at in sorted(books(lake).arrived_at.items())}


def test_the_books_have_the_arrival_of_each_shards_newest_record_whatever_it_holds(store: Store, lake: Lake) -> None:
    def commit(*records: StreamRecord) -> dict[str, float]:
        pipeline.run(records, STREAM, lake, Window())
        return times(lake)

    assert commit(arriving(1, record(1, track("a"))), arriving(2, record(2, track("b"), shard="s"))) == {
        SHARD: 1,
        "s": 2,
    }
    assert commit(arriving(3.5, record(2, BAD))) == {SHARD: 3.5, "s": 2}  # only a dead letter
    assert commit(arriving(4, record(3, track("a")))) == {SHARD: 4, "s": 2}  # only a duplicate
    assert commit(StreamRecord(SHARD, 4, b"damaged", NOW + 5_000_000)) == {SHARD: 5, "s": 2}
    hollow = pack_again(structs.replace(unpack(record(5, track("a")).data), events=[]))
    assert commit(StreamRecord(SHARD, 5, hollow, NOW + 6_000_000)) == {SHARD: 6, "s": 2}
    assert books(lake).watermark(SHARD) == 5
    assert commit(arriving(9, record(5, track("c")))) == {SHARD: 6, "s": 2}  # redelivered: nothing is committed
    heavy = arriving(5, record(8, track("e")))  # a local stream moves it behind later ones
    assert commit(arriving(7, record(7, track("f"))), heavy) == {SHARD: 7, "s": 2}
    assert commit(arriving(0.5, record(9, track("d")))) == {SHARD: 7, "s": 2}  # by a clock that was set back
    their_snapshots(store.another())
    they_add_a_column(store.another())
    assert times(lake) == {SHARD: 7, "s": 2}


def test_a_record_that_is_committed_in_part_has_not_arrived(lake: Lake) -> None:
    whole = [arriving(1, record(1, track("a"))), arriving(2, record(2, track("b"), track("c")))]

    pipeline.commit(decode(whole, STREAM, end=1), lake, Window())
    assert (times(lake), message_ids(lake)) == ({SHARD: 1}, ["a", "b"])
    pipeline.commit(decode(whole[1:], STREAM, begin=1), lake, Window())
    assert (times(lake), message_ids(lake)) == ({SHARD: 2}, ["a", "b", "c"])


def test_replayed_dead_letters_move_no_time(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as older:
        older.setattr("manymetrics_processor.decode.batch.parse_event", lambda *_: Rejected(Reason.UNKNOWN_TYPE, ""))
        pipeline.run([arriving(1, record(1, track("a")))], STREAM, lake, Window())
    before = books(lake)

    assert replay(lake, Window()).stored == 1

    assert books(lake) == before
    assert books(lake, REPLAY_STREAM).arrived_at == {}


def test_maintenance_leaves_one_file_and_every_row(lake: Lake) -> None:
    for number in range(12):
        pipeline.run([record(number, track(f"m{number}"))], STREAM, lake, Window())

    maintain(lake, keep_snapshots=1)

    assert len(list(live_files(lake.load(EVENTS)))) == 1
    assert len(message_ids(lake)) == 12


# --- columns --------------------------------------------------------------------------------------------


NEWER = replace(EVENTS, columns=(*EVENTS.columns, Column("new", "long", "New.")))


@pytest.fixture
def newer_version(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, the processor is of a version with one more column."""
    return lambda: monkeypatch.setattr("manymetrics_processor.lake.lake.TABLES", (NEWER, DEAD_LETTERS))


def test_a_column_that_a_newer_version_brings_is_added_and_older_rows_have_null_there(
    store: Store, newer_version: Callable[[], None]
) -> None:
    lake = store.another()
    pipeline.run([record(1, track("old"))], STREAM, lake, Window())

    newer_version()
    newer = store.another()

    field = newer.load(EVENTS).schema().find_field("new")
    assert (field.field_id, field.doc, field.required) == (len(NEWER.columns), "New.", False)
    assert [(row["message_id"], row["new"]) for row in rows(newer, NEWER)] == [("old", None)]
    pipeline.run([record(2, track("young"), track("old"))], STREAM, newer, Window())
    assert message_ids(newer) == ["old", "young"]


def test_two_processes_may_add_a_column_at_once(
    store: Store, newer_version: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.another()
    newer_version()
    real, raced = Lake.load, list[Table]()

    def overtaken(lake: Lake, table: Table) -> Any:  # noqa: ANN401  # as the real one
        iceberg = real(lake, table)
        if not raced:
            raced.append(table)
            first.ensure_tables()
        return iceberg

    monkeypatch.setattr(Lake, "load", overtaken)
    store.another().ensure_tables()

    names = [field.name for field in first.load(EVENTS).schema().fields]
    assert names == [*EVENTS.column_names, "new"]


def test_our_column_that_comes_after_one_of_theirs_is_not_taken_for_it(
    store: Store, newer_version: Callable[[], None]
) -> None:
    they_add_a_column(store.another())
    newer_version()
    lake = store.another()
    decoded = decode([record(1, track("a"))], STREAM).events
    data = decoded.table.append_column(arrow_schema(NEWER).field("new"), pa.array([7]))
    iceberg = lake.load(EVENTS)

    lake._engine.append(NEWER, iceberg, lake.stage(NEWER, iceberg, decoded._replace(table=data)), SUMMARY, {})

    assert lake.load(EVENTS).schema().column_names[-2:] == ["theirs", "new"]
    [row] = lake.load(EVENTS).scan().to_arrow().to_pylist()
    assert (row["message_id"], row["theirs"], row["new"]) == ("a", None, 7)
