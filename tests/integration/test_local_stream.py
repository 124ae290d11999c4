"""200 means durable, on one machine: a stream that is locked, full, deleted or killed loses nothing that it took."""

import ctypes
import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path

import httpx
import pytest

from tests.bench.process import children
from tests.in_process import basic
from tests.live_server import LiveServer, eventually, live_server

FULL_AT_BYTES = 3_000_000
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _PR_CAPBSET_DROP = 1, 2, 24


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with live_server(tmp_path / "data") as running:
        yield running


def _event(message_id: str, padding: int = 0) -> bytes:
    return b'{"userId":"u","event":"A","messageId":"%s","properties":{"p":"%s"}}' % (
        message_id.encode(),
        b"p" * padding,
    )


def _assert_can_not_store(server: LiveServer, padding: int = 0) -> None:
    refused = server.post("/v1/track", _event("refused", padding))

    assert (refused.status_code, refused.json()["code"]) == (503, "stream_unavailable")
    assert refused.headers["retry-after"] == "1"
    assert server.client.get("/readyz").status_code == 503
    assert server.client.get("/healthz").status_code == 200


def _assert_stores_again(server: LiveServer, *ids: str) -> None:
    """Without a restart; and what was taken before is there too."""
    eventually(lambda: server.post("/v1/track", _event("afterwards")).status_code == 200 or None)
    assert server.client.get("/readyz").status_code == 200
    # Not settle(): heavy events may be committed after one that came later.
    eventually(lambda: {"afterwards", *ids} <= {row["message_id"] for row in server.rows()} or None)
    stored = [row["message_id"] for row in server.rows()]
    assert len(stored) == len(set(stored))


def test_while_the_stream_is_locked_nothing_is_acknowledged_and_then_it_goes_on(server: LiveServer) -> None:
    assert server.post("/v1/track", _event("before")).status_code == 200

    with closing(sqlite3.connect(server.stream, isolation_level=None)) as other:
        other.execute("begin immediate")
        _assert_can_not_store(server)
        other.execute("rollback")

    _assert_stores_again(server, "before")


def test_when_the_disk_is_full_nothing_is_acknowledged_and_when_it_has_room_it_goes_on(tmp_path: Path) -> None:
    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_AT_BYTES, resource.RLIM_INFINITY))

    with live_server(tmp_path / "data", preexec=fill) as server:
        taken: list[str] = []
        for padding in (400_000, 10_000, 0):  # until there is no room for the smallest
            while server.post("/v1/track", _event(f"full {len(taken)}", padding)).status_code == 200:
                taken.append(f"full {len(taken)}")
        _assert_can_not_store(server)

        for pid in (server.pid, *children(server.pid)):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

        assert len(taken) > 2
        _assert_stores_again(server, *taken)


def test_a_server_that_starts_on_a_read_only_disk_takes_nothing_until_it_can_write(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    server = LiveServer(data_dir)
    with live_server(data_dir) as first:
        first.stop()
    for path in (data_dir, *data_dir.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)

    server.launch(_obey_permissions)
    try:
        eventually(lambda: server.alive() or None)
        _assert_can_not_store(server)
        for path in (data_dir, *data_dir.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)

        _assert_stores_again(server)
    finally:
        server.stop()


def _obey_permissions() -> None:
    """Let the permissions of files hold for root too, in the process that is executed next."""
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability)


def test_a_stream_that_is_deleted_and_made_again_beside_kept_tables_loses_nothing(server: LiveServer) -> None:
    before = [f"before {number}" for number in range(50)]
    for message_id in before:
        assert server.post("/v1/track", _event(message_id)).status_code == 200
    server.settle()

    _delete_stream(server)
    after = [f"after {number}" for number in range(50)]
    for message_id in after:
        assert server.post("/v1/track", _event(message_id)).status_code == 200

    _assert_stores_again(server, *before, *after)


def _delete_stream(server: LiveServer) -> None:
    for suffix in ("-wal", "-shm", ""):  # the log of one database must not be found beside another
        server.stream.with_name(server.stream.name + suffix).unlink(missing_ok=True)


def _all_read_it(server: LiveServer) -> bool:
    """Whether the server and its committer have the stream open, and not one that was deleted."""
    return all(str(server.stream) in _open_files(pid) for pid in (server.pid, *children(server.pid)))


def _open_files(pid: int) -> set[str]:
    found = set[str]()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found.add(str(link.readlink()))
    return found


class Load:
    """Clients that send one event after the other, and remember which were acknowledged."""

    def __init__(self, server: LiveServer, clients: int = 4) -> None:
        self.acknowledged: list[str] = []
        self._server, self._stop = server, threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(clients)]

    @contextmanager
    def running(self) -> Iterator[None]:
        """While the context is open."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _send(self, client: int) -> None:
        with httpx.Client(base_url=self._server.url, headers=basic("wk_shop:")) as connection:
            for number in count():
                if self._stop.is_set():
                    return
                message_id = f"load {client} {number}"
                try:
                    if connection.post("/v1/track", content=_event(message_id)).status_code == 200:
                        self.acknowledged.append(message_id)
                except httpx.TransportError:
                    time.sleep(0.02)

    def wait_for(self, acknowledged: int) -> None:
        """Until so many more are acknowledged."""
        target = len(self.acknowledged) + acknowledged
        eventually(lambda: len(self.acknowledged) >= target or None)


def _assert_each_acknowledged_once(server: LiveServer, load: Load) -> None:
    server.settle()
    stored = [row["message_id"] for row in server.rows()]
    assert set(load.acknowledged) - set(stored) == set()
    assert len(stored) == len(set(stored))


def test_kill_9_under_load_loses_nothing_that_was_acknowledged(server: LiveServer) -> None:
    load = Load(server)

    with load.running():
        for _ in range(3):
            load.wait_for(100)
            server.stop(signal.SIGKILL)
            server.start()
        load.wait_for(100)

    _assert_each_acknowledged_once(server, load)


def test_sigterm_under_load_ends_it_and_loses_nothing_that_was_acknowledged(server: LiveServer) -> None:
    load = Load(server)

    with load.running():
        load.wait_for(200)
        server.stop(signal.SIGTERM)
    server.start()

    _assert_each_acknowledged_once(server, load)


def test_while_the_stream_is_deleted_under_load_each_acknowledged_event_is_stored(server: LiveServer) -> None:
    load = Load(server)

    with load.running():
        for _ in range(3):
            load.wait_for(50)
            _delete_stream(server)
            eventually(lambda: _all_read_it(server) or None)  # the committer alone still holds a deleted one
        load.wait_for(50)

    _assert_each_acknowledged_once(server, load)
