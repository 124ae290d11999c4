"""Maintain the tables: merge small files, expire snapshots, remove orphan files.

Small files are merged by size tier, so a row is rewritten only a few times, not at every merge; each merge is small
enough to hardly delay the next commit.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import pyarrow as pa
from pyiceberg.exceptions import ValidationError
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestFile
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Snapshot

from manymetrics.tables import EVENTS, TABLES, Table
from manymetrics_processor.decode.arrow import move_added, sort_order
from manymetrics_processor.errors import CommitNotConfirmedError, ConflictError
from manymetrics_processor.lake.arrow_engine import MERGED_ZSTD_LEVEL, stage_day
from manymetrics_processor.lake.file_memory import memory_bytes
from manymetrics_processor.lake.lake import (
    MAX_ATTEMPTS,
    Lake,
    delete_manifests,
    get_fence,
    live_files,
)
from manymetrics_processor.lake.object_storage import delete_files, list_files
from manymetrics_processor.lake.rollback import SET_ASIDE, metadata_number
from manymetrics_processor.lake.scan import Positions, read_files

EVERY_COMMITS = 25
KEEP_SNAPSHOTS = 10
MERGE_FROM_FILES = 8  # per tier and day
TIER_BYTES = (64_000, 512_000, 4_000_000)  # a file's tier is the number of these sizes that it reaches
MERGED_BYTES = 8_000_000  # files of this size are left alone, and a merge reads at most this much
MERGED_ROWS = 100_000  # and at most this many rows, which it holds in memory
MERGED_MEMORY = 64_000_000  # bytes of their Arrow memory, of which a merge holds three copies, also next to Spark
QUERY_GRACE_S = 60.0  # how long files of expired snapshots are kept for running queries
READS_AT_ONCE = 16  # each waits some 20 ms for S3
ORPHANS_EVERY_S = 3_600.0
ORPHAN_AGE_S = 600.0  # younger files mostly belong to a commit in progress, which would have to stage them again
JOBS_ATTEMPTS = 100  # for jobs with large rewrites: a server that commits continuously wins most races

Read = dict[str, set[str]]  # files referenced by manifest lists and manifests, by location; these never change

log = logging.getLogger("manymetrics.maintenance")


@dataclass(frozen=True, slots=True)
class Report:
    """The result of maintenance on one table."""

    table: str
    files_before: int
    files_after: int
    snapshots_expired: int
    files_removed: int


class Maintenance:
    """Runs maintenance every so many commits, between two of them: concurrently it would lose every race."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._commits = 0
        self._merges_wait = False  # more merges are due than fit between two commits
        self._last_orphans = float("-inf")
        self._dead: deque[tuple[float, set[str]]] = deque()  # with the time since when

    def after_commit(self, *, may_merge: bool = True) -> None:
        """Count a commit, and run what is due. Never raises: failed maintenance is retried after as many commits."""
        if self._commits % EVERY_COMMITS == 0 or (self._merges_wait and may_merge):
            try:
                self._tidy(may_merge=may_merge)
            except Exception as error:  # maintenance is optional
                log.warning("maintenance failed; it will be retried", exc_info=error)
        self._commits += 1

    def delete_dead_files(self) -> None:
        """Delete files after their grace period for queries; and once per hour, orphans of killed processes."""
        now = time.monotonic()
        while self._dead and self._dead[0][0] < now - QUERY_GRACE_S:
            delete_files(self._lake.io, self._dead.popleft()[1])
        if now - self._last_orphans > ORPHANS_EVERY_S:
            self._last_orphans = now
            for table in TABLES:
                remove_orphans(self._lake, table)

    def _tidy(self, *, may_merge: bool) -> None:
        self.delete_dead_files()
        self._merges_wait = self._merges_wait and not may_merge
        for table in TABLES:
            iceberg = self._lake.load(table)
            if len(iceberg.metadata.snapshots) > KEEP_SNAPSHOTS:
                if may_merge and not self._merges_wait:
                    self._merges_wait = not merge_small_files(self._lake, table, most_memory=MERGED_MEMORY // 2)
                self._dead.append((time.monotonic(), expire_snapshots(self._lake, table)[1]))


def maintain(
    lake: Lake,
    *,
    keep_snapshots: int = KEEP_SNAPSHOTS,
    older_than_s: float = 0,
    at_least: int = 1,
    look_for_orphans: bool = True,
    orphan_age_s: float = ORPHAN_AGE_S,
    read: Read | None = None,
) -> list[Report]:
    """Run all maintenance on both tables. Keeps snapshots that are among the newest, or younger than the limit.

    Expiry and the search for orphans each read the references of every snapshot. To save reads, expiry waits until
    ``at_least`` so many are due, and orphans are searched less often. ``read`` caches what earlier runs have read.
    """
    read = {} if read is None else read
    reports = []
    for table in TABLES:
        before = len(list(live_files(lake.load(table))))
        merge_small_files(lake, table)
        expired, dead = expire_snapshots(lake, table, keep_snapshots, older_than_s, at_least, read)
        delete_files(lake.io, dead)
        removed = len(dead) + (remove_orphans(lake, table, orphan_age_s, read=read) if look_for_orphans else 0)
        reports.append(Report(table.name, before, len(list(live_files(lake.load(table)))), expired, removed))
    return reports


# --- rewrite ----------------------------------------------------------------------------------------------


def merge_small_files(lake: Lake, table: Table, *, most_memory: float = float("inf")) -> bool:
    """Merge files of the same day and tier while there are enough of them.

    Returns False if it stopped earlier, after merging rows of ``most_memory`` bytes or more.
    """
    lost, memory = 0, 0
    while True:
        group = _group_to_merge(list(live_files(lake.load(table))), lake.io) if memory < most_memory else []
        if not group:
            return group is None
        memory += sum(memory_bytes(lake.io, file.file_path) for file in group)
        try:
            rewrite(lake, table, group, "compact")
            pa.default_memory_pool().release_unused()
        except CommitNotConfirmedError:  # another process merges too: reload
            lost += 1
            if lost >= MAX_ATTEMPTS:
                raise


class Rewritten(NamedTuple):
    """Files of one day, their rewritten replacement, which is not yet committed, and the number of rows left out.

    ``fence``: the fence under which the new files were written.
    """

    files: Sequence[DataFile]
    new: Sequence[DataFile]
    rows_dropped: int
    fence: str


def rewrite(lake: Lake, table: Table, files: Sequence[DataFile], operation: str) -> None:
    """Replace files of one day by one sorted file. Raises ConflictError if another commit replaced one meanwhile."""
    iceberg = lake.load(table)
    if not swap(lake, table, [stage_rewritten(table, iceberg, files)], iceberg, operation):
        raise ConflictError(f"{table.name}: another commit replaced a file, or deleted rows of it")


def stage_rewritten(
    table: Table,
    iceberg: IcebergTable,
    files: Sequence[DataFile],
    kept: Callable[[pa.Table], pa.Table] = lambda rows: rows,
    *,
    without: Positions | None = None,
) -> Rewritten:
    """Write the replacement of files of one day: the rows that ``kept`` returns, or no file if there are none.

    ``without``: rows to drop, by position. Values of an added column that an older processor left in `context` move
    into the column.
    """
    rows = read_files(table, iceberg, files, without=without, every_column=True)
    if table == EVENTS:
        rows = move_added(rows)
    before = rows.num_rows
    rows = kept(rows)
    dropped, new = before - rows.num_rows, []
    if rows.num_rows:
        rows = sort_rows(table, rows)  # reuse the name, so that at most two copies are held
        new.append(stage_day(table, iceberg, rows, files[0].partition[0], zstd_level=MERGED_ZSTD_LEVEL))
    return Rewritten(files, new, dropped, get_fence(iceberg))


def swap(
    lake: Lake,
    table: Table,
    rewritten: Sequence[Rewritten],
    seen: IcebergTable,
    operation: str,
    *,
    attempts: int = MAX_ATTEMPTS,
) -> Sequence[Rewritten]:
    """Replace old files by new ones, in one snapshot. ``seen``: the table's state when they were read.

    Returns those that were swapped. Skips those with a file that another commit replaced meanwhile, those whose new
    files were written before the last removal of orphans, and all of them if others deleted rows.
    Raises ConflictError after ``attempts`` lost races.
    """
    try:
        deletes = _deletes(seen)
    except FileNotFoundError:  # the seen state is so old that it was expired and removed
        return ()
    tried: Sequence[Rewritten] = ()
    for _ in range(attempts):
        iceberg = lake.load(table)
        live = {file.file_path for file in live_files(iceberg)}
        if any(file.file_path in live for one in tried for file in one.new):  # only the response was lost
            return tried
        fence = get_fence(iceberg)
        tried = [one for one in rewritten if one.fence == fence and all(file.file_path in live for file in one.files)]
        if not tried or _deletes(iceberg) != deletes:
            return ()
        gone, new = [file for one in tried for file in one.files], [file for one in tried for file in one.new]
        try:
            lake.replace_files(iceberg, gone, new, operation)
        except CommitNotConfirmedError:
            continue
        return tried
    raise ConflictError(f"{table.name}: lost {attempts} races; run it again when there are fewer commits")


def _deletes(iceberg: IcebergTable) -> set[str]:
    return {manifest.manifest_path for manifest in delete_manifests(iceberg)}


def sort_rows(table: Table, rows: pa.Table) -> pa.Table:
    """Sort rows of one day in the table's order."""
    return rows.take(pa.array(sort_order(table, rows)))


def _group_to_merge(files: Sequence[DataFile], io: FileIO) -> list[DataFile] | None:
    groups: dict[tuple[int, int], list[DataFile]] = defaultdict(list)
    for file in files:
        if file.file_size_in_bytes < MERGED_BYTES and file.record_count < MERGED_ROWS // 2:
            tier = sum(file.file_size_in_bytes >= size for size in TIER_BYTES)
            groups[file.partition[0], tier].append(file)
    for group in groups.values():
        if len(group) >= MERGE_FROM_FILES:
            light = [file for file in group if memory_bytes(io, file.file_path) < MERGED_MEMORY // 2]
            chosen = _as_many_as_fit(light, io) if len(light) >= MERGE_FROM_FILES else []
            if len(chosen) > 1:
                return chosen
    return None


def _as_many_as_fit(files: Sequence[DataFile], io: FileIO) -> list[DataFile]:
    chosen: list[DataFile] = []
    size = rows = memory = 0
    for file in sorted(files, key=lambda one: (memory_bytes(io, one.file_path), one.file_size_in_bytes)):
        size, rows = size + file.file_size_in_bytes, rows + file.record_count
        memory += memory_bytes(io, file.file_path)
        if size > MERGED_BYTES or rows > MERGED_ROWS or memory > MERGED_MEMORY:
            break
        chosen.append(file)
    return chosen


# --- expire and remove ------------------------------------------------------------------------------------


def expire_snapshots(
    lake: Lake,
    table: Table,
    keep: int = KEEP_SNAPSHOTS,
    older_than_s: float = 0,
    at_least: int = 1,
    read: Read | None = None,
) -> tuple[int, set[str]]:
    """Expire snapshots that are neither among the newest nor younger than the limit, if at least ``at_least`` are due.

    ``read``: a cache of references that were read before; updated.

    Returns how many, and the files that only they referenced, to be deleted.

    Commits in progress are safe: they build on the current snapshot, which is kept, and their own files were never
    part of an older one.
    """
    iceberg = lake.load(table)
    newest_first = sorted(iceberg.metadata.snapshots, key=lambda one: one.sequence_number or 0, reverse=True)
    current = iceberg.metadata.current_snapshot_id
    before_ms = (time.time() - older_than_s) * 1_000
    old = [
        one.snapshot_id for one in newest_first[keep:] if one.snapshot_id != current and one.timestamp_ms <= before_ms
    ]
    read = {} if read is None else read
    if len(old) < max(1, at_least):
        return 0, set()
    held = reachable_files(iceberg, read)
    if not lake.expire(iceberg, old):
        return 0, set()
    dead = held - reachable_files(lake.load(table), read)
    for location in dead & read.keys():
        del read[location]
    return len(old), dead


def remove_orphans(lake: Lake, table: Table, older_than_s: float = ORPHAN_AGE_S, read: Read | None = None) -> int:
    """Delete files in the table's folder that no snapshot references, such as those of a process killed in a commit.

    A fence is put first, so that no commit can reference them afterwards, whatever the clocks. Younger files are kept:
    a commit in progress would have to stage them again, and another engine can't. ``read`` as in expire_snapshots.
    Returns how many.
    """
    for _ in range(MAX_ATTEMPTS):
        iceberg = lake.load(table)
        old = {location for location, age_s in orphans(iceberg, read) if age_s >= older_than_s}
        if not old:
            return 0
        try:
            lake.put_fence(iceberg)
        except CommitNotConfirmedError:
            continue
        delete_files(iceberg.io, old)
        return len(old)
    return 0


def orphans(iceberg: IcebergTable, read: Read | None = None) -> Iterator[tuple[str, float]]:
    """Return the files in the table's folder that no snapshot references, with their age in seconds.

    Files referenced by a newer metadata file than the table's own are not orphans, since the catalog may be an older
    copy; nor are those referenced by one that `recover` set aside.
    """
    read = {} if read is None else read
    home = iceberg.location()
    found = list(chain(list_files(iceberg.io, f"{home}/data"), list_files(iceberg.io, f"{home}/metadata")))
    kept = reachable_files(iceberg, read)
    kept |= {entry.metadata_file for entry in iceberg.metadata.metadata_log}
    kept.add(iceberg.metadata_location)
    own = metadata_number(iceberg.metadata_location)
    for location, _ in found:
        if location.endswith(".metadata.json") and metadata_number(location) > own:
            kept |= _named_by(iceberg, location)
        if location.endswith(SET_ASIDE):
            kept |= {location} | _named_by(iceberg, location)
    return ((location, age_s) for location, age_s in found if location not in kept)


def _named_by(iceberg: IcebergTable, location: str) -> set[str]:
    """Return the files referenced by another metadata file of the table, and itself; empty if it is half written."""
    try:
        other = FromInputFile.table_metadata(iceberg.io.new_input(location))
    except (OSError, ValueError, ValidationError):
        return set()
    named = {location}
    for snapshot in other.snapshots:
        named.add(snapshot.manifest_list)
        manifests = list[ManifestFile]()
        with contextlib.suppress(OSError, ValueError):
            manifests = snapshot.manifests(iceberg.io)
        for manifest in manifests:
            named.add(manifest.manifest_path)
            with contextlib.suppress(OSError, ValueError):
                entries = manifest.fetch_manifest_entry(iceberg.io, discard_deleted=True)
                named |= {entry.data_file.file_path for entry in entries}
    return named


def reachable_files(iceberg: IcebergTable, read: Read) -> set[str]:
    """Return the locations of all files that the table's snapshots reference. ``read`` caches lists and manifests."""

    def read_manifests(snapshot: Snapshot) -> list[ManifestFile]:
        return snapshot.manifests(iceberg.io)

    def files_of(manifest: ManifestFile) -> set[str]:
        entries = manifest.fetch_manifest_entry(iceberg.io, discard_deleted=True)  # others are deletions
        return {entry.data_file.file_path for entry in entries}

    snapshots = iceberg.metadata.snapshots
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        unread = [one for one in snapshots if one.manifest_list not in read]
        manifests: dict[str, ManifestFile] = {}
        for snapshot, found in zip(unread, pool.map(read_manifests, unread), strict=True):
            read[snapshot.manifest_list] = {one.manifest_path for one in found}
            manifests |= {one.manifest_path: one for one in found if one.manifest_path not in read}
        read |= dict(zip(manifests, pool.map(files_of, manifests.values()), strict=True))
    lists = {one.manifest_list for one in snapshots}
    held = {manifest for one in lists for manifest in read[one]}
    return lists | held | {file for one in held for file in read[one]}
