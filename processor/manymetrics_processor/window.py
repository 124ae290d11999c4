"""The dedup window of a table: the index of ids, kept level with the snapshots that others commit too.

Before each attempt to commit, the ids of every snapshot that appeared since are added, so the index holds just what
the table holds. Where the last seen snapshot is no longer among the table's ancestors, the index is read anew.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as IcebergTable

from manymetrics_processor.decode import Bools, Ints
from manymetrics_processor.dedup import WINDOW_DAYS, DedupIndex, Ids, ids_of
from manymetrics_processor.lake import OPERATION, added_files, ancestors, live_files
from manymetrics_processor.rows import dedup_digest
from manymetrics_processor.storage import open_parquet


class Window:
    """The ids of a table's last days. ``days``: how many UTC days after the first a resend is known as one."""

    def __init__(self, days: int = WINDOW_DAYS) -> None:
        self.days = days
        self._index = DedupIndex(days)
        self._snapshot_id: int | None = None  # the index holds the table up to here
        self._from_day: int | None = None  # and only what was received since

    def __len__(self) -> int:
        return len(self._index)

    def resends(self, iceberg: IcebergTable, ids: Ids, days: Ints) -> Bools:
        """Which of these ids, received on these days, the table has already."""
        found = np.zeros(len(ids), dtype=np.bool_)
        if len(ids):
            self._refresh(iceberg, int(days.min()) - self.days)
        elif self._from_day is not None:  # or `put` would pass over what others have committed
            self._refresh(iceberg, self._from_day)
        for day in np.unique(days):
            of_day = days == day
            found[of_day] = self._index.holds(int(day), ids[of_day])
        return found

    def put(self, snapshot_id: int, days: Ints, ids: Ids) -> None:
        """Take in what this process has just committed as ``snapshot_id``, on what was last refreshed."""
        for day in np.unique(days):
            self._index.add(int(day), ids[days == day])
        if self._from_day is not None:
            self._snapshot_id = snapshot_id

    def _refresh(self, iceberg: IcebergTable, from_day: int) -> None:
        if self._from_day is None or from_day < self._from_day:
            self._read_anew(iceberg, from_day)
        else:
            self._read_news(iceberg, self._from_day)
        # One day more is kept, so that a record that comes a little late at midnight doesn't make all be read anew.
        if self._from_day is not None and self._from_day < from_day - 1:
            self._from_day = from_day - 1
            self._index.forget_before(self._from_day)

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
            if own in {None, "ingest"}:  # compaction and erasure bring no new ids
                self._read(iceberg.io, added_files(iceberg, snapshot), from_day)
        self._snapshot_id = current.snapshot_id
        return None

    def _read_anew(self, iceberg: IcebergTable, from_day: int) -> None:
        self._index.clear()
        self._read(iceberg.io, live_files(iceberg), from_day)
        self._from_day = from_day
        current = iceberg.current_snapshot()
        self._snapshot_id = current.snapshot_id if current else None

    def _read(self, io: FileIO, files: Iterable[DataFile], from_day: int) -> None:
        for file in files:
            day = file.partition[0]
            if day >= from_day:
                with open_parquet(io, file.file_path) as parquet:
                    data = parquet.read(columns=["project_id", "message_id"])
                pairs = zip(data["project_id"].to_pylist(), data["message_id"].to_pylist(), strict=True)
                self._index.add(day, ids_of([dedup_digest(project, message) for project, message in pairs]))


def resends_within(ids: Ids, days: Ints, window_days: int) -> Ints:
    """Which of these ids, in the order in which the first one wins, come again; as indexes."""
    order = np.lexsort((np.arange(len(ids)), ids[:, 1], ids[:, 0]))
    ordered = ids[order]
    same = np.flatnonzero((ordered[1:] == ordered[:-1]).all(axis=1))
    if not len(same):
        return same
    again = []
    taken: dict[bytes, list[int]] = {}  # the days on which an id was
    for i in np.unique(order[np.concatenate((same, same + 1))]):
        digest, day = ids[i].tobytes(), int(days[i])
        if any(abs(other - day) <= window_days for other in taken.setdefault(digest, [])):
            again.append(i)
        else:
            taken[digest].append(day)
    return np.array(again, dtype=np.int64)
