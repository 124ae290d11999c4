"""A way to Glue on which answers get lost, and on which a test may act between a request and its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from typing import Literal, cast
from urllib.parse import urlsplit

from tests.local_http import serving, url_of

Fault = Literal["lost", "error after", "unavailable", "throttled"]
"""What becomes of an UpdateTable: done and not answered, done and answered 500, not done and 503, not done and 400."""


class FaultyGlue:
    """Faultless until told otherwise. ``faults`` are used up; ``every`` is for all that follow.

    ``before`` and ``after`` are called around each UpdateTable; ``updates`` counts them.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.reset()

    def reset(self) -> None:
        self.faults: list[Fault] = []
        self.every: Fault | None = None
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self.updates = 0

    def next_fault(self) -> Fault | None:
        self.updates += 1
        return self.faults.pop(0) if self.faults else self.every


@contextmanager
def faulty_glue(glue_url: str) -> Iterator[FaultyGlue]:
    with serving(_Handler) as server:
        server.faulty = faulty = FaultyGlue(url_of(server))  # type: ignore[attr-defined]  # for the handler
        server.to = urlsplit(glue_url).netloc  # type: ignore[attr-defined]  # as above
        yield faulty


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.headers.get("X-Amz-Target", "").endswith(".UpdateTable"):
            self._answer(*self._forward(body))
            return
        faulty = cast("FaultyGlue", self.server.faulty)  # type: ignore[attr-defined]  # set where the server is made
        fault = faulty.next_fault()
        if fault == "unavailable":
            self._answer(503, b'{"__type":"ServiceUnavailableException"}')
        elif fault == "throttled":
            self._answer(400, b'{"__type":"ThrottlingException","message":"Rate exceeded"}')
        else:
            faulty.before()
            status, answer = self._forward(body)
            faulty.after()
            if fault == "lost":
                self.close_connection = True
            elif fault == "error after":
                self._answer(500, b'{"__type":"InternalServiceException"}')
            else:
                self._answer(status, answer)

    def _forward(self, body: bytes) -> tuple[int, bytes]:
        connection = HTTPConnection(self.server.to, timeout=30)  # type: ignore[attr-defined]  # as above
        try:
            connection.request("POST", self.path, body, dict(self.headers))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        return
