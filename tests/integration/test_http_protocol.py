"""The short way of the hot routes: over a real socket it answers what uvicorn's own way answers, in order."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from manymetrics import refusals
from manymetrics.records import unpack
from manymetrics_api import collect, http_protocol
from manymetrics_api.http_protocol import HttpProtocol
from manymetrics_api.sinks import MemorySink, SinkResult
from tests.events_corpus import read_cases, request_of
from tests.in_process import basic, make_app
from tests.live_server import eventually


class HeldSink(MemorySink):
    """A put waits until ``open`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.waiting = threading.Event(), 0

    async def put(self, records: Sequence[bytes]) -> list[SinkResult]:
        self.waiting += 1
        await asyncio.to_thread(self.open.wait)
        return await super().put(records)


class Server:
    """uvicorn in a thread, on a free port."""

    def __init__(self, protocol: type[HttpToolsProtocol], sink: MemorySink) -> None:
        self.sink = sink
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        config = uvicorn.Config(
            make_app(sink),
            http=protocol,
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            ws="none",
            timeout_keep_alive=60,  # no connection of a test is closed because the machine is slow
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listening]})

    def start(self) -> None:
        self._thread.start()
        eventually(lambda: self._server.started or None, within_s=10)

    def stop(self) -> None:
        """Ask it to end, as SIGTERM does; `wait` waits for it."""
        self._server.should_exit = True

    def wait(self) -> None:
        self._thread.join(20)
        self._listening.close()
        assert not self._thread.is_alive()

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def connections(self) -> list[HttpProtocol]:
        """Those that are open."""
        return [one for one in self._server.server_state.connections.copy() if isinstance(one, HttpProtocol)]

    def events(self) -> list[bytes]:
        """What the sink holds, in order."""
        return [event for record in self.sink.records for event in unpack(record).events]


@contextmanager
def running(protocol: type[HttpToolsProtocol], sink: MemorySink | None = None) -> Iterator[Server]:
    server = Server(protocol, sink or MemorySink())
    server.start()
    try:
        yield server
    finally:
        server.stop()
        server.wait()


@pytest.fixture
def server() -> Iterator[Server]:
    with running(HttpProtocol) as one:
        yield one


@pytest.fixture
def held() -> Iterator[tuple[Server, HeldSink]]:
    sink = HeldSink()
    with running(HttpProtocol, sink) as one:
        try:
            yield one, sink
        finally:
            sink.open.set()


def request(
    body: bytes,
    path: str = "/v1/track",
    headers: dict[str, str] | None = None,
    method: str = "POST",
    version: str = "1.1",
) -> bytes:
    given = basic("wk_shop:") if headers is None else headers
    lines = [f"{method} {path} HTTP/{version}", "host: x", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode("latin-1") + body


def event(number: int) -> bytes:
    return b'{"userId":"u","event":"E%d"}' % number


def answers(connection: socket.socket, count: int) -> list[bytes]:
    """So many whole answers, in order; all have a content-length."""
    found: list[bytes] = []
    data = b""
    while len(found) < count:
        head, end, rest = data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if end and length and len(rest) >= int(length[1]):
            cut = len(head) + 4 + int(length[1])
            found.append(data[:cut])
            data = data[cut:]
            continue
        received = connection.recv(65_536)
        if not received:
            break
        data += received
    return found


def statuses(connection: socket.socket, count: int) -> list[int]:
    return [int(answer.split(b" ", 2)[1]) for answer in answers(connection, count)]


def closed(connection: socket.socket) -> bool:
    return connection.recv(1) == b""


@pytest.fixture
def cycles(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The URL of each request that went uvicorn's way."""
    went: list[bytes] = []
    start = HttpProtocol._start_cycle

    def noted(self: HttpProtocol) -> None:
        went.append(self.url)
        start(self)

    monkeypatch.setattr(HttpProtocol, "_start_cycle", noted)
    return went


def test_the_corpus_is_answered_as_uvicorns_own_way_answers_it(cycles: list[bytes]) -> None:
    with running(HttpProtocol) as short, running(HttpToolsProtocol) as long:
        for name, case in read_cases().items():
            method, target, headers, body = request_of(case)
            sent = request(body, target, headers, method)
            replies = []
            for server in (short, long):
                with server.connect() as connection:
                    connection.sendall(sent)
                    replies += answers(connection, 1)

            assert without_date(replies[0]) == without_date(replies[1]), name

        assert short.events() == long.events()
    assert cycles
    assert all(b"pixel" in url or b"ettings" in url or b"sourceConfig" in url for url in cycles)


def without_date(answer: bytes) -> bytes:
    return re.sub(rb"date: [^\r]*\r\n", b"", answer)


def test_a_body_in_parts_goes_the_short_way_too(server: Server, cycles: list[bytes]) -> None:
    sent = request(event(1))
    with server.connect() as connection:
        for at in range(0, len(sent), 30):
            connection.sendall(sent[at : at + 30])
            time.sleep(0.005)

        assert statuses(connection, 1) == [200]
    assert server.events() == [event(1)]
    assert cycles == []


def test_a_body_that_is_slow_goes_uvicorns_way_from_where_it_is(
    server: Server, cycles: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "BODY_WAIT_S", 0.02)
    sent = request(event(1))
    with server.connect() as connection:
        connection.sendall(sent[:-10])
        eventually(lambda: cycles or None, within_s=10)
        connection.sendall(sent[-10:-5])
        time.sleep(0.02)
        connection.sendall(sent[-5:] + request(event(2)))

        assert statuses(connection, 2) == [200, 200]
    assert server.events() == [event(1), event(2)]


def test_requests_that_come_at_once_are_answered_in_order(held: tuple[Server, HeldSink], cycles: list[bytes]) -> None:
    server, sink = held
    with server.connect() as connection:
        connection.sendall(request(event(1)) + request(event(2)) + request(b"{}", "/v1/nothing") + request(event(3)))
        eventually(lambda: sink.waiting or None, within_s=10)
        sink.open.set()

        assert statuses(connection, 4) == [200, 200, 404, 200]
        connection.sendall(request(event(4)))
        assert statuses(connection, 1) == [200]
    assert server.events() == [event(number) for number in (1, 2, 3, 4)]
    assert cycles == [b"/v1/track", b"/v1/nothing", b"/v1/track"]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(request(event(1), headers=basic("wk_shop:") | {"connection": "close"}), id="connection: close"),
        pytest.param(request(event(1), version="1.0"), id="HTTP/1.0"),
    ],
)
def test_a_connection_that_is_to_be_closed_is(server: Server, sent: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(sent)

        assert statuses(connection, 1) == [200]
        assert closed(connection)
    assert server.events() == [event(1)]


def test_who_waits_to_be_asked_for_the_body_is_asked(server: Server) -> None:
    head, _, body = request(event(1), headers=basic("wk_shop:") | {"expect": "100-continue"}).partition(b"\r\n\r\n")
    with server.connect() as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)

        assert statuses(connection, 1) == [200]


def test_a_refusal_that_closes_closes(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(request(b'{"batch":[%s]}' % b",".join([b"{}"] * 100_000), "/v1/batch"))

        assert statuses(connection, 1) == [413]
        assert closed(connection)


def test_a_body_without_a_length_and_a_large_one_go_uvicorns_way(server: Server, cycles: list[bytes]) -> None:
    large = b'{"userId":"u","event":"L","properties":{"a":"%s"}}' % (b"x" * 300_000)
    chunked = request(b"", headers=basic("wk_shop:") | {"transfer-encoding": "chunked"}).replace(
        b"content-length: 0\r\n", b""
    )
    with server.connect() as connection:
        connection.sendall(chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(event(1)), event(1)))
        assert statuses(connection, 1) == [200]
        connection.sendall(request(large))
        assert statuses(connection, 1) == [200]
    assert server.events() == [event(1), large]
    assert len(cycles) == 2


def test_who_goes_away_before_the_answer_or_the_body_harms_nobody(held: tuple[Server, HeldSink]) -> None:
    server, sink = held
    with server.connect() as connection:
        connection.sendall(request(event(1)))
        eventually(lambda: sink.waiting or None, within_s=10)
    with server.connect() as connection:
        connection.sendall(request(event(2))[:-3])
    sink.open.set()
    with server.connect() as connection:
        connection.sendall(request(event(3)))

        assert statuses(connection, 1) == [200]
    eventually(lambda: len(server.events()) > 1 or None, within_s=10)  # the first, whom nobody waits for, may come last
    assert sorted(server.events()) == [event(1), event(3)]


def test_a_server_that_ends_answers_what_it_has_taken_first() -> None:
    sink = HeldSink()
    server = Server(HttpProtocol, sink)
    server.start()
    with server.connect() as connection:
        connection.sendall(request(event(1)))
        eventually(lambda: sink.waiting or None, within_s=10)
        server.stop()
        time.sleep(0.3)
        sink.open.set()

        [answer] = answers(connection, 1)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close\r\n" in answer
        assert closed(connection)
    server.wait()


def test_an_idle_connection_is_closed_after_a_while() -> None:
    server = Server(HttpProtocol, MemorySink())
    server._server.config.timeout_keep_alive = 0
    server.start()
    with server.connect() as connection:
        connection.sendall(request(event(1)))

        assert statuses(connection, 1) == [200]
        assert closed(connection)
    server.stop()
    server.wait()


class FewConnections(HttpProtocol):
    """With room for eight."""

    max_connections = 8


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(http_protocol, "connection_log", http_protocol._Log())
    monkeypatch.setattr(http_protocol, "HEAD_WAIT_S", 60)
    with running(FewConnections) as one:
        yield one


def _works(connection: socket.socket) -> bool:
    try:
        connection.sendall(request(event(1)))
        return statuses(connection, 1) == [200]
    except OSError:
        return False


def _many(server: Server, count: int, sent: bytes = b"") -> list[socket.socket]:
    """So many connections, one after the other as the server sees them, each with its bytes sent."""
    connections, until = [], time.monotonic() + 30
    for _ in range(count):
        connections.append(server.connect())
        while connections[-1].getsockname() not in [one.client for one in server.connections()]:
            assert time.monotonic() < until
            time.sleep(0.001)
        connections[-1].sendall(sent)
    return connections


def test_past_the_limit_the_connections_that_are_idle_longest_are_closed_for_new_ones(
    few: Server, caplog: pytest.LogCaptureFixture
) -> None:
    connections = _many(few, 30)

    new = few.connect()
    assert _works(new)
    working = [_works(connection) for connection in connections]
    assert working == [False] * 23 + [True] * 7
    assert [record.getMessage()[:20] for record in caplog.records] == ["too many connections"]
    for connection in (*connections, new):
        connection.close()


def test_a_connection_that_was_used_a_moment_ago_stays(few: Server) -> None:
    connections = _many(few, 8)
    assert _works(connections[0])

    new = few.connect()

    assert _works(new)
    assert _works(connections[0])
    assert not _works(connections[1])
    for connection in (*connections, new):
        connection.close()


@pytest.mark.parametrize(
    "sent",
    [request(event(1))[:-5], request(event(1))[:20], request(b" " * 300_000)[:-5]],
    ids=["body", "head", "large-body"],
)
def test_where_none_is_idle_those_whose_request_is_not_here_come_again(few: Server, sent: bytes) -> None:
    connections = _many(few, 8, sent)
    eventually(lambda: [one.is_waiting() for one in few.connections()] == [True] * 8 or None, within_s=10)

    new = few.connect()

    assert _works(new)
    assert statuses(connections[0], 1) == [503]
    assert closed(connections[0])
    for connection in (*connections, new):
        connection.close()


def test_a_request_that_is_being_answered_is_never_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "connection_log", http_protocol._Log())
    sink = HeldSink()
    with running(FewConnections, sink) as server:
        busy = _many(server, 8, request(event(1)))
        eventually(lambda: sink.waiting == 8 or None, within_s=10)
        new = server.connect()
        assert statuses(new, 1) == [503]
        assert closed(new)
        sink.open.set()
        assert [statuses(connection, 1) for connection in busy] == [[200]] * 8
        for connection in (*busy, new):
            connection.close()


@pytest.mark.parametrize("first", [b"", request(event(1))], ids=["first", "second"])
def test_a_head_that_is_slow_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch, first: bytes) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_WAIT_S", 0.05)
    with server.connect() as connection:
        if first:
            connection.sendall(first)
            assert statuses(connection, 1) == [200]
        connection.sendall(request(event(2))[:20])

        assert statuses(connection, 1) == [408]
        assert closed(connection)


def test_a_connection_that_says_nothing_is_closed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_WAIT_S", 0.05)
    with server.connect() as connection:
        assert closed(connection)


def test_the_number_of_headers_is_limited(server: Server) -> None:
    def of(headers: int) -> bytes:
        more = b"a: 1\r\n" * (headers - 3)  # host, authorization and content-length are there
        return request(event(1)).replace(b"host: x\r\n", b"host: x\r\n" + more)

    with server.connect() as connection:
        connection.sendall(of(refusals.MAX_HEADERS))
        assert statuses(connection, 1) == [200]
        connection.sendall(of(refusals.MAX_HEADERS + 1))
        assert statuses(connection, 1) == [431]
        assert closed(connection)
    assert server.events() == [event(1)]


def test_a_body_in_chunks_of_a_byte_is_refused_and_one_in_small_tcp_segments_is_not(server: Server) -> None:
    head = request(b"", headers=basic("wk_shop:") | {"transfer-encoding": "chunked"}).replace(
        b"content-length: 0\r\n", b""
    )
    with server.connect() as connection:
        connection.sendall(head + b"1\r\n \r\n" * http_protocol.MAX_PIECES)
        connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(event(1)), event(1)))
        assert statuses(connection, 1) == [400]
        assert closed(connection)
    with server.connect() as connection:
        pieces = b"".join(b"400\r\n%b\r\n" % (b" " * 1_024) for _ in range(http_protocol.MAX_PIECES + 100))
        connection.sendall(head + pieces + b"%x\r\n%b\r\n0\r\n\r\n" % (len(event(1)), event(1)))
        assert statuses(connection, 1) == [200]


def test_bodies_that_come_in_on_the_fast_path_are_counted_while_they_are_not_whole(server: Server) -> None:
    with server.connect() as connection, server.connect() as gone:
        sent = request(event(1))
        connection.sendall(sent[:-5])
        gone.sendall(sent[:-5])
        eventually(lambda: http_protocol._of_fast_path.held == 2 * (len(sent) - 5) or None, within_s=10)
        connection.sendall(sent[-5:])
        assert statuses(connection, 1) == [200]
        gone.close()
        eventually(lambda: http_protocol._of_fast_path.held == 0 or None, within_s=10)


def test_past_their_bound_bodies_leave_the_fast_path(
    server: Server, cycles: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "MAX_SMALL_BODIES_BYTES", 10)
    with server.connect() as connection:
        sent = request(event(1))
        connection.sendall(sent[:-5])
        eventually(lambda: cycles or None, within_s=10)
        connection.sendall(sent[-5:])

        assert statuses(connection, 1) == [200]
    assert http_protocol._of_fast_path.held == 0


UPGRADE = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQAAP__"}


@pytest.mark.parametrize(
    "upgrade",
    [
        pytest.param(UPGRADE, id="h2c, as the JDK's client and curl --http2 ask"),
        pytest.param({"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}, id="websocket"),
        pytest.param({"connection": "keep-alive, upgrade", "upgrade": "TLS/1.0, foo/2"}, id="anything"),
    ],
)
@pytest.mark.parametrize("pieces", [1, 2, 1_000])
@pytest.mark.parametrize("kind", ["small", "large", "chunked"])
def test_an_upgrade_is_ignored(server: Server, upgrade: dict[str, str], pieces: int, kind: str) -> None:
    body = event(1) if kind != "large" else event(1)[:-1] + b',"properties":{"a":"%b"}}' % (b"x" * 300_000)
    sent = request(body, headers=basic("wk_shop:") | upgrade)
    if kind == "chunked":
        head = sent.removesuffix(body).replace(b"content-length: %d" % len(body), b"transfer-encoding: chunked")
        sent = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    step = -(-len(sent) // pieces)
    with server.connect() as connection:
        for at in range(0, len(sent), step):
            connection.sendall(sent[at : at + step])
            time.sleep(0.05 if pieces == 2 else 0)
        assert statuses(connection, 1) == [200]
        connection.sendall(request(event(2)) + sent)  # the connection goes on, and others' requests with it
        assert statuses(connection, 2) == [200, 200]
    assert server.events() == [body, event(2), body]


def test_an_upgrade_without_a_body_is_answered(server: Server) -> None:
    with server.connect() as connection:
        for _ in range(2):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
            assert statuses(connection, 1) == [200]


@pytest.mark.parametrize(("path", "count"), [("/v1/track", 1_000), ("/", 5_000)])
def test_any_number_of_pipelined_upgrades_is_answered_and_costs_no_stack(
    server: Server, path: str, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    sent = request(event(1), path=path, headers=basic("wk_shop:") | UPGRADE)
    with server.connect() as connection:
        sender = threading.Thread(target=connection.sendall, args=(sent * count,))
        sender.start()
        assert statuses(connection, count) == [200 if path == "/v1/track" else 405] * count
        sender.join()
    assert len(server.events()) == (count if path == "/v1/track" else 0)
    assert [record for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.parametrize("connection", ["close, Upgrade", "Upgrade, HTTP2-Settings, Close", "upgrade ,\tclose"])
def test_an_upgrade_that_asks_for_the_connections_end_gets_it(server: Server, connection: str) -> None:
    with server.connect() as opened:
        opened.sendall(request(event(1), headers=basic("wk_shop:") | UPGRADE | {"connection": connection}))

        [answer] = answers(opened, 1)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nconnection: close\r\n" in answer.lower()
        assert closed(opened)


@pytest.mark.parametrize("rest", [b"", b"{", b"{}"], ids=["never", "begun", "whole"])
@pytest.mark.parametrize("path", ["/v1/nope", "/healthz"])
def test_a_connection_that_was_answered_before_its_body_came_ends_when_idle(
    server: Server, path: str, rest: bytes
) -> None:
    with server.connect() as connection:
        for one in eventually(lambda: server.connections() or None, within_s=10):
            one.timeout_keep_alive = 0.3  # type: ignore[assignment]  # uvicorn's is in whole seconds
        connection.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n".encode())
        assert statuses(connection, 1) == [404 if path == "/v1/nope" else 405]
        if rest:
            time.sleep(0.1)
            connection.sendall(rest)

        assert closed(connection)


def test_a_tunnel_is_refused(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"CONNECT x:443 HTTP/1.1\r\nhost: x:443\r\n\r\nhello")
        assert statuses(connection, 1) == [400]
        assert closed(connection)


@pytest.mark.parametrize("chunked", [False, True])
def test_who_sends_too_much_hears_of_it_after_sending_it(server: Server, chunked: bool) -> None:
    body = b"x" * 7_000_000
    sent = request(body)
    if chunked:
        head = sent.removesuffix(body).replace(b"content-length: 7000000", b"transfer-encoding: chunked")
        sent = head + (b"10000\r\n%b\r\n" % (b"x" * 65_536)) * 107 + b"0\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(sent)  # as most clients do: they read once they have sent it all

        [answer] = answers(connection, 1)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert closed(connection)
    assert server.events() == []


def test_no_more_than_a_limit_is_read_of_what_is_too_much(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "MAX_UNREAD_BYTES", 1_000_000)
    monkeypatch.setattr(collect, "MAX_UNREAD_S", 0.5)
    with server.connect() as connection:
        connection.sendall(request(b"")[:-5] + b"7000000\r\n\r\nxxx")  # and no more: it is not waited for

        assert statuses(connection, 1) == [413]
    with server.connect() as connection:
        connection.sendall(request(b"")[:-5] + b"900000000\r\n\r\n")
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            connection.sendall(b"x" * 100_000_000)


def test_who_sends_too_much_in_drips_is_answered_when_the_time_is_over(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "MAX_UNREAD_S", 1)
    with server.connect() as connection:
        connection.sendall(request(b"")[:-5] + b"900000000\r\n\r\n")
        connection.settimeout(0.1)  # each drip comes long before a pause would be one
        answer = b""
        until = time.monotonic() + 30
        while not answer and time.monotonic() < until:
            connection.sendall(b"x")
            with suppress(TimeoutError):
                answer = connection.recv(1_000)

        assert answer.startswith(b"HTTP/1.1 413 ")


def test_what_still_comes_after_a_refusal_is_read_up_to_a_limit(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "LINGER_S", 60)
    monkeypatch.setattr(http_protocol, "LINGER_BYTES", 1_000)
    with server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\na\r\n\r\n")
        assert statuses(connection, 1) == [400]

        assert eventually(lambda: is_refused(connection) or None, within_s=10)


def is_refused(connection: socket.socket) -> bool:
    """Whether the other side takes no more."""
    try:
        connection.sendall(b"x" * 1_000)
    except OSError:
        return True
    return False


def test_who_asks_before_sending_too_much_is_told_at_once(server: Server) -> None:
    head = request(b"", headers=basic("wk_shop:") | {"expect": "100-continue"})[:-5]
    with server.connect() as connection:
        connection.sendall(head + b"7000000\r\n\r\n")

        assert statuses(connection, 1) == [413]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100_000, 431, id="headers"),
        pytest.param(b"\x16\x03\x01" + b"x" * 500_000, 400, id="TLS to a port that speaks none"),
    ],
)
def test_what_is_refused_while_it_is_sent_hears_of_it(server: Server, sent: bytes, status: int) -> None:
    with server.connect() as connection:
        connection.sendall(sent)

        assert statuses(connection, 1) == [status]
        assert closed(connection)


def test_a_page_may_read_what_the_protocol_refuses(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(request(b"{", headers={"origin": "https://a.example", "x": "\x00"}))

        [answer] = answers(connection, 1)
    assert b"access-control-allow-origin: https://a.example\r\n" in answer
