"""uvicorn's HTTP, with a short way for the hot routes, a limit on a request's head, and our words for what is none.

the short way   A whole POST to a hot route goes from the parser to the collector, and its answer to the socket:
                no ASGI messages in between, which cost more than all that the collector does for one event.
                Anything unusual (a body that is slow, large or chunked, requests ahead of it on the connection,
                Expect, HTTP/1.0) goes uvicorn's way, to the same collector.
the limit       uvicorn's request line and headers have none: 75 MB of them took 1 GB.
our words       What is not HTTP at all is refused in them, counted, and leaves no log line.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from manymetrics import telemetry
from manymetrics.admission import SMALL_BODY_BYTES
from manymetrics.collect import ROUTES, Answer, Collector, Front, Request, Route, refusal_answer
from manymetrics.intake import Refusal
from manymetrics.outcomes import RequestOutcome

MAX_HEAD_BYTES = 256_000  # of a request that bring neither its headers to an end nor any body
HEAD_TOO_LARGE = Refusal(
    431, RequestOutcome.TOO_LARGE, "head_too_large", f"the request line and headers are over {MAX_HEAD_BYTES} bytes"
)
NOT_HTTP = Refusal(400, RequestOutcome.BAD_REQUEST, "not_http", "this is not HTTP/1.1: see RFC 9112")
BODY_WAIT_S = 1.0  # how long the short way waits for the rest of a body; uvicorn's way then goes on, with its limits


class HttpProtocol(HttpToolsProtocol):
    """For uvicorn's ``http``; give it log_level="error" with it, since uvicorn warns of each such request."""

    _head_bytes = 0  # since something came of them
    _route: Route | None = None  # of the request that is coming in, while it goes the short way
    _query = b""
    _body: list[bytes] = []  # noqa: RUF012  # each request has its own
    _collector: Collector | None = None  # where the short way leads; None where the app or a setting allows none
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """As uvicorn's."""
        super().connection_made(transport)
        if isinstance(self.app, Front) and not self.root_path and self.limit_concurrency is None:
            self._collector = self.app.collector

    def data_received(self, data: bytes) -> None:
        """As uvicorn's, with the limit."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._route is not None and self._waiting is None:
            self._waiting = self.loop.call_later(BODY_WAIT_S, self._leave_short_way)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HEAD_TOO_LARGE)

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn's."""
        self._route = None
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """As uvicorn's, but its scope is made only for what goes its way."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        """As uvicorn's, or the short way's start."""
        self._head_bytes = 0
        self._route = self._short_way()
        self._body = []
        if self._route is None:
            self._start_cycle()

    def on_body(self, body: bytes) -> None:
        """As uvicorn's."""
        self._head_bytes = 0
        if self._route is None:
            super().on_body(body)
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """As uvicorn's, or the short way's end."""
        route = self._route
        if route is None or self._collector is None:
            return super().on_message_complete()
        self._route = None
        self._stop_waiting()
        peer = self.client[0] if self.client else None
        self.cycle = cycle = _Cycle()  # type: ignore[assignment]  # it has what uvicorn asks of one
        request = Request(route, self.headers, self._query, peer, b"".join(self._body), cycle)
        cycle.task = self.loop.create_task(self._answer(self._collector, request, cycle))
        return None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's words
        """As uvicorn's: answers, and closes the connection."""
        self._refuse(NOT_HTTP)

    def _short_way(self) -> Route | None:
        """The route of a request that may go the short way, by its head."""
        path, _, self._query = self.url.partition(b"?")
        route, parser = ROUTES.get(path), self.parser
        ahead: RequestResponseCycle | None = self.cycle
        if (
            route is None
            or self._collector is None
            or b"#" in self._query
            or self.expect_100_continue
            or (ahead is not None and not ahead.response_complete)
            or self.flow.write_paused
            or parser.get_method() != b"POST"
            or parser.get_http_version() != "1.1"
            or not parser.should_keep_alive()
            or parser.should_upgrade()
        ):
            return None
        lengths = [value for name, value in self.headers if name == b"content-length"]
        return route if len(lengths) == 1 and int(lengths[0]) <= SMALL_BODY_BYTES else None

    def _start_cycle(self) -> None:
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expect
        self.headers += headers
        super().on_headers_complete()

    def _leave_short_way(self) -> None:
        self._waiting, self._route = None, None
        self._start_cycle()
        for body in self._body:
            super().on_body(body)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    async def _answer(self, collector: Collector, request: Request, cycle: _Cycle) -> None:
        answer = await collector.answer(request)
        cycle.response_complete = True
        if cycle.disconnected:
            return
        self._write(answer, close=not cycle.keep_alive)
        self.on_response_complete()

    def _refuse(self, refusal: Refusal) -> None:
        telemetry.count_request(refusal.outcome)
        self._write(refusal_answer(refusal), close=True)

    def _write(self, answer: Answer, *, close: bool) -> None:
        """Send an answer whole; ``close`` the connection after it, where it does not say so itself."""
        headers = [*self.server_state.default_headers, *answer.headers]
        if close and not answer.closes:
            headers.append((b"connection", b"close"))
        lines = (b"%b: %b\r\n" % header for header in headers)
        self.transport.write(b"".join((STATUS_LINE[answer.status], *lines, b"\r\n", answer.body)))
        if close or answer.closes:
            self.transport.close()


class _Cycle:
    """A request on the short way, as uvicorn looks at it: whether it is answered, and what came in between."""

    __slots__ = ("disconnected", "keep_alive", "message_event", "response_complete", "task")

    def __init__(self) -> None:
        self.response_complete = self.disconnected = False
        self.keep_alive = True
        self.message_event = _nobody_waits
        self.task: asyncio.Task[None] | None = None  # held here, for the loop itself does not


_nobody_waits = asyncio.Event()
