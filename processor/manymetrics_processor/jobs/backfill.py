"""Load the raw archive, or exported NDJSON, into the tables: ``spark-submit backfill.py s3://bucket/prefix``.

    find pieces -> [decode on the cluster -> the processor's commit, of rows on the cluster]*

The events are committed under a separate source, with a watermark per archive shard and per file: repeating it, or
resuming after a crash, changes nothing. Events that the tables have from another source are duplicates.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from pyiceberg.catalog import Catalog
from pyiceberg.io import FileIO

from manymetrics.settings import DEDUP_WINDOW_DAYS
from manymetrics.tables import DEAD_LETTERS, EVENTS, NAMESPACE
from manymetrics_processor.decode.batch import DEAD_LETTERED, DUPLICATE, STORED, Batch, Bools
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest.factory import make_catalog
from manymetrics_processor.ingest.isolation import is_retryable
from manymetrics_processor.ingest.pipeline import commit, run
from manymetrics_processor.jobs.backfill_inputs import Piece, decode_piece, find_pieces, take_apart
from manymetrics_processor.jobs.cluster import Cluster, cluster
from manymetrics_processor.jobs.cluster_batch import ClusterEngine, batch_on_cluster, without_letters
from manymetrics_processor.jobs.command import errors_in_a_line, job_parser, job_settings, megabytes, say
from manymetrics_processor.lake.arrow_engine import ArrowEngine
from manymetrics_processor.lake.lake import Lake, current_books, live_files
from manymetrics_processor.lake.object_storage import stored_file, stored_files
from manymetrics_processor.lake.scan import read_file
from manymetrics_processor.parallel import in_groups

COMMIT_BYTES = 2_000_000_000  # approximate unpacked bytes per commit: two million events
MAX_FILES = (
    10_000  # a watermark of 20 bytes each, in a property that every commit writes: Glue's limit is 512,000 bytes
)

log = logging.getLogger("manymetrics.backfill")

Progress = Callable[[str], None]


class NothingToDoError(Exception):
    """There is nothing to backfill. The message names the fix."""


class TooManyFilesError(Exception):
    """More files than the tables can track. The message names the fix."""


@dataclass(slots=True)
class Report:
    """Result of importing the events of one source.

    ``pieces_passed_over``: pieces that were committed before. ``letters_passed_over``: dead letters that the tables
    already have from the original stream; the backfill's books don't count them.
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
    key_kind: str = "server",
    window_days: int = DEDUP_WINDOW_DAYS,
    commit_bytes: int = COMMIT_BYTES,
    database: str = NAMESPACE,
    say: Progress = lambda _line: None,
) -> Report:
    """Run the backfill. Raises NothingToDoError, TooManyFilesError, and CommitContentionError: then run it again."""
    lake = Lake(catalog, ClusterEngine(), database=database)
    lake.ensure_tables()
    location = (location if "://" in location else str(Path(location).resolve())).rstrip("/")
    source = f"backfill:{source or location}"
    files = list(stored_files(lake.io, location))
    if not files and (alone := stored_file(lake.io, location)):
        files = [alone]
    found = find_pieces(files, location, project, key_kind)
    report = Report(source, files_passed_over=found.passed_over)
    if not found.pieces:
        raise NothingToDoError(
            f"{location} has neither raw archive objects nor NDJSON (.ndjson, .jsonl or .json, also .gz or .zst)"
            + ("" if project else "; NDJSON needs --project ID")
        )
    file_count = len({piece.shard for piece in found.pieces})
    if file_count > MAX_FILES:
        raise TooManyFilesError(
            f"{location} has {file_count:,} files, but the tables can track only {MAX_FILES:,} per source: "
            "backfill it folder by folder, each by its own location, or merge files"
        )
    groups = list(in_groups(found.pieces, lambda piece: piece.size, commit_bytes))
    windows = _Windows(window_days, on)
    for number, pieces in enumerate(groups, 1):
        _commit_group(lake, on, source, pieces, windows, report)
        say(
            f"{number} of {len(groups)}: {report.stored:,} events stored, {report.duplicate:,} duplicates, "
            f"{report.dead_lettered:,} dead letters"
        )
    return report


def _commit_group(
    lake: Lake, on: Cluster, source: str, pieces: Sequence[Piece], windows: _Windows, report: Report
) -> None:
    """Commit the pieces together; bisects if something can't be stored, down to single events."""
    try:
        _commit_pieces(lake, on, source, pieces, windows, report)
    except Exception as error:
        if is_retryable(error):
            raise
        log.warning("a commit failed; searching for the events that cause it", exc_info=error)
        if len(pieces) == 1:
            _commit_apart(lake, source, pieces[0], windows, report)
            return
        middle = len(pieces) // 2
        _commit_group(lake, on, source, pieces[:middle], windows, report)
        _commit_group(lake, on, source, pieces[middle:], windows, report)


def _commit_apart(lake: Lake, source: str, piece: Piece, windows: _Windows, report: Report) -> None:
    """Commit one piece from the driver, without what can't be stored."""
    here = lake.using(ArrowEngine())
    window = windows.up_to(sys.maxsize)  # the time of its events is unknown before it is decoded
    for part in take_apart(lake.io, source, piece):
        _count(report, run(part.records, source, here, window, decode=part.decode, length=part.length).outcomes)


def _count(report: Report, outcomes: Sequence[bytes | None]) -> None:
    marks = b"".join(one or b"" for one in outcomes)
    report.commits += bool(marks)
    report.stored += marks.count(STORED)
    report.duplicate += marks.count(DUPLICATE)
    report.dead_lettered += marks.count(DEAD_LETTERED)


def _commit_pieces(
    lake: Lake, on: Cluster, source: str, pieces: Sequence[Piece], windows: _Windows, report: Report
) -> None:
    books = current_books(lake.load(EVENTS), source)
    new = [piece for piece in pieces if piece.last is None or piece.last > books.watermark(piece.shard)]
    report.pieces_passed_over += len(pieces) - len(new)
    if not new:
        return
    ordered = sorted(new, key=lambda piece: (piece.shard, piece.first))  # the order of a batch's records
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
    _count(report, outcomes)


def _known_letters(lake: Lake, on: Cluster, batch: Batch, letter_ids: Sequence[str]) -> Bools:
    """Return which letters the tables have. Ids derive from positions in a stream, so equal ids are the same letter."""
    if not letter_ids:
        return np.zeros(0, dtype=np.bool_)
    days = set(batch.letters.day.tolist())
    iceberg = lake.load(DEAD_LETTERS)
    files = [file.file_path for file in live_files(iceberg) if file.partition[0] in days]
    found = on.map(partial(_letter_ids, lake.io), files)
    return np.isin(np.array(letter_ids, dtype=np.str_), np.array(sorted(set().union(*found)), dtype=np.str_))


def _letter_ids(io: FileIO, location: str) -> set[str]:
    return set(read_file(DEAD_LETTERS, io, location, ["dead_letter_id"])["dead_letter_id"].to_pylist())


class _Windows:
    """The dedup window around the days of a batch: a large table has too many days to hold all."""

    def __init__(self, days: int, on: Cluster) -> None:
        self._days, self._on = days, on
        self._last_day = -1
        self._window = Window(days)

    def of(self, batch: Batch) -> Window:
        """Return the current window, if it covers the batch, else a new one."""
        return self.up_to(int(batch.events.day.max(initial=0)))

    def up_to(self, day: int) -> Window:
        """Like ``of``, for events received up to a day."""
        last_day = day + self._days
        if last_day > self._last_day:
            self._last_day = last_day + self._days
            self._window = Window(self._days, last_day=self._last_day, max_ids=sys.maxsize, spread=self._on.map)
        return self._window


# --- the job ----------------------------------------------------------------------------------------------


def _project(text: str) -> str:
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("a project is not empty")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report as JSON. Returns 1 if something could not be read."""
    parser = job_parser("backfill", "Load the raw archive, or exported NDJSON, into the tables. Idempotent.")
    parser.add_argument("location", help="s3://bucket/prefix of the archive or the exported files, or a single file")
    parser.add_argument(
        "--project", metavar="ID", type=_project, help="the project of NDJSON events; without it, NDJSON is skipped"
    )
    parser.add_argument(
        "--key-kind",
        choices=("server", "browser"),
        default="server",
        help="the key kind of NDJSON events: events are duplicates only of events of the same kind "
        "(default: %(default)s)",
    )
    parser.add_argument("--source", metavar="NAME", help="the name of the source in the books (default: the location)")
    parser.add_argument(
        "--commit-mb",
        metavar="N",
        type=megabytes,
        default=COMMIT_BYTES // 1_000_000,
        help="approximate unpacked size per commit; the driver holds 50 bytes per event (default: %(default)s)",
    )
    args = parser.parse_args(arguments)
    with (
        errors_in_a_line(parser, NothingToDoError, TooManyFilesError),
        cluster("manymetrics backfill") as on,
    ):
        settings = job_settings(args)
        report = backfill(
            make_catalog(settings, os.environ),
            on,
            args.location,
            source=args.source,
            project=args.project,
            key_kind=args.key_kind,
            window_days=settings.dedup_window_days,
            commit_bytes=args.commit_mb * 1_000_000,
            database=settings.database,
            say=say,
        )
    print(json.dumps(asdict(report)))
    return 1 if report.damaged else 0


if __name__ == "__main__":
    sys.exit(main())
