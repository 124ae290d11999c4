"""PutRecords over real HTTP, answered as a script says: what moto has no switch for."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

THROTTLED = "ProvisionedThroughputExceededException"


class KinesisStub:
    """``script`` says how the next calls are answered, by name; when it is over, all are answered well.

    third       each third record fails, the others land
    throttled   no record lands
    lost        all land, and the connection is closed without an answer
    reset       none lands, and the connection is closed without an answer
    broken      503, with a body that is no JSON
    short       all land, and the answer speaks of one too few
    last        all land, and the connection is closed after the answer
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.script: deque[str] = deque()
        self.landed: list[bytes] = []
        self.calls: list[tuple[dict[str, str], bytes, dict[str, Any]]] = []
        self.connections = 0
        self._lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                stub.connections += 1
                super().setup()

            def do_POST(self) -> None:  # named by http.server
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with stub._lock:
                    status, answer = stub._answer(headers, body)
                if status:
                    self.send_response(status)
                    self.send_header("content-length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                self.close_connection = self.close_connection or not status or stub._closes

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._closes = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}"

    def _answer(self, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        content = json.loads(body)
        self.calls.append((headers, body, content))
        act = self.script.popleft() if self.script else "well"
        self._closes = act == "last"
        records = [base64.b64decode(record["Data"]) for record in content["Records"]]
        fails = _FAILS.get(act, _none)
        self.landed += [record for at, record in enumerate(records) if not fails(at)]
        results = [
            {"ErrorCode": THROTTLED, "ErrorMessage": "slow down"}
            if fails(at)
            else {"SequenceNumber": "1", "ShardId": "s"}
            for at in range(len(records))
        ]
        if act in {"lost", "reset"}:
            return 0, b""
        if act == "broken":
            return 503, b"<html>"
        return 200, json.dumps({"Records": results[1:] if act == "short" else results}).encode()


def _none(_at: int) -> bool:
    return False


_FAILS: dict[str, Callable[[int], bool]] = {
    "third": lambda at: at % 3 == 2,
    "throttled": lambda _: True,
    "reset": lambda _: True,
    "broken": lambda _: True,
}


@contextmanager
def kinesis_stub(tls: ssl.SSLContext | None = None) -> Iterator[KinesisStub]:
    """A running one; with ``tls``, over TLS."""
    stub = KinesisStub(tls)
    stub._thread.start()
    try:
        yield stub
    finally:
        stub._server.shutdown()
        stub._thread.join()
        stub._server.server_close()
