"""The raw archive, or exported NDJSON, into the tables: ``spark-submit backfill.py s3://bucket/prefix``.

    find pieces -> [decode on the cluster -> the processor's own commit, whose rows lie on the cluster]*

The events are committed under a source of their own, with a watermark for each shard of the archive and each file:
doing it again, or going on after a crash, changes nothing. What the tables have from another source is a duplicate.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as IcebergTable

from manymetrics.tables import DEAD_LETTERS, EVENTS, Table
from manymetrics_processor.arrow_engine import ArrowEngine, stage_day
from manymetrics_processor.decode import DEAD_LETTERED, DUPLICATE, STORED, Batch, Bools, Ints, Rows
from manymetrics_processor.dedup import WINDOW_DAYS
from manymetrics_processor.handler import make_catalog
from manymetrics_processor.jobs.cluster import Cluster, Kept, cluster
from manymetrics_processor.jobs.command import errors_in_a_line, job_parser, job_settings, say
from manymetrics_processor.jobs.pieces import Decoded, Piece, decode_piece, find_pieces, from_bytes, to_bytes
from manymetrics_processor.lake import Lake, current_books, live_files
from manymetrics_processor.maintenance import STAGED_FOR_S, sort_rows
from manymetrics_processor.pipeline import commit
from manymetrics_processor.reading import portable, read_file
from manymetrics_processor.storage import is_file, stored_file, stored_files
from manymetrics_processor.window import Window

COMMIT_BYTES = 2_000_000_000  # about so much, unpacked, is committed at once: two million events
FILE_ROWS = 250_000  # a data file, about 25 MB
MAX_FILES = 10_000  # a watermark each, 20 bytes, in a property that every commit writes: Glue's take 512,000 bytes

PASSED_OVER = b"-"  # beside decode's marks

PartKey = tuple[tuple[str, int], ...]
"""What names a part of what is decoded: the shard and sequence number of its first record, where it has one."""

Progress = Callable[[str], None]


class NothingToDoError(Exception):
    """There is nothing to backfill. The message says the cure."""


class TooManyFilesError(Exception):
    """More files than the tables can remember. The message says the cure."""


@dataclass(slots=True)
class Report:
    """What became of the events of one source.

    ``pieces_passed_over``: those that had been committed before. ``letters_passed_over``: dead letters that the tables
    have from their own stream; they are in no books of the backfill.
    """

    source: str
    stored: int = 0
    duplicate: int = 0
    dead_lettered: int = 0
    commits: int = 0
    pieces_passed_over: int = 0
    letters_passed_over: int = 0
    files_passed_over: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def backfill(
    catalog: Catalog,
    on: Cluster,
    location: str,
    *,
    source: str | None = None,
    project: str | None = None,
    window_days: int = WINDOW_DAYS,
    commit_bytes: int = COMMIT_BYTES,
    say: Progress = lambda _line: None,
) -> Report:
    """Raises NothingToDoError, TooManyFilesError, TooSlowError, and CommitContentionError: then do it again."""
    lake = Lake(catalog, ClusterEngine())
    lake.ensure_tables()
    location = (location if "://" in location else str(Path(location).resolve())).rstrip("/")
    source = f"backfill:{source or location}"
    files = list(stored_files(lake.io, location))
    if not files and is_file(lake.io, location):
        files = [stored_file(lake.io, location)]
    found = find_pieces(files, location, project)
    report = Report(source, files_passed_over=found.passed_over)
    if not found.pieces:
        raise NothingToDoError(
            f"{location} holds no object of the raw archive, and no NDJSON (.ndjson, .jsonl or .json, also .gz or .zst)"
            + ("" if project else "; NDJSON needs --project ID")
        )
    file_count = len({piece.shard for piece in found.pieces})
    if file_count > MAX_FILES:
        raise TooManyFilesError(
            f"{location} holds {file_count:,} files, and the tables remember no more than {MAX_FILES:,} of one source: "
            "backfill it folder by folder, each by its own location, or pack many files into one"
        )
    groups = list(_groups(found.pieces, commit_bytes))
    windows = _Windows(window_days, on)
    for number, pieces in enumerate(groups, 1):
        _commit_group(lake, on, source, pieces, windows, report)
        say(
            f"{number} of {len(groups)}: {report.stored:,} events stored, {report.duplicate:,} duplicates, "
            f"{report.dead_lettered:,} dead letters"
        )
    return report


def _groups(pieces: Sequence[Piece], commit_bytes: int) -> Iterator[list[Piece]]:
    group: list[Piece] = []
    size = 0
    for piece in pieces:
        if group and size + piece.size > commit_bytes:
            yield group
            group, size = [], 0
        group.append(piece)
        size += piece.size
    if group:
        yield group


def _commit_group(
    lake: Lake, on: Cluster, source: str, pieces: Sequence[Piece], windows: _Windows, report: Report
) -> None:
    books = current_books(lake.load(EVENTS), source)
    new = [piece for piece in pieces if piece.last is None or piece.last > books.watermark(piece.shard)]
    report.pieces_passed_over += len(pieces) - len(new)
    if not new:
        return
    ordered = sorted(new, key=lambda piece: (piece.shard, piece.first))  # as a batch has its records
    decoded = on.keep(partial(decode_piece, lake.io, source), ordered)
    try:
        parts = decoded.map(lambda one: one._replace(events=b"", letters=b""))
        report.damaged += [one.problem for one in parts if one.problem]
        if not parts:  # the files are empty once unpacked
            return
        batch = batch_on_cluster(source, [one.facts for one in parts], on, decoded)
        known = _known_letters(lake, on, batch, [letter_id for one in parts for letter_id in one.letter_ids])
        report.letters_passed_over += int(known.sum())
        batch = without_letters(batch, known)
        outcomes = commit(batch, lake, windows.of(batch)).outcomes
    finally:
        decoded.forget()
    marks = b"".join(one or b"" for one in outcomes)
    report.commits += bool(marks)
    report.stored += marks.count(STORED)
    report.duplicate += marks.count(DUPLICATE)
    report.dead_lettered += marks.count(DEAD_LETTERED)


def _known_letters(lake: Lake, on: Cluster, batch: Batch, letter_ids: Sequence[str]) -> Bools:
    """Which letters the tables have. An id is of a place in a stream, so it is the same letter."""
    days = set(batch.letters.day.tolist())
    iceberg = lake.load(DEAD_LETTERS)
    files = [file.file_path for file in live_files(iceberg) if file.partition[0] in days]
    found = on.map(partial(_letter_ids, lake.io), files)
    return np.isin(np.array(letter_ids, dtype=np.str_), np.array(sorted(set().union(*found)), dtype=np.str_))


def _letter_ids(io: FileIO, location: str) -> set[str]:
    return set(read_file(DEAD_LETTERS, io, location, ["dead_letter_id"])["dead_letter_id"].to_pylist())


def without_letters(batch: Batch, gone: Bools) -> Batch:
    """The batch as if these of its letters had never been: in no count and no outcome."""
    if not gone.any():
        return batch
    counts, outcomes = batch.counts.copy(), [bytearray(marks) for marks in batch.outcomes]
    for record, position in zip(batch.letters.record[gone], batch.letters.position[gone], strict=True):
        counts[record] -= 1
        outcomes[record][position] = PASSED_OVER[0]
    return replace(
        batch,
        counts=counts,
        outcomes=list(map(bytes, outcomes)),
        letters=batch.letters.only(~gone),
        reasons=[reason for reason, is_gone in zip(batch.reasons, gone, strict=True) if not is_gone],
    )


class _Windows:
    """The dedup window around the days of a batch: not of all days, of which a large table has too many."""

    def __init__(self, days: int, on: Cluster) -> None:
        self._days, self._on = days, on
        self._last_day = -1
        self._window = Window(days)

    def of(self, batch: Batch) -> Window:
        """The one at hand, as long as it reaches so far."""
        last_day = int(batch.events.day.max(initial=0)) + self._days
        if last_day > self._last_day:
            self._last_day = last_day + self._days
            self._window = Window(self._days, last_day=self._last_day, max_ids=sys.maxsize, spread=self._on.map)
        return self._window


# --- a batch whose rows lie on the cluster ----------------------------------------------------------------


def batch_on_cluster(source: str, facts: Sequence[Batch], on: Cluster, decoded: Kept[Decoded]) -> Batch:
    """One batch of all parts, whose records are in order."""
    records = _starts(len(part.keys) for part in facts)
    of_table = {
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
    """Stands for the Arrow table of a batch's ``events`` or ``letters`` (``name``).

    ``parts``: the day of each row, by part. ``kept``: which of all these rows are meant.
    """

    on: Cluster
    decoded: Kept[Decoded]
    name: str
    parts: dict[PartKey, Ints]
    kept: Bools

    @classmethod
    def all_of(cls, on: Cluster, decoded: Kept[Decoded], name: str, facts: Sequence[Batch]) -> RowsOnCluster:
        """All rows."""
        parts = {_key(part): getattr(part, name).day for part in facts}
        return cls(on, decoded, name, parts, np.ones(sum(map(len, parts.values())), dtype=np.bool_))

    def filter(self, kept: pa.BooleanArray) -> RowsOnCluster:
        """As Arrow's."""
        fewer = self.kept.copy()
        fewer[self.kept] = kept.to_numpy(zero_copy_only=False)
        return replace(self, kept=fewer)

    def stage(self, table: Table, iceberg: IcebergTable) -> list[DataFile]:
        """Write the rows to files, each of one day and sorted."""
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
        """For each part, into which file each of its rows goes, -1 for none; and the day of each file."""
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


class TooSlowError(Exception):
    """Files were so long in the making that they may be taken for orphans. The message says the cure."""


class ClusterEngine(ArrowEngine):
    """Stages where the rows are; commits from here."""

    def __init__(self) -> None:
        self._begun_at = 0.0

    def stage(self, table: Table, iceberg: IcebergTable, rows: Rows) -> list[DataFile]:
        """As Engine.stage."""
        self._begun_at = time.monotonic()
        files: list[DataFile] = rows.table.stage(table, iceberg)
        return files

    def append(
        self,
        table: Table,
        iceberg: IcebergTable,
        files: Sequence[DataFile],
        summary: Mapping[str, str],
        properties: Mapping[str, str],
    ) -> int:
        """As Engine.append. Raises TooSlowError."""
        if files and time.monotonic() - self._begun_at > STAGED_FOR_S:
            raise TooSlowError(
                f"the files of a commit took more than {STAGED_FOR_S / 60:.0f} minutes to write: give the job more "
                "workers or a smaller --commit-mb, and run it again"
            )
        return super().append(table, iceberg, files, summary, properties)


# --- the job ----------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report as JSON. 1 where something could not be read."""
    parser = job_parser(
        "backfill", "Commit the raw archive, or exported NDJSON, into the tables. Twice changes nothing."
    )
    parser.add_argument("location", help="s3://bucket/prefix of the archive's or the exported files, or one of them")
    parser.add_argument("--project", metavar="ID", help="the project of NDJSON; without it NDJSON is passed over")
    parser.add_argument("--source", metavar="NAME", help="what this is remembered as (default: the location)")
    parser.add_argument(
        "--commit-mb",
        metavar="N",
        type=int,
        default=COMMIT_BYTES // 1_000_000,
        help="commit about so much, unpacked, at once; the driver holds 50 bytes an event (default: %(default)s)",
    )
    args = parser.parse_args(arguments)
    with (
        errors_in_a_line(parser, NothingToDoError, TooManyFilesError, TooSlowError),
        cluster("manymetrics backfill") as on,
    ):
        settings = job_settings(args)
        report = backfill(
            make_catalog(settings, os.environ),
            on,
            args.location,
            source=args.source,
            project=args.project,
            window_days=settings.dedup_window_days,
            commit_bytes=args.commit_mb * 1_000_000,
            say=say,
        )
    print(json.dumps(asdict(report)))
    return 1 if report.damaged else 0


if __name__ == "__main__":
    sys.exit(main())
