"""Maintenance changes no row, keeps the folder small, and deletes only what nothing needs."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO
from pyiceberg.manifest import DataFile

from manymetrics.tables import EVENTS, TABLES, Table
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.errors import ConflictError
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake import maintenance
from manymetrics_processor.lake.lake import Lake, live_files
from manymetrics_processor.lake.maintenance import (
    EVERY_COMMITS,
    KEEP_SNAPSHOTS,
    ORPHAN_AGE_S,
    Maintenance,
    Read,
    Report,
    expire_snapshots,
    maintain,
    merge_small_files,
    remove_orphans,
    rewrite,
)
from manymetrics_processor.lake.object_storage import delete_files
from manymetrics_processor.lake.scan import read_files
from tests.integration.micro_batches import STREAM, books, file_paths, make_lake, message_ids, record, rows, track

BAD = {"type": "track", "event": "E"}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return make_lake(tmp_path)


def commit(lake: Lake, numbers: range, *, days: int = 1, stream: str = STREAM) -> None:
    """A commit a number, with a good and a bad event each."""
    window = Window()
    for number in numbers:
        one = record(number, track(f"{stream}-{number}"), BAD, day=number % days)
        pipeline.run([one], stream, lake, window)


def record_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The locations of what is opened from now on."""
    opened: list[str] = []
    real = PyArrowFileIO.new_input

    def recorded(io: PyArrowFileIO, location: str) -> PyArrowFile:
        opened.append(location)
        return real(io, location)

    monkeypatch.setattr(PyArrowFileIO, "new_input", recorded)
    return opened


def contents(lake: Lake, table: Table) -> Counter[str]:
    return Counter(map(str, rows(lake, table)))


def snapshot_count(lake: Lake, table: Table) -> int:
    return len(lake.load(table).metadata.snapshots)


def file_count(lake: Lake, table: Table) -> int:
    return len(list(live_files(lake.load(table))))


def needed(lake: Lake) -> set[Path]:
    """All files that a snapshot or the catalog refers to."""
    paths = set()
    for table in TABLES:
        iceberg = lake.load(table)
        locations = [iceberg.metadata_location, *(entry.metadata_file for entry in iceberg.metadata.metadata_log)]
        for snapshot in iceberg.metadata.snapshots:
            locations.append(snapshot.manifest_list)
            for manifest in snapshot.manifests(iceberg.io):
                locations.append(manifest.manifest_path)
                entries = manifest.fetch_manifest_entry(iceberg.io, discard_deleted=True)
                locations += [entry.data_file.file_path for entry in entries]
        paths |= {Path(location.removeprefix("file://")) for location in locations}
    return paths


def make_old(paths: set[Path], age_s: float = ORPHAN_AGE_S + 60) -> None:
    for path in paths:
        os.utime(path, (time.time() - age_s,) * 2)


# --- what stays -------------------------------------------------------------------------------------------


def test_merging_and_expiring_change_no_row_and_no_books(lake: Lake) -> None:
    commit(lake, range(30), days=3)
    before = [contents(lake, table) for table in TABLES], books(lake)

    reports = maintain(lake, keep_snapshots=1)

    assert ([contents(lake, table) for table in TABLES], books(lake)) == before
    assert [(one.table, one.files_before, one.files_after) for one in reports] == [
        ("events", 30, 3),
        ("dead_letters", 30, 3),
    ]
    assert [snapshot_count(lake, table) for table in TABLES] == [1, 1]


def test_merged_files_are_sorted_as_the_table_says_and_stay_in_their_day(lake: Lake) -> None:
    names = ["D", "B", "C", "A", None, "E", "F", "H", "G"]
    for number, name in enumerate(names):
        event = track(f"m{number}", event=name) if name else {"type": "identify", "userId": "u", "messageId": "i"}
        pipeline.run([record(number, event)], STREAM, lake, Window())

    merge_small_files(lake, EVENTS)

    [file] = live_files(lake.load(EVENTS))
    merged = read_files(EVENTS, lake.load(EVENTS), [file])["event"].to_pylist()
    assert merged == [None, "A", "B", "C", "D", "E", "F", "G", "H"]
    assert file.sort_order_id == lake.load(EVENTS).metadata.default_sort_order_id


def test_every_file_that_a_kept_snapshot_needs_is_there_and_no_other(lake: Lake, tmp_path: Path) -> None:
    commit(lake, range(30), days=2)
    maintain(lake, keep_snapshots=4)
    commit(lake, range(30, 35))
    make_old(file_paths(tmp_path))

    reports = maintain(lake, keep_snapshots=3)

    assert all(one.snapshots_expired for one in reports)
    assert file_paths(tmp_path) == needed(lake)


def test_each_kept_snapshot_can_still_be_read(lake: Lake) -> None:
    commit(lake, range(12))

    maintain(lake, keep_snapshots=5)

    iceberg = lake.load(EVENTS)
    counts = [len(iceberg.scan(snapshot_id=one.snapshot_id).to_arrow()) for one in iceberg.metadata.snapshots]
    assert counts == sorted(counts)
    assert counts[-1] == 12


def test_a_hundred_commits_leave_few_files_and_snapshots(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "QUERY_GRACE_S", 0.0)
    inline, window = Maintenance(lake), Window()

    for number in range(100):
        pipeline.run([record(number, track(f"m{number}"))], STREAM, lake, window)
        inline.after_commit()
        assert snapshot_count(lake, EVENTS) <= KEEP_SNAPSHOTS + EVERY_COMMITS + 4

    assert file_count(lake, EVENTS) <= EVERY_COMMITS + 2 * maintenance.MERGE_FROM_FILES
    assert len(file_paths(tmp_path)) <= 12 * EVERY_COMMITS
    assert len(rows(lake)) == 100


def test_files_of_expired_snapshots_are_left_a_while_for_queries_that_began_before(lake: Lake, tmp_path: Path) -> None:
    inline = Maintenance(lake)
    commit(lake, range(KEEP_SNAPSHOTS + 5))
    before = file_paths(tmp_path)

    inline.after_commit()

    assert snapshot_count(lake, EVENTS) == KEEP_SNAPSHOTS
    assert {path for path in before if path.suffix == ".parquet"} <= file_paths(tmp_path)


def test_a_failure_of_maintenance_is_logged_and_stops_no_commit(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Lake, "load", lambda _lake, _table: 1 // 0)

    Maintenance(lake).after_commit()

    assert [one.getMessage() for one in caplog.records] == ["maintenance failed; it will be retried"]


def test_maintenance_of_empty_tables_does_nothing(lake: Lake, tmp_path: Path) -> None:
    before = file_paths(tmp_path)

    assert maintain(lake) == [Report("events", 0, 0, 0, 0), Report("dead_letters", 0, 0, 0, 0)]
    assert file_paths(tmp_path) == before


def test_a_second_run_finds_nothing_to_do(lake: Lake, tmp_path: Path) -> None:
    commit(lake, range(20))
    maintain(lake, keep_snapshots=2)
    before = file_paths(tmp_path)

    again = maintain(lake, keep_snapshots=2)

    assert [(one.snapshots_expired, one.files_removed) for one in again] == [(0, 0), (0, 0)]
    assert file_paths(tmp_path) == before


# --- beside others ----------------------------------------------------------------------------------------


def test_a_commit_that_lands_while_files_are_merged_is_kept(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(lake, range(10))
    theirs = make_lake(tmp_path)
    overtake_once(monkeypatch, lake, lambda: commit(theirs, range(1), stream="theirs"))

    merge_small_files(lake, EVENTS)

    assert message_ids(lake) == sorted([*(f"{STREAM}-{number}" for number in range(10)), "theirs-0"])
    assert file_count(lake, EVENTS) == 2


def test_files_that_somebody_else_merged_meanwhile_are_not_merged_twice(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(lake, range(10))
    theirs = make_lake(tmp_path)
    overtake_once(monkeypatch, lake, lambda: merge_small_files(theirs, EVENTS))
    files = list(live_files(lake.load(EVENTS)))

    with pytest.raises(ConflictError):
        rewrite(lake, EVENTS, files, "compact")

    assert len(message_ids(lake)) == 10


def test_maintenance_beside_maintenance_is_no_error(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(lake, range(10))
    theirs = make_lake(tmp_path)
    overtake_once(monkeypatch, lake, lambda: merge_small_files(theirs, EVENTS))

    maintain(lake, keep_snapshots=1)

    assert len(message_ids(lake)) == 10
    assert file_count(lake, EVENTS) == 1


def overtake_once(monkeypatch: pytest.MonkeyPatch, lake: Lake, other: Callable[[], object]) -> None:
    """Let ``other`` go first, between the lake's last look at a table and its swap of files."""
    real, raced = lake.replace_files, list[bool]()

    def overtaken(*arguments: Any) -> None:  # noqa: ANN401  # as the real one
        if not raced:
            raced.append(True)
            other()
        real(*arguments)

    monkeypatch.setattr(lake, "replace_files", overtaken)


def test_a_commit_that_lands_while_snapshots_expire_loses_nothing(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(lake, range(5))
    theirs, real = make_lake(tmp_path), lake.expire

    def overtaken(*arguments: Any) -> bool:  # noqa: ANN401  # as the real one
        commit(theirs, range(1), stream="theirs")
        return real(*arguments)

    monkeypatch.setattr(lake, "expire", overtaken)
    _, dead = expire_snapshots(lake, EVENTS, keep=1)
    delete_files(lake.io, dead)

    assert needed(lake) <= file_paths(tmp_path)
    assert len(message_ids(lake)) == 6


# --- orphans ----------------------------------------------------------------------------------------------


def leave_orphans(lake: Lake) -> set[Path]:
    """What a process leaves that is killed between staging its files and its commit, and what a lost race leaves."""
    iceberg = lake.load(EVENTS)
    home = Path(iceberg.location().removeprefix("file://"))
    [file, *_] = live_files(iceberg)
    data = home / "data" / "received_at_day=20416" / "orphan.parquet"
    data.parent.mkdir(exist_ok=True)
    data.write_bytes(_bytes_of(file))
    metadata = [home / "metadata" / name for name in ("snap-1-orphan.avro", "orphan-m0.avro", "9-orphan.metadata.json")]
    for path in metadata:
        path.write_bytes(b"orphan")
    return {data, *metadata}


def _bytes_of(file: DataFile) -> bytes:
    return Path(file.file_path.removeprefix("file://")).read_bytes()


def test_orphans_go_once_they_are_old_and_nothing_else_does(lake: Lake, tmp_path: Path) -> None:
    commit(lake, range(3))
    orphans = leave_orphans(lake)
    make_old(file_paths(tmp_path))
    kept = {path for path in needed(lake) if "/data/" in str(path)}

    assert remove_orphans(lake, EVENTS) == len(orphans)
    assert not file_paths(tmp_path) & orphans
    assert kept <= file_paths(tmp_path)
    assert len(rows(lake)) == 3


def test_a_young_file_may_belong_to_a_commit_that_is_under_way(lake: Lake) -> None:
    commit(lake, range(3))
    orphans = leave_orphans(lake)
    make_old(orphans, ORPHAN_AGE_S - 60)

    assert remove_orphans(lake, EVENTS) == 0
    assert all(path.exists() for path in orphans)


def test_where_reads_cost_snapshots_wait_until_many_expire_at_once(lake: Lake) -> None:
    commit(lake, range(12))

    before = snapshot_count(lake, EVENTS)
    assert expire_snapshots(lake, EVENTS, keep=4, at_least=before - 3)[0] == 0
    assert snapshot_count(lake, EVENTS) == before
    assert expire_snapshots(lake, EVENTS, keep=4, at_least=before - 4)[0] == before - 4


def test_a_run_that_looks_for_no_orphans_leaves_them(lake: Lake, tmp_path: Path) -> None:
    commit(lake, range(2))
    orphan = next(iter(file_paths(tmp_path))).with_name("orphan.parquet")
    orphan.write_bytes(b"")
    os.utime(orphan, (0, 0))

    maintain(lake, look_for_orphans=False)
    assert orphan.exists()

    maintain(lake)
    assert not orphan.exists()


def test_after_an_expiry_a_look_for_orphans_reads_no_manifest_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = record_reads(monkeypatch)

    def manifests_read(name: str, *, look_for_orphans: bool) -> int:
        lake = make_lake(tmp_path / name)
        commit(lake, range(12))
        reads.clear()
        maintain(lake, keep_snapshots=4, look_for_orphans=look_for_orphans)
        return sum(one.endswith(".avro") for one in reads)

    assert manifests_read("with", look_for_orphans=True) == manifests_read("without", look_for_orphans=False) > 12


def test_an_expiry_reads_no_manifest_that_one_before_has_read_and_remembers_none_that_is_gone(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def manifests() -> set[str]:
        iceberg = lake.load(EVENTS)
        snapshots = iceberg.metadata.snapshots
        return {one.manifest_list for one in snapshots} | {
            manifest.manifest_path for one in snapshots for manifest in one.manifests(iceberg.io)
        }

    read: Read = {}
    commit(lake, range(12))
    expire_snapshots(lake, EVENTS, keep=9, read=read)
    known = manifests()
    assert read.keys() == known
    commit(lake, range(12, 15))
    opened = record_reads(monkeypatch)

    expired, _ = expire_snapshots(lake, EVENTS, keep=9, read=read)

    assert expired == 3
    assert len({one for one in opened if one.endswith(".avro")}) == 6  # a list and a manifest of each new one
    assert not known & set(opened)
    assert read.keys() == manifests()
