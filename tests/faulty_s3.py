"""A way to S3 on which PUTs fail: from the one with a number on, or that one alone, before or after it is done.

Or they take long. GETs are noted, and fail too. What isn't S3's goes the same way, unharmed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from typing import cast
from urllib.parse import urlsplit

from tests.local_http import read_body, serving, url_of

_OWN = {"expect", "transfer-encoding", "content-length"}  # of a connection, or made anew


_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class FaultyS3:
    """``puts`` counts them from 1. Those whose number is in ``failing`` are reset, done (``lands``) or not.

    ``before`` is called before each PUT. ``gets`` has the path and the bytes answered of each. As many as ``cut`` says
    break off halfway; those of a path that ends in ``forbidden`` are not permitted.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.gets: list[tuple[str, int]] = []
        self.cut = 0
        self.forbidden = "none"
        self.puts = 0
        self.failing: range = range(0)
        self.lands = False
        self.before: Callable[[], None] = lambda: None


@contextmanager
def faulty_s3(s3_url: str) -> Iterator[FaultyS3]:
    with serving(_Handler) as server:
        server.faulty = faulty = FaultyS3(url_of(server))  # type: ignore[attr-defined]  # for the handler
        server.to = urlsplit(s3_url).netloc  # type: ignore[attr-defined]  # as above
        yield faulty


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm, wbufsize = True, -1  # else each answer waits 40 ms for an acknowledgement

    def handle_expect_100(self) -> bool:
        asked = super().handle_expect_100()
        self.wfile.flush()  # Java waits for this before it sends a body
        return asked

    def _any(self) -> None:
        body = read_body(self)
        faulty = cast("FaultyS3", self.server.faulty)  # type: ignore[attr-defined]  # set where the server is made
        fails = False
        if self.command == "PUT":
            faulty.puts += 1
            faulty.before()
            fails = faulty.puts in faulty.failing
        if fails and not faulty.lands:
            self.close_connection = True
            return
        if self.command == "GET" and self.path.endswith(faulty.forbidden):
            self._send(403, [("Content-Type", "application/xml")], _DENIED)
            return
        connection = HTTPConnection(self.server.to, timeout=30)  # type: ignore[attr-defined]  # as above
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OWN}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if fails:
            self.close_connection = True
            return
        cut = 0
        if self.command == "GET":
            faulty.gets.append((self.path, len(data)))
            cut, faulty.cut = (len(data) // 2, faulty.cut - 1) if faulty.cut else (0, 0)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self._send(answer.status, answer.getheaders(), data, length or str(len(data)), cut)

    def _send(
        self, status: int, headers: list[tuple[str, str]], data: bytes, length: str | None = None, cut: int = 0
    ) -> None:
        """``cut``: how many bytes of the end don't arrive."""
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in {"connection", "content-length", "transfer-encoding", "date", "server"}:
                self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) - cut])
        self.close_connection = self.close_connection or cut > 0

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _any  # noqa: N815  # named by http.server

    def log_message(self, *_arguments: object) -> None:
        return
