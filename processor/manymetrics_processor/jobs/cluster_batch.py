"""A micro-batch whose rows are on the cluster: the driver commits it like any other, from their ids and places."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as IcebergTable

from manymetrics.tables import Table
from manymetrics_processor.decode.batch import Batch, Bools, Ints, Rows
from manymetrics_processor.jobs.backfill_inputs import Decoded, from_bytes, to_bytes
from manymetrics_processor.jobs.cluster import Cluster, Kept
from manymetrics_processor.lake.arrow_engine import ArrowEngine, stage_day
from manymetrics_processor.lake.maintenance import sort_rows
from manymetrics_processor.lake.scan import portable

FILE_ROWS = 250_000  # a data file, about 25 MB
PASSED_OVER = b"-"  # in addition to decode's marks

PartKey = tuple[tuple[str, int], ...]
"""Name a part of what is decoded: the shard and sequence number of its first record, where it has one."""


def batch_on_cluster(source: str, facts: Sequence[Batch], on: Cluster, decoded: Kept[Decoded]) -> Batch:
    """Combine parts, whose records are in order, into one batch."""
    records = _starts(len(part.keys) for part in facts)
    of_table: dict[str, Any] = {
        name: _rows([getattr(part, name) for part in facts], records, RowsOnCluster.all_of(on, decoded, name, facts))
        for name in ("events", "letters")
    }
    return Batch(
        stream=source,
        keys=[key for part in facts for key in part.keys],
        counts=np.concatenate([part.counts for part in facts]),
        outcomes=[marks for part in facts for marks in part.outcomes],
        ids=np.concatenate([part.ids for part in facts]),
        reasons=[reason for part in facts for reason in part.reasons],
        **of_table,
    )


def without_letters(batch: Batch, gone: Bools) -> Batch:
    """Return the batch without these letters, also in counts and outcomes."""
    if not gone.any():
        return batch
    counts, outcomes = batch.counts.copy(), [bytearray(marks) for marks in batch.outcomes]
    for record, position in zip(batch.letters.record[gone], batch.letters.position[gone], strict=True):
        counts[record] -= 1
        outcomes[record][position - batch.begin_of(record)] = PASSED_OVER[0]
    return replace(
        batch,
        counts=counts,
        outcomes=list(map(bytes, outcomes)),
        letters=batch.letters.only(~gone),
        reasons=[reason for reason, is_gone in zip(batch.reasons, gone, strict=True) if not is_gone],
    )


def _rows(parts: Sequence[Rows], records: Ints, table: RowsOnCluster) -> Rows:
    places = _starts(len(part.place) for part in parts)
    return Rows(
        table,
        np.concatenate([part.day for part in parts]),
        np.concatenate([part.record + start for part, start in zip(parts, records, strict=True)]),
        np.concatenate([part.position for part in parts]),
        np.concatenate([part.place + start for part, start in zip(parts, places, strict=True)]),
    )


def _starts(lengths: Iterable[int]) -> Ints:
    return np.array([0, *accumulate(lengths)][:-1], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class RowsOnCluster:
    """Stands in for the Arrow table of a batch's ``events`` or ``letters`` (``name``).

    ``parts``: the day of each row, by part. ``kept``: which of all these rows are included.
    """

    on: Cluster
    decoded: Kept[Decoded]
    name: str
    parts: dict[PartKey, Ints]
    kept: Bools

    @classmethod
    def all_of(cls, on: Cluster, decoded: Kept[Decoded], name: str, facts: Sequence[Batch]) -> RowsOnCluster:
        """Include all rows."""
        parts = {_key(part): getattr(part, name).day for part in facts}
        return cls(on, decoded, name, parts, np.ones(sum(map(len, parts.values())), dtype=np.bool_))

    def filter(self, kept: pa.BooleanArray) -> RowsOnCluster:
        """Like Arrow's ``filter``."""
        fewer = self.kept.copy()
        fewer[self.kept] = kept.to_numpy(zero_copy_only=False)
        return replace(self, kept=fewer)

    def stage(self, table: Table, iceberg: IcebergTable) -> list[DataFile]:
        """Write the rows to sorted files, each of one day."""
        files, days = self._files()
        plan = self.on.share(files)
        name, target = self.name, portable(iceberg)

        def parts(one: Decoded) -> Iterator[tuple[int, bytes]]:
            of_rows = plan.value.get(_key(one.facts))
            if of_rows is None or not (of_rows >= 0).any():
                return
            rows = from_bytes(getattr(one, name))
            for file in np.unique(of_rows[of_rows >= 0]):
                yield int(file), to_bytes(rows.filter(pa.array(of_rows == file)))

        def together(file: int, blobs: list[Any]) -> DataFile:
            rows = pa.concat_tables(map(from_bytes, blobs))
            return stage_day(table, target, sort_rows(table, rows), days[file])

        try:
            return self.decoded.gather(parts, together, len(days))
        finally:
            plan.destroy()

    def _files(self) -> tuple[dict[PartKey, npt.NDArray[np.int32]], list[int]]:
        """Return, per part, the file number of each row (-1 for none), and the day of each file."""
        day = np.concatenate(list(self.parts.values()))
        file_of = np.full(len(day), -1, dtype=np.int32)
        days: list[int] = []
        for one in np.unique(day[self.kept]):
            rows = np.flatnonzero(self.kept & (day == one))
            for start in range(0, len(rows), FILE_ROWS):
                file_of[rows[start : start + FILE_ROWS]] = len(days)
                days.append(int(one))
        stops = np.cumsum([len(part) for part in self.parts.values()])[:-1]
        return dict(zip(self.parts, np.split(file_of, stops), strict=True)), days


def _key(facts: Batch) -> PartKey:
    return tuple(facts.keys[:1])


class ClusterEngine(ArrowEngine):
    """Stages on the cluster; commits from the driver."""

    def stage(self, table: Table, iceberg: IcebergTable, rows: Rows) -> list[DataFile]:
        """Like ``Engine.stage``."""
        files: list[DataFile] = rows.table.stage(table, iceberg)
        return files
