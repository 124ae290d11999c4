"""The dedup window of a table: an index of ids, kept in sync with the table's snapshots, including those of others.

A new process starts with the ids stored next to the table. Before each commit attempt, the ids of new snapshots are
added, so the index matches the table exactly. If the last seen snapshot is no longer among the table's ancestors, the
index is rebuilt.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from itertools import repeat

import numpy as np
import pyarrow as pa
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Operation, Snapshot

from manymetrics.settings import DEDUP_WINDOW_DAYS
from manymetrics_processor.decode.batch import Bools, Ints
from manymetrics_processor.decode.ids import Ids, dedup_digest, to_ids
from manymetrics_processor.dedup.id_store import KeptIds
from manymetrics_processor.dedup.index import DedupIndex
from manymetrics_processor.lake.lake import OPERATION, added_files, ancestors, live_files
from manymetrics_processor.lake.object_storage import open_parquet
from manymetrics_processor.parallel import Spread

MAX_IDS = 30_000_000  # 480 MB, most of it in temporary files
ID_COLUMNS = ("project_id", "message_id", "key_kind")  # the columns that determine a row's dedup id
KEEP_EVERY_COMMITS, KEEP_EVERY_IDS = 16, 1_000_000  # bounds what a new process reads from the table

log = logging.getLogger("manymetrics.dedup")


class Window:
    """The ids of a table's last days. ``days``: up to how many UTC days after the first a resend is detected.

    ``max_ids``: beyond it, the oldest days are dropped, and their resends are stored again; the current day is never
    dropped. ``last_day``: ids received later are not needed, so they aren't read. ``spread``: maps over the files.
    """

    def __init__(
        self,
        days: int = DEDUP_WINDOW_DAYS,
        *,
        kept: KeptIds | None = None,
        max_ids: int = MAX_IDS,
        last_day: float = float("inf"),
        spread: Spread = map,
    ) -> None:
        self.days = days
        self._last_day, self._spread = last_day, spread
        self._index = DedupIndex(days)
        self._kept, self._max_ids = kept, max_ids
        self._snapshot_id: int | None = None  # the index covers the table up to here
        self._from_day: int | None = None  # and only ids received since
        self._table_uuid = ""
        self._oldest_day = 0  # if they don't fit
        self._commits_since_kept = self._ids_since_kept = 0

    def __len__(self) -> int:
        return len(self._index)

    @property
    def days_held(self) -> int:
        """Return how many UTC days of ids are known, including today; fewer than ``days`` if they don't fit."""
        known = self._index.days
        return known[-1] - known[0] + 1 if known else 0

    def resends(self, iceberg: IcebergTable, ids: Ids, days: Ints) -> Bools:
        """Return which of these ids, received on these days, the table already has."""
        found = np.zeros(len(ids), dtype=np.bool_)
        if len(ids):
            self._refresh(iceberg, int(days.min()) - self.days)
        elif self._from_day is not None:  # else `put` would skip commits of others
            self._refresh(iceberg, self._from_day)
        for day in np.unique(days):
            of_day = days == day
            found[of_day] = self._index.holds(int(day), ids[of_day])
        return found

    def put(self, snapshot_id: int, days: Ints, ids: Ids) -> None:
        """Add the ids that this process committed as ``snapshot_id``, on top of the last refreshed state."""
        for day in np.unique(days):
            self._index.add(int(day), ids[days == day])
        self._commits_since_kept += 1
        self._ids_since_kept += len(ids)
        if self._from_day is not None:
            self._snapshot_id = snapshot_id
            self._make_room()

    def keep(self) -> None:
        """Store the ids next to the table, if enough are new. Never raises: the table has them."""
        is_due = self._commits_since_kept >= KEEP_EVERY_COMMITS or self._ids_since_kept >= KEEP_EVERY_IDS
        if self._kept is None or not is_due or self._snapshot_id is None or self._from_day is None:
            return
        self._commits_since_kept = self._ids_since_kept = 0
        try:
            self._kept.put(self._table_uuid, self._snapshot_id, self._from_day, self._oldest_day, self._index)
        except Exception as error:  # any error: retried after as many commits
            log.warning("the dedup ids can't be stored next to the table", exc_info=error)

    def _make_room(self) -> None:
        while len(self._index) > self._max_ids and len(self._index.days) > 1:
            self._oldest_day = self._index.days[1]
            self._index.forget_before(self._oldest_day)
            self._from_day = max(self._from_day or 0, self._oldest_day)
            log.warning("too many dedup ids: those of the oldest day were dropped", extra={"facts": {"ids": len(self)}})

    def _refresh(self, iceberg: IcebergTable, from_day: int) -> None:
        if self._from_day is None:
            self._open_kept(iceberg)
        from_day = max(from_day, self._oldest_day)
        if self._from_day is None or from_day < self._from_day:
            self._read_anew(iceberg, from_day)
        else:
            self._read_news(iceberg, self._from_day)
        # One more day is kept, so that a record just past midnight doesn't cause a rebuild.
        if self._from_day is not None and self._from_day < from_day - 1:
            self._from_day = from_day - 1
            self._index.forget_before(self._from_day)

    def _open_kept(self, iceberg: IcebergTable) -> None:
        self._table_uuid = str(iceberg.metadata.table_uuid)
        state = self._kept.open(self._table_uuid, self._index) if self._kept else None
        if state is not None:
            self._snapshot_id, self._from_day = state.snapshot_id, state.from_day
            self._oldest_day = state.oldest_day
            self._commits_since_kept = KEEP_EVERY_COMMITS  # it is unknown how far the stored state is behind

    def _read_news(self, iceberg: IcebergTable, from_day: int) -> None:
        current = iceberg.current_snapshot()
        if current is None or current.snapshot_id == self._snapshot_id:
            return None
        news = []
        for snapshot in ancestors(iceberg):
            if snapshot.snapshot_id == self._snapshot_id:
                break
            news.append(snapshot)
        else:
            if self._snapshot_id is not None or news[-1].parent_snapshot_id is not None:
                return self._read_anew(iceberg, from_day)
        for snapshot in news:
            own = snapshot.summary.additional_properties.get(OPERATION) if snapshot.summary else None
            if own in {None, "ingest"} and not _is_replace(snapshot):  # compaction and erasure add no ids
                self._read(iceberg.io, added_files(iceberg, snapshot), from_day)
        self._snapshot_id = current.snapshot_id
        return None

    def _read_anew(self, iceberg: IcebergTable, from_day: int) -> None:
        self._index.clear()
        self._read(iceberg.io, live_files(iceberg), from_day)
        self._from_day = from_day
        current = iceberg.current_snapshot()
        self._snapshot_id = current.snapshot_id if current else None
        self._commits_since_kept = KEEP_EVERY_COMMITS  # that was expensive: spare the next process

    def _read(self, io: FileIO, files: Iterable[DataFile], from_day: int) -> None:
        asked = [file for file in files if from_day <= file.partition[0] <= self._last_day]
        for file, ids in zip(asked, self._spread(partial(read_ids, io), [one.file_path for one in asked]), strict=True):
            self._index.add(file.partition[0], ids)


def read_ids(io: FileIO, location: str) -> Ids:
    """Read the ids of a data file's rows, including deleted ones, in order."""
    with open_parquet(io, location) as parquet:
        data = parquet.read(columns=[*ID_COLUMNS])  # columns that the file lacks are left out
    return ids_of_rows(data)


def ids_of_rows(rows: pa.Table) -> Ids:
    """Return the ids of rows with ID_COLUMNS, in order; without ``key_kind`` they count as a browser's."""
    kinds = rows["key_kind"].to_pylist() if "key_kind" in rows.column_names else repeat(None, rows.num_rows)
    fields = zip(rows["project_id"].to_pylist(), rows["message_id"].to_pylist(), kinds, strict=True)
    return to_ids([dedup_digest(project, message, kind) for project, message, kind in fields])


def _is_replace(snapshot: Snapshot) -> bool:
    return snapshot.summary is not None and snapshot.summary.operation == Operation.REPLACE


def resends_within(ids: Ids, days: Ints, window_days: int) -> Ints:
    """Return the indices of ids that are resends of an earlier one in this order."""
    order = np.lexsort((np.arange(len(ids)), ids[:, 1], ids[:, 0]))
    ordered = ids[order]
    same = np.flatnonzero((ordered[1:] == ordered[:-1]).all(axis=1))
    if not len(same):
        return same
    again = []
    taken: dict[bytes, list[int]] = {}  # the days on which an id was received
    for i in np.unique(order[np.concatenate((same, same + 1))]):
        digest, day = ids[i].tobytes(), int(days[i])
        if any(abs(other - day) <= window_days for other in taken.setdefault(digest, [])):
            again.append(i)
        else:
            taken[digest].append(day)
    return np.array(again, dtype=np.int64)
