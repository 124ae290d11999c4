"""Input made to break parsers, against a running server: nothing is lost, changed or answered 5xx."""

import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live_server import LiveServer
from tests.torture import read_json_test_suite, read_naughty_strings

REPAIRED = {"n_number_NaN.json", "n_number_infinity.json"}


def _event(message_id: str, properties: bytes) -> bytes:
    return b'{"type":"track","userId":"u","event":"A","messageId":"%s","properties":%s}' % (
        message_id.encode(),
        properties,
    )


def test_the_json_test_suite_as_bodies(server: LiveServer, shared_data: Path) -> None:
    suite = read_json_test_suite(shared_data)

    statuses = {
        name: {server.post(path, content).status_code for path in ("/v1/track", "/v1/batch")}
        for name, content in suite.items()
    }

    assert {name for name, status in statuses.items() if not status <= {200, 400}} == set()
    # No file of the suite is a batch, and what is no object is no event.
    assert {name for name, status in statuses.items() if name[0] == "n" and status != {400}} == set()
    assert server.alive()


def test_the_json_test_suite_as_property_values(server: LiveServer, shared_data: Path) -> None:
    suite = {name: content for name, content in read_json_test_suite(shared_data).items() if name[0] in "yn"}
    server.settle()
    before = len(server.rows("dead_letters", ["reason"]))

    statuses = {
        name: server.post("/v1/track", _event(f"suite {name}", content)).status_code for name, content in suite.items()
    }

    refused = {name for name, status in statuses.items() if status == 400}
    assert set(statuses.values()) == {200, 400}
    assert {name for name in refused if name[0] == "y"} == set()
    assert {name for name in statuses.keys() - refused if name[0] == "n"} == REPAIRED
    server.settle()
    rows = {row["message_id"]: row for row in server.rows(columns=["message_id", "properties", "repairs"])}
    for name in statuses.keys() - refused - REPAIRED:
        assert _same(rows[f"suite {name}"]["properties"], suite[name]), name
    for name in REPAIRED:
        assert rows[f"suite {name}"] == {
            "message_id": f"suite {name}",
            "properties": "[null]",
            "repairs": "not_a_number",
        }
    assert len(server.rows("dead_letters", ["reason"])) == before


def _same(stored: str | None, sent: bytes) -> bool:
    """Equal as text; lone surrogates are their escape text; null is null."""
    text = sent.decode().strip(" \t\r\n")
    if text == "null":
        return stored is None
    return stored == text or (stored is not None and "\\\\u" in stored)


def test_naughty_strings_come_back_as_they_were_sent(server: LiveServer, shared_data: Path) -> None:
    strings = [text for text in read_naughty_strings(shared_data) if len(text.encode()) <= 500]  # what an id may be
    events = [
        {
            "type": "track",
            "userId": text or "(none)",
            "anonymousId": text,
            "event": text or "(none)",
            "messageId": f"naughty {number} {text}",
            "properties": {text: text},
        }
        for number, text in enumerate(strings)
    ]

    answer = server.post("/v1/batch", json.dumps({"batch": events}, ensure_ascii=False).encode())

    assert answer.status_code == 200
    server.settle()
    columns = ["message_id", "user_id", "anonymous_id", "event", "properties"]
    rows = [tuple(row.values()) for row in server.rows(columns=columns) if row["message_id"].startswith("naughty ")]
    assert len(strings) > 250
    assert sorted(rows, key=str) == sorted(
        (
            (
                event["messageId"],
                event["event"],
                event["userId"],
                event["anonymousId"] or None,
                json.dumps(event["properties"], ensure_ascii=False),
            )
            for event in events
        ),
        key=str,
    )


HOSTILE = {
    "not_an_object": b'"x"',
    "unknown_type": b'{"type":"\x01"}'.replace(b"\x01", b"x" * 1_000),
    "no_identity": b'{"type":"track","event":"\\ud83d"}',
    "too_deep": b'{"type":"track","userId":"u","event":"A","properties":%s}' % (b"[" * 5_000 + b"]" * 5_000),
    "invalid_id": b'{"type":"track","userId":{"$gt":""},"event":"A","x":NaN}',
    "id_too_long": b'{"type":"track","userId":"%s","event":"A"}' % ("é" * 513).encode(),
    "invalid_event_name": b'{"type":"track","userId":"u","event":["A"]}',
    "event_name_too_long": b'{"type":"track","userId":"u","event":"%s"}' % (b"e" * 1_025),
}


@pytest.mark.parametrize("reason", HOSTILE)
def test_one_hostile_event_among_999_good_ones_is_one_dead_letter_with_its_bytes(
    server: LiveServer, reason: str
) -> None:
    good = [_event(f"{reason} {number}", b"{}") for number in range(999)]
    raw = HOSTILE[reason]

    answer = server.post("/v1/batch", b'{"batch":[%s]}' % b",".join([*good[:500], raw, *good[500:]]))

    assert answer.status_code == 200
    server.settle()
    ids = [row["message_id"] for row in server.rows() if row["message_id"].startswith(f"{reason} ")]
    letters = server.rows("dead_letters", ["reason", "raw", "replayable"])
    assert sorted(ids) == sorted(f"{reason} {number}" for number in range(999))
    assert [row for row in letters if row["reason"] == reason] == [
        {"reason": reason, "raw": raw.decode(), "replayable": 1}
    ]


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """1 GiB of zeros, in 5 MB."""
    compressor = zlib.compressobj(1, wbits=31)
    zeros = bytes(1 << 24)
    return b"".join([*(compressor.compress(zeros) for _ in range(64)), compressor.flush()])


def test_a_bomb_of_1_gib_is_413_and_takes_no_more_memory_than_the_cap(server: LiveServer, bomb: bytes) -> None:
    before = server.rss_bytes()

    with _watched(server) as seen:
        statuses = [server.post("/v1/batch", bomb, content_encoding="gzip").status_code for _ in range(5)]

    assert statuses == [413] * 5
    assert max(seen) - before < 20_000_000 + 40_000_000
    assert server.alive()


@contextmanager
def _watched(server: LiveServer) -> Iterator[list[int]]:
    """How much memory the server is seen to have, while the context is open."""
    seen, done = [server.rss_bytes()], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            seen.append(server.rss_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
