"""Compaction leaves each event once, in few sorted files, and never drops what nothing else holds."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manymetrics.tables import DEAD_LETTERS, EVENTS
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.jobs import compact as job
from manymetrics_processor.jobs.compact import Limits, Report, compact
from manymetrics_processor.lake import maintenance
from manymetrics_processor.lake import scan as reading
from manymetrics_processor.lake.lake import Lake, live_files
from manymetrics_processor.lake.maintenance import merge_small_files
from manymetrics_processor.lake.scan import read_files
from tests.in_process_cluster import InProcessCluster
from tests.integration.micro_batches import (
    OLDER_EVENTS,
    STREAM,
    append_as_older_processor,
    books,
    make_lake,
    message_ids,
    record,
    rows,
    track,
)

NAMELESS = {"type": "track", "userId": "u"}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return make_lake(tmp_path)


def run(tmp_path: Path, limits: Limits = Limits(), **options: Any) -> Report:  # noqa: ANN401, B008  # what compact takes; immutable
    """The report of events."""
    return compact(make_lake(tmp_path), InProcessCluster(), limits, **options)[0]


def commit(lake: Lake, sequence: int, *events: Any, stream: str = STREAM, **stamp: Any) -> None:  # noqa: ANN401  # as record
    """As a processor that knows no id: resends are stored again."""
    pipeline.run([record(sequence, *events, **stamp)], stream, lake, _Forgetful())


class _Forgetful(Window):
    def resends(self, _iceberg: Any, ids: Any, _days: Any) -> Any:  # noqa: ANN401  # as the real one
        return np.zeros(len(ids), dtype=np.bool_)


def file_count(lake: Lake) -> int:
    return len(list(live_files(lake.load(EVENTS))))


def test_small_files_of_a_day_become_one_and_no_row_changes(lake: Lake, tmp_path: Path) -> None:
    for number in range(12):
        commit(lake, number, track(f"m{number}", event=f"E{-number % 5}"), NAMELESS, day=number % 2)
    before = rows(lake), rows(lake, DEAD_LETTERS), books(lake)

    events, letters = compact(make_lake(tmp_path), InProcessCluster(), Limits(), keep_snapshots=1, older_than_s=0)

    assert (rows(lake), rows(lake, DEAD_LETTERS), books(lake)) == before
    assert [(one.files_before, one.files_after, one.duplicates_dropped) for one in (events, letters)] == [
        (12, 2, 0)
    ] * 2
    assert len(lake.load(EVENTS).metadata.snapshots) == 1
    for file in live_files(lake.load(EVENTS)):
        names = read_files(EVENTS, lake.load(EVENTS), [file])["event"].to_pylist()
        assert names == sorted(names)


def test_compacting_again_changes_nothing(lake: Lake, tmp_path: Path) -> None:
    for number in range(5):
        commit(lake, number, track(f"m{number}"))
    run(tmp_path)
    before = lake.load(EVENTS).metadata_location

    run(tmp_path)

    assert lake.load(EVENTS).metadata_location == before


def test_files_are_merged_up_to_a_size_and_a_number_of_rows(lake: Lake, tmp_path: Path) -> None:
    for number in range(8):
        commit(lake, number, *(track(f"{number}-{i}") for i in range(10)))

    run(tmp_path, Limits(file_rows=25))

    assert sorted(file.record_count for file in live_files(lake.load(EVENTS))) == [20] * 4


def test_a_resend_that_the_processor_could_not_know_goes_and_the_first_stays(lake: Lake, tmp_path: Path) -> None:
    commit(lake, 5, track("a", properties={"n": 2}), track("b"), day=3)
    commit(lake, 7, track("a", properties={"n": 1}), day=0)
    commit(lake, 9, track("a", properties={"n": 3}), day=8)  # over 7 days after the first: no resend

    report = run(tmp_path)

    assert report.duplicates_dropped == 1
    kept = sorted((row["message_id"], row["properties"]) for row in rows(lake))
    assert kept == [("a", '{"n":1}'), ("a", '{"n":3}'), ("b", None)]


def test_the_same_id_in_another_project_is_another_event(lake: Lake, tmp_path: Path) -> None:
    commit(lake, 1, track("a"), project_id="one")
    commit(lake, 2, track("a"), project_id="two")

    assert run(tmp_path).duplicates_dropped == 0


@pytest.mark.parametrize("bucket_rows", [1_000_000, 3])
def test_many_resends_are_found_however_many_buckets_there_are(
    bucket_rows: int, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "BUCKET_ROWS", bucket_rows)
    chance = random.Random(4)
    sent = Counter[str]()
    for number in range(10):
        ids = [f"m{chance.randrange(40)}" for _ in range(10)]
        sent.update(set(ids))
        commit(lake, number, *map(track, ids), day=chance.randrange(3))

    report = run(tmp_path)

    assert message_ids(lake) == sorted(sent)
    assert report.duplicates_dropped == sent.total() - len(sent)


def test_a_row_that_somebody_deleted_is_nobodys_first(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(lake, 1, track("a"))
    commit(lake, 2, track("a"))
    [first] = [file for file in live_files(lake.load(EVENTS)) if _sequence(lake, file) == "1"]
    deleted = {first.file_path: np.array([0])}
    for module in (job, reading):
        monkeypatch.setattr(module, "deleted_positions", lambda _iceberg: deleted)

    report = run(tmp_path)

    assert report.duplicates_dropped == 0
    assert [row["_sequence"] for row in rows(lake)] == ["2"]


def _sequence(lake: Lake, file: Any) -> Any:  # noqa: ANN401  # a data file's
    return read_files(EVENTS, lake.load(EVENTS), [file])["_sequence"][0].as_py()


def test_what_is_committed_meanwhile_stays_and_what_others_merged_is_left_to_them(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        commit(lake, number, track(f"m{number}"), day=number % 2)
    for number in range(8, 16):
        commit(lake, number, track(f"m{number}"), day=0)
    swap = maintenance.swap
    raced: list[None] = []

    def overtaken(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # as the real one
        if not raced:
            raced.append(None)
            commit(lake, 99, track("late"))
            merge_small_files(make_lake(tmp_path), EVENTS)  # day 0 has enough for it
        return swap(*arguments, **options)

    monkeypatch.setattr(job, "swap", overtaken)

    report = run(tmp_path)

    assert message_ids(lake) == sorted(["late", *(f"m{number}" for number in range(16))])
    assert report.merges_lost == 1


@pytest.mark.parametrize("while_it", ["find_resends", "_rewrite"])
def test_files_that_others_merged_and_removed_meanwhile_are_left_to_them(
    while_it: str, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        commit(lake, number, track(f"m{number % 10}"), day=number // 8)
    does = getattr(job, while_it)
    raced: list[object] = []

    def overtaken(*arguments: Any) -> Any:  # noqa: ANN401  # as the real one
        if not raced:
            raced.append(maintenance.maintain(make_lake(tmp_path), keep_snapshots=1))  # day 0 has enough for it
        return does(*arguments)

    monkeypatch.setattr(job, while_it, overtaken)

    report = run(tmp_path)
    assert report.merges_lost > 0
    run(tmp_path)

    assert message_ids(lake) == sorted(f"m{number}" for number in range(10))


def test_merges_whose_files_are_removed_as_orphans_before_their_commit_are_not_committed(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        commit(lake, number, track(f"m{number}"), day=number % 4)
    stage = maintenance.stage_rewritten
    slow: list[maintenance.Rewritten] = []

    def slowly(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # as the real one
        one = stage(*arguments, **options)
        if slow:
            return one
        slow.append(one)
        assert maintenance.remove_orphans(lake, EVENTS, older_than_s=0) == 1
        return one

    monkeypatch.setattr(job, "stage_rewritten", slowly)

    report = run(tmp_path)

    assert message_ids(lake) == [f"m{number}" for number in range(8)]
    assert (report.merges_lost, report.files_after) == (4, 8)  # the next run merges them


def test_only_days_from_a_given_one_on_are_touched(lake: Lake, tmp_path: Path) -> None:
    for number in range(6):
        commit(lake, number, track(f"m{number}"), day=number % 2)
    day = max(file.partition[0] for file in live_files(lake.load(EVENTS)))

    report = run(tmp_path, Limits(from_day=day))

    assert (report.files_before, report.files_after, file_count(lake)) == (3, 1, 4)


def test_a_file_of_an_older_processor_is_rewritten_where_it_holds_values_of_added_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr("manymetrics_processor.lake.lake.TABLES", (OLDER_EVENTS, DEAD_LETTERS))
        lake = make_lake(tmp_path)
        for number, context in enumerate(['{"groupId":"g-1"}', '{"other":1}']):
            append_as_older_processor(lake, number, f"m{number}", context, day=number)
    without, with_value = (file.file_path for file in live_files(lake.load(EVENTS)))

    run(tmp_path)

    left = [file.file_path for file in live_files(make_lake(tmp_path).load(EVENTS))]
    assert with_value not in left
    assert without in left
    assert [(row["context_group_id"], row["context"]) for row in rows(make_lake(tmp_path))] == [
        ("g-1", None),
        (None, '{"other":1}'),
    ]
