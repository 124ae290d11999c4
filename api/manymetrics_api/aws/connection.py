"""An asyncio HTTP/1.1 client connection to a JSON service, one exchange at a time."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, cast

MAX_ANSWER_BYTES = 10_000_000


class Answer(NamedTuple):
    """An HTTP response; ``keeps``: whether its connection can be reused."""

    status: int
    body: bytes
    keeps: bool


class Connection(asyncio.Protocol):
    """A connection that carries one exchange at a time."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self.closed = self.heard = False  # heard: whether part of the response has arrived
        self._received = b""
        self._answer: asyncio.Future[Answer] | None = None

    async def exchange(self, request: bytes) -> Answer:
        """Send a request and return the response. Raises ConnectionError if it is incomplete, or not HTTP."""
        if self.closed:
            raise ConnectionResetError
        self.heard, self._received = False, b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close the connection immediately."""
        self.closed = True
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Like asyncio's."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Like asyncio's."""
        self.heard = True
        self._received += data
        try:
            answer = parse_answer(self._received)
        except ValueError:
            return self.connection_lost(None)
        if answer is not None and self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)
        return None

    def eof_received(self) -> None:
        """Like asyncio's: the connection closes."""
        self.closed = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Like asyncio's."""
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc if isinstance(exc, OSError) else ConnectionResetError())


def parse_answer(received: bytes) -> Answer | None:
    """Parse a response; None while incomplete. Raises ValueError if it is invalid or too large."""
    if len(received) > MAX_ANSWER_BYTES:
        raise ValueError("response too large")
    head, end, rest = received.partition(b"\r\n\r\n")
    if not end:
        return None
    first, *lines = head.split(b"\r\n")
    version, _, status = first.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise ValueError("not an HTTP/1 response")
    named = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    keeps = version == b"HTTP/1.1" and named.get(b"connection", b"").lower() != b"close"
    if named.get(b"transfer-encoding", b"").lower() == b"chunked":
        body = _of_chunks(rest)
    else:
        length = int(named[b"content-length"]) if b"content-length" in named else -1
        if length < 0:
            raise ValueError("response without a length")
        body = rest[:length] if len(rest) >= length else None
    return None if body is None else Answer(int(status[:3]), body, keeps)


def _of_chunks(rest: bytes) -> bytes | None:
    parts: list[bytes] = []
    while True:
        line, end, rest = rest.partition(b"\r\n")
        if not end:
            return None
        size = int(line.partition(b";")[0], 16)
        if size < 0:
            raise ValueError("negative chunk size")
        if not size:
            return b"".join(parts) if rest.endswith(b"\r\n") else None
        if len(rest) < size + 2:
            return None
        parts.append(rest[:size])
        rest = rest[size + 2 :]
