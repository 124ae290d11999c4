"""The dedup window of a table: the index of ids, kept level with the snapshots that others commit too.

Before each attempt to commit, the ids of every snapshot that appeared since are added, so the index holds just what
the table holds. Where the last seen snapshot is no longer among the table's ancestors, the index is read anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as IcebergTable

from manymetrics_processor.arrow_engine import local_path
from manymetrics_processor.dedup import WINDOW_DAYS, DedupIndex, Ids, ids_of
from manymetrics_processor.lake import OPERATION, added_files, ancestors, live_files
from manymetrics_processor.rows import dedup_digest


class Window:
    """The ids of a table's last days. ``days``: how many UTC days after the first a resend is known as one."""

    def __init__(self, days: int = WINDOW_DAYS) -> None:
        self.days = days
        self._index = DedupIndex(days)
        self._snapshot_id: int | None = None  # the index holds the table up to here
        self._from_day: int | None = None  # and only what was received since

    def __len__(self) -> int:
        return len(self._index)

    def resends(self, iceberg: IcebergTable, ids: Ids, days: Sequence[int], candidates: Sequence[int]) -> set[int]:
        """Which candidates (indexes into ``ids`` and ``days``) the table has already."""
        if not candidates:
            return set()
        self._refresh(iceberg, min(days[i] for i in candidates) - self.days)
        by_day: dict[int, list[int]] = defaultdict(list)
        for i in candidates:
            by_day[days[i]].append(i)
        known: set[int] = set()
        for day, of_day in by_day.items():
            held = self._index.holds(day, ids[of_day])
            known.update(i for i, is_held in zip(of_day, held.tolist(), strict=True) if is_held)
        return known

    def put(self, snapshot_id: int, stored: Iterable[tuple[int, bytes]]) -> None:
        """Take in what this process has just committed as ``snapshot_id``, on what was last refreshed."""
        by_day: dict[int, list[bytes]] = defaultdict(list)
        for day, digest in stored:
            by_day[day].append(digest)
        for day, digests in by_day.items():
            self._index.add(day, ids_of(digests))
        self._snapshot_id = snapshot_id

    def _refresh(self, iceberg: IcebergTable, from_day: int) -> None:
        current = iceberg.current_snapshot()
        if self._from_day is None or from_day < self._from_day:
            self._read_anew(iceberg, from_day)
        elif current is not None and current.snapshot_id != self._snapshot_id:
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
                    self._read(added_files(iceberg, snapshot), from_day)
        self._snapshot_id = current.snapshot_id if current else None
        return None

    def _read_anew(self, iceberg: IcebergTable, from_day: int) -> None:
        self._index.clear()
        self._read(live_files(iceberg), from_day)
        self._from_day = from_day
        current = iceberg.current_snapshot()
        self._snapshot_id = current.snapshot_id if current else None

    def _read(self, files: Iterable[DataFile], from_day: int) -> None:
        for file in files:
            day = file.partition[0]
            if day >= from_day:
                data = pq.read_table(local_path(file.file_path), columns=["project_id", "message_id"])
                pairs = zip(data["project_id"].to_pylist(), data["message_id"].to_pylist(), strict=True)
                self._index.add(day, ids_of([dedup_digest(project, message) for project, message in pairs]))
