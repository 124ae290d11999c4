"""A load generator: some keep-alive connections, each of which asks again as soon as it is answered.

It is our own, so that the bench needs nothing but what the product needs. Whatever is not a 2xx ends the run:
a server that refuses is fast, and must not look so.
"""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import cast

import uvloop


class RefusedError(Exception):
    """The server answered something but 2xx, or hung up. The message quotes its answer."""


def drive(port: int, requests: Sequence[bytes], *, seconds: float, connections: int) -> int:
    """The number of requests answered. All that were sent are answered when this returns.

    Raises RefusedError.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_drive(port, cycle(requests), seconds, connections))


async def _drive(port: int, requests: Iterator[bytes], seconds: float, connections: int) -> int:
    loop = asyncio.get_running_loop()
    asking: list[_Asking] = []
    for _ in range(connections):
        _, protocol = await loop.create_connection(lambda: _Asking(requests), "127.0.0.1", port)
        asking.append(protocol)
    until = loop.time() + seconds
    for one in asking:
        one.start(until)
    await asyncio.gather(*(one.done for one in asking))
    return sum(one.answered for one in asking)


class _Asking(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes]) -> None:
        self.answered = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._until = 0.0
        self._now = asyncio.get_running_loop().time
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def start(self, until: float) -> None:
        self._until = until
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not _is_whole(self._got):
            return
        if not self._got.startswith(b"HTTP/1.1 2"):
            self._finish(RefusedError(self._got[:500].decode(errors="replace")))
            return
        self._got = b""
        self.answered += 1
        if self._now() < self._until:
            self._transport.write(next(self._requests))
        else:
            self._finish(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(RefusedError(f"the server hung up: {exc}"))

    def _finish(self, error: RefusedError | None) -> None:
        if self.done.done():
            return
        if error:
            self.done.set_exception(error)
        else:
            self.done.set_result(None)
        self._transport.close()


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    _, named, rest = head.lower().partition(b"content-length:")
    return not named or len(body) >= int(rest.split(b"\r\n", 1)[0])
