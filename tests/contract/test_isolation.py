"""An event that makes a commit fail becomes a dead letter, and costs no other; an outage condemns none."""

from __future__ import annotations

import base64
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from pyiceberg.catalog.sql import SqlCatalog

from manymetrics.tables import DEAD_LETTERS, EVENTS
from manymetrics_processor import errors
from manymetrics_processor.decode import arrow as columns
from manymetrics_processor.decode import batch as decode
from manymetrics_processor.decode.ids import dedup_digest
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import isolation, pipeline
from manymetrics_processor.lake import arrow_engine
from manymetrics_processor.lake.lake import Lake
from manymetrics_processor.operations.replay_dead_letters import replay
from tests.contract.conftest import Store
from tests.integration.micro_batches import STREAM, books, counts, make_lake, message_ids, record, rows, track
from tests.scale import scaled

POISON = "poison"
Break = Callable[[pytest.MonkeyPatch, Lake], None]


@pytest.fixture
def lake(store: Store) -> Lake:
    return store.lake


def assert_books_agree(lake: Lake) -> None:
    """Each row and each letter that the books count is there, and no other."""
    kept = counts(books(lake))
    letters = Counter(f"dead_lettered:{row['reason']}" for row in rows(lake, DEAD_LETTERS))
    assert letters == {name: count for name, count in kept.items() if name.startswith("dead_lettered")}
    assert len(rows(lake)) == kept.get("stored", 0)
    assert len({row["dead_letter_id"] for row in rows(lake, DEAD_LETTERS)}) == letters.total()


def _raise(*_: object) -> Any:  # noqa: ANN401  # never returns
    raise ValueError("what nobody thought of")


def holds_poison(rows: Any) -> bool:  # noqa: ANN401  # Arrow's table or a sequence of rows
    if isinstance(rows, pa.Table):
        return "message_id" in rows.column_names and POISON in rows["message_id"].to_pylist()
    return any(POISON in row for row in rows)


def break_decode(patch: pytest.MonkeyPatch, _lake: Lake) -> None:
    real = dedup_digest
    patch.setattr(decode, "dedup_digest", lambda *of: _raise() if POISON in of else real(*of))


def break_columns(patch: pytest.MonkeyPatch, _lake: Lake) -> None:
    real = columns.to_arrow
    patch.setattr(decode, "to_arrow", lambda table, of: _raise() if holds_poison(of) else real(table, of))


def break_stage(patch: pytest.MonkeyPatch, lake: Lake) -> None:
    """Arrow, Parquet, statistics, or what Spark does in their place."""
    engine: Any = lake._engine
    real = engine.stage

    def stage(table: Any, iceberg: Any, of: Any) -> Any:  # noqa: ANN401  # as the real one
        return _raise() if holds_poison(of.table) else real(table, iceberg, of)

    patch.setattr(engine, "stage", stage)


def break_append(patch: pytest.MonkeyPatch, lake: Lake) -> None:
    """The catalog, which nothing but a commit finds out."""
    engine: Any = lake._engine
    stage, append, poisoned = engine.stage, engine.append, list[str]()

    def noting(table: Any, iceberg: Any, of: Any) -> Any:  # noqa: ANN401  # as the real one
        files = stage(table, iceberg, of)
        if holds_poison(of.table):
            poisoned.extend(map(str, files))
        return files

    def failing(table: Any, iceberg: Any, files: Sequence[Any], *rest: Any) -> Any:  # noqa: ANN401  # as the real one
        return _raise() if {*map(str, files)} & {*poisoned} else append(table, iceberg, files, *rest)

    patch.setattr(engine, "stage", noting)
    patch.setattr(engine, "append", failing)


STEPS = [break_decode, break_columns, break_stage, break_append]


@pytest.mark.parametrize("records", [1, 40])
@pytest.mark.parametrize("broken", STEPS, ids=lambda step: step.__name__)
def test_one_event_that_can_not_be_stored_costs_none_of_its_neighbours(
    lake: Lake, store: Store, monkeypatch: pytest.MonkeyPatch, broken: Break, records: int
) -> None:
    events = scaled(80, 200, 200)
    if isinstance(lake._engine, arrow_engine.ArrowEngine):  # and in Glue fewer, where each commit is ten calls
        events = scaled(2_000, 10_000, 10_000) if isinstance(lake._catalog, SqlCatalog) else scaled(120, 1_000, 1_000)
    ids = [f"m{number}" for number in range(events)]
    ids[events * 2 // 3] = POISON
    each = events // records
    batch = [
        record(number, *[track(one) for one in ids[number * each : (number + 1) * each]]) for number in range(records)
    ]
    commits_made = Counter[str]()
    appended: Any = Lake._append

    def counting(of: Lake, table: Any, *rest: Any) -> Any:  # noqa: ANN401  # as the real one
        commits_made[table.name] += 1
        return appended(of, table, *rest)

    monkeypatch.setattr(Lake, "_append", counting)
    broken(monkeypatch, lake)

    committed = pipeline.run(batch, STREAM, lake, Window())

    assert counts(committed.books) == {"received": events, "stored": events - 1, "dead_lettered:unstorable": 1}
    assert books(store.another()) == committed.books
    assert_books_agree(lake)
    marks = b"".join(one or b"" for one in committed.outcomes)
    assert marks == b"".join(b"x" if one == POISON else b"s" for one in ids)
    assert [row["message_id"] for row in rows(lake)] == [one for one in ids if one != POISON]
    [letter] = rows(lake, DEAD_LETTERS)
    assert (letter["reason"], letter["detail"], letter["replayable"]) == ("unstorable", "ValueError", 1)
    assert POISON in base64.b64decode(letter["raw"]).decode()
    halvings = (events - 1).bit_length()
    # The whole, twice; both halves each time; the one event; the rest without it.
    assert commits_made["events"] <= 2 + 2 * halvings + isolation.ATTEMPTS + 1
    assert pipeline.run(batch, STREAM, store.another(), Window()).outcomes == [None] * records

    monkeypatch.undo()
    assert replay(store.another(), Window()).stored == 1
    assert message_ids(lake) == sorted(ids)


@pytest.mark.parametrize("broken", STEPS, ids=lambda step: step.__name__)
def test_events_before_between_and_after_many_that_can_not_be_stored_are_stored(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, broken: Break
) -> None:
    good = [f"m{number}" for number in range(scaled(3, 6, 6))]
    batch = [record(number, track(POISON, userId=f"u{number}"), track(one), {}) for number, one in enumerate(good)]
    broken(monkeypatch, lake)

    committed = pipeline.run(batch, STREAM, lake, Window())

    assert message_ids(lake) == good
    kept = counts(committed.books)
    many = len(good)
    assert (kept["received"], kept["stored"], kept["dead_lettered:unknown_type"]) == (3 * many, many, many)
    assert kept["dead_lettered:unstorable"] + kept.get("duplicate", 0) == many
    assert_books_agree(lake)


def test_a_letter_that_can_not_be_stored_is_kept_in_base64(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    real = columns.to_arrow

    def to_arrow(table: Any, of: Any) -> Any:  # noqa: ANN401  # as the real one
        if table == DEAD_LETTERS and any("evil" in str(row) for row in of):
            raise ValueError
        return real(table, of)

    monkeypatch.setattr(decode, "to_arrow", to_arrow)

    pipeline.run([record(1, track("a"), {"evil": 1}, {})], STREAM, lake, Window())

    assert message_ids(lake) == ["a"]
    letters = [(row["reason"], row["raw_encoding"]) for row in rows(lake, DEAD_LETTERS)]
    assert letters == [("unstorable", "base64"), ("unknown_type", "utf-8")]


@pytest.mark.parametrize("received_at", [2**63])  # beyond what any column holds
def test_a_record_whose_letters_fail_too_keeps_the_bytes_of_its_events_and_costs_no_other(
    lake: Lake, received_at: int
) -> None:
    batch = [
        record(1, track("a"), {}),
        record(2, track("b"), {}, track("c"), received_at=received_at),
        record(3, track("d")),
    ]

    committed = pipeline.run(batch, STREAM, lake, Window())

    assert message_ids(lake) == ["a", "d"]
    assert counts(committed.books) == {
        "received": 6,
        "stored": 2,
        "dead_lettered:unknown_type": 1,
        "dead_lettered:unstorable": 3,
    }
    assert_books_agree(lake)
    letters = [row for row in rows(lake, DEAD_LETTERS) if row["_sequence"] == "2"]
    assert [(row["reason"], row["replayable"], row["_position"]) for row in letters] == [
        ("unstorable", 0, at) for at in range(3)
    ]
    assert "b" in base64.b64decode(letters[0]["raw"]).decode()
    assert pipeline.run(batch, STREAM, lake, Window()).outcomes == [None] * 3


def test_a_record_that_fails_after_a_part_of_it_was_committed_keeps_the_rest(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third event fails, and so does its letter: what stands before it is committed by then."""
    real = columns.to_arrow
    monkeypatch.setattr(isolation.Spans, "failing", lambda *_: {})

    def to_arrow(table: Any, of: Any) -> Any:  # noqa: ANN401  # as the real one
        if any(("m2" in row) or (table == DEAD_LETTERS and row[9] is not None) for row in of):
            raise ValueError
        return real(table, of)

    monkeypatch.setattr(decode, "to_arrow", to_arrow)
    monkeypatch.setattr(pipeline._Isolation, "_check_plain", lambda *_: None)

    committed = pipeline.run([record(1, *(track(f"m{at}") for at in range(6)))], STREAM, lake, Window())

    assert counts(committed.books)["received"] == 6
    assert_books_agree(lake)
    assert {"m0", "m1"} <= set(message_ids(lake))
    assert len(rows(lake)) + len(rows(lake, DEAD_LETTERS)) == 6


def _subclasses(of: type[Exception]) -> Iterator[type[Exception]]:
    yield of
    for one in of.__subclasses__():
        yield from _subclasses(one)


TRANSIENT = [
    *(OSError(116, "Stale file handle"), OSError(107, "not connected"), FileExistsError(17, "exists"), RuntimeError()),
    *(EndpointConnectionError(endpoint_url="https://glue"), ReadTimeoutError(endpoint_url="https://glue")),
    *(one("lost") for one in dict.fromkeys(_subclasses(errors.RetryableError))),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: f"{type(error).__name__}-{error.args[:1]}")
@pytest.mark.parametrize("step", ["stage", "append"])
@pytest.mark.parametrize("suspect", [False, True])
def test_an_error_that_passes_condemns_no_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, step: str, *, suspect: bool
) -> None:
    lake = make_lake(tmp_path)
    engine: Any = lake._engine
    real, times = getattr(engine, step), Counter[str]()

    def twice(*arguments: Any) -> Any:  # noqa: ANN401  # as the real one
        times["times"] += 1
        if times["times"] <= 2:
            raise error
        return real(*arguments)

    monkeypatch.setattr(engine, step, twice)
    for _ in range(20):
        with contextlib.suppress(Exception):
            if pipeline.run([record(1, track("a"))], STREAM, lake, Window(), suspect=suspect):
                break

    assert message_ids(lake) == ["a"]
    assert rows(lake, DEAD_LETTERS) == []


@pytest.mark.parametrize("damage", ["file", "manifest"])
def test_what_the_table_holds_and_can_not_be_read_condemns_no_event(tmp_path: Path, damage: str) -> None:
    lake = make_lake(tmp_path)
    pipeline.run([record(1, track("a"))], STREAM, lake, Window())
    found = sorted(
        (tmp_path / "warehouse" / "manymetrics" / "events").rglob("*.parquet" if damage == "file" else "*-m*.avro")
    )
    whole = found[-1].read_bytes()
    found[-1].write_bytes(whole[: len(whole) // 2] if damage == "file" else b"")

    for suspect in (False, True):
        with pytest.raises((OSError, errors.RetryableError)):
            pipeline.run([record(2, track("b"))], STREAM, lake, Window(), suspect=suspect)

    found[-1].write_bytes(whole)
    assert pipeline.run([record(2, track("b"))], STREAM, lake, Window()).outcomes == [b"s"]
    assert rows(lake, DEAD_LETTERS) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ConnectionError(), errors.ConflictError()])
def test_an_outage_is_raised_and_condemns_no_event(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> Any:  # noqa: ANN401  # never returns
        raise error

    engine: Any = lake._engine
    with monkeypatch.context() as outage:
        outage.setattr(engine, "append", fail)
        for suspect in (False, True):
            with pytest.raises((OSError, errors.RetryableError)):
                pipeline.run([record(1, track("a"), {})], STREAM, lake, Window(), suspect=suspect)

    assert pipeline.run([record(1, track("a"), {})], STREAM, lake, Window()).outcomes == [b"sx"]
    assert counts(books(lake)) == {"received": 2, "stored": 1, "dead_lettered:unknown_type": 1}


@pytest.mark.parametrize("step", ["stage", "append"])
def test_an_error_that_any_event_meets_condemns_none(lake: Lake, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    engine: Any = lake._engine
    with monkeypatch.context() as broken:
        broken.setattr(engine, step, _raise)
        with pytest.raises(ValueError, match="nobody thought of"):
            pipeline.run([record(1, track("a"), track("b")), record(2, track("c"))], STREAM, lake, Window())

    assert pipeline.run([record(1, track("a"), track("b"))], STREAM, lake, Window()).outcomes == [b"ss"]
    assert rows(lake, DEAD_LETTERS) == []


def test_a_batch_that_fails_whole_and_passes_in_halves_is_committed_in_halves(
    lake: Lake, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = lake._engine
    real = engine.stage

    def stage(table: Any, iceberg: Any, of: Any) -> Any:  # noqa: ANN401  # as the real one
        if len(of.day) > 3:
            raise pa.ArrowCapacityError("an array can't hold so much")
        return real(table, iceberg, of)

    monkeypatch.setattr(engine, "stage", stage)

    committed = pipeline.run([record(1, *[track(f"m{at}") for at in range(10)])], STREAM, lake, Window())

    assert committed.outcomes == [b"s" * 10]
    assert counts(books(store.another())) == {"received": 10, "stored": 10}


def test_a_process_that_ends_between_two_parts_of_a_record_goes_on_after_the_first(
    lake: Lake, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    nameless = [track(None, userId=f"u{at}") for at in range(8)]
    batch = [record(1, *nameless[:7], track("last")), record(2, track("next"))]
    real, done = pipeline.commit, list[int]()

    def commit(of: Any, *rest: Any) -> Any:  # noqa: ANN401  # as the real one
        if len(done) == 0 and of.counts.sum() > 3:
            raise ValueError
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return real(of, *rest)

    with monkeypatch.context() as ending:
        ending.setattr(pipeline, "commit", commit)
        ending.setattr(isolation.Spans, "failing", lambda *_: {})
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(batch, STREAM, lake, Window())
    part = counts(books(store.another()))
    assert 0 < part["stored"] < 9

    pipeline.run(batch, STREAM, store.another(), Window())

    assert counts(books(store.another())) == {"received": 9, "stored": 9}
    found = [(row["_sequence"], row["_position"]) for row in rows(lake)]
    assert found == [*(("1", at) for at in range(8)), ("2", 0)]


# What pyiceberg's own bounds fail at, and its neighbours: 16 characters and more, the last of which has no next one.
HARD = ["\ud7ff", "\ue000", "\uffff", "\U0010ffff", "\U0010fffe", "\x00", "a"]


@pytest.mark.parametrize("length", [15, 16, 17, 250])
def test_texts_at_the_edges_of_what_a_bound_can_be_are_rows(lake: Lake, length: int) -> None:
    names = ["a" * (length - 1) + last + rest for last in HARD for rest in ("", "z")] + [one * length for one in HARD]
    events = [track(f"m{at}", event=name) for at, name in enumerate(names)]

    committed = pipeline.run(
        [record(1, *events), record(2, track("p", event="x"), project_id="p" * 15 + "\ud7ffz")], STREAM, lake, Window()
    )

    assert committed.outcomes == [b"s" * len(names), b"s"]
    assert [row["event"] for row in rows(lake)][:-1] == names
    for name in names:
        assert arrow_engine.upper_bound(name) is None or arrow_engine.upper_bound(name) >= name  # type: ignore[operator]


def test_what_is_looked_for_is_logged_without_a_payload(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    break_columns(monkeypatch, lake)

    with caplog.at_level(logging.WARNING):
        pipeline.run([record(1, track("a"), track(POISON, userId="jane@example.com"))], STREAM, lake, Window())

    assert "jane" not in caplog.text
    assert any(getattr(one, "facts", None) == {"events": 1, "errors": {"ValueError": 1}} for one in caplog.records)


def test_a_batch_of_nothing_but_such_events_takes_a_bounded_number_of_trials(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(lake._engine, arrow_engine.ArrowEngine):
        return
    monkeypatch.setattr(isolation, "MOST_TRIALS", 50)
    tried = Counter[str]()
    real = Lake.try_out

    def try_out(of: Lake, *rest: Any) -> None:  # noqa: ANN401  # as the real one
        tried["times"] += 1
        real(of, *rest)

    monkeypatch.setattr(Lake, "try_out", try_out)
    to_arrow = columns.to_arrow
    monkeypatch.setattr(
        decode,
        "to_arrow",
        lambda table, of: _raise() if table == EVENTS and any("bad" in str(row) for row in of) else to_arrow(table, of),
    )
    batch = [record(1, *[track(f"bad{at}") for at in range(2_000)]), record(2, track("good"))]

    pipeline.run(batch, STREAM, lake, Window())

    assert message_ids(lake) == ["good"]
    assert counts(books(lake)) == {"received": 2_001, "stored": 1, "dead_lettered:unstorable": 2_000}
    assert tried["times"] <= 2 * (50 + 20)
