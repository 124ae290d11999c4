"""Merge small files into few large, sorted ones, and drop duplicates: ``spark-submit compact.py``.

    find duplicates -> [rewrite files on the cluster -> commit]* -> expire snapshots -> remove old files

This is the Spark job; merges between commits are in ``lake.maintenance``.

The processor drops every resend that it can detect. The rest are dropped here: resends of days whose ids did not fit,
and rows written by others. The first received one stays. Days that get no more small files are left alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as IcebergTable

from manymetrics.settings import DEDUP_WINDOW_DAYS
from manymetrics.tables import EVENTS, TABLES, Table
from manymetrics_processor.decode.arrow import arrow_schema, holds_added
from manymetrics_processor.decode.batch import Ints
from manymetrics_processor.decode.context import ADDED_COLUMNS
from manymetrics_processor.decode.ids import Ids
from manymetrics_processor.dedup.window import ID_COLUMNS, ids_of_rows, resends_within
from manymetrics_processor.errors import CommitNotConfirmedError
from manymetrics_processor.ingest.factory import make_catalog
from manymetrics_processor.ingest.processor import AWS_ORPHAN_AGE_S, EXPIRE_AFTER_S, KEEP_SNAPSHOTS
from manymetrics_processor.jobs.backfill_inputs import from_bytes, to_bytes
from manymetrics_processor.jobs.cluster import Cluster, cluster
from manymetrics_processor.jobs.command import errors_in_a_line, job_parser, job_settings, megabytes, say
from manymetrics_processor.lake.lake import Lake, live_files
from manymetrics_processor.lake.maintenance import (
    JOBS_ATTEMPTS,
    Rewritten,
    expire_snapshots,
    remove_orphans,
    stage_rewritten,
    swap,
)
from manymetrics_processor.lake.object_storage import delete_files, open_parquet
from manymetrics_processor.lake.scan import Positions, deleted_positions, portable, read_file

FILE_BYTES = 128_000_000  # target size of merged files; files over half of it are left alone
FILE_ROWS = 500_000  # maximum rows per merge, about 1.2 GB of memory
BUCKET_ROWS = 1_000_000  # rows whose ids are compared together, about 100 MB


@dataclass(frozen=True, slots=True)
class Report:
    """Result of compacting one table. ``merges_lost``: discarded, because a file was replaced or it took too long."""

    table: str
    files_before: int
    files_after: int
    duplicates_dropped: int
    merges_lost: int
    snapshots_expired: int
    files_removed: int


class Limits(NamedTuple):
    """The size up to which files are merged, and the first day (since 1970, UTC)."""

    file_bytes: int = FILE_BYTES
    file_rows: int = FILE_ROWS
    from_day: int = 0


def compact(
    lake: Lake,
    on: Cluster,
    limits: Limits,
    *,
    window_days: int = DEDUP_WINDOW_DAYS,
    keep_snapshots: int = KEEP_SNAPSHOTS,
    older_than_s: float = EXPIRE_AFTER_S,
    orphan_age_s: float = AWS_ORPHAN_AGE_S,
    say: Callable[[str], None] = lambda _line: None,
) -> list[Report]:
    """Compact one table. Raises ConflictError after too many lost races: then run it again."""
    lake.ensure_tables()
    reports = []
    for table in TABLES:
        iceberg = lake.load(table)
        files = [file for file in live_files(iceberg) if file.partition[0] >= limits.from_day]
        say(f"{table.name}: {len(files)} files")
        deleted = deleted_positions(iceberg)
        resends = find_resends(on, iceberg, files, deleted, window_days) if table == EVENTS else {}
        older = find_unmoved(on, iceberg, files) if table == EVENTS else set()
        groups = list(_groups(files, limits, {*resends, *deleted, *older}))
        swapped = _rewrite(lake, on, table, iceberg, groups, resends)
        expired, dead = expire_snapshots(lake, table, keep_snapshots, older_than_s)
        delete_files(lake.io, dead)
        after = lake.load(table)
        reports.append(
            Report(
                table.name,
                files_before=len(files),
                files_after=sum(file.partition[0] >= limits.from_day for file in live_files(after)),
                duplicates_dropped=sum(len(resends.get(one.file_path, ())) for pair in swapped for one in pair.files),
                merges_lost=len(groups) - len(swapped),
                snapshots_expired=expired,
                files_removed=len(dead) + remove_orphans(lake, table, orphan_age_s),
            )
        )
    return reports


def _groups(files: Sequence[DataFile], limits: Limits, changed: set[str]) -> Iterator[list[DataFile]]:
    """Group the files of one day to merge; a single file if only its rows are dropped."""
    days: dict[int, list[DataFile]] = defaultdict(list)
    for file in files:
        if file.file_path in changed or (
            file.file_size_in_bytes < limits.file_bytes // 2 and file.record_count <= limits.file_rows // 2
        ):
            days[file.partition[0]].append(file)
    for of_day in days.values():
        for group in _packed(sorted(of_day, key=lambda one: one.file_size_in_bytes), limits):
            if len(group) > 1 or group[0].file_path in changed:
                yield group


def _packed(files: Sequence[DataFile], limits: Limits) -> Iterator[list[DataFile]]:
    group: list[DataFile] = []
    size = rows = 0
    for file in files:
        size, rows = size + file.file_size_in_bytes, rows + file.record_count
        if group and (size > limits.file_bytes or rows > limits.file_rows):
            yield group
            group, size, rows = [], file.file_size_in_bytes, file.record_count
        group.append(file)
    yield group


def _rewrite(
    lake: Lake, on: Cluster, table: Table, iceberg: IcebergTable, groups: Sequence[Sequence[DataFile]], gone: Positions
) -> list[Rewritten]:
    target = portable(iceberg)
    tasks = [
        (group, {one.file_path: gone[one.file_path] for one in group if one.file_path in gone}) for group in groups
    ]

    def stage(task: tuple[Sequence[DataFile], Positions]) -> Rewritten | None:
        try:
            return stage_rewritten(table, target, task[0], without=task[1])
        except FileNotFoundError:  # another commit replaced and removed a file
            return None

    swapped: list[Rewritten] = []
    while tasks:  # no more than the cluster runs in parallel: slow rewrites lose their race
        now, tasks = tasks[: on.width], tasks[on.width :]
        staged = [one for one in on.map(stage, now) if one is not None]
        swapped += swap(lake, table, staged, iceberg, "compact", attempts=JOBS_ATTEMPTS)
    return swapped


# --- duplicates -------------------------------------------------------------------------------------------


def find_resends(
    on: Cluster, iceberg: IcebergTable, files: Sequence[DataFile], gone: Positions, window_days: int = DEDUP_WINDOW_DAYS
) -> dict[str, Ints]:
    """Return the positions, by file, of rows that are resends within the window, and may be dropped.

    Ids are compared by bucket, each including all resends of its ids, so no worker holds them all.
    """
    buckets = max(1, sum(file.record_count for file in files) // BUCKET_ROWS)
    target = portable(iceberg)
    deleted = on.share(gone)

    def parts(file: tuple[int, str, int]) -> Iterator[tuple[int, bytes]]:
        number, location, day = file
        rows = _with_ids(target, location, number, day, deleted.value)
        bucket = rows["first"].to_numpy() % np.uint64(buckets)
        for one in np.unique(bucket):
            yield int(one), to_bytes(rows.filter(pa.array(bucket == one)))

    def together(_bucket: int, blobs: list[Any]) -> list[tuple[int, int]]:
        return _find_resends_in(pa.concat_tables(map(from_bytes, blobs)), window_days)

    files = sorted(files, key=lambda one: one.file_path)
    named = [(number, file.file_path, file.partition[0]) for number, file in enumerate(files)]
    found: dict[str, list[int]] = defaultdict(list)
    for resends in on.gather(parts, together, named, buckets):
        for number, row in resends:
            found[files[number].file_path].append(row)
    return {location: np.array(sorted(rows), dtype=np.int64) for location, rows in found.items()}


def find_unmoved(on: Cluster, iceberg: IcebergTable, files: Sequence[DataFile]) -> set[str]:
    """Return files of an older processor whose rows have values of added columns in `context`."""
    io = portable(iceberg).io

    def is_unmoved(location: str) -> bool:
        try:
            with open_parquet(io, location) as parquet:
                if all(column.name in parquet.schema_arrow.names for column in ADDED_COLUMNS):
                    return False
                return bool(pc.any(holds_added(parquet.read(columns=["context"])["context"])).as_py())
        except FileNotFoundError:  # replaced by another commit
            return False

    locations = [file.file_path for file in files]
    return {location for location, found in zip(locations, on.map(is_unmoved, locations), strict=True) if found}


def _with_ids(iceberg: IcebergTable, location: str, number: int, day: int, deleted: Mapping[str, Ints]) -> pa.Table:
    columns = [*ID_COLUMNS, "received_at", "_sequence", "_position"]
    try:
        rows = read_file(EVENTS, iceberg.io, location, columns)
    except FileNotFoundError:  # replaced by another commit and removed: its rows are not considered, and stay
        rows = arrow_schema(EVENTS).empty_table().select(columns)
    ids = ids_of_rows(rows)
    made = pa.table(
        {
            "first": ids[:, 0],
            "second": ids[:, 1],
            "received_at": rows["received_at"],
            "sequence": rows["_sequence"],
            "position": rows["_position"],
            "day": np.full(len(ids), day, dtype=np.int64),
            "file": np.full(len(ids), number, dtype=np.int64),
            "row": np.arange(len(ids), dtype=np.int64),
        }
    )
    kept = np.ones(len(ids), dtype=np.bool_)
    kept[deleted.get(location, [])] = False  # a deleted row is never the first
    return made.filter(pa.array(kept))


def _find_resends_in(rows: pa.Table, window_days: int) -> list[tuple[int, int]]:
    ids: Ids = np.stack([rows["first"].to_numpy(), rows["second"].to_numpy()], axis=1)
    order = np.lexsort((ids[:, 1], ids[:, 0]))
    same = (ids[order][1:] == ids[order][:-1]).all(axis=1)
    again = np.zeros(len(ids), dtype=np.bool_)
    again[order[1:][same]] = again[order[:-1][same]] = True
    candidates = rows.filter(pa.array(again)).to_pylist()
    # A total order, so that two concurrent jobs keep the same one of two duplicates.
    candidates.sort(
        key=lambda row: (row["received_at"], int(row["sequence"]), *map(row.get, ("position", "file", "row")))
    )
    of_row: Ids = np.array([(row["first"], row["second"]) for row in candidates], dtype=np.uint64).reshape(-1, 2)
    days = np.array([row["day"] for row in candidates], dtype=np.int64)
    return [(candidates[i]["file"], candidates[i]["row"]) for i in resends_within(of_row, days, window_days)]


# --- the job ----------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a JSON report per table."""
    parser = job_parser("compact", "Merge small files, sort them, drop duplicates, expire snapshots, remove old files.")
    parser.add_argument("--since", metavar="YYYY-MM-DD", type=date.fromisoformat, help="the first day to compact (UTC)")
    parser.add_argument(
        "--file-mb",
        type=megabytes,
        default=FILE_BYTES // 1_000_000,
        help="target size of merged files (default: %(default)s)",
    )
    args = parser.parse_args(arguments)
    from_day = (args.since - date(1970, 1, 1)).days if args.since else 0
    limits = Limits(file_bytes=args.file_mb * 1_000_000, from_day=from_day)
    with errors_in_a_line(parser, CommitNotConfirmedError), cluster("manymetrics compact") as on:
        settings = job_settings(args)
        lake = Lake(make_catalog(settings, os.environ), database=settings.database)
        reports = compact(lake, on, limits, window_days=settings.dedup_window_days, say=say)
    print(json.dumps({"tables": [asdict(report) for report in reports]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
