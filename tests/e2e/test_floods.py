"""Floods from strangers without a key, against a running server: others are served, and its memory stays."""

import gzip
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from manymetrics_api.http_protocol import LOG_EVERY_S
from tests.bench.process import cpu_seconds
from tests.live_server import LiveServer, live_server

FILES = 600
GOOD = b'{"userId":"u","event":"Good"}'


def _few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """With few file descriptors."""
    with live_server(tmp_path_factory.mktemp("server") / "data") as running:
        running.stop()
        running.start(_few_files)
        yield running


def _unfinished(path: str, length: int, sent: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), length, sent)


def _lines(log: Path, words: str) -> int:
    return sum(words in line for line in log.read_text().splitlines())


def test_idle_connections_beyond_all_file_descriptors_shut_nobody_out(server: LiveServer) -> None:
    began = time.monotonic()
    with ExitStack() as stack:
        for number in range(2 * FILES):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            if number % 200 == 0:
                assert server.post("/v1/track", GOOD).status_code == 200
        assert server.post("/v1/track", GOOD).status_code == 200

    assert 1 <= _lines(server.log, "too many connections") <= 1 + (time.monotonic() - began) // LOG_EVERY_S
    assert _lines(server.log, "ERROR") == 0


def test_unfinished_bodies_take_bounded_memory_and_others_are_served(server: LiveServer) -> None:
    before = server.rss_bytes()
    with ExitStack() as stack:
        for _ in range(60):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            connection.settimeout(0.5)
            with suppress(OSError):  # it was asked to come again
                connection.sendall(_unfinished("/v1/batch", 5_999_999, b" " * 5_900_000))
        assert server.post("/v1/track", GOOD).status_code == 200
        grown = server.rss_bytes() - before

    assert grown < 200_000_000  # 64 MB of bodies, and what was read ahead of them; 354 MB without a bound


def test_a_body_of_tokens_without_a_key_costs_little_and_nothing_once_its_client_is_gone(server: LiveServer) -> None:
    body = gzip.compress(b'{"batch":[""%s],"z":NaN}' % (b":" * 19_000_000))
    head = b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    before_s = cpu_seconds(server.pid)

    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head + body)
    assert server.post("/v1/track", GOOD).status_code == 200
    assert server.raw(head + body)[9:12] == b"401"

    assert cpu_seconds(server.pid) - before_s < 5  # 20 s each, when its tokens were visited
