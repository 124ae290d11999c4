"""Segment's and RudderStack's own Python clients, unmodified: what they send arrives once, also through an outage."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Protocol

import pytest
import rudderstack.analytics.client
import segment.analytics.client

from tests.live_server import LiveServer

EVENTS = 1_000


class Client(Protocol):
    """What the tests need of either client."""

    def track(self, user_id: str, event: str, properties: dict[str, object]) -> object: ...
    def flush(self) -> None: ...
    def join(self) -> None: ...


def _segment(server: LiveServer) -> Client:
    client: Client = segment.analytics.client.Client("wk_server", host=server.url, on_error=_fail)
    return client


def _rudderstack(server: LiveServer) -> Client:
    client: Client = rudderstack.analytics.client.Client("wk_server", host=server.url, on_error=_fail, gzip=True)
    return client


def _fail(error: Exception, _items: object) -> None:
    raise AssertionError(f"the client gave up: {error}")


CLIENTS = {"segment": _segment, "rudderstack": _rudderstack}


def _send(client: Client, name: str) -> None:
    for number in range(EVENTS):
        client.track(f"user {number % 100}", name, {"number": number})


def _numbers(server: LiveServer, name: str) -> list[str]:
    server.settle()
    rows = server.rows(columns=["event", "properties"])
    return sorted(row["properties"] for row in rows if row["event"] == name)


EXPECTED = sorted(f'{{"number": {number}}}' for number in range(EVENTS))


@pytest.mark.parametrize("name", CLIENTS)
def test_1000_events_of_an_unmodified_client_arrive_once_and_nothing_is_sent_again(
    server: LiveServer, name: str
) -> None:
    before = server.requests()
    client = CLIENTS[name](server)

    _send(client, name)
    client.flush()
    client.join()

    after = server.requests()
    assert _numbers(server, name) == EXPECTED
    # A client sends 100 events at a time or what it has after half a second; whatever was sent was taken at once.
    assert after["ok"] - before["ok"] <= 20
    assert {outcome: after[outcome] - before[outcome] for outcome in after if outcome != "ok"} == dict.fromkeys(
        after.keys() - {"ok"}, 0
    )


@pytest.mark.parametrize("name", CLIENTS)
def test_events_that_meet_an_outage_are_sent_again_and_arrive_once(server: LiveServer, name: str) -> None:
    before = server.requests()
    client = CLIENTS[name](server)

    with _stream_locked(server):
        _send(client, f"{name} outage")
        time.sleep(2)
    client.flush()
    client.join()

    assert server.requests()["unavailable"] - before["unavailable"] >= 1
    assert _numbers(server, f"{name} outage") == EXPECTED


@contextmanager
def _stream_locked(server: LiveServer) -> Iterator[None]:
    """Somebody else holds the write lock of the stream's database."""
    with closing(sqlite3.connect(server.stream, isolation_level=None)) as connection:
        connection.execute("begin immediate")
        yield
        connection.execute("rollback")
