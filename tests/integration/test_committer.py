"""The loop that carries the stream into the tables: a backlog, faults, and its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from manymetrics.telemetry import JsonLines
from manymetrics_api.sinks.local_stream import SHARD, LocalSource, LocalStream
from manymetrics_processor.decode.batch import decode
from manymetrics_processor.decode.row import DAY_US
from manymetrics_processor.decode.worker_pool import DecodeError, Decoders
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import local_committer as committer_module
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.ingest.local_committer import Committer
from tests.integration.micro_batches import NOW, books, counts, make_lake, message_ids, packed, record, rows, track

BAD = {"type": "track", "event": "E"}
SECRET = "jane@example.com"


class Side:
    """A stream, its tables, and a committer between them."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "stream.db"
        self.put()
        self._folder = folder
        self.lake = make_lake(folder)
        self.source = LocalSource(self.path)
        self.committer = Committer(self.source, SHARD, self.lake, Window(), 0)

    def put(self, *records: bytes) -> None:
        async def store() -> None:
            stream = LocalStream(self.path)
            assert await stream.ready()
            for start in range(0, len(records), 500):
                await stream.put(records[start : start + 500])
            await stream.close()

        asyncio.run(store())

    def put_backlog(self, records: int, events: int) -> None:
        """Each record holds so many events, of which the last is bad, and one that the record before it has too."""
        self.put(
            *[
                packed([*[track(f"{number}-{at}") for at in range(events - 2)], track(f"{number - 1}-0"), BAD])
                for number in range(records)
            ]
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self.committer.run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(30)
        assert not thread.is_alive()

    def until_committed(self, within_s: float = 60) -> None:
        until = time.monotonic() + within_s
        lake = make_lake(self._folder)  # of this thread: between a look and what it saw, the committer may commit
        while self.source.pending(books(lake, self.source.name()).watermark(SHARD))[0]:
            assert time.monotonic() < until, "the stream was not committed in time"
            time.sleep(0.05)


@pytest.fixture
def side(tmp_path: Path) -> Iterator[Side]:
    made = Side(tmp_path)
    with closing(made.source):
        yield made
    made.committer._decoders.close()


def assert_backlog_is_committed(side: Side, records: int, events: int) -> None:
    """As Side.put_backlog made it, each event once and in its place."""
    duplicate = records - 1
    stored = records * (events - 1) - duplicate
    kept = books(side.lake, side.source.name())
    assert counts(kept) == {
        "received": records * events,
        "stored": stored,
        "duplicate": duplicate,
        "dead_lettered:no_identity": records,
    }
    found = [(row["message_id"], int(row["_sequence"]), row["_position"]) for row in rows(side.lake)]
    expected = [(f"{number}-{at}", number + 1, at) for number in range(records) for at in range(events - 2)]
    assert sorted(found) == sorted([*expected, ("-1-0", 1, events - 2)])


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "MAX_EVENTS", 1_000)


@pytest.mark.usefixtures("small_batches")
def test_a_backlog_is_committed_in_order_and_to_the_event(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    side.put_backlog(120, 100)
    order = list[int]()

    def noting(batch: Any, *rest: Any) -> Any:  # noqa: ANN401  # as the real one
        order.extend(sequence for _, sequence in batch.keys)
        return real(batch, *rest)

    real = pipeline.commit
    monkeypatch.setattr(pipeline, "commit", noting)
    while not side.committer.step():
        pass

    assert order == list(range(1, 121))
    assert_backlog_is_committed(side, 120, 100)
    marks = side.source.outcomes(0)
    assert [sequence for sequence, _ in marks] == order
    assert {bytes(one) for _, one in marks[1:]} == {b"s" * 98 + b"dx"}


@pytest.mark.usefixtures("small_batches")
def test_a_decoder_that_is_killed_in_a_backlog_loses_nothing(
    side: Side, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    side.put_backlog(60, 100)
    killed, real = list[int](), Decoders.take

    def take(decoders: Decoders) -> Any:  # noqa: ANN401  # as the real one
        if len(killed) < 2:
            pid = decoders._processes[len(killed)].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
        return real(decoders)

    def start(decoders: Decoders) -> bool:  # else the backlog may be committed before they are ready
        if not decoders._pipes:
            decoders._start()
        return True

    monkeypatch.setattr(Decoders, "take", take)
    monkeypatch.setattr(Decoders, "are_ready", property(start))
    with side.running():
        side.until_committed()

    assert len(killed) == 2
    assert_backlog_is_committed(side, 60, 100)
    assert {one.getMessage() for one in caplog.records} <= {"a commit failed; retrying"}


def test_a_backlog_is_committed_while_the_decoders_start(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    side.put_backlog(60, 100)
    monkeypatch.setattr(Decoders, "are_ready", False)

    with side.running():
        side.until_committed()

    assert_backlog_is_committed(side, 60, 100)


class FaultError(Exception):
    """Says what it must not: a payload."""


@pytest.mark.parametrize(
    "broken",
    [
        "manymetrics_api.sinks.local_stream.LocalSource.read",
        "manymetrics_api.sinks.local_stream.LocalSource.name",
        "manymetrics_api.sinks.local_stream.LocalSource.put_outcomes",
        "manymetrics_processor.lake.lake.Lake._append",
        "manymetrics_processor.lake.arrow_engine.ArrowEngine.stage",
    ],
)
def test_a_failure_is_tried_again_and_logged_without_a_payload(
    side: Side, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    side.put(packed([track(SECRET), BAD]))
    failed = threading.Event()

    def fail(*_arguments: object) -> None:
        failed.set()
        raise FaultError(SECRET)

    with monkeypatch.context() as fault:
        fault.setattr(broken, fail)
        with side.running():
            assert failed.wait(10)
            fault.undo()
            side.until_committed()

    assert message_ids(side.lake) == [SECRET]
    assert counts(books(side.lake, side.source.name()))["received"] == 2
    [line, *_] = [JsonLines().format(one) for one in caplog.records if one.levelno >= logging.WARNING]
    assert ("a commit failed" in line, "FaultError" in line, SECRET in line) == (True, True, False)


def test_it_stops_when_told_after_the_commit_that_is_under_way(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    side.put(packed([track("a")]))
    under_way, go_on, stop = threading.Event(), threading.Event(), threading.Event()
    real = side.lake._append

    def slow(*arguments: Any) -> int:  # noqa: ANN401  # as the real one
        under_way.set()
        assert go_on.wait(10)
        return real(*arguments)

    monkeypatch.setattr(side.lake, "_append", slow)
    thread = threading.Thread(target=side.committer.run, args=(stop,))
    thread.start()
    assert under_way.wait(10)
    stop.set()
    go_on.set()
    thread.join(10)

    assert not thread.is_alive()
    assert message_ids(side.lake) == ["a"]


def test_an_idle_committer_stops_at_once(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "POLL_S", 3_600)

    with side.running():  # which waits for its end
        time.sleep(0.2)


def test_what_waits_is_committed_at_once_when_idle_and_by_the_interval_under_load(side: Side) -> None:
    slow = Committer(side.source, SHARD, side.lake, Window(), 60)
    side.put(packed([track("a")]))
    assert slow.step() is False

    side.put(packed([track("b")]))

    assert slow.step() is True
    assert message_ids(side.lake) == ["a"]


def test_a_restart_goes_on_where_the_last_one_ended(side: Side) -> None:
    side.put(packed([track("a")]))
    side.committer.step()
    side.put(packed([track("b"), track("a")]))

    again = Committer(side.source, SHARD, side.lake, Window(), 0)
    while not again.step():
        pass

    assert message_ids(side.lake) == ["a", "b"]
    assert counts(books(side.lake, side.source.name())) == {"received": 3, "stored": 2, "duplicate": 1}


def test_a_stream_that_is_deleted_and_made_again_loses_nothing(side: Side) -> None:
    side.put(packed([track("a")]), packed([track("b")]))
    with side.running():
        side.until_committed()
        for path in side.path.parent.glob("stream.db*"):
            path.unlink()
        side.put(packed([track("c")]))
        until = time.monotonic() + 30
        while message_ids(side.lake) != ["a", "b", "c"]:
            assert time.monotonic() < until, "the new stream was not committed"
            time.sleep(0.1)


# --- decoders ---------------------------------------------------------------------------------------------


def test_batches_come_out_in_the_order_in_which_they_went_in() -> None:
    with closing(Decoders()) as decoders:
        for sequence, size in ((1, 2_000), (2, 1)):
            decoders.put([record(sequence, *[track(f"{at}") for at in range(size)])], "local:test")
        assert not decoders.has_room

        assert [decoders.take().keys[0][1] for _ in range(2)] == [1, 2]
        assert (decoders.waiting, decoders.has_room) == (0, True)


def test_a_decoder_that_is_gone_is_an_error_and_the_next_batch_gets_a_new_one() -> None:
    with closing(Decoders(workers=1)) as decoders:
        decoders.put([record(1, track("a"))], "local:test")
        decoders.take()
        decoders._processes[0].kill()
        decoders._processes[0].join()

        with pytest.raises(DecodeError):
            put_and_take(decoders)

        assert put_and_take(decoders).keys == [("shard-0", 2)]


def put_and_take(decoders: Decoders) -> Any:  # noqa: ANN401  # a batch
    decoders.put([record(2, track("b"))], "local:test")
    return decoders.take()


def test_decoders_end_when_there_was_nothing_to_do_for_a_while() -> None:
    now = [0.0]
    with closing(Decoders(workers=1, clock=lambda: now[0])) as decoders:
        put_and_take(decoders)
        [process] = decoders._processes

        decoders.close_if_idle()
        assert process.is_alive()
        now[0] = 60.0
        decoders.close_if_idle()

        assert not process.is_alive()


PARENT = """
import sys, time
from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.decode.worker_pool import Decoders

if __name__ == "__main__":
    decoders = Decoders()
    decoders.put([StreamRecord("s", 1, b"", 0)], "local:test")
    decoders.take()
    print(*[process.pid for process in decoders._processes], flush=True)
    time.sleep(60)
"""


def test_decoders_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2

        parent.kill()
        parent.wait()

        assert within(10, lambda: not any(map(is_alive, pids)))


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def is_alive(pid: int) -> bool:
    """A zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_records_are_decoded_as_in_this_process() -> None:
    records = [record(1, track("a"), BAD), record(2, track("b"), shard="other")]
    with closing(Decoders(workers=1)) as decoders:
        decoders.put(records, "local:test")
        there = decoders.take()

    here = decode(records, "local:test")
    assert (there.keys, there.outcomes, there.reasons) == (here.keys, here.outcomes, here.reasons)
    assert there.events.table.equals(here.events.table)
    assert there.letters.table.equals(here.letters.table)
    assert int(there.events.day[0]) == NOW // DAY_US
