"""The root of one machine: the API here, the committer in a process of its own beside it.

    uvicorn --factory manymetrics.local:create_local_app     or     manymetrics serve

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
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from manymetrics.collect import Front
from manymetrics.keys import FileKeys, Keys, KeysUnavailableError, new_key, parse_key_list, read_keys, write_keys
from manymetrics.local_stream import SHARD, LocalSource, LocalStream
from manymetrics.settings import Settings
from manymetrics.telemetry import log_json_lines

log = logging.getLogger("manymetrics.local")
_RESTART_WAIT_S = 1.0
_STOP_WAIT_S = 8.0


def stream_path(data_dir: Path) -> Path:
    """The stream's database in a data folder."""
    return data_dir / "stream.db"


def keys_path(data_dir: Path) -> Path:
    """The keys file in a data folder."""
    return data_dir / "keys.json"


def ensure_keys(settings: Settings) -> Keys:
    """The keys of one machine; the first start makes a key."""
    if settings.write_keys:
        return parse_key_list(settings.write_keys)
    path = keys_path(settings.data_dir)
    if not path.exists():
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        write_keys(path, [new_key()])
    return FileKeys(path)


def first_key(settings: Settings) -> str | None:
    """A live key to show to whoever starts the server; None where there is none to show."""
    if settings.write_keys:
        return settings.write_keys.split(",")[0].partition(":")[0].strip()
    try:
        return next((key.key for key in read_keys(keys_path(settings.data_dir)) if not key.revoked), None)
    except KeysUnavailableError:
        return None


def create_local_app(settings: Settings | None = None, on_ready: Callable[[], None] | None = None) -> Front:
    """The API of one machine with its committer; ``on_ready`` is called once events reach the tables."""
    from manymetrics.app import create_app

    settings = settings or Settings.read(os.environ)
    supervisor = Supervisor(settings, on_ready or (lambda: None))
    return create_app(
        settings=settings,
        keys=ensure_keys(settings),
        sink=LocalStream(stream_path(settings.data_dir)),
        lifespan=supervisor.running,
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
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "manymetrics.local",
                env={**os.environ, "MANYMETRICS_DATA_DIR": str(self._settings.data_dir)},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
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
    from manymetrics_processor.committer import Committer
    from manymetrics_processor.lake import Lake, local_catalog
    from manymetrics_processor.window import Window

    stop = threading.Event()
    threading.Thread(target=_stop_at_end_of_input, args=(stop,), daemon=True).start()
    with _lock(settings.data_dir / "committer.lock", stop) as held:
        if not held:
            return
        lake = Lake(local_catalog(settings.data_dir))
        lake.ensure_tables()
        source = LocalSource(_made_stream(settings.data_dir))
        committer = Committer(source, SHARD, lake, Window(settings.dedup_window_days), settings.commit_interval_s)
        print("ready", flush=True)  # noqa: T201  # the parent waits for this line
        committer.run(stop)


def _made_stream(data_dir: Path) -> Path:
    path = stream_path(data_dir)
    from manymetrics.local_stream import open_stream

    open_stream(path).close()
    return path


def _stop_at_end_of_input(stop: threading.Event) -> None:
    sys.stdin.buffer.read()
    stop.set()


@contextlib.contextmanager
def _lock(path: Path, stop: threading.Event) -> AsyncIterator[bool]:  # type: ignore[misc]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        while not stop.is_set():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.1)
            else:
                yield True  # type: ignore[misc]
                return
        yield False  # type: ignore[misc]


if __name__ == "__main__":
    log_json_lines()
    for ignored in (signal.SIGINT, signal.SIGTERM):  # the pipe says when to stop, so that a commit is finished
        signal.signal(ignored, signal.SIG_IGN)
    run_committer(Settings.read(os.environ))
