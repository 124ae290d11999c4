"""Several committers on one stream at once, killed with -9 again and again: every event exactly once, and the books."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from manymetrics.records import Stamp, pack
from manymetrics.tables import DEAD_LETTERS, EVENTS
from manymetrics_api.sinks.local_stream import SHARD, LocalSource, open_stream
from manymetrics_cli.one_machine import stream_path
from manymetrics_processor.lake.lake import Lake, current_books, live_files, local_catalog
from manymetrics_processor.lake.maintenance import maintain
from manymetrics_processor.lake.scan import read_files

RACERS = 3
RECORDS, A_RECORD = 150, 20
NOW = 1_763_990_000_000_000
SCRIPT = Path(__file__).parent / "racing_committer.py"


def test_racing_committers_that_are_killed_commit_every_event_once(tmp_path: Path) -> None:
    chance = random.Random(5)
    lake = Lake(local_catalog(tmp_path))
    lake.ensure_tables()
    sent = [_events(chance) for _ in range(RECORDS)]
    _put(tmp_path, sent[: RECORDS // 2])

    racers = [_start(tmp_path) for _ in range(RACERS)]
    try:
        for _ in range(8):
            time.sleep(chance.uniform(0.2, 1.2))
            victim = chance.randrange(RACERS)
            racers[victim].send_signal(signal.SIGKILL)
            racers[victim].wait(10)
            racers[victim] = _start(tmp_path)
        _put(tmp_path, sent[RECORDS // 2 :])
        _wait_until_committed(tmp_path, lake)
    finally:
        for racer in racers:
            racer.kill()
            racer.wait(10)

    good = Counter(event["messageId"] for record in sent for event in record if event["type"] == "track")
    bad = sum(event["type"] != "track" for record in sent for event in record)
    rows = read_files(EVENTS, iceberg := lake.load(EVENTS), live_files(iceberg), ["message_id"])
    letters = read_files(DEAD_LETTERS, iceberg := lake.load(DEAD_LETTERS), live_files(iceberg), ["dead_letter_id"])
    books = current_books(lake.load(EVENTS), _stream_name(tmp_path))
    assert Counter(rows["message_id"].to_pylist()) == dict.fromkeys(good, 1)
    assert len(set(letters["dead_letter_id"].to_pylist())) == letters.num_rows == bad
    assert (books.received, books.stored, books.duplicate, books.dead_lettered) == (
        RECORDS * A_RECORD,
        len(good),
        good.total() - len(good),
        {"unknown_type": bad},
    )
    maintain(lake)
    iceberg = lake.load(EVENTS)
    assert read_files(EVENTS, iceberg, live_files(iceberg), ["message_id"]).num_rows == len(good)


def _events(chance: random.Random) -> list[dict[str, str]]:
    return [
        {
            "type": "track" if chance.random() < 0.95 else "nonsense",
            "event": "E",
            "userId": "u",
            "messageId": f"m-{chance.randrange(2_000)}",
        }
        for _ in range(A_RECORD)
    ]


def _put(data_dir: Path, records: list[list[dict[str, str]]]) -> None:
    with closing(open_stream(stream_path(data_dir))) as stream:
        for record in records:
            events = [msgspec.json.encode(event) for event in record]
            (data,) = pack(Stamp(NOW, "r", "p", "server"), events)
            stream.execute("insert into records (arrived_at, data) values (?, ?)", (NOW, data))


def _start(data_dir: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, SCRIPT, data_dir], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _stream_name(data_dir: Path) -> str:
    with closing(LocalSource(stream_path(data_dir))) as source:
        return source.name()


def _wait_until_committed(data_dir: Path, lake: Lake) -> None:
    name = _stream_name(data_dir)
    until = time.monotonic() + 120
    while current_books(lake.load(EVENTS), name).watermark(SHARD) < RECORDS:
        if time.monotonic() > until:
            pytest.fail("it never got through")
        time.sleep(0.2)
