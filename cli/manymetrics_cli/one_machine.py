"""The entry point of one machine: the API here, the committer in a process of its own.

    uvicorn --factory manymetrics_cli.one_machine:create_local_app     or     manymetrics serve

Two processes, so that a commit never stalls a request. The committer ends when the API's end of its pipe closes,
however that ends, and is started again when it ends by itself. A lock lets one committer work in a data folder; more
would change nothing (the commit protocol sees to that), but for the CPU.
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
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
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
    from manymetrics_processor.lake.lake import Lake

log = logging.getLogger("manymetrics.local")
_RESTART_WAIT_S = 1.0
_STOP_WAIT_S = 8.0
LOCK_PATIENCE_S = 10.0  # a committer that ends finishes its commit first
SAMPLE_AGE = timedelta(days=1)  # of the oldest rows that the sample page asks for: a large table has many files


def stream_path(data_dir: Path) -> Path:
    """The stream's database in a data folder."""
    return data_dir / "stream.db"


def lock_path(data_dir: Path) -> Path:
    """The lock that the one committer of a data folder holds."""
    return data_dir / "committer.lock"


def check_data_dir(data_dir: Path) -> None:
    """Create the folder if it is missing. Raises SettingsError if it can't be used."""
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
        return  # locked, or a disk that is read-only just now: the server waits for that with 503
    except sqlite3.DatabaseError as error:
        raise SettingsError(
            f"{data_dir / 'catalog.db'} can't be read ({error}): put a copy in its place, or run `manymetrics "
            "recover`, which finds its tables again"
        ) from error
    check_not_rolled_back(data_dir)
    _adopt_newer(data_dir)


def require_writable(data_dir: Path) -> None:
    """Raise SettingsError where this process may not write into a data folder, or its file system takes nothing."""
    for path in (data_dir, stream_path(data_dir), data_dir / "catalog.db", data_dir / "warehouse"):
        if path.exists() and not os.access(path, os.W_OK):
            raise SettingsError(_unwritable(path))


def check_not_rolled_back(data_dir: Path) -> None:
    """Raises SettingsError where the catalogue is older than what the stream, or the tables' folder, has seen of it."""
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
        if why is not None and metadata_path(data_dir, table.name) == current:  # else somebody commits meanwhile
            raise SettingsError(f"{why}. Put back the newer catalog.db, or run `manymetrics recover`")


def _adopt_newer(data_dir: Path) -> None:
    """Take a commit for done that wrote its files and isn't in the catalogue: see recover.adopt_newer.

    Here, since the stream must not take a number that the tables have, and asks them only as it is opened.
    """
    from manymetrics_insights.reader.folder import metadata_path
    from manymetrics_processor.lake.rollback import TableFiles

    home = data_dir / "warehouse" / NAMESPACE
    with contextlib.suppress(sqlite3.Error):
        paths = {table.name: metadata_path(data_dir, table.name) for table in TABLES}
        if any(path is not None and TableFiles(home / name).next_after(path) for name, path in paths.items()):
            from manymetrics_processor.lake.local_catalog import open_catalog  # dear to load, and seldom asked for
            from manymetrics_processor.operations.recover import adopt_newer

            with contextlib.suppress(SettingsError), hold_lock(data_dir):  # else a committer works here: it goes on
                adopt_newer(open_catalog(data_dir), home)


def ensure_keys(settings: Settings) -> Keys:
    """The keys of one machine; the first start makes a key."""
    path = keys_path(settings.data_dir)
    if not settings.write_keys and not path.exists():
        try:
            write_keys(path, [new_key()])
        except OSError as error:
            raise SettingsError(_unwritable(settings.data_dir)) from error
    keys = make_keys(settings)
    with contextlib.suppress(KeysUnavailableError):
        keys.origins()  # logs what is wrong, before anybody sends
    return keys


def _unwritable(path: Path) -> str:
    return (
        f"{path} can't be written: mount it writable, or chown it to the user that runs this; or name another folder "
        "with --data-dir"
    )


def first_key(settings: Settings, keys: Keys, origin: str | None = None) -> WriteKey | None:
    """A live browser key to show to whoever starts the server; with ``origin``, one that its pages may use, or None.

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
    """The command that asks this server's tables from any folder and any shell, quoted for one."""
    return shell_command("query", settings.data_dir)


def shell_command(name: str, data_dir: Path) -> str:
    """A command on a data folder, to paste into a new terminal: it has no activated environment, and no variables."""
    program = Path(sys.executable).with_name("manymetrics")
    return shlex.join(
        [str(program) if program.exists() else "manymetrics", name, "--data-dir", str(data_dir.absolute())]
    )


def open_lake(data_dir: Path) -> Lake:
    """The tables of a data folder, for commands that work on them while the server runs. Raises SettingsError."""
    from manymetrics_processor.lake.lake import Lake, local_catalog

    private_files.keep_private()
    check_data_dir(data_dir)
    require_writable(data_dir)
    lake = Lake(local_catalog(data_dir))
    lake.ensure_tables()
    return lake


def read_books(data_dir: Path) -> list[StreamBooks]:
    """The committed books of every stream, as the table of events has them."""
    from manymetrics.books import read_books as books_in
    from manymetrics_insights.reader.folder import Folder
    from manymetrics_insights.reader.iceberg import read_table

    state = read_table(Folder(data_dir), EVENTS.name)
    return books_in(state.properties) if state else []


def read_watermark(data_dir: Path, stream: str) -> int:
    """Up to which sequence number the tables have a stream; -1 where they have none of it.

    Where the catalogue has no table, its newest metadata file counts, which the committer will adopt. Raises
    sqlite3.Error, OSError or msgspec.MsgspecError where that can't be told.
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
    """The sequence number of the local stream up to which all is committed; -1 where nothing is."""
    with closing(LocalSource(stream_path(data_dir))) as source:
        name = source.name()
    return max((books.watermark(SHARD) for books in read_books(data_dir) if books.stream == name), default=-1)


def pending_records(data_dir: Path) -> int:
    """How many records of the local stream are not yet committed."""
    if not stream_path(data_dir).exists():
        return 0
    with closing(LocalSource(stream_path(data_dir))) as source:
        return source.pending(committed_up_to(data_dir))[0]


def books_for_metrics(data_dir: Path) -> Books:
    """The books of all streams together, and what waits behind them."""
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
    except (OSError, sqlite3.Error):  # a full disk, mostly: SQLite needs some room to read
        return Books(received, outcomes, None)
    lag = max(0.0, time.time() - oldest / 1_000_000) if oldest else 0.0
    return Books(received, outcomes, pending, lag, stalled)


def stalled_s(data_dir: Path) -> float:
    """For how long records have waited without any commit, in seconds; 0 where none waits."""
    if not stream_path(data_dir).exists():
        return 0.0
    with closing(LocalSource(stream_path(data_dir))) as source:
        return source.stalled_s()


def create_local_app(settings: Settings | None = None, on_ready: Callable[[], None] | None = None) -> Front:
    """The API of one machine with its committer; ``on_ready`` is called once events reach the tables."""
    from manymetrics_api.app import create_app
    from manymetrics_cli.built_sdk import add_sdk_routes, read_built_sdk
    from manymetrics_cli.sample_page import add_sample_routes

    settings = settings or Settings.read(os.environ)
    check_data_dir(settings.data_dir)
    private_files.keep_private()
    supervisor = Supervisor(settings, on_ready or (lambda: None))
    sdk, keys = read_built_sdk(), ensure_keys(settings)

    def more_routes(app: FastAPI) -> None:
        add_sdk_routes(app, sdk)
        add_sample_routes(app, sdk, sample_data(settings, keys), behind_proxies=settings.trusted_proxies > 0)

    return create_app(
        settings=settings,
        keys=keys,
        sink=LocalStream(stream_path(settings.data_dir), partial(read_watermark, settings.data_dir)),
        read_books=lambda: books_for_metrics(settings.data_dir),
        see=_commands_on_dead_letters(settings.data_dir),
        stalled_s=partial(stalled_s, settings.data_dir),
        lifespan=supervisor.running,
        more_routes=more_routes,
    )


def _commands_on_dead_letters(data_dir: Path) -> dict[str, str]:
    """Commands that show dead letters: first the one that shows those from before, too."""
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
        """While the context is open."""
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
            except OSError as error:  # no memory, no process: events wait in the stream
                log.warning("the committer can't be started, and will be", exc_info=error)
                await asyncio.sleep(_RESTART_WAIT_S)
                continue
            try:
                if process.stdout is not None and await process.stdout.readline():
                    self._on_ready()
                await process.wait()
                log.warning("the committer ended, and is started again", extra={"facts": {"code": process.returncode}})
                await asyncio.sleep(_RESTART_WAIT_S)
            finally:
                await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close its pipe, and give it time to finish the commit that is under way."""
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
    """Carry the stream into the tables until stdin closes."""
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

    state = read_state(data_dir)  # before the lock, which leaves one of its own
    failure = Failure(state.since, state.failures, state.error) if state is not None and state.failures else None
    said, begun_at, times = "", time.time(), 0
    while not stop.is_set():
        try:
            with _lock(data_dir, stop) as held:
                if not held:
                    return
                open_stream(stream_path(data_dir)).close()
                source, window = LocalSource(stream_path(data_dir)), Window(settings.dedup_window_days)
                lake = Lake(local_catalog(data_dir))
                committer = Committer(source, SHARD, lake, window, settings.commit_interval_s, report, failure)
                committer.run(stop)
                return
        except Exception as error:  # a read-only or full disk, mostly: events wait in the stream, or are refused
            if str(error) != said:
                log.warning("the committer can't begin, and tries again: %s", error, exc_info=error)
            said, times = str(error), times + 1
            write_state(data_dir, CommitterState(begun_at, f"{type(error).__name__}: {error}"[:LONGEST_ERROR], times))
        stop.wait(_RESTART_WAIT_S)


def _stop_at_end_of_input(stop: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4_096):  # not sys.stdin, whose lock this thread would hold when the interpreter ends: SIGABRT
            pass
    stop.set()


@contextlib.contextmanager
def hold_lock(data_dir: Path) -> Iterator[None]:
    """Keep the committer out while the tables are worked on. Raises SettingsError where one is at work."""
    require_writable(data_dir)
    with lock_path(data_dir).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"a committer works in {data_dir}: stop the server first") from None
        yield


def lock_holder(data_dir: Path) -> str | None:
    """The process that commits in a data folder, as it wrote itself down; None where none does."""
    try:
        with lock_path(data_dir).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return lock_path(data_dir).read_text("utf-8", "replace")[:20].strip() or "another"
    except OSError:
        pass
    return None


class Server(msgspec.Struct, frozen=True):
    """The newest server of a data folder: where this machine reaches it, and its process."""

    url: str
    process: int


def note_server(data_dir: Path, url: str) -> None:
    """Keep for `doctor` where this process answers. Never raises: the disk may be read-only."""
    with contextlib.suppress(OSError):
        private_files.write_private(_server_path(data_dir), msgspec.json.encode(Server(url, os.getpid())))


def forget_server(data_dir: Path) -> None:
    """Take back what note_server kept, if it is of this process."""
    noted = noted_server(data_dir)
    if noted is not None and noted.process == os.getpid():
        with contextlib.suppress(OSError):
            _server_path(data_dir).unlink()


def noted_server(data_dir: Path) -> Server | None:
    """Read what note_server wrote; a process that was killed may have left it."""
    try:
        return msgspec.json.decode(_server_path(data_dir).read_bytes(), type=Server)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _server_path(data_dir: Path) -> Path:
    return data_dir / "server.json"


@contextlib.contextmanager
def _lock(data_dir: Path, stop: threading.Event) -> Iterator[bool]:
    """Wait for the lock, which goes with the process and names it; False where it is time to stop first."""
    path, begun_at, is_told = lock_path(data_dir), time.time(), False
    private_files.make_private(data_dir)
    with path.open("a+") as file:
        while not stop.is_set():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not is_told and time.time() - begun_at > LOCK_PATIENCE_S:
                    is_told = True
                    cure = "end that server, or name another folder with --data-dir"
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
    for ignored in (signal.SIGINT, signal.SIGTERM):  # the pipe says when to stop, so that a commit is finished
        signal.signal(ignored, signal.SIG_IGN)
    run_committer(Settings.read(os.environ))
