"""`manymetrics serve` in a process of its own, on a free port of 127.0.0.1, with a data directory of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pyarrow as pa

from manymetrics_api.keys import WriteKey, keys_path, write_keys
from manymetrics_cli.one_machine import stream_path
from manymetrics_processor.lake.lake import local_catalog
from tests.in_process import KEYS, basic
from tests.ports import free_port

MANYMETRICS = Path(sys.executable).parent / "manymetrics"
ORACLE_KEYS = (
    WriteKey(key="wk_oracle_live", project="oracle", kind="server"),
    WriteKey(key="wk_oracle_revoked", project="oracle", revoked=True),
)
_Value = TypeVar("_Value")


class LiveServer:
    """A running server. ``start`` and ``stop`` may be called again: the data directory stays."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.data_dir, self.log, self.output = data_dir, data_dir.with_suffix(".log"), data_dir.with_suffix(".out")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = settings
        # A connection each, so that none outlives a server that is killed.
        self.client = httpx.Client(base_url=self.url, timeout=30, limits=httpx.Limits(max_keepalive_connections=0))
        self.process: subprocess.Popen[bytes] | None = None
        self._markers = 0

    @property
    def stream(self) -> Path:
        """The stream's database."""
        return stream_path(self.data_dir)

    @property
    def pid(self) -> int:
        """Of the process that serves."""
        assert self.process is not None
        return self.process.pid

    def start(self, preexec: Callable[[], None] | None = None) -> None:
        """Returns once events reach the tables; ``preexec`` runs in the new process, before it is the server."""
        said = self.output.stat().st_size if self.output.exists() else 0
        self.launch(preexec)
        eventually(lambda: "is ready" in self.output.read_text()[said:] or None, within_s=60)

    def launch(self, preexec: Callable[[], None] | None = None) -> None:
        """As start, but returns at once."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MANYMETRICS_")}
        environ |= {
            "MANYMETRICS_DATA_DIR": str(self.data_dir),
            "MANYMETRICS_PORT": str(self.port),
            "MANYMETRICS_COMMIT_INTERVAL_S": "0.5",
            **{f"MANYMETRICS_{name.upper()}": value for name, value in self._settings.items()},
        }
        with self.log.open("ab") as log, self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [MANYMETRICS, "serve"],
                env=environ,
                stdout=output,
                stderr=log,
                preexec_fn=preexec,  # noqa: PLW1509  # a limit of its own; no lock is held here
            )

    def alive(self) -> bool:
        """Whether the process is there, and /healthz says so."""
        if self.process is None or self.process.poll() is not None:
            return False
        try:
            return self.client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Send the signal, and wait for the end; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal_number)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def post(self, path: str, body: bytes, key: str = "wk_shop", **headers: str) -> httpx.Response:
        """POST with a key as Basic user; header names are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path, content=body, headers=basic(f"{key}:") | named)

    def raw(self, request: bytes | Sequence[bytes], *, pause_s: float = 0, timeout_s: float = 10) -> bytes:
        """Send bytes over a socket of their own, with a pause after each part; returns what came until the end.

        The end: the server closed the connection, or a whole answer is there, or the time is over.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            parts = [request] if isinstance(request, bytes) else request
            answer = b""
            try:
                for part in parts:
                    connection.sendall(part)
                    if pause_s:
                        time.sleep(pause_s)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has answered already, and closed
            until = time.monotonic() + timeout_s
            while not _is_whole(answer) and time.monotonic() < until:
                try:
                    received = connection.recv(65_536)
                except (TimeoutError, ConnectionResetError):
                    break
                if not received:
                    break
                answer += received
            return answer

    def rss_bytes(self) -> int:
        """Resident memory of the process that serves."""
        fields = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def requests(self) -> dict[str, int]:
        """How many requests since its start, by outcome."""
        text = self.client.get("/metrics").text
        pattern = r'^manymetrics_requests_total\{outcome="(\w+)"\} ([\d.]+)$'
        return {name: int(float(count)) for name, count in re.findall(pattern, text, re.MULTILINE)}

    def rows(self, table: str = "events", columns: Sequence[str] = ("message_id",)) -> list[dict[str, Any]]:
        """What is committed."""
        loaded = local_catalog(self.data_dir).load_table(f"manymetrics.{table}")
        arrow: pa.Table = loaded.scan(selected_fields=tuple(columns)).to_arrow()
        rows: list[dict[str, Any]] = arrow.to_pylist()
        return rows

    def settle(self) -> None:
        """Wait until all that was sent so far is committed: there is one shard, so when one more event is."""
        self._markers += 1
        marker = f"marker {self._markers}"
        body = b'{"userId":"marker","event":"Marker","messageId":"%s"}' % marker.encode()
        eventually(lambda: self.post("/v1/track", body).status_code == 200 or None)
        eventually(lambda: {"message_id": marker} in self.rows() or None)

    def rows_once(
        self, count: int, table: str = "events", columns: Sequence[str] = ("message_id",)
    ) -> list[dict[str, Any]]:
        """What is committed, once it is so many rows or more."""

        def enough() -> list[dict[str, Any]] | None:
            rows = self.rows(table, columns)
            return rows if len(rows) >= count else None

        return eventually(enough)


@contextmanager
def live_server(
    data_dir: Path,
    keys: Sequence[WriteKey] = (*KEYS, *ORACLE_KEYS),
    preexec: Callable[[], None] | None = None,
    **settings: str,
) -> Iterator[LiveServer]:
    """A server with these keys, while the context is open."""
    data_dir.mkdir(parents=True, exist_ok=True)
    write_keys(keys_path(data_dir), keys)
    server = LiveServer(data_dir, **settings)
    server.start(preexec)
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()


def eventually(ask: Callable[[], _Value | None], within_s: float = 30, every_s: float = 0.05) -> _Value:
    """What ``ask`` returns, once that is not None."""
    until = time.monotonic() + within_s
    while (value := ask()) is None:
        assert time.monotonic() < until, f"not within {within_s} s"
        time.sleep(every_s)
    return value


def _is_whole(answer: bytes) -> bool:
    head, blank, body = answer.partition(b"\r\n\r\n")
    if not blank or head.startswith(b"HTTP/1.1 100"):
        return False
    if head.startswith(b"HTTP/1.1 204"):
        return True
    length = re.search(rb"(?i)^content-length: *(\d+)", head, re.MULTILINE)
    return length is not None and len(body) >= int(length[1])
