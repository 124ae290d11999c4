"""Complete-through: from the books alone, and from a server that is stopped, killed and started."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from manymetrics.books import StreamBooks, encode, property_name
from manymetrics.tables import EVENTS
from manymetrics_api.sinks.local_stream import LocalSource
from manymetrics_cli.one_machine import stream_state
from manymetrics_insights.reader.complete_through import CompleteThrough, StreamState, complete_through
from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.iceberg import read_table
from tests.live_server import LiveServer, eventually, live_server

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ARN = "arn:aws:kinesis:eu-central-1:123456789012:stream/shop"
QUARTER = timedelta(minutes=15)


def ago(**units: float) -> datetime:
    return NOW - timedelta(**units)


def micros(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def books(
    stream: str, *, without_time: tuple[str, ...] = (), ended: tuple[str, ...] = (), **times: datetime
) -> StreamBooks:
    shards = (*times, *without_time, *ended)
    arrived_at = {shard: micros(at) for shard, at in times.items()}
    return StreamBooks(stream=stream, watermarks=dict.fromkeys(shards, "1"), arrived_at=arrived_at, ended=list(ended))


def through(*streams: StreamBooks, local: StreamState | None = None) -> CompleteThrough:
    properties = {property_name(one.stream): encode(one) for one in streams} | {"comment": "Events."}
    return complete_through(properties, NOW, local)


# --- AWS --------------------------------------------------------------------------------------------------


def test_it_is_the_least_over_the_shards() -> None:
    assert through(books(f"{ARN}@1.000", a=ago(minutes=3), b=ago(minutes=9), c=ago(seconds=1))) == (ago(minutes=9), [])


def test_an_idle_shard_counts_as_a_quarter_of_an_hour_ago_which_is_noted() -> None:
    at, notes = through(books(f"{ARN}@1.000", a=ago(minutes=3), b=ago(hours=2)))

    assert at == NOW - QUARTER
    [note] = notes
    assert note.startswith("no new record since 2026-03-01T10:00:00Z in 1 of 2 shards (b), which count as complete")


def test_a_shard_is_idle_after_exactly_a_quarter_of_an_hour() -> None:
    assert through(books(f"{ARN}@1.000", a=NOW - QUARTER)) == (NOW - QUARTER, [])

    at, notes = through(books(f"{ARN}@1.000", a=NOW - QUARTER - timedelta(microseconds=1)))
    assert (at, len(notes)) == (NOW - QUARTER, 1)


def test_a_shard_without_any_record_is_idle() -> None:
    at, notes = through(books(f"{ARN}@1.000", a=ago(minutes=1), b=datetime(1970, 1, 1, tzinfo=UTC)))

    assert at == NOW - QUARTER
    assert notes[0].startswith("no new record ever in 1 of 2 shards (b)")


def test_many_idle_shards_are_counted_and_some_named() -> None:
    long_ago = ago(days=1)

    [note] = through(books(f"{ARN}@1.000", a=long_ago, b=long_ago, c=long_ago, d=long_ago, e=long_ago))[1]

    assert "in 5 of 5 shards (a, b, c, 2 more)" in note


def test_a_closed_shard_holds_nothing_back() -> None:
    assert through(books(f"{ARN}@1.000", ended=("a",), b=ago(minutes=2))) == (ago(minutes=2), [])


def test_a_shard_whose_time_is_not_noted_makes_it_unknown() -> None:
    at, notes = through(books(f"{ARN}@1.000", without_time=("b",), a=ago(minutes=2)))

    assert at is None
    assert notes == [
        "complete-through is unknown: the books have no time for b; the next commit of a shard notes its time"
    ]


def test_only_the_last_incarnation_of_a_stream_counts_and_each_stream_does() -> None:
    old = books(f"{ARN}@99.500", without_time=("a",))
    new = books(f"{ARN}@100.000", a=ago(minutes=1))
    other = books(f"{ARN}-2@5.000", a=ago(minutes=4))

    assert through(old, new) == (ago(minutes=1), [])
    assert through(new, old, other) == (ago(minutes=4), [])


def test_what_is_no_stream_does_not_count() -> None:
    live = books(f"{ARN}@1.000", a=ago(minutes=1))
    sources = [books(name, a=ago(days=30)) for name in ("backfill:s3://b", "replay", "replay:s3", "local:moved")]

    assert through(live, *sources) == (ago(minutes=1), [])


def test_nothing_is_known_before_the_first_commit() -> None:
    at, [note] = through(books(f"{ARN}@1.000"))
    assert (at, "nothing is committed yet" in note) == (None, True)
    assert through() == (None, ["complete-through is unknown: no commit has noted it yet"])


def test_a_time_ahead_of_the_clock_is_now() -> None:
    assert through(books(f"{ARN}@1.000", a=NOW + timedelta(hours=1))) == (NOW, [])
    assert through(books("local:1", a=NOW + timedelta(hours=1)), local=StreamState(is_empty=False)) == (NOW, [])


# --- one machine ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [(), (books("local:1", a=ago(days=3)),), (books("local:1", without_time=("a",)),)])
def test_with_an_empty_stream_it_is_now(kept: tuple[StreamBooks, ...]) -> None:
    assert through(*kept, local=StreamState(is_empty=True)) == (NOW, [])


def test_while_records_wait_it_is_the_newest_committed_ones_arrival() -> None:
    waiting = StreamState(is_empty=False, oldest_waiting=ago(seconds=5))

    assert through(books("local:1", a=ago(seconds=9)), local=waiting) == (ago(seconds=9), [])
    assert through(books("local:0", a=ago(days=1)), books("local:1", a=ago(days=3)), local=waiting) == (ago(days=1), [])
    assert through(books("local:1", a=ago(seconds=9)), local=StreamState(is_empty=False)) == (ago(seconds=9), [])


def test_a_heavy_record_that_waits_longer_holds_it_back() -> None:
    waiting = StreamState(is_empty=False, oldest_waiting=ago(seconds=30))

    assert through(books("local:1", a=ago(seconds=1)), local=waiting) == (ago(seconds=30), [])


def test_an_older_table_says_nothing_while_records_wait() -> None:
    at, notes = through(books("local:1", without_time=("a",)), local=StreamState(is_empty=False, oldest_waiting=NOW))

    assert (at, len(notes)) == (None, 1)


def test_a_stream_that_was_not_read_is_noted() -> None:
    at, notes = through(books("local:1", a=ago(days=1)))

    assert (at, len(notes)) == (ago(days=1), 1)


def test_now_is_taken_in_any_zone() -> None:
    there = NOW.astimezone(datetime.strptime("+0545", "%z").tzinfo)

    at, _ = complete_through({}, there, StreamState(is_empty=True))

    assert at is not None
    assert at.isoformat() == "2026-03-01T12:00:00+00:00"


# --- a server ---------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with live_server(tmp_path / "data", commit_interval_s="0.05") as running:
        yield running


def ask(data_dir: Path) -> tuple[datetime | None, bool]:
    """Complete-through, and whether the stream is empty."""
    now = datetime.now(UTC)
    state = read_table(Folder(data_dir), EVENTS.name)
    properties = state.properties if state else {}
    local = stream_state(data_dir, properties)
    assert local is not None
    at, notes = complete_through(properties, now, local)
    assert not (local.is_empty and at != now)
    assert bool(notes) == (at is None)
    return at, local.is_empty


def send(server: LiveServer, message_id: str) -> datetime:
    """Returns the time before which it was acknowledged."""
    event = b'{"type":"track","event":"E","userId":"u","messageId":"%s"}' % message_id.encode()
    assert server.post("/v1/batch", b'{"batch":[%s]}' % event).status_code == 200
    return datetime.now(UTC)


def committer_of(server: LiveServer) -> int:
    return int((server.data_dir / "committer.lock").read_text().strip())


def test_events_that_are_acknowledged_and_not_committed_are_past_it_also_after_a_kill(server: LiveServer) -> None:
    first = send(server, "a")
    eventually(lambda: ask(server.data_dir)[1] or None)
    committer = committer_of(server)
    os.kill(committer, signal.SIGSTOP)
    try:
        time.sleep(0.2)  # so that a commit in progress isn't between two events
        before = datetime.now(UTC)
        send(server, "b")

        at, is_empty = ask(server.data_dir)
        assert not is_empty
        assert at is not None
        assert at < first  # the arrival of `a`
        assert first - at < timedelta(seconds=10)
    finally:
        os.kill(committer, signal.SIGKILL)
        server.stop(signal.SIGKILL)
    assert ask(server.data_dir) == (at, False)

    server.start()
    eventually(lambda: {row["message_id"] for row in server.rows()} == {"a", "b"} or None)
    after, is_empty = ask(server.data_dir)
    assert (is_empty, after is not None and after > before) == (True, True)


def test_records_that_were_committed_and_dropped_since_the_table_was_read_make_the_stream_not_empty(
    server: LiveServer,
) -> None:
    send(server, "a")
    eventually(lambda: ask(server.data_dir)[1] or None)
    state = read_table(Folder(server.data_dir), EVENTS.name)
    assert state is not None
    send(server, "b")
    eventually(lambda: len(server.rows()) == 2 or None)

    behind = stream_state(server.data_dir, state.properties)
    with closing(LocalSource(server.stream)) as source:
        assert source.drop_committed(source.last_sequence(), keep_s=-60) == 2
    dropped = stream_state(server.data_dir, state.properties)

    assert behind is not None
    assert (behind.is_empty, behind.oldest_waiting is None) == (False, False)
    assert dropped == StreamState(is_empty=False)
    assert ask(server.data_dir)[1]


def test_a_stream_that_can_not_be_read_is_none(tmp_path: Path) -> None:
    assert stream_state(tmp_path, {}) is None
    (tmp_path / "stream.db").write_text("no database")
    assert stream_state(tmp_path, {}) is None
