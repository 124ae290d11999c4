"""`manymetrics recover`: bring back the tables after catalog.db was damaged, lost or replaced by an older copy."""

from __future__ import annotations

import argparse
import json
import sqlite3
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from manymetrics.cli.data_dir import add_data_dir
from manymetrics.settings import SettingsError
from manymetrics.tables import EVENTS

if TYPE_CHECKING:
    from pyiceberg.table import StaticTable


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``recover``."""
    parser = subparsers.add_parser(
        "recover",
        help="bring back the tables after catalog.db was damaged, lost or replaced by an older copy",
        description=(
            "Make the catalogue name the newest state of each table whose files are all there. Deletes nothing. What "
            "the stream still holds past that state is committed at the server's next start. Stop the server first."
        ),
        epilog="Example: manymetrics recover --dry-run",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, without doing it")
    add_data_dir(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a JSON line a table, and one for the stream. 1 where records are in neither the tables nor the stream."""
    from manymetrics.local import hold_lock, stream_path
    from manymetrics_processor.local_catalog import open_catalog
    from manymetrics_processor.recover import recover

    data_dir: Path = args.data_dir
    if not data_dir.is_dir():
        raise SettingsError(f"there is no data folder at {data_dir}: name the right one with --data-dir")
    with hold_lock(data_dir):
        if not args.dry_run:
            _set_aside_if_damaged(data_dir / "catalog.db")
        report, states = recover(open_catalog(data_dir), dry_run=args.dry_run)
        for one in report:
            print(json.dumps(asdict(one)))
        if not stream_path(data_dir).exists():
            return 0
        stream = _look_at_stream(stream_path(data_dir), states.get(EVENTS.name), dry_run=args.dry_run)
    print(json.dumps(stream))
    return 1 if stream["records_missing"] else 0


def _look_at_stream(path: Path, events: StaticTable | None, *, dry_run: bool) -> dict[str, int]:
    from manymetrics.local_stream import SHARD, LocalSource
    from manymetrics_processor.lake import current_books

    with closing(LocalSource(path)) as source:
        watermark = current_books(events, source.name()).watermark(SHARD) if events is not None else -1
        if not dry_run:
            source.forget_seen()
        return {
            "committed_up_to": watermark,
            "records_waiting": source.pending(watermark)[0],
            "records_missing": source.missing(watermark),
        }


def _set_aside_if_damaged(path: Path) -> None:
    """A file that is no catalogue is kept under another name, so that a new one can be made."""
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            database.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        raise SettingsError(f"{path} can't be opened ({error}): end whatever holds it, and try again") from error
    except sqlite3.DatabaseError:
        path.rename(path.with_name(f"{path.name}.damaged-{time.time():.0f}"))
