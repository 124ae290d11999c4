"""`manymetrics backup`: copy a data directory while its server runs and writes.

    catalog -> stream -> the files that the copied catalog names -> verify the copy

In this order no acknowledged event is missing or duplicated: what the copied catalog lacks is in the copied stream,
past its watermark, since committed records stay there for a while. If files are removed meanwhile, another round
starts with a newer catalog: a table's files never change, so it copies only new ones. Until the copy is verified, a
marker file in it makes every command refuse it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sqlite3
import sys
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from manymetrics.data_folder import UNFINISHED, path_in, why_unusable
from manymetrics.settings import SettingsError
from manymetrics.tables import EVENTS, TABLES
from manymetrics_api import private_files
from manymetrics_cli.data_dir import add_data_dir, folder, require_tables
from manymetrics_cli.help_text import KeepExamples

if TYPE_CHECKING:
    from pyiceberg.table import Table as IcebergTable

ROUNDS = 20
NICENESS = 10  # the server goes first
PROGRESS_EVERY_S = 2.0
_LOCK_WAIT_S = 30.0

_EXAMPLES = """\
The copy is a data directory like any other. To restore it, serve it, from there or from wherever you copy it to:

  manymetrics serve --data-dir TO

examples:
  manymetrics backup /mnt/backups/2026-11-30
  manymetrics backup --data-dir /var/lib/manymetrics "/mnt/backups/$(date +%F)"
"""


class BackupError(Exception):
    """The copy is incomplete. The message names the fix."""


class _RecordsGoneError(Exception):
    """Records between the copied tables and the copied stream were dropped during the copy."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``backup``."""
    parser = subparsers.add_parser(
        "backup",
        help="copy the data directory while the server runs",
        description=(
            "Copy the stream, the tables and the keys into an empty directory, whether or not the server runs. Every "
            "event that was acknowledged with 200 before the start is in the copy, once. Later erasures don't reach it."
        ),
        epilog=_EXAMPLES,
        formatter_class=KeepExamples,
    )
    parser.add_argument("to", type=folder, metavar="TO", help="a new or empty directory, outside the data directory")
    add_data_dir(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what the copy holds, as JSON. Returns 1 if it could not be completed."""
    data_dir, to = args.data_dir.resolve(), args.to.resolve()
    require_tables(data_dir)
    if (why := why_unusable(to, "name another one")) is not None:
        raise SettingsError(why)
    if to.is_relative_to(data_dir):
        raise SettingsError(f"{to} is within the data directory {data_dir}: name a directory outside it")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise SettingsError(f"{to} is not an empty directory: name a new one")
    private_files.keep_private()
    os.nice(NICENESS)
    try:
        private_files.make_private(to)
        private_files.write_private(to / UNFINISHED, b"")
    except OSError as error:
        raise SettingsError(f"{to} can't be written ({error.strerror}): name a writable directory") from error
    try:
        held = back_up(data_dir, to)
    except (BackupError, SettingsError, OSError, sqlite3.Error) as error:
        print(f"manymetrics: {error}. {to} is incomplete: remove it, then run this again", file=sys.stderr)
        return 1
    (to / UNFINISHED).unlink()
    _sync([to])
    print(json.dumps({"backup": str(to), **held}))
    print(f"To restore it: manymetrics serve --data-dir {shlex.quote(str(to))}", file=sys.stderr)
    return 0


def back_up(data_dir: Path, to: Path) -> dict[str, object]:
    """Copy a data directory into an empty one. Returns what the copy holds. Raises BackupError."""
    import duckdb
    from pyiceberg.exceptions import NoSuchTableError, ValidationError

    from manymetrics_insights.reader.iceberg import LakeError

    for _ in range(ROUNDS):
        before = _states(data_dir)
        try:
            files = _copy_once(data_dir, to)
            break
        except (FileNotFoundError, _RecordsGoneError) as error:  # removed by maintenance or an erasure
            if isinstance(error, FileNotFoundError) and _states(data_dir) == before:
                gone = error.filename or error
                raise BackupError(f"{gone} is gone, and the tables name it: see `manymetrics doctor`") from error
            print("the tables changed during the copy: copying what is new", file=sys.stderr)
        except SettingsError:
            raise
        except (NoSuchTableError, ValidationError, ValueError) as error:  # ValueError: from a damaged manifest
            said = str(error).splitlines()[0]
            raise BackupError(f"the tables can't be read ({said}): see `manymetrics doctor`") from error
    else:
        raise BackupError("files were merged or erased faster than they could be copied")
    keys = data_dir / "keys.json"
    if keys.exists():
        private_files.write_private(to / keys.name, keys.read_bytes())
    for path in (to / "warehouse").rglob("*"):
        if path.is_file() and path not in files:  # from an earlier round
            path.unlink()
    _sync([to / "stream.db", to / "catalog.db", *(path for path in to.rglob("*") if path.is_dir()), to, to.parent])
    try:
        held = _look(to)
    except (LakeError, duckdb.Error) as error:
        raise BackupError(f"the copy can't be read ({str(error).splitlines()[0]})") from error
    return {**held, "files": len(files), "bytes": sum(path.stat().st_size for path in files)}


def _states(data_dir: Path) -> list[str | None]:
    """Return the current metadata file of each table."""
    from manymetrics_insights.reader.folder import metadata_path

    paths = (metadata_path(data_dir, table.name) for table in TABLES)
    return [None if path is None else Path(path).name for path in paths]


def _copy_once(data_dir: Path, to: Path) -> set[Path]:
    """Copy everything once; returns the tables' files in the copy.

    Raises FileNotFoundError or _RecordsGoneError if files or records were removed meanwhile.
    """
    from manymetrics_processor.lake.lake import Lake
    from manymetrics_processor.lake.local_catalog import open_catalog
    from manymetrics_processor.lake.maintenance import reachable_files

    _copy_database(data_dir / "catalog.db", to / "catalog.db")
    lake = Lake(open_catalog(data_dir, to / "catalog.db"))
    tables = {table.name: lake.load(table) for table in TABLES}
    _copy_database(data_dir / "stream.db", to / "stream.db")
    _note_tables(to / "stream.db", tables)
    named, older = set[str](), set[str]()
    for table in tables.values():
        named |= reachable_files(table, {}) | {table.metadata_location}
        older |= {entry.metadata_file for entry in table.metadata.metadata_log}
    # Small files first: maintenance removes them soonest.
    paths = sorted(named, key=lambda location: (not location.endswith((".json", ".avro")), location))
    pairs = [(Path(path_in(str(data_dir), one)), Path(path_in(str(to), one))) for one in paths]
    _copy_files(pairs)
    copied = {target for _, target in pairs}
    for location in older:  # earlier states, for `recover` only: not part of the tables
        source, target = Path(path_in(str(data_dir), location)), Path(path_in(str(to), location))
        with suppress(FileNotFoundError):
            _copy_files([(source, target)])
            copied.add(target)
    return copied


def _copy_database(source: Path, target: Path) -> None:
    """Copy one consistent state of a database, even while others write to it."""
    if not source.exists():
        return
    for suffix in ("", "-wal", "-shm", "-journal"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    with closing(_open(source)) as database, closing(sqlite3.connect(target)) as copy:
        database.backup(copy)


def _open(source: Path) -> sqlite3.Connection:
    """Open a database, also in a read-only folder, where SQLite can't create the files of a write-ahead log."""
    from manymetrics_insights.reader.folder import open_read_only

    if os.access(source, os.W_OK) and os.access(source.parent, os.W_OK):
        return sqlite3.connect(source, timeout=_LOCK_WAIT_S)
    log = source.with_name(source.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise BackupError(f"{source.parent} can't be written, and {log.name} is not empty: copy both elsewhere first")
    return open_read_only(source, immutable=True)


def _note_tables(stream: Path, tables: dict[str, IcebergTable]) -> None:
    """Note the copied tables in the copied stream as its last commit: it is slightly newer than they are.

    Raises _RecordsGoneError if records between the two are gone, which only an erasure causes.
    """
    from manymetrics_api.sinks.local_stream import SHARD, LocalSource
    from manymetrics_processor.lake.lake import current_books

    if not stream.exists():
        return
    with closing(LocalSource(stream, admits=False)) as source:
        watermark = current_books(tables[EVENTS.name], source.name()).watermark(SHARD)
        if source.missing(watermark):
            raise _RecordsGoneError
        source.forget_seen()
        seen = ((name, str(one.metadata.table_uuid), one.metadata_location) for name, one in tables.items())
        source.put_outcomes((), seen)


def _copy_files(pairs: Iterable[tuple[Path, Path]]) -> None:
    """Copy the missing files; each appears under its name only when complete. Raises FileNotFoundError."""
    sizes = [(source, target, source.stat().st_size) for source, target in pairs]
    total, done, said_at = sum(size for _, _, size in sizes), 0, time.monotonic()
    for number, (source, target, size) in enumerate(sizes, 1):
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}.part")
            with source.open("rb") as read, part.open("wb") as write:
                while data := read.read(1 << 20):
                    write.write(data)
                write.flush()
                os.fsync(write.fileno())
            part.replace(target)
        done += size
        if time.monotonic() - said_at > PROGRESS_EVERY_S:
            said_at = time.monotonic()
            print(f"{number} of {len(sizes)} files, {done / 1e6:.0f} of {total / 1e6:.0f} MB", file=sys.stderr)


def _look(to: Path) -> dict[str, object]:
    """Open the copy, and compare its row counts with its books. Raises BackupError."""
    from manymetrics.books import read_books
    from manymetrics_api.sinks.local_stream import SHARD, LocalSource
    from manymetrics_cli.one_machine import check_not_rolled_back
    from manymetrics_insights.reader.folder import Folder
    from manymetrics_insights.reader.iceberg import read_table
    from manymetrics_insights.reader.session import open_session

    for name in ("catalog.db", "stream.db"):
        if (to / name).exists():
            with closing(sqlite3.connect(to / name)) as database:
                if database.execute("pragma quick_check").fetchone() != ("ok",):
                    raise BackupError(f"{to / name} is damaged: see `manymetrics doctor`")
    check_not_rolled_back(to)
    copy = Folder(to)
    rows: dict[str, int] = {}
    with closing(open_session(copy).connection) as connection:
        for table in TABLES:
            state = read_table(copy, table.name)
            files = state.files if state is not None else ()
            bad = [file.path for file in files if Path(file.path).stat().st_size != file.size]
            (rows[table.name],) = connection.execute(f"select count(*) from {table.name}").fetchone() or (0,)  # noqa: S608
            if bad or (not (state and state.deletes) and rows[table.name] != sum(file.record_count for file in files)):
                raise BackupError(f"{table.name} is damaged ({(bad or ['its rows'])[0]}): see `manymetrics doctor`")
    state = read_table(copy, EVENTS.name)
    books = read_books(state.properties if state is not None else {})
    stored = sum(one.stored for one in books)
    if not all(one.balanced for one in books):
        raise BackupError("the books don't balance: see `manymetrics doctor`")
    waiting = 0
    if (to / "stream.db").exists():
        with closing(LocalSource(to / "stream.db", admits=False)) as source:
            name = source.name()
            watermark = max((one.watermark(SHARD) for one in books if one.stream == name), default=-1)
            waiting = source.pending(watermark)[0]
    return {"rows": rows, "received": sum(one.received for one in books), "stored": stored, "records_waiting": waiting}


def _sync(paths: Iterable[Path]) -> None:
    from manymetrics_processor.lake.local_catalog import sync

    for path in paths:
        sync(str(path))
