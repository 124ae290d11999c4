"""The entry point of one machine: the API in this process, the committer in a child process.

    uvicorn --factory manymetrics_cli.one_machine:create_local_app     or     manymetrics serve

There are two processes so that a commit never stalls a request. The committer exits when the API's end of its pipe
closes, for whatever reason, and is restarted if it exits by itself. A lock admits one committer per data directory;
more would be safe (the commit protocol ensures it), but would waste CPU.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shlex
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from manymetrics.data_folder import why_unfinished, why_unusable
from manymetrics.settings import Settings, SettingsError
from manymetrics.tables import EVENTS, NAMESPACE, TABLES
from manymetrics.telemetry import log_json_lines
from manymetrics_api import private_files
from manymetrics_api.collect import Front
from manymetrics_api.committer_state import CommitterState, read_state, write_state
from manymetrics_api.keys import (
    Keys,
    KeysUnavailableError,
    WriteKey,
    keys_path,
    make_keys,
    new_key,
    read_keys,
    write_keys,
)
from manymetrics_api.sinks.local_stream import SHARD, LocalSource, LocalStream, open_stream

if TYPE_CHECKING:
    from fastapi import FastAPI

    from manymetrics.books import StreamBooks
    from manymetrics_api.metrics import Books
    from manymetrics_cli.sample_page import SampleData
    from manymetrics_insights.reader.complete_through import StreamState
    from manymetrics_processor.enrich.geo import GeoIP
    from manymetrics_processor.lake.lake import Lake

log = logging.getLogger("manymetrics.local")
_RESTART_WAIT_S = 1.0
_STOP_WAIT_S = 8.0
LOCK_PATIENCE_S = 10.0  # a stopping committer finishes its commit first
SAMPLE_AGE = timedelta(days=1)  # of the oldest rows that the sample page queries: a large table has many files


def stream_path(data_dir: Path) -> Path:
    """Return the path of the stream's database in a data directory."""
    return data_dir / "stream.db"


def lock_path(data_dir: Path) -> Path:
    """Return the path of the lock that the one committer of a data directory holds."""
    return data_dir / "committer.lock"


def check_data_dir(data_dir: Path) -> None:
    """Create the directory if it is missing. Raises SettingsError if it can't be used."""
    from manymetrics_insights.reader.folder import metadata_path

    if (why := why_unusable(data_dir) or why_unfinished(data_dir)) is not None:
        raise SettingsError(why)
    try:
        private_files.make_private(data_dir)
    except OSError as error:
        raise SettingsError(_unwritable(data_dir)) from error
    try:
        metadata_path(data_dir, EVENTS.name)
    except sqlite3.OperationalError:
        return  # locked, or a disk that is read-only for now: the server starts, and returns 503 until that ends
    except sqlite3.DatabaseError as error:
        raise SettingsError(
            f"{data_dir / 'catalog.db'} can't be read ({error}): restore it from a copy, or run `manymetrics "
            "recover`, which restores the tables"
        ) from error
    check_not_rolled_back(data_dir)
    _adopt_newer(data_dir)


def require_writable(data_dir: Path) -> None:
    """Raise SettingsError if this process may not write to a data directory, or its file system is read-only."""
    for path in (data_dir, stream_path(data_dir), data_dir / "catalog.db", data_dir / "warehouse"):
        if path.exists() and not os.access(path, os.W_OK):
            raise SettingsError(_unwritable(path))


def check_not_rolled_back(data_dir: Path) -> None:
    """Raise SettingsError if the catalog is older than the state known to the stream or to the tables' folder."""
    from manymetrics_insights.reader.folder import metadata_path
    from manymetrics_processor.lake.rollback import TableFiles

    seen = {}
    if stream_path(data_dir).exists():
        with contextlib.suppress(sqlite3.Error, OSError), closing(LocalSource(stream_path(data_dir))) as source:
            seen = {one.table_name: one for one in source.seen()}
    for table in TABLES:
        try:
            current = metadata_path(data_dir, table.name)
        except sqlite3.Error:
            return
        files = TableFiles(data_dir / "warehouse" / NAMESPACE / table.name)
        why = files.why_older(current, seen.get(table.name))
        if why is not None and metadata_path(data_dir, table.name) == current:  # else a commit happened meanwhile
            raise SettingsError(f"{why}. Put back the newer catalog.db, or run `manymetrics recover`")


def _adopt_newer(data_dir: Path) -> None:
    """Adopt a commit that wrote its files but isn't in the catalog: see recover.adopt_newer.

    Done here, before the stream is opened: it then asks the tables which sequence numbers are taken.
    """
    from manymetrics_insights.reader.folder import metadata_path
    from manymetrics_processor.lake.rollback import TableFiles

    home = data_dir / "warehouse" / NAMESPACE
    with contextlib.suppress(sqlite3.Error):
        paths = {table.name: metadata_path(data_dir, table.name) for table in TABLES}
        if any(path is not None and TableFiles(home / name).next_after(path) for name, path in paths.items()):
            from manymetrics_processor.lake.local_catalog import open_catalog  # slow to import, and rarely needed
            from manymetrics_processor.operations.recover import adopt_newer

            with contextlib.suppress(SettingsError), hold_lock(data_dir):  # else a committer is running: leave it alone
                adopt_newer(open_catalog(data_dir), home)


def ensure_keys(settings: Settings) -> Keys:
    """Load the keys of one machine; the first start creates a key."""
    path = keys_path(settings.data_dir)
    if not settings.write_keys and not path.exists():
        try:
            write_keys(path, [new_key()])
        except OSError as error:
            raise SettingsError(_unwritable(settings.data_dir)) from error
    keys = make_keys(settings)
    with contextlib.suppress(KeysUnavailableError):
        keys.origins()  # logs what is wrong before the first request
    return keys


def _unwritable(path: Path) -> str:
    return (
        f"{path} can't be written: mount it writable, or chown it to the user running this; or name another directory "
        "with --data-dir"
    )


def first_key(settings: Settings, keys: Keys, origin: str | None = None) -> WriteKey | None:
    """Return an active browser key to show at startup; with ``origin``, one that its pages may use, or None.

    Raises KeysUnavailableError.
    """
    named = (
        [one.partition(":")[0].strip() for one in settings.write_keys.split(",")]
        if settings.write_keys
        else [key.key for key in read_keys(keys_path(settings.data_dir))]
    )
    live = [key for key in map(keys.find, named) if key is not None and key.kind == "browser"]
    return next((key for key in live if origin is None or not key.origins or origin in key.origins), None)


def sample_data(settings: Settings, keys: Keys) -> SampleData:
    """Build the functions that the sample page needs."""
    from manymetrics_cli.sample_page import SampleData
    from manymetrics_insights.reader.folder import Folder, metadata_path

    def rows(project: str, anonymous_id: str) -> list[dict[str, Any]]:
        from manymetrics_insights.reader.recent_rows import newest_rows

        since = datetime.now(UTC).replace(tzinfo=None) - SAMPLE_AGE
        return [*newest_rows(Folder(settings.data_dir), project, anonymous_id, since)]

    def find_key(origin: str) -> WriteKey | None:
        try:
            return first_key(settings, keys, origin)
        except KeysUnavailableError:
            return None

    return SampleData(
        find_key=find_key,
        query=query_command(settings),
        commit=lambda: Path(metadata_path(settings.data_dir, EVENTS.name) or "none").name,
        rows=rows,
    )


def query_command(settings: Settings) -> str:
    """Build the command that queries this server's tables from any folder, quoted for the shell."""
    return shell_command("query", settings.data_dir)


def shell_command(name: str, data_dir: Path) -> str:
    """Build a command on a data directory that works in a new terminal, with no activated environment or variables."""
    program = Path(sys.executable).with_name("manymetrics")
    return shlex.join(
        [str(program) if program.exists() else "manymetrics", name, "--data-dir", str(data_dir.absolute())]
    )


def open_lake(data_dir: Path) -> Lake:
    """Open the tables of a data directory for a command that may run alongside the server. Raises SettingsError."""
    from manymetrics_processor.lake.lake import Lake, local_catalog

    private_files.keep_private()
    check_data_dir(data_dir)
    require_writable(data_dir)
    lake = Lake(local_catalog(data_dir))
    lake.ensure_tables()
    return lake


def read_books(data_dir: Path) -> list[StreamBooks]:
    """Read the committed books of every stream from the table of events."""
    from manymetrics.books import read_books as books_in
    from manymetrics_insights.reader.folder import Folder
    from manymetrics_insights.reader.iceberg import read_table

    state = read_table(Folder(data_dir), EVENTS.name)
    return books_in(state.properties) if state else []


def read_watermark(data_dir: Path, stream: str) -> int:
    """Return the sequence number up to which a stream is committed to the tables; -1 for none of it.

    If the catalog has no table, its newest metadata file counts, which the committer will adopt. Raises
    sqlite3.Error, OSError or msgspec.MsgspecError if that can't be determined.
    """
    from manymetrics.books import parse_books
    from manymetrics_insights.reader.folder import metadata_path
    from manymetrics_processor.lake.rollback import TableFiles

    named = metadata_path(data_dir, EVENTS.name)
    path = Path(named) if named is not None else TableFiles(data_dir / "warehouse" / NAMESPACE / EVENTS.name).newest()
    if path is None:
        return -1
    metadata = msgspec.json.decode(path.read_bytes(), type=_Metadata)
    return parse_books(stream, metadata.properties).watermark(SHARD)


class _Metadata(msgspec.Struct):
    properties: dict[str, str] = {}


def committed_up_to(data_dir: Path) -> int:
    """Return the sequence number up to which the local stream is committed; -1 for none of it."""
    with closing(LocalSource(stream_path(data_dir))) as source:
        name = source.name()
    return max((books.watermark(SHARD) for books in read_books(data_dir) if books.stream == name), default=-1)


def pending_records(data_dir: Path) -> int:
    """Return the number of records in the local stream that are not yet committed."""
    if not stream_path(data_dir).exists():
        return 0
    with closing(LocalSource(stream_path(data_dir))) as source:
        return source.pending(committed_up_to(data_dir))[0]


def stream_state(data_dir: Path, properties: Mapping[str, str]) -> StreamState | None:
    """Compare the local stream with the books of a table that was just read; None if the stream can't be read.

    With the books that a query read, not the newest: a record that was committed since is not in its rows.
    """
    from manymetrics.books import parse_books
    from manymetrics_insights.reader.complete_through import StreamState

    if not stream_path(data_dir).exists():
        return None
    try:
        with closing(LocalSource(stream_path(data_dir))) as source:
            watermark = parse_books(source.name(), properties).watermark(SHARD)
            waiting, oldest = source.pending(watermark)
            is_empty = not waiting and not source.missing(watermark)  # committed since, and dropped already
    except (OSError, sqlite3.Error):
        return None
    return StreamState(is_empty, datetime.fromtimestamp(oldest / 1_000_000, UTC) if oldest else None)


def books_for_metrics(data_dir: Path) -> Books:
    """Return the books of all streams together, and the backlog behind them."""
    from manymetrics_api.metrics import Books

    outcomes: Counter[str] = Counter()
    received = 0
    for books in read_books(data_dir):
        received += books.received
        outcomes.update(books.outcomes())
    if not stream_path(data_dir).exists():
        return Books(received, outcomes)
    try:
        with closing(LocalSource(stream_path(data_dir))) as source:
            pending, oldest = source.pending(committed_up_to(data_dir))
            stalled = source.stalled_s()
    except (OSError, sqlite3.Error):  # mostly a full disk: SQLite needs some space even to read
        return Books(received, outcomes, None)
    lag = max(0.0, time.time() - oldest / 1_000_000) if oldest else 0.0
    return Books(received, outcomes, pending, lag, stalled, geoip_unusable(data_dir))


def geoip_unusable(data_dir: Path) -> int:
    """Return the number of GeoIP files that can't be used."""
    return sum(bool(state.error) for state in open_geoip(data_dir).states)


@cache
def open_geoip(data_dir: Path) -> GeoIP:
    """Open the GeoIP files that this process's environment names, or those in the data directory."""
    from manymetrics_processor.enrich.geo import GeoIP, geoip_paths

    return GeoIP(geoip_paths(replace(Settings.read(os.environ), data_dir=data_dir)))


def stalled_s(data_dir: Path) -> float:
    """Return for how many seconds records have waited without any commit; 0 if none waits."""
    if not stream_path(data_dir).exists():
        return 0.0
    with closing(LocalSource(stream_path(data_dir))) as source:
        return source.stalled_s()


def create_local_app(settings: Settings | None = None, on_ready: Callable[[], None] | None = None) -> Front:
    """Create the API of one machine with its committer; ``on_ready`` is called when the committer is ready."""
    from manymetrics_api.app import create_app
    from manymetrics_cli.built_sdk import add_sdk_routes, read_built_sdk
    from manymetrics_cli.console_routes import add_console_routes
    from manymetrics_cli.sample_page import add_sample_routes
    from manymetrics_insights.asking.worker import Insights
    from manymetrics_insights.reader.folder import Folder

    settings = settings or Settings.read(os.environ)
    check_data_dir(settings.data_dir)
    private_files.keep_private()
    supervisor = Supervisor(settings, on_ready or (lambda: None))
    sdk, keys = read_built_sdk(), ensure_keys(settings)
    insights = Insights(Folder(settings.data_dir), partial(stream_state, settings.data_dir))
    is_behind_proxies = settings.trusted_proxies > 0

    @contextlib.asynccontextmanager
    async def running() -> AsyncIterator[None]:
        async with supervisor.running():
            yield
        insights.close()

    def more_routes(app: FastAPI) -> None:
        add_sdk_routes(app, sdk)
        add_sample_routes(app, sdk, sample_data(settings, keys), behind_proxies=is_behind_proxies)
        add_console_routes(app, insights, settings.console_token, behind_proxies=is_behind_proxies)

    return create_app(
        settings=settings,
        keys=keys,
        sink=LocalStream(stream_path(settings.data_dir), partial(read_watermark, settings.data_dir)),
        read_books=lambda: books_for_metrics(settings.data_dir),
        see=_commands_on_dead_letters(settings.data_dir),
        stalled_s=partial(stalled_s, settings.data_dir),
        lifespan=running,
        more_routes=more_routes,
    )


def _commands_on_dead_letters(data_dir: Path) -> dict[str, str]:
    """Build the commands that show dead letters: stored ones (`see`), and new ones (`see_live`)."""
    return {
        "see": f"{shell_command('query', data_dir)} '{_NEWEST_DEAD_LETTERS}'",
        "see_live": f"{shell_command('tail', data_dir)} --bad",
    }


_NEWEST_DEAD_LETTERS: Final = (
    "select received_at, reason, detail, raw from dead_letters order by received_at desc limit 20"
)


class Supervisor:
    """Keeps one committer process alive while the API serves."""

    def __init__(self, settings: Settings, on_ready: Callable[[], None]) -> None:
        self._settings, self._on_ready = settings, on_ready

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Supervise while the context is open."""
        task = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _keep(self) -> None:
        while True:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "manymetrics_cli.one_machine",
                    env={**os.environ, "MANYMETRICS_DATA_DIR": str(self._settings.data_dir)},
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                )
            except OSError as error:  # out of memory or processes: events wait in the stream
                log.warning("the committer can't be started; retrying", exc_info=error)
                await asyncio.sleep(_RESTART_WAIT_S)
                continue
            try:
                if process.stdout is not None and await process.stdout.readline():
                    self._on_ready()
                await process.wait()
                log.warning("the committer exited; restarting it", extra={"facts": {"code": process.returncode}})
                await asyncio.sleep(_RESTART_WAIT_S)
            finally:
                await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close the committer's pipe, and give it time to finish the current commit."""
    if process.returncode is None:
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _STOP_WAIT_S)
        except TimeoutError:
            process.kill()
            await process.wait()


# --- the committer's process ------------------------------------------------------------------------------


def run_committer(settings: Settings) -> None:
    """Commit the stream to the tables until stdin closes."""
    from manymetrics_processor.dedup.window import Window
    from manymetrics_processor.ingest.local_committer import LONGEST_ERROR, Committer, Failure
    from manymetrics_processor.lake.lake import Lake, local_catalog

    stop = threading.Event()
    threading.Thread(target=_stop_at_end_of_input, args=(stop,), daemon=True).start()
    data_dir, is_ready = settings.data_dir, False

    def report(failure: Failure | None) -> None:
        nonlocal is_ready
        write_state(data_dir, CommitterState(failure.since, failure.error, failure.times) if failure else None)
        if failure is None and not is_ready:
            is_ready = True
            print("ready", flush=True)  # the parent waits for this line

    state = read_state(data_dir)  # before waiting for the lock, which may write another state
    failure = Failure(state.since, state.failures, state.error) if state is not None and state.failures else None
    said, begun_at, times = "", time.time(), 0
    while not stop.is_set():
        try:
            with _lock(data_dir, stop) as held:
                if not held:
                    return
                open_stream(stream_path(data_dir)).close()
                source = LocalSource(stream_path(data_dir), overwrites=_removes_addresses(settings))
                window = Window(settings.dedup_window_days)
                lake = Lake(local_catalog(data_dir))
                committer = Committer(source, SHARD, lake, window, settings.commit_interval_s, report, failure)
                committer.run(stop)
                return
        except Exception as error:  # mostly a read-only or full disk: events wait in the stream, or are rejected
            if str(error) != said:
                log.warning("the committer can't start; retrying: %s", error, exc_info=error)
            said, times = str(error), times + 1
            write_state(data_dir, CommitterState(begun_at, f"{type(error).__name__}: {error}"[:LONGEST_ERROR], times))
        stop.wait(_RESTART_WAIT_S)


def _removes_addresses(settings: Settings) -> bool:
    """Return whether the settings or a write key say that not all of an address or user agent is kept."""
    keys: list[WriteKey] = []
    with contextlib.suppress(KeysUnavailableError):
        keys = read_keys(keys_path(settings.data_dir))
    said = [settings.ip, settings.user_agent, *(rule for key in keys for rule in (key.ip, key.user_agent) if rule)]
    return any(rule != "keep" for rule in said)


def _stop_at_end_of_input(stop: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4_096):  # not sys.stdin, whose lock this thread would hold when the interpreter ends: SIGABRT
            pass
    stop.set()


@contextlib.contextmanager
def hold_lock(data_dir: Path) -> Iterator[None]:
    """Hold the committer's lock, for work on the tables without it. Raises SettingsError if a committer runs."""
    require_writable(data_dir)
    with lock_path(data_dir).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"a committer is running in {data_dir}: stop the server first") from None
        yield


def lock_holder(data_dir: Path) -> str | None:
    """Return the id of the process that commits in a data directory, as noted in the lock; None if none does."""
    try:
        with lock_path(data_dir).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return lock_path(data_dir).read_text("utf-8", "replace")[:20].strip() or "another"
    except OSError:
        pass
    return None


class Server(msgspec.Struct, frozen=True):
    """The latest server of a data directory: its URL on this machine, and its process id."""

    url: str
    process: int


def note_server(data_dir: Path, url: str) -> None:
    """Note this process's URL for `doctor`. Never raises: the disk may be read-only."""
    with contextlib.suppress(OSError):
        private_files.write_private(_server_path(data_dir), msgspec.json.encode(Server(url, os.getpid())))


def forget_server(data_dir: Path) -> None:
    """Remove the note of note_server if this process wrote it."""
    noted = noted_server(data_dir)
    if noted is not None and noted.process == os.getpid():
        with contextlib.suppress(OSError):
            _server_path(data_dir).unlink()


def noted_server(data_dir: Path) -> Server | None:
    """Read the note of note_server; it may be left from a process that was killed."""
    try:
        return msgspec.json.decode(_server_path(data_dir).read_bytes(), type=Server)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _server_path(data_dir: Path) -> Path:
    return data_dir / "server.json"


@contextlib.contextmanager
def _lock(data_dir: Path, stop: threading.Event) -> Iterator[bool]:
    """Wait for the lock, which holds the process's id and ends with it; yields False if ``stop`` is set first."""
    path, begun_at, is_told = lock_path(data_dir), time.time(), False
    private_files.make_private(data_dir)
    with path.open("a+") as file:
        while not stop.is_set():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not is_told and time.time() - begun_at > LOCK_PATIENCE_S:
                    is_told = True
                    cure = "stop that server, or name another directory with --data-dir"
                    facts = {"path": str(path), "cure": cure}
                    log.warning(
                        "another process holds the committer's lock: events wait in the stream", extra={"facts": facts}
                    )
                    write_state(data_dir, CommitterState(begun_at, f"{path} is held by another process"))
                time.sleep(0.1)
            else:
                file.truncate(0)
                file.write(f"{os.getpid()}\n")
                file.flush()
                yield True
                return
        yield False


if __name__ == "__main__":
    log_json_lines()
    private_files.keep_private()
    for ignored in (signal.SIGINT, signal.SIGTERM):  # the pipe signals the stop, so that a commit is finished
        signal.signal(ignored, signal.SIG_IGN)
    run_committer(Settings.read(os.environ))
