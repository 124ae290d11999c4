"""The books of a stream: they balance, and never go back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manymetrics.books import PROPERTY_PREFIX, StreamBooks, encode, parse_books, property_name, read_books
from manymetrics.outcomes import Reason

ARN = "arn:aws:kinesis:eu-central-1:123456789012:stream/events:1763990000"
SEQUENCE = 49_590_338_271_490_256_608_559_692_538_361_571_095_921_575_989_136_588_898  # Kinesis: 56 digits

counts = st.integers(0, 1_000)
shards = st.sampled_from(["shard-0", "shard-1", "shard-2"])
reasons = st.sampled_from(list(Reason))
moves = st.tuples(
    st.dictionaries(shards, st.integers(0, 10**56)), counts, counts, st.dictionaries(reasons, st.integers(1, 9))
)


@given(st.lists(moves, max_size=10))
def test_books_are_the_sum_of_their_moves_and_watermarks_never_fall(
    moved: list[tuple[dict[str, int], int, int, dict[Reason, int]]],
) -> None:
    books = StreamBooks(stream=ARN)
    letters = dict[str, int]()
    for watermarks, stored, duplicate, dead in moved:
        before = {shard: books.watermark(shard) for shard in ("shard-0", "shard-1", "shard-2")}
        books = books.moved(
            watermarks,
            received=stored + duplicate + sum(dead.values()),
            stored=stored,
            duplicate=duplicate,
            dead_lettered={reason.value: count for reason, count in dead.items()},
        )
        letters = {reason: letters.get(reason, 0) + dead.get(Reason(reason), 0) for reason in {*letters, *dead}}
        for shard, at in before.items():
            assert books.watermark(shard) == max(at, watermarks.get(shard, -1))

    assert books.balanced
    assert (books.stored, books.duplicate) == (sum(one[1] for one in moved), sum(one[2] for one in moved))
    assert books.dead_lettered == letters


MICROSECONDS = st.integers(0, 2**53)


@given(st.lists(st.dictionaries(shards, MICROSECONDS), max_size=10))
def test_the_time_of_a_shard_never_falls(moved: list[dict[str, int]]) -> None:
    books = StreamBooks(stream=ARN)
    for arrived_at in moved:
        before = books.arrived_at
        books = books.moved({}, arrived_at=arrived_at, received=0)
        for shard in {*before, *arrived_at}:
            assert books.arrived_at[shard] == max(before.get(shard, 0), arrived_at.get(shard, 0))


def test_a_shard_that_was_closed_has_no_time_once_a_child_is_read() -> None:
    books = StreamBooks(stream=ARN).moved({"s-0": 5}, arrived_at={"s-0": 100}, shards={"s-0": []}, received=1, stored=1)
    split: dict[str, list[str]] = {"s-0": [], "s-1": ["s-0"], "s-2": ["s-0"]}

    waiting = books.moved({"s-0": 6}, arrived_at={"s-0": 200}, shards=split, received=1, stored=1)
    assert (waiting.arrived_at, waiting.ended) == ({"s-0": 200, "s-1": 0, "s-2": 0}, [])

    read = waiting.moved({"s-2": 7}, arrived_at={"s-2": 300}, shards=split, received=1, stored=1)
    assert (read.arrived_at, read.ended) == ({"s-1": 0, "s-2": 300}, ["s-0"])
    assert read.watermarks == {"s-0": "6", "s-2": "7"}
    assert read.moved({}, shards={"s-0": []}, received=0).ended == ["s-0"]  # listed before the resharding
    again = read.moved({"s-0": 6}, arrived_at={"s-0": 200}, received=0)  # redelivered
    assert (again.arrived_at, again.ended) == (read.arrived_at, read.ended)


def test_shards_that_were_never_read_end_with_their_descendants() -> None:
    shards: dict[str, list[str]] = {"s-0": [], "s-1": [], "s-2": ["s-0", "s-1"], "s-3": ["s-2"], "s-4": ["s-2"]}
    books = StreamBooks(stream=ARN).moved({"s-0": 1}, arrived_at={"s-0": 9}, shards=shards, received=1, stored=1)

    books = books.moved({"s-4": 1}, arrived_at={"s-4": 10}, shards=shards, received=1, stored=1)

    assert (books.arrived_at, books.ended) == ({"s-3": 0, "s-4": 10}, ["s-0", "s-1", "s-2"])


def test_a_shard_that_is_no_longer_listed_has_ended_but_not_one_that_is_newer_than_the_list() -> None:
    books = StreamBooks(stream=ARN, watermarks={"s-0": "1"})  # of a version that noted no time
    books = books.moved({"s-9": 1}, arrived_at={"s-9": 10}, received=1, stored=1)

    books = books.moved({"s-5": 1}, arrived_at={"s-5": 11}, shards={"s-4": [], "s-5": []}, received=1, stored=1)

    assert (books.arrived_at, books.ended) == ({"s-4": 0, "s-5": 11, "s-9": 10}, ["s-0"])


def test_books_of_an_older_version_are_read() -> None:
    old = '{"stream":"local:1","watermarks":{"shard-0":"3"},"parts":{},"received":1,"stored":1,"duplicate":0}'

    books = parse_books("local:1", {property_name("local:1"): old})

    assert (books.watermark("shard-0"), books.arrived_at, books.ended) == (3, {}, [])


def test_an_event_without_an_outcome_unbalances_the_books() -> None:
    books = StreamBooks(stream=ARN).moved({"shard-0": 1}, received=3, stored=1, dead_lettered={"too_deep": 1})

    assert not books.balanced


def test_moving_books_leaves_the_old_ones_as_they_were() -> None:
    books = StreamBooks(stream=ARN)

    books.moved({"shard-0": 7}, received=1, dead_lettered={"too_deep": 1})

    assert books == StreamBooks(stream=ARN)


def test_nothing_of_a_shard_is_committed_at_first() -> None:
    assert StreamBooks(stream=ARN).watermark("shard-0") == -1


def test_outcomes_name_each_reason() -> None:
    books = StreamBooks(stream=ARN).moved({}, received=6, stored=1, duplicate=2, dead_lettered={"b": 1, "a": 2})

    assert books.outcomes() == {"stored": 1, "duplicate": 2, "dead_lettered:a": 2, "dead_lettered:b": 1}


def test_books_are_read_as_they_were_written_beside_other_properties() -> None:
    kinesis = StreamBooks(stream=ARN).moved({"shard-0": SEQUENCE}, received=1, stored=1)
    local = StreamBooks(stream="local:1").moved({"shard-0": 3}, received=2, duplicate=2)
    properties = {property_name(books.stream): encode(books) for books in (kinesis, local)} | {"comment": "Events."}

    assert sorted(read_books(properties), key=lambda books: books.stream) == [kinesis, local]
    assert parse_books(ARN, properties) == kinesis
    assert parse_books(ARN, properties).watermark("shard-0") == SEQUENCE
    assert parse_books("another", properties) == StreamBooks(stream="another")


def test_a_streams_property_has_a_name_that_any_catalog_takes() -> None:
    name = property_name(ARN)

    assert name.removeprefix(PROPERTY_PREFIX).isalnum()
    assert name != property_name(ARN + "0")
