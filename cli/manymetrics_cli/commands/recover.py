"""`manymetrics recover`: restore the tables after catalog.db was damaged, lost or replaced by an older copy."""

from __future__ import annotations

import argparse
import json
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from manymetrics.settings import SettingsError
from manymetrics.tables import EVENTS
from manymetrics_api import private_files
from manymetrics_cli.data_dir import add_data_dir, require_data
from manymetrics_cli.help_text import KeepExamples

if TYPE_CHECKING:
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.table import StaticTable

    from manymetrics_processor.lake.lake import Version

# SQLite errors that tell nothing about the content of the file.
_IN_THE_WAY = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_IOERR,
)


_EXAMPLES = """\
examples:
  manymetrics recover --dry-run
  manymetrics recover --data-dir /var/lib/manymetrics
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``recover``."""
    parser = subparsers.add_parser(
        "recover",
        help="restore the tables after catalog.db was damaged, lost or replaced by an older copy",
        description=(
            "Point the catalog at the newest state of each table whose files are all there, and rename the metadata of "
            "newer states to *.set-aside. Deletes nothing. Records in the stream past that state are committed at "
            "the server's next start. Stop the server first."
        ),
        epilog=_EXAMPLES,
        formatter_class=KeepExamples,
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, without doing it")
    add_data_dir(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print one JSON line per table, and one for the stream. Returns 1 if rows or records are lost."""
    from manymetrics_cli.one_machine import hold_lock, stream_path
    from manymetrics_processor.lake.lake import ForeignTableError
    from manymetrics_processor.operations.recover import recover

    data_dir: Path = args.data_dir
    require_data(data_dir)
    private_files.keep_private()
    with hold_lock(data_dir), _catalog(data_dir, dry_run=args.dry_run) as catalog:
        try:
            report, states = recover(catalog, _seen(stream_path(data_dir)), dry_run=args.dry_run)
        except ForeignTableError as error:
            raise SettingsError(str(error)) from error
        for one in report:
            print(json.dumps(asdict(one)))
        status = int(any(one.gives_up_rows for one in report))
        if not stream_path(data_dir).exists():
            return status
        stream = _look_at_stream(stream_path(data_dir), states.get(EVENTS.name), dry_run=args.dry_run)
    print(json.dumps(stream))
    return 1 if stream["records_missing"] else status


@contextmanager
def _catalog(data_dir: Path, *, dry_run: bool) -> Iterator[SqlCatalog]:
    """Open the catalog; in a dry run a temporary copy of it, or a new one if it is missing or damaged."""
    from manymetrics_insights.reader.folder import open_read_only
    from manymetrics_processor.lake.local_catalog import open_catalog

    path = data_dir / "catalog.db"
    is_damaged = _is_damaged(path)
    if not dry_run:
        if is_damaged:
            _set_aside(path)
        yield open_catalog(data_dir)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "catalog.db"
        if path.exists() and not is_damaged:
            with closing(open_read_only(path)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
        catalog = open_catalog(data_dir, copy)
        try:
            yield catalog
        finally:
            catalog.engine.dispose()


def _seen(path: Path) -> dict[str, Version]:
    """Return the state of each table that the stream was last committed to, by table; empty if unknown."""
    from manymetrics_api.sinks.local_stream import LocalSource
    from manymetrics_processor.lake.lake import Version
    from manymetrics_processor.lake.rollback import metadata_number

    if not path.exists():
        return {}
    with suppress(sqlite3.Error, OSError), closing(LocalSource(path)) as source:
        return {name: Version(uuid, metadata_number(location), location) for name, uuid, location in source.seen()}
    return {}


def _look_at_stream(path: Path, events: StaticTable | None, *, dry_run: bool) -> dict[str, int]:
    from manymetrics_api.sinks.local_stream import SHARD, LocalSource
    from manymetrics_processor.lake.lake import current_books

    with closing(LocalSource(path)) as source:
        watermark = current_books(events, source.name()).watermark(SHARD) if events is not None else -1
        if not dry_run:
            source.forget_seen()
        return {
            "committed_up_to": watermark,
            "records_waiting": source.pending(watermark)[0],
            "records_missing": source.missing(watermark),
        }


def _is_damaged(path: Path) -> bool:
    """Return whether the catalog's file is damaged. Raises SettingsError if it can't be opened."""
    from manymetrics_insights.reader.folder import open_read_only

    if not path.exists():
        return False
    try:
        with closing(open_read_only(path)) as database:
            if database.execute("pragma quick_check").fetchone() != ("ok",):
                return True
            if database.execute("select 1 from sqlite_master").fetchone() is not None:
                database.execute("select metadata_location, previous_metadata_location from iceberg_tables").fetchall()
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _IN_THE_WAY:
            raise SettingsError(
                f"{path} can't be opened ({error}): stop the program that uses it, and try again"
            ) from error
        return True
    return False


def _set_aside(path: Path) -> None:
    """Rename a damaged catalog, with its journal, so that a new one can be created."""
    for suffix in ("-journal", "-wal", "-shm", ""):
        one = path.with_name(path.name + suffix)
        if one.exists():
            one.rename(path.with_name(f"{path.name}.damaged-{time.time():.0f}{suffix}"))
