"""uvicorn's HTTP, with a fast path for ingestion routes, limits on heads and connections, and our error bodies.

fast path    A whole POST to a hot route goes from the parser to the collector, and its answer to the socket:
             no ASGI messages in between, which cost more than all that the collector does for one event.
             Anything unusual (a body that is slow, large or chunked, requests ahead of it on the connection,
             Expect, HTTP/1.0) goes uvicorn's way, to the same collector.
heads        uvicorn's request line and headers have no limit: 75 MB of them took 1 GB. Nor has their time.
pieces       Each costs a microsecond, so that a body in chunks of one byte is refused.
connections  Past a limit that follows from the file descriptors, those that are idle longest are closed for new ones;
             where none is idle, those whose request is not here yet. `limit_concurrency` would refuse the new ones.
error bodies What is not HTTP at all is refused with ours, counted, and leaves no log line. What its client still sends
             is read for a moment, or the connection would be reset and the answer lost.
upgrades     Ignored, as RFC 9110 7.8 allows: the JDK's client asks for h2c with each request.
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

MAX_PIECES, LEAST_PIECE_BYTES = 2_000, 512  # of a body: so many may be smaller
HEAD_WAIT_S = 10.0  # for a request's line and headers, from a connection's start or their own first byte
MOST_PARTS = 64  # of a body on the fast path
BODY_WAIT_S = 1.0  # how long the fast path waits for the rest of a body; uvicorn's way then goes on, with its limits
RESERVED_FILES = 256  # file descriptors for what is not a connection, and for those that come at once; or a quarter
BACKLOG = 200  # connections that may come at once: fewer than the reserved files
MOST_FILES = 65_536  # that are asked for
CLOSED_AT_ONCE = 16  # past the limit, one connection in so many is closed: looking for the idle ones takes time
LOG_EVERY_S = 60.0
LINGER_S, LINGER_BYTES = 2.0, 2_000_000  # how long and how much is read and thrown away after a refusal
_UPGRADE_TOKENS = frozenset({b"upgrade", b"http2-settings"})  # headers, and words of Connection


@cache
def max_connections() -> int:
    """How many connections may be open, by the limit of file descriptors, which is raised as far as may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError) as error:
            log.warning("the limit of open files can't be raised", exc_info=error)
    files = MOST_FILES if soft == resource.RLIM_INFINITY else soft
    return max(files - RESERVED_FILES, files * 3 // 4) if files > 2 * RESERVED_FILES else max(files // 2, 8)


class HttpProtocol(HttpToolsProtocol):
    """For uvicorn's ``http``; give it log_level="error" with it, since uvicorn warns of each such request."""

    _head_bytes = 0  # since something came of them
    _route: Route | None = None  # of the request that is coming in, while it goes the fast path
    _query = b""
    _body: list[bytes] = []  # noqa: RUF012  # each request has its own
    _collector: Collector | None = None  # where the fast path leads; None where the app or a setting allows none
    _waiting: asyncio.TimerHandle | None = None
    _head_timer: asyncio.TimerHandle | None = None  # while a head is to come
    _pieces = _body_bytes = 0  # of the body that is coming in
    _held = 0  # bytes of it that are counted as a small body's
    _refusal = NOT_HTTP  # of what the parser does not take
    _since = 0.0  # when the connection was made
    _number = 0  # and as which
    max_connections: int | None = None  # None: by the limit of file descriptors
    _unread: int | None = None  # bytes that may still come after a refusal; None while requests are taken

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Like uvicorn's, with the limit on connections."""
        super().connection_made(transport)
        self._since, self._number = self.loop.time(), next(_numbers)
        self._head_timer = self.loop.call_later(HEAD_WAIT_S, self._head_is_late)
        most = self.max_connections or max_connections()
        if len(self.connections) > most:
            _make_room(self, [one for one in self.connections if isinstance(one, HttpProtocol)], most)
        if isinstance(self.app, Front) and not self.root_path and self.limit_concurrency is None:
            self._collector = self.app.collector

    def data_received(self, data: bytes) -> None:
        """Like uvicorn's, with the limits."""
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
            # The answer went out before the body's end: nothing else would end an idle connection.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """Like uvicorn's."""
        self._route = None
        self._stop_waiting()
        self._stop_head_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Like uvicorn's, but its scope is made only for what goes its way."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Like uvicorn's, with the limit. A chunked body's trailers come here too."""
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
                rest = memoryview(rest)[upgrade.args[0] :]  # of many pipelined requests each may be an upgrade
                if not self._ignore_upgrade():
                    return
            except httptools.HttpParserError:
                self._refuse(self._refusal)
                return
            else:
                return

    def _ignore_upgrade(self) -> bool:
        """Parse the request's head again without the upgrade; what follows is its body. False where it is refused."""
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
        """Like uvicorn's, or the fast path's start."""
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
        """Like uvicorn's."""
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
        """Like uvicorn's, or the fast path's end."""
        if self.parser.should_upgrade():
            return None
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
        """Like uvicorn's: answers, and closes the connection."""
        self._refuse(self._refusal)

    def close_for_others(self) -> None:
        """Close the connection: it is idle, or its request is not here yet and is to come again."""
        if self.is_waiting() and self._unread is None:
            self.ask_to_come_again()
        else:
            self.transport.close()

    def ask_to_come_again(self) -> None:
        """Answer 503, and close the connection."""
        self._refuse(OVERLOADED)
        self.transport.close()

    @property
    def idle_since(self) -> tuple[float, int]:
        """When the last answer was sent, or the connection made: to sort by."""
        timer = self.timeout_keep_alive_task
        return (timer.when() - self.timeout_keep_alive if timer is not None else self._since), self._number

    def is_idle(self) -> bool:
        """Whether no request is being answered or comes in, as far as is known."""
        return not self._is_busy() and not self._head_bytes

    def is_waiting(self) -> bool:
        """Whether a request comes in that is not whole yet."""
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
        """A body is not whole: it is counted, and others have their time."""
        if self._waiting is None:
            self._waiting = self.loop.call_later(BODY_WAIT_S, self._leave_fast_path)
        _of_fast_path.held += size
        self._held += size
        if _of_fast_path.held > MAX_SMALL_BODIES_BYTES or len(self._body) > MOST_PARTS:
            self._leave_fast_path()

    def _fast_path(self) -> Route | None:
        """The route of a request that may go the fast path, by its head."""
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
        """Close the connection once its client has sent what it was sending, or soon; at once if it is busy."""
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
        """Send an answer whole; ``close`` the connection after it, where it does not say so itself."""
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
    """The usual response, as bytes; made anew with the Date header, which uvicorn sets once per second."""

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
    """A header without what asks for an upgrade; None where nothing else was in it."""
    name, value = header
    if name == b"connection":
        words = [word for word in map(bytes.strip, value.split(b",")) if word.lower() not in _UPGRADE_TOKENS]
        return (name, b", ".join(words)) if words else None
    return None if name in _UPGRADE_TOKENS else header


class _Cycle:
    """A request on the fast path, as uvicorn looks at it: whether it is answered, and what came in between."""

    __slots__ = ("disconnected", "keep_alive", "message_event", "response_complete", "task")

    def __init__(self) -> None:
        self.response_complete = self.disconnected = False
        self.keep_alive = True
        self.message_event = _nobody_waits
        self.task: asyncio.Task[None] | None = None  # held here, for the loop itself does not


_nobody_waits = asyncio.Event()


class _FastPath:
    """Bytes of bodies that come in on the fast path, over all connections of this process."""

    held = 0


_of_fast_path = _FastPath()
_numbers = itertools.count()


class _Log:
    """The line about too many connections, at most once in LOG_EVERY_S."""

    def __init__(self) -> None:
        self._closed, self._next_at = 0, float("-inf")

    def note(self, closed: int, most: int, now: float) -> None:
        self._closed += closed
        if now < self._next_at:
            return
        log.warning(
            "too many connections: those idle longest are closed; raise the limit of open files (ulimit -n) if they "
            "are your clients'",
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
    if not closed:  # all are being answered
        new.ask_to_come_again()
    connection_log.note(max(1, len(closed)), most, new.loop.time())
