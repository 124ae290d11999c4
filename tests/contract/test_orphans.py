"""No commit names a file that was removed as an orphan, however long it was stopped, and whatever the clocks say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from manymetrics.tables import DEAD_LETTERS, EVENTS, TABLES, Table
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.lake import Lake
from manymetrics_processor.lake.maintenance import maintain, merge_small_files, remove_orphans
from tests.contract.conftest import Store
from tests.integration.micro_batches import STREAM, books, counts, message_ids, record, rows, track

BAD = {"type": "track", "event": "E"}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@pytest.mark.parametrize("step", ["staged", "appending"])
def test_a_commit_that_is_stopped_while_orphans_are_removed_stages_its_files_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, table: Table, step: str
) -> None:
    pipeline.run([record(1, track("a"), BAD)], STREAM, store.lake, Window())
    stopped = Lake.stage if step == "staged" else Lake._append
    removed: list[int] = []

    def stop(lake: Lake, of: Table, *arguments: Any) -> Any:  # noqa: ANN401  # as the real ones
        done = stopped(lake, of, *arguments) if step == "staged" else None
        if of == table and not removed:
            removed.append(remove_orphans(store.another(), table, older_than_s=0))
        return done if step == "staged" else stopped(lake, of, *arguments)

    monkeypatch.setattr(Lake, stopped.__name__, stop)

    pipeline.run([record(2, track("b"), BAD)], STREAM, store.lake, Window())

    assert removed[0] >= 1
    monkeypatch.undo()
    lake = store.another()
    assert message_ids(lake) == ["a", "b"]
    assert [row["_sequence"] for row in rows(lake, DEAD_LETTERS)] == ["1", "2"]
    assert counts(books(lake)) == {"received": 4, "stored": 2, "dead_lettered:no_identity": 2}


def test_a_merge_that_is_stopped_while_orphans_are_removed_is_not_committed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        pipeline.run([record(number, track(f"m{number}"))], STREAM, store.lake, Window())
    replace: Any = Lake.replace_files
    removed: list[int] = []

    def stop(lake: Lake, *arguments: Any) -> None:  # noqa: ANN401  # as the real one
        if not removed:
            removed.append(remove_orphans(store.another(), EVENTS, older_than_s=0))
        replace(lake, *arguments)

    monkeypatch.setattr(Lake, "replace_files", stop)

    merge_small_files(store.lake, EVENTS)

    assert removed == [1]
    assert message_ids(store.another()) == sorted(f"m{number}" for number in range(8))


def test_a_fence_is_put_only_where_there_is_something_to_remove(store: Store) -> None:
    pipeline.run([record(1, track("a"))], STREAM, store.lake, Window())
    remove_orphans(store.lake, EVENTS, older_than_s=0)  # what the first commit left, if anything
    before = store.lake.load(EVENTS).metadata_location

    assert remove_orphans(store.lake, EVENTS, older_than_s=0) == 0
    assert store.another().load(EVENTS).metadata_location == before


def test_a_commit_that_comes_between_the_look_and_the_fence_keeps_its_files(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put: Any = Lake.put_fence
    overtaken: list[int] = []

    def overtake(lake: Lake, iceberg: Any) -> None:  # noqa: ANN401  # as the real one
        if not overtaken:
            overtaken.append(1)
            pipeline.run([record(1, track("a"))], STREAM, store.another(), Window())
        put(lake, iceberg)

    monkeypatch.setattr(Lake, "put_fence", overtake)
    _leave_an_orphan(store.lake)

    remove_orphans(store.lake, EVENTS, older_than_s=0)

    assert overtaken
    assert message_ids(store.another()) == ["a"]


def _leave_an_orphan(lake: Lake) -> Sequence[Any]:
    from manymetrics_processor.decode.batch import decode

    return lake.stage(EVENTS, lake.load(EVENTS), decode([record(9, track("orphan"))], STREAM).events)


def test_books_and_dedup_go_on_over_a_fence(store: Store) -> None:
    window = Window()
    pipeline.run([record(1, track("a"))], STREAM, store.lake, window)
    _leave_an_orphan(store.lake)
    assert remove_orphans(store.another(), EVENTS, older_than_s=0) >= 1

    committed = pipeline.run([record(2, track("a"), track("b"))], STREAM, store.lake, window)

    assert committed.outcomes == [b"ds"]
    maintain(store.another(), keep_snapshots=1)
    assert pipeline.run([record(3, track("b"))], STREAM, store.another(), Window()).outcomes == [b"d"]
