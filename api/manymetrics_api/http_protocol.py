"""uvicorn's HTTP protocol with a fast path for ingestion routes, limits on heads and connections, and our errors.

fast path    A complete POST to a hot route goes from the parser to the collector, and the response to the socket,
             without ASGI messages, which cost more than all of the collector's work for one event.
             Anything unusual (a slow, large or chunked body, pipelined requests ahead of it, Expect, HTTP/1.0)
             takes uvicorn's ASGI path to the same collector.
heads        uvicorn limits neither the size of the request line and headers (75 MB of them took 1 GB) nor their time.
pieces       Each costs a microsecond, so a body in chunks of one byte is rejected.
connections  Past a limit derived from the file descriptors, the longest idle ones are closed for new ones; if none is
             idle, those with an incomplete request. `limit_concurrency` would reject the new ones.
error bodies Input that is not HTTP is rejected with our error body, and counted, but not logged. What the client still
             sends is read briefly; otherwise the connection would be reset and the response lost.
upgrades     Ignored, as RFC 9110 7.8 allows: the JDK's client requests h2c with each request.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import resource
from collections.abc import Iterable
from functools import cache

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from manymetrics import telemetry
from manymetrics.refusals import (
    HEAD_TIMEOUT,
    HEAD_TOO_LARGE,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    NOT_HTTP,
    OVERLOADED,
    TOO_MANY_PIECES,
    Refusal,
)
from manymetrics_api.admission import MAX_SMALL_BODIES_BYTES, SMALL_BODY_BYTES
from manymetrics_api.collect import OK, Answer, Collector, Front, HeaderList, Request, refusal_answer
from manymetrics_api.routes import ROUTES, Route

log = logging.getLogger("manymetrics.http")

MAX_PIECES, LEAST_PIECE_BYTES = 2_000, 512  # of a body: more pieces must have at least this average size
HEAD_WAIT_S = 10.0  # for a request's line and headers, from the start of the connection or their first byte
MOST_PARTS = 64  # maximum parts of a body on the fast path
BODY_WAIT_S = 1.0  # how long the fast path waits for the rest of a body; then the ASGI path continues, with its limits
RESERVED_FILES = 256  # file descriptors for other uses and for connection bursts; a quarter if fewer are available
BACKLOG = 200  # connections that may arrive at once: fewer than the reserved files
MOST_FILES = 65_536  # maximum requested limit of file descriptors
CLOSED_AT_ONCE = 16  # past the limit, one in 16 connections is closed at once, since finding the idle ones takes time
LOG_EVERY_S = 60.0
LINGER_S, LINGER_BYTES = 2.0, 2_000_000  # how long and how much is read and discarded after a refusal
_UPGRADE_TOKENS = frozenset({b"upgrade", b"http2-settings"})  # header names, and tokens of Connection


@cache
def max_connections() -> int:
    """Return the maximum number of connections, from the file descriptor limit, which is raised as far as allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError) as error:
            log.warning("could not raise the limit of open files", exc_info=error)
    files = MOST_FILES if soft == resource.RLIM_INFINITY else soft
    return max(files - RESERVED_FILES, files * 3 // 4) if files > 2 * RESERVED_FILES else max(files // 2, 8)


class HttpProtocol(HttpToolsProtocol):
    """Pass as uvicorn's ``http``, with log_level="error": uvicorn logs a warning for each invalid request."""

    _head_bytes = 0  # since the last parsed head or part of a body
    _route: Route | None = None  # of the incoming request, while it is on the fast path
    _query = b""
    _body: list[bytes] = []  # noqa: RUF012  # each request has its own
    _collector: Collector | None = None  # of the fast path; None if the app or a setting doesn't allow it
    _waiting: asyncio.TimerHandle | None = None
    _head_timer: asyncio.TimerHandle | None = None  # while a head is expected
    _pieces = _body_bytes = 0  # of the incoming body
    _held = 0  # its bytes that count towards MAX_SMALL_BODIES_BYTES
    _refusal = NOT_HTTP  # of a request that the parser rejects
    _since = 0.0  # when the connection was made
    _number = 0  # of the connection, in order
    max_connections: int | None = None  # None: from the limit of file descriptors
    _unread: int | None = None  # bytes that may still arrive after a refusal; None while requests are accepted

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Do what uvicorn does, with the limit on connections."""
        super().connection_made(transport)
        self._since, self._number = self.loop.time(), next(_numbers)
        self._head_timer = self.loop.call_later(HEAD_WAIT_S, self._head_is_late)
        most = self.max_connections or max_connections()
        if len(self.connections) > most:
            _make_room(self, [one for one in self.connections if isinstance(one, HttpProtocol)], most)
        if isinstance(self.app, Front) and not self.root_path and self.limit_concurrency is None:
            self._collector = self.app.collector

    def data_received(self, data: bytes) -> None:
        """Do what uvicorn does, with the limits."""
        if self._unread is not None:
            self._unread -= len(data)
            if self._unread < 0:
                self.transport.close()
            return
        self._head_bytes += len(data)
        self._unset_keepalive_if_required()
        self._parse(data)
        if self._route is not None:
            self._hold(len(data))
        if self._head_bytes and not self._is_refused() and not self.transport.is_closing():
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(HEAD_TOO_LARGE)
            elif self._head_timer is None and not self._is_busy():
                self._head_timer = self.loop.call_later(HEAD_WAIT_S, self._head_is_late)
        elif self.timeout_keep_alive_task is None and not self._is_busy() and not self._is_refused():
            # The response was sent before the body's end: nothing else would close an idle connection.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """Do what uvicorn does, and cancel the timers."""
        self._route = None
        self._stop_waiting()
        self._stop_head_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Do what uvicorn does, but create the scope only for requests on the ASGI path."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Do what uvicorn does, with the limit. Also called for trailers of a chunked body."""
        if len(self.headers) >= MAX_HEADERS:
            self._refusal = HEAD_TOO_LARGE
            raise ValueError
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def _parse(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        while rest:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = memoryview(rest)[upgrade.args[0] :]  # each of many pipelined requests may be an upgrade
                if not self._ignore_upgrade():
                    return
            except httptools.HttpParserError:
                self._refuse(self._refusal)
                return
            else:
                return

    def _ignore_upgrade(self) -> bool:
        """Parse the request's head again without the upgrade; its body follows. Return False if it is rejected."""
        method = self.parser.get_method()
        lines = [b"%b: %b\r\n" % header for header in map(_without_upgrade, self.headers) if header is not None]
        head = b"%b %b HTTP/%b\r\n" % (method, self.url, self.parser.get_http_version().encode())
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        try:
            if method != b"CONNECT":
                self.parser.feed_data(b"".join((head, *lines, b"\r\n")))
                return True
        except httptools.HttpParserError:
            pass
        self._refuse(self._refusal)
        return False

    def on_headers_complete(self) -> None:
        """Start the fast path, or do what uvicorn does."""
        if self.parser.should_upgrade():
            return
        self._head_bytes = self._pieces = self._body_bytes = 0
        if self._head_timer is not None:
            self._stop_head_timer()
        self._route = self._fast_path()
        self._body = []
        if self._route is None:
            self._start_cycle()

    def on_body(self, body: bytes) -> None:
        """Do what uvicorn does, with the limit on pieces; keep the body on the fast path."""
        self._head_bytes = 0
        self._pieces += 1
        self._body_bytes += len(body)
        if self._pieces > MAX_PIECES and self._pieces * LEAST_PIECE_BYTES > self._body_bytes:
            self._refusal = TOO_MANY_PIECES
            raise ValueError
        if self._route is None:
            super().on_body(body)
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Finish the fast path, or do what uvicorn does."""
        if self.parser.should_upgrade():
            return None
        route = self._route
        if route is None or self._collector is None:
            return super().on_message_complete()
        self._route = None
        self._stop_waiting()
        peer = self.client[0] if self.client else None
        self.cycle = cycle = _Cycle()  # type: ignore[assignment]  # it has the attributes that uvicorn reads
        request = Request(route, self.headers, self._query, peer, b"".join(self._body), cycle)
        cycle.task = self.loop.create_task(self._answer(self._collector, request, cycle))
        return None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's message
        """Send the refusal, and close the connection, as uvicorn does."""
        self._refuse(self._refusal)

    def close_for_others(self) -> None:
        """Close the connection: it is idle, or its request is incomplete and should be sent again."""
        if self.is_waiting() and self._unread is None:
            self.ask_to_come_again()
        else:
            self.transport.close()

    def ask_to_come_again(self) -> None:
        """Return 503, and close the connection."""
        self._refuse(OVERLOADED)
        self.transport.close()

    @property
    def idle_since(self) -> tuple[float, int]:
        """Return when the last response was sent or the connection was made, as a sort key."""
        timer = self.timeout_keep_alive_task
        return (timer.when() - self.timeout_keep_alive if timer is not None else self._since), self._number

    def is_idle(self) -> bool:
        """Return whether no request is known to be in progress or arriving."""
        return not self._is_busy() and not self._head_bytes

    def is_waiting(self) -> bool:
        """Return whether an incomplete request is arriving."""
        cycle: object = self.cycle
        if self._head_bytes or self._route is not None:
            return True
        return isinstance(cycle, RequestResponseCycle) and cycle.more_body and not cycle.response_complete

    def _is_refused(self) -> bool:
        return self._unread is not None

    def _is_busy(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return self._route is not None or (cycle is not None and not cycle.response_complete)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._head_bytes:
            self._refuse(HEAD_TIMEOUT)
        else:
            self.transport.close()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _hold(self, size: int) -> None:
        """Count the bytes of an incomplete body; leave the fast path after BODY_WAIT_S or past the limits."""
        if self._waiting is None:
            self._waiting = self.loop.call_later(BODY_WAIT_S, self._leave_fast_path)
        _of_fast_path.held += size
        self._held += size
        if _of_fast_path.held > MAX_SMALL_BODIES_BYTES or len(self._body) > MOST_PARTS:
            self._leave_fast_path()

    def _fast_path(self) -> Route | None:
        """Return the route of a request whose head allows the fast path, else None."""
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

    def _leave_fast_path(self) -> None:
        self._stop_waiting()
        self._route = None
        self._start_cycle()
        for body in self._body:
            super().on_body(body)
        self._body = []

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
            _of_fast_path.held -= self._held
            self._held = 0

    async def _answer(self, collector: Collector, request: Request, cycle: _Cycle) -> None:
        answer = await collector.answer(request)
        cycle.response_complete = True
        if cycle.disconnected:
            return
        self._write(answer, close=not cycle.keep_alive)
        self.on_response_complete()

    def _refuse(self, refusal: Refusal) -> None:
        if self._unread is not None or self.transport.is_closing():
            return
        telemetry.count_request(refusal.outcome, refusal.code)
        answer = refusal_answer(refusal)
        if self._collector is not None:
            answer = self._collector.with_cors(answer, self.headers or [])
        self._send(answer, close=True)
        self._linger()

    def _linger(self) -> None:
        """Close the connection when its client has finished sending, or after LINGER_S; immediately if it is busy."""
        self._stop_waiting()
        self._stop_head_timer()
        if self._is_busy():
            return self.transport.close()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._unread = LINGER_BYTES
        self.loop.call_later(LINGER_S, self.transport.close)
        return None

    def _write(self, answer: Answer, *, close: bool) -> None:
        """Send a complete response; ``close``: close the connection after it even if the response doesn't say so."""
        self._send(answer, close=close)
        if close or answer.closes:
            self.transport.close()

    def _send(self, answer: Answer, *, close: bool) -> None:
        default = self.server_state.default_headers
        if answer is OK and not close:
            self.transport.write(_ok.response(default))
            return
        headers = [*default, *answer.headers]
        if close and not answer.closes:
            headers.append((b"connection", b"close"))
        self.transport.write(_to_bytes(answer, headers))


class _Ok:
    """The usual response, as bytes; rebuilt with the Date header, which uvicorn sets once per second."""

    def __init__(self) -> None:
        self._default: HeaderList | None = None
        self._bytes = b""

    def response(self, default: HeaderList) -> bytes:
        if default is not self._default:
            self._default, self._bytes = default, _to_bytes(OK, [*default, *OK.headers])
        return self._bytes


_ok = _Ok()


def _to_bytes(answer: Answer, headers: HeaderList) -> bytes:
    lines = (b"%b: %b\r\n" % header for header in headers)
    return b"".join((STATUS_LINE[answer.status], *lines, b"\r\n", answer.body))


def _without_upgrade(header: tuple[bytes, bytes]) -> tuple[bytes, bytes] | None:
    """Return a header without its upgrade tokens; None if nothing else was in it."""
    name, value = header
    if name == b"connection":
        words = [word for word in map(bytes.strip, value.split(b",")) if word.lower() not in _UPGRADE_TOKENS]
        return (name, b", ".join(words)) if words else None
    return None if name in _UPGRADE_TOKENS else header


class _Cycle:
    """A request on the fast path, with the attributes that uvicorn reads: whether it is complete or disconnected."""

    __slots__ = ("disconnected", "keep_alive", "message_event", "response_complete", "task")

    def __init__(self) -> None:
        self.response_complete = self.disconnected = False
        self.keep_alive = True
        self.message_event = _nobody_waits
        self.task: asyncio.Task[None] | None = None  # a reference, since the loop keeps none


_nobody_waits = asyncio.Event()


class _FastPath:
    """Bytes of incoming bodies on the fast path, over all connections of this process."""

    held = 0


_of_fast_path = _FastPath()
_numbers = itertools.count()


class _Log:
    """Logs too many connections, at most once in LOG_EVERY_S."""

    def __init__(self) -> None:
        self._closed, self._next_at = 0, float("-inf")

    def note(self, closed: int, most: int, now: float) -> None:
        self._closed += closed
        if now < self._next_at:
            return
        log.warning(
            "too many connections: closed those idle longest; raise the limit of open files (ulimit -n) if they "
            "belong to your clients",
            extra={"facts": {"closed": self._closed, "limit": most}},
        )
        self._closed, self._next_at = 0, now + LOG_EVERY_S


connection_log = _Log()


def _make_room(new: HttpProtocol, connections: Iterable[HttpProtocol], most: int) -> None:
    others = [one for one in connections if one is not new and not one.transport.is_closing()]
    if len(others) < most:
        return
    waiting = [one for one in others if one.is_idle()] or [one for one in others if one.is_waiting()]
    waiting.sort(key=lambda one: one.idle_since)
    closed = waiting[: len(others) - most + 1 + most // CLOSED_AT_ONCE]
    for one in closed:
        one.close_for_others()
    if not closed:  # all have requests in progress
        new.ask_to_come_again()
    connection_log.note(max(1, len(closed)), most, new.loop.time())
