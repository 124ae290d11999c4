"""The committer's end of the local stream: reads in order, drops what is long committed, leaves no bytes."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import msgspec
import pytest

from manymetrics.records import Stamp, count_events, pack, weight
from manymetrics_api.sinks import SinkResult
from manymetrics_api.sinks.lanes import HEAVY_OWNER, Lanes
from manymetrics_api.sinks.local_stream import KEEP_COMMITTED_S, LocalSource, LocalStream
from tests.integration.micro_batches import NOW, packed, track

SECRET = "jane@example.com"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stream.db"


@pytest.fixture
def source(path: Path) -> Iterator[LocalSource]:
    put(path, 0)  # makes the file
    with closing(LocalSource(path)) as opened:
        yield opened


def put(path: Path, *events_of_each: int) -> None:
    """A record for each number, of so many events."""
    records = [packed([track(f"{SECRET}-{at}") for at in range(events)]) for events in events_of_each if events]

    async def store() -> list[SinkResult]:
        stream = LocalStream(path)
        try:
            return await stream.put(records) if records else [SinkResult.STORED] * await stream.ready()
        finally:
            await stream.close()

    assert set(asyncio.run(store())) == {SinkResult.STORED}


def sequences(source: LocalSource, after: int, max_events: int = 10**6, max_bytes: int = 10**9) -> list[int]:
    return [record.sequence for record in source.read(after, max_events, max_bytes)]


def test_records_are_read_in_order_past_a_sequence_number(path: Path, source: LocalSource) -> None:
    put(path, 1, 2)
    put(path, 3)

    assert sequences(source, -1) == sequences(source, 0) == [1, 2, 3]
    assert sequences(source, 2) == [3]
    assert sequences(source, 3) == []
    assert source.last_sequence() == 3


@pytest.mark.parametrize(("max_events", "expected"), [(1, [1]), (4, [1]), (5, [1, 2]), (8, [1, 2]), (9, [1, 2, 3])])
def test_a_read_stops_once_it_has_enough_events(
    path: Path, source: LocalSource, max_events: int, expected: list[int]
) -> None:
    put(path, 4, 4, 4)

    assert sequences(source, 0, max_events=max_events) == expected


def test_a_read_stops_once_it_has_enough_bytes_but_has_one_record_at_least(path: Path, source: LocalSource) -> None:
    put(path, 9, 9, 9)
    size = source.read(0, 1, 1)[0].weight

    assert sequences(source, 0, max_bytes=1) == [1]
    assert sequences(source, 0, max_bytes=size + 1) == [1, 2]


def test_what_is_pending_is_counted_with_the_arrival_of_the_oldest(path: Path, source: LocalSource) -> None:
    put(path, 1, 1, 1)

    second = source.read(1, 1, 1)[0]
    assert source.pending(1) == (2, second.arrived_at)
    assert source.pending(3) == (0, None)


def test_outcomes_are_read_as_they_were_noted_and_may_be_noted_again(path: Path, source: LocalSource) -> None:
    put(path, 1, 2)

    source.put_outcomes([(1, b"s"), (2, b"sx")])
    source.put_outcomes([(2, b"dx")])

    assert source.outcomes(0) == [(1, b"s"), (2, b"dx")]
    assert source.outcomes(1) == [(2, b"dx")]


def test_what_was_committed_just_now_is_kept_for_a_while(path: Path, source: LocalSource) -> None:
    put(path, 1, 1)
    source.put_outcomes([(1, b"s"), (2, b"s")])

    assert source.drop_committed(2) == 0
    assert sequences(source, 0) == [1, 2]


def test_what_was_committed_long_ago_is_dropped_and_the_rest_stays(path: Path, source: LocalSource) -> None:
    put(path, 1, 1, 1, 1)
    source.put_outcomes([(1, b"s"), (2, b"s"), (3, b"s")])
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(
            "update outcomes set committed_at = committed_at - ? where sequence < 3", (KEEP_COMMITTED_S + 1,)
        )

    assert source.drop_committed(4) == 2
    assert sequences(source, 0) == [3, 4]
    assert source.outcomes(0) == [(3, b"s")]


def test_nothing_past_the_watermark_is_dropped_whatever_the_outcomes_say(path: Path, source: LocalSource) -> None:
    put(path, 1, 1, 1)
    source.put_outcomes([(1, b"s"), (2, b"s"), (3, b"s")])

    assert source.drop_committed(2, keep_s=0) == 2
    assert sequences(source, 0) == [3]


def test_a_number_is_never_used_twice_even_when_all_was_dropped(path: Path, source: LocalSource) -> None:
    put(path, 1, 1)
    source.put_outcomes([(1, b"s"), (2, b"s")])
    source.drop_committed(2, keep_s=0)

    put(path, 1)

    assert sequences(source, 0) == [3]


def test_the_room_of_dropped_records_is_given_back(path: Path, source: LocalSource) -> None:
    for _ in range(20):
        put(path, *[50] * 20)  # records that are too small to be compressed
    source.put_outcomes([(number, b"s") for number in range(1, 401)])
    before = path.stat().st_size

    source.drop_committed(400, keep_s=0)

    with closing(sqlite3.connect(path)) as database:
        database.execute("pragma wal_checkpoint(truncate)")
    assert path.stat().st_size < before / 4


def test_a_scrub_leaves_no_byte_of_what_was_committed(path: Path, source: LocalSource) -> None:
    put(path, *[20] * 30)
    source.put_outcomes([(number, b"s" * 20) for number in range(1, 31)])
    assert SECRET in text_on_disk(path)

    source.scrub(30)

    assert SECRET not in text_on_disk(path)
    assert (sequences(source, 0), source.outcomes(0)) == ([], [])


def test_a_scrub_keeps_what_is_not_committed(path: Path, source: LocalSource) -> None:
    put(path, 1, 1, 1)

    source.scrub(2)

    assert sequences(source, 0) == [3]


def test_a_scrub_beside_a_server_that_takes_events_loses_none(path: Path, source: LocalSource) -> None:
    async def serve() -> None:
        stream = LocalStream(path)
        await stream.put([packed([track("a")])] * 3)
        await asyncio.to_thread(source.scrub, 2)
        await stream.put([packed([track("b")])])
        await stream.close()

    asyncio.run(serve())

    assert sequences(source, 0) == [3, 4]


def test_a_scrub_while_somebody_reads_says_that_the_log_is_in_use(path: Path, source: LocalSource) -> None:
    put(path, 1, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("begin")
        reader.execute("select * from records").fetchone()

        with pytest.raises(sqlite3.OperationalError):
            source.scrub(2)


def text_on_disk(path: Path) -> str:
    return "".join(one.read_bytes().decode("latin-1") for one in path.parent.iterdir())


def test_a_stream_that_was_made_again_has_another_name_and_starts_anew(path: Path, source: LocalSource) -> None:
    put(path, 1, 1)
    name = source.name()
    for one in list(path.parent.iterdir()):
        one.unlink()

    put(path, 1)

    assert (source.name(), sequences(source, 2)) == (name, [])  # what the old one held comes first
    assert source.name() != name
    assert sequences(source, 0) == [1]


def test_a_stream_keeps_its_name(path: Path, source: LocalSource) -> None:
    name = source.name()

    put(path, 1)

    with closing(LocalSource(path)) as another:
        assert another.name() == name


def test_noting_a_thousand_outcomes_waits_for_the_disk_but_once(path: Path, source: LocalSource) -> None:
    put(path, 1)
    statements = list[str]()
    source._open().set_trace_callback(statements.append)

    source.put_outcomes([(number, b"s") for number in range(1_000)])

    assert [statement.split()[0].lower() for statement in statements if "insert" not in statement] == [
        "begin",
        "commit",
    ]
    assert len(source.outcomes(-1)) == 1_000


# --- what is heavy ----------------------------------------------------------------------------------------

HEAVY = Stamp(NOW, "r", "shop", "server", context=b'{"x":"%s"}' % (b"a" * 100_000))


def put_heavy(path: Path, *events_of_each: int, stamp: Stamp = HEAVY) -> None:
    """A request for each number, of so many events that weigh 100 kB each."""

    async def store() -> list[SinkResult]:
        stream = LocalStream(path)
        try:
            results = [await stream.put(pack(stamp, [b"{}"] * events)) for events in events_of_each]
            return [one for of_request in results for one in of_request]
        finally:
            await stream.close()

    assert set(asyncio.run(store())) == {SinkResult.STORED}


def counts(source: LocalSource, after: int, max_bytes: int = 10**9) -> list[int]:
    return [count_events(record.data) for record in source.read(after, 10**6, max_bytes)]


def test_a_heavy_request_waits_behind_lighter_ones_that_came_after_it(path: Path, source: LocalSource) -> None:
    put_heavy(path, 11, 12)
    put(path, 1, 2)
    put_heavy(path, 13)
    put(path, 3)

    assert source.pending(-1)[0] == 6
    assert counts(source, -1) == [1, 2, 3, 11, 12, 13]
    assert sequences(source, -1) == [1, 2, 3, 4, 5, 6]
    assert source.pending(-1)[0] == 6


def test_an_event_waits_for_no_more_heavy_ones_than_a_read_takes(path: Path, source: LocalSource) -> None:
    put_heavy(path, *[11] * 5)

    first = source.read(-1, 10**6, 2_000_000)
    put(path, 1)

    assert [count_events(one.data) for one in first] == [11, 11]
    assert counts(source, first[-1].sequence, 2_000_000) == [1, 11, 11]
    assert counts(source, 5, 2_000_000) == [11]


def test_heavy_requests_get_their_share_under_a_backlog_without_end(
    path: Path, source: LocalSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_heavy(path, 11)
    put(path, *[1] * 9)
    read: list[int] = []
    monkeypatch.setattr("manymetrics_api.sinks.local_stream.ADMIT_EVERY_S", 0)

    while 11 not in read:
        put(path, 1)
        last = len(read)
        read += [count_events(one.data) for one in source.read(last, 1, 10**9)]

    assert len(read) < 15


def test_who_only_looks_admits_nothing(path: Path, source: LocalSource) -> None:
    put_heavy(path, 11)

    with closing(LocalSource(path, admits=False)) as looking:
        assert counts(looking, -1) == []
    assert counts(source, -1) == [11]


def test_a_stream_of_an_older_version_takes_heavy_requests_too(path: Path, source: LocalSource) -> None:
    put(path, 1)
    with closing(sqlite3.connect(path)) as older:
        older.execute("drop table heavy")

    put_heavy(path, 11)

    assert counts(source, -1) == [1, 11]


@pytest.mark.parametrize("has_weights", [True, False], ids=["weights of records", "no weights"])
def test_what_waits_aside_in_a_stream_of_an_older_version_is_admitted_too(
    path: Path, source: LocalSource, *, has_weights: bool
) -> None:
    put_heavy(path, 11)
    source.close()
    with closing(sqlite3.connect(path)) as older:
        older.execute("drop index heavy_of")
        if not has_weights:
            older.execute("alter table records drop column weight")
        older.execute("alter table heavy drop column owner")
        older.execute("alter table heavy drop column weight")
        older.execute("alter table stream drop column begins_after")

    put_heavy(path, 12)

    assert counts(source, -1) == [11, 12]


def test_the_records_of_an_older_version_are_weighed_as_they_are_read(path: Path, source: LocalSource) -> None:
    put(path, 3)
    source.close()
    with closing(sqlite3.connect(path)) as older:
        older.execute("alter table records drop column weight")

    put(path, 3)

    old, new = source.read(-1, 100, 1_000_000)
    assert old.weight == new.weight == weight(new.data)


PAGES = msgspec.structs.replace(HEAVY, key_kind="browser")


def test_heavy_requests_of_one_owner_wait_for_few_of_another(path: Path, source: LocalSource) -> None:
    put_heavy(path, *[11] * 6, stamp=PAGES)
    put_heavy(path, 12, 13)

    assert counts(source, -1, 3_000_000) == [11, 12, 11]
    assert counts(source, 3, 3_000_000) == [11, 13, 11]


def test_past_a_bound_an_owner_s_heavy_requests_are_not_taken(
    path: Path, source: LocalSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manymetrics_api.sinks.local_stream.MAX_ASIDE", 2_000_000)
    monkeypatch.setattr("manymetrics_api.sinks.local_stream._LOOK_ASIDE_S", 0)

    async def store() -> list[SinkResult]:
        stream = LocalStream(path)
        stamps = [PAGES, PAGES, PAGES, HEAVY]
        found = [one for stamp in stamps for one in await stream.put(pack(stamp, [b"{}"] * 11))]
        found += await stream.put(pack(PAGES, [b"{}"]))
        assert counts(source, -1) == [1, 11, 11, 11]
        found += await stream.put(pack(PAGES, [b"{}"] * 11))
        await stream.close()
        return found

    stored, full = SinkResult.STORED, SinkResult.UNAVAILABLE
    assert asyncio.run(store()) == [stored, stored, full, stored, stored, stored]


def test_no_record_is_lost_or_read_twice_whatever_comes_between_reads(path: Path, source: LocalSource) -> None:
    chance, sent, found, last = Random(5), 0, list[int](), -1
    for _ in range(60):
        events = chance.choice([1, 2, 3, 11, 12])
        (put_heavy if events > 10 else put)(path, events)
        sent += events
        if chance.random() < 0.5:
            records = source.read(last, chance.choice([1, 20, 10**6]), chance.choice([1, 10**6, 10**9]))
            found += [count_events(one.data) for one in records]
            last = max([last, *(one.sequence for one in records)])
    while records := source.read(last, 20, 10**9):
        found += [count_events(one.data) for one in records]
        last = records[-1].sequence

    assert sum(found) == sent


def test_a_heavy_request_survives_the_file_being_deleted_while_the_committer_has_it(
    path: Path, source: LocalSource
) -> None:
    put(path, 1)
    put_heavy(path, 11)
    name = source.name()
    path.unlink()
    put(path, 2)

    assert source.name() == name
    assert counts(source, -1) == [1, 11]
    assert counts(source, 2) == []
    assert source.name() != name
    assert counts(source, -1) == [2]


def test_what_a_project_sends_in_many_requests_is_heavy_too() -> None:
    now = 0.0
    lanes = Lanes(clock=lambda: now)
    [one] = pack(HEAVY, [b"{}"] * 9)
    [other] = pack(msgspec.structs.replace(HEAVY, project_id="other"), [b"{}"])

    [of_pages] = pack(msgspec.structs.replace(HEAVY, key_kind="browser"), [b"{}"])
    verdicts = [lanes.judge([one]).is_heavy for _ in range(60)]

    assert verdicts.index(True) == HEAVY_OWNER // weight(one)
    assert all(verdicts[verdicts.index(True) :])
    assert not lanes.judge([other]).is_heavy
    assert not lanes.judge([of_pages]).is_heavy
    now = 2.5
    assert not lanes.judge([one]).is_heavy


def test_usual_requests_are_not_heavy() -> None:
    lanes = Lanes()
    usual = Stamp(NOW, "r", "shop", "browser", context=b'{"x":"%s"}' % (b"a" * 1_500))

    assert not lanes.judge(pack(usual, [b" " * 1_000] * 250)).is_heavy
    assert lanes.judge(pack(usual, [b"{}"] * 10_000)).is_heavy
