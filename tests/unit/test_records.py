"""The stream record: what goes in comes out, and bytes that are no record never stop the line."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from manymetrics.limits import MAX_EVENT_BYTES, MIN_EVENT_WEIGHT, OVERSIZE_PREFIX_BYTES
from manymetrics.records import (
    MAX_RECORD_BYTES,
    MAX_RECORD_WEIGHT,
    Cut,
    Record,
    Stamp,
    UnreadableRecordError,
    compress,
    count_events,
    pack,
    unpack,
    weight,
    without,
)

STAMP = Stamp(1_763_990_000_000_000, "r-1", "shop", "browser", ip="192.0.2.7", user_agent="Mozilla/5.0 é")
EVENTS = [b'{"event":"One"}', "\u00e9\u4e2d".encode(), b"", b'{"event":"Two"}']


def packed_of(stamp: Stamp, events: list[bytes], *, zstd: bool) -> list[bytes]:
    return [compress(record) if zstd else record for record in pack(stamp, events)]


PACKED = {zstd: packed_of(STAMP, [*EVENTS, b" " * 200], zstd=zstd)[0] for zstd in (False, True)}
COUNT = len(EVENTS) + 1

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
stamps = st.builds(
    Stamp,
    received_at=st.integers(0, 2**62),
    request_id=texts,
    project_id=texts,
    key_kind=st.sampled_from(["browser", "server"]),
    ip=st.none() | texts,
    user_agent=st.none() | texts,
    default_type=st.none() | texts,
    sent_at=st.binary(max_size=30),
    context=st.binary(max_size=300),
    integrations=st.binary(max_size=30),
    anonymous_id=st.binary(max_size=30),
)


@given(
    stamp=stamps,
    events=st.lists(st.binary(max_size=300), min_size=1, max_size=30),
    zstd=st.booleans(),
)
def test_events_and_stamp_come_out_as_they_went_in(stamp: Stamp, events: list[bytes], *, zstd: bool) -> None:
    [packed] = packed_of(stamp, events, zstd=zstd)

    assert unpack(packed) == Record(stamp, events, {})
    assert count_events(packed) == len(events)


def test_a_record_is_compressed_once_and_only_where_that_makes_it_smaller() -> None:
    assert len(PACKED[True]) < len(PACKED[False])
    assert compress(PACKED[True]) == PACKED[True]
    [dense] = pack(STAMP, [hashlib.shake_128(b"").digest(2_000)])
    assert compress(dense) == dense
    assert compress(b"") == b""


def test_a_record_from_before_batches_had_an_anonymous_id_is_read_as_it_was() -> None:
    older = [*msgspec.structs.astuple(STAMP)[:-1]]
    head = msgspec.msgpack.encode([older, [2], []])

    unpacked = unpack(b"\x01" + (1).to_bytes(4, "big") + len(head).to_bytes(4, "big") + head + b"{}")

    assert unpacked == Record(STAMP, [b"{}"], {})


def test_no_events_make_no_record() -> None:
    assert pack(STAMP, []) == []


@given(
    sizes=st.lists(st.sampled_from([0, 1, 4_000, 250_000, 499_990, MAX_EVENT_BYTES]), min_size=1, max_size=9),
    context=st.sampled_from([0, 10_000, 250_000]),
    zstd=st.booleans(),
)
@example(sizes=[MAX_EVENT_BYTES] * 9, context=250_000, zstd=False)
@example(sizes=[0] * 200_000, context=0, zstd=False)
@example(sizes=[4_000] * 300, context=250_000, zstd=False)
def test_what_is_too_much_for_one_record_is_split_and_stays_in_order(
    sizes: list[int], context: int, *, zstd: bool
) -> None:
    stamp = Stamp(1, "r", "p", "server", context=b"c" * context, anonymous_id=b"a" * (context // 2))
    events = [bytes([number % 256]) * size for number, size in enumerate(sizes)]

    packed = packed_of(stamp, events, zstd=zstd)

    unpacked = [unpack(one) for one in packed]
    assert [event for record in unpacked for event in record.events] == events
    assert {record.stamp for record in unpacked} == {stamp}
    assert sum(map(count_events, packed)) == len(events)
    assert max(map(len, packed)) < MAX_RECORD_BYTES


@pytest.mark.parametrize("zstd", [False, True])
def test_an_event_over_the_limit_travels_as_its_prefix_with_its_length_and_digest(*, zstd: bool) -> None:
    whole, over = b"w" * MAX_EVENT_BYTES, bytes(range(256)) * 2_001
    small = b"{}"

    packed = packed_of(STAMP, [small, over, whole, over, small], zstd=zstd)

    events = [event for one in packed for event in unpack(one).events]
    prefix = over[:OVERSIZE_PREFIX_BYTES]
    assert events == [small, prefix, whole, prefix, small]
    cuts = [(one.events[at], cut) for one in map(unpack, packed) for at, cut in one.cuts.items()]
    digest = hashlib.sha256(over).hexdigest()
    assert [(event, cut.length, cut.sha256) for event, cut in cuts] == [(prefix, len(over), digest)] * 2


def test_an_event_of_just_the_limit_is_not_cut() -> None:
    [packed] = pack(STAMP, [b"x" * MAX_EVENT_BYTES])

    assert unpack(packed).cuts == {}


def test_a_cut_is_found_by_the_position_of_its_event() -> None:
    [packed] = packed_of(STAMP, [b"{}", b"x" * (MAX_EVENT_BYTES + 1)], zstd=True)

    digest = hashlib.sha256(b"x" * (MAX_EVENT_BYTES + 1)).hexdigest()
    assert unpack(packed).cuts == {1: Cut(1, MAX_EVENT_BYTES + 1, digest)}


@pytest.mark.parametrize("zstd", [False, True])
def test_a_record_cut_short_anywhere_is_unreadable(*, zstd: bool) -> None:
    whole = PACKED[zstd]

    for length in range(len(whole)):
        with pytest.raises(UnreadableRecordError):
            unpack(whole[:length])


@pytest.mark.parametrize("zstd", [False, True])
def test_a_record_with_a_wrong_byte_anywhere_is_unreadable_or_a_record_of_as_many_events(*, zstd: bool) -> None:
    whole = PACKED[zstd]

    for at in range(len(whole)):
        for wrong in {0x00, 0x7F, 0x80, 0xC1, 0xFF, whole[at] ^ 0x01, whole[at] ^ 0x40} - {whole[at]}:
            damaged = whole[:at] + bytes([wrong]) + whole[at + 1 :]
            assert _unreadable_or_of(damaged, COUNT)


def _unreadable_or_of(data: bytes, events: int) -> bool:
    try:
        return len(unpack(data).events) == events
    except UnreadableRecordError:
        return True


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\x01", b"\x02", b"\x01\0\0\0\x01\0\0\0\x01\x93", b"\x02\0\0\0\x01\0\0\0\x01"]),
)
@example(b"", b"")
@example(b"{}", b"")
@example((200).to_bytes(4, "big") + b"\x28\xb5\x2f\xfd" + b"\xff" * 20, b"\x02")
def test_bytes_of_any_other_kind_are_unreadable(data: bytes, start: bytes) -> None:
    with pytest.raises(UnreadableRecordError):
        unpack(start + data)


def test_an_inflated_size_that_no_record_has_is_unreadable_and_costs_no_memory() -> None:
    frame = b"\x28\xb5\x2f\xfd\xc0" + b"\x00" + (2**40).to_bytes(8, "little") + b"\x01\x00\x00"

    with pytest.raises(UnreadableRecordError):
        unpack(b"\x02\0\0\0\x01\0\0\0\x02" + frame)


@pytest.mark.parametrize("zstd", [False, True])
def test_the_count_of_a_damaged_record_is_still_readable(*, zstd: bool) -> None:
    assert count_events(PACKED[zstd][:5] + b"\xff" * 40) == COUNT


@pytest.mark.parametrize("data", [b"", b"\x01\0\0", b"\x03\0\0\0\x09\0\0\0\0", b'{"event": "not a record"}'])
def test_what_is_no_record_counts_as_one_event_since_it_becomes_one_dead_letter(data: bytes) -> None:
    assert count_events(data) == 1


@given(stamp=stamps, sizes=st.lists(st.integers(0, 2_000), min_size=1, max_size=200), zstd=st.booleans())
@example(stamp=Stamp(1, "r", "p", "browser", context=b"x" * 18_200), sizes=[2] * 40, zstd=True)
@example(stamp=Stamp(1, "r", "p", "browser", user_agent="M" * 1_024), sizes=[900] * 40, zstd=True)
def test_a_record_weighs_its_events_and_for_each_of_them_what_they_share(
    stamp: Stamp, sizes: list[int], *, zstd: bool
) -> None:
    packed = packed_of(stamp, [b"e" * size for size in sizes], zstd=zstd)

    shared = len(stamp.sent_at + stamp.context + stamp.integrations + stamp.anonymous_id) + len(stamp.user_agent or "")
    assert sum(map(weight, packed)) == sum(max(MIN_EVENT_WEIGHT, size) + shared for size in sizes)


@pytest.mark.parametrize("zstd", [False, True])
@pytest.mark.parametrize(("events", "context"), [(3_500, 18_200), (1_000, 60_000), (10_000, 2_000), (20, 700_000)])
def test_what_a_request_shares_splits_it_into_records_of_a_bounded_weight(
    events: int, context: int, *, zstd: bool
) -> None:
    stamp = Stamp(1, "r-1", "shop", "browser", context=b"x" * context)

    packed = packed_of(stamp, [b"{}"] * events, zstd=zstd)

    assert max(map(weight, packed)) <= MAX_RECORD_WEIGHT
    assert sum(map(count_events, packed)) == events
    assert len(packed) <= 2 + events * (context + MIN_EVENT_WEIGHT) / (MAX_RECORD_WEIGHT * 0.9)


def test_many_short_events_are_still_one_record() -> None:
    assert len(pack(STAMP, [b"{}"] * 10_000)) == 1


@given(st.binary(max_size=30), st.sampled_from([b"", b"\x02\0\0\0\x02", b"\x02\0\0\0\x02\0\0\0\0\x28\xb5\x2f\xfd"]))
@example(b"\xff" * 10, b"\x02\0\0\0\x02\0\0\0\0\x28\xb5\x2f\xfd\xc0\0")
@example(b"\xff" * 10, b"\x01\xff\xff\xff\xff\xff\xff\xff\xff")
def test_what_is_no_record_weighs_what_its_one_letter_does(data: bytes, start: bytes) -> None:
    assert 0 <= weight(start + data) <= MIN_EVENT_WEIGHT + 50


def test_no_user_agent_makes_a_record_too_large() -> None:
    stamp = Stamp(1, "r" * 30, "shop", "browser", user_agent="\u00e9" * 1_024)

    assert max(map(len, pack(stamp, [b"x" * 9_000] * 500))) < MAX_RECORD_BYTES


# --- without ----------------------------------------------------------------------------------------------


@given(
    stamp=stamps,
    events=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6),
    gone=st.sets(st.integers(0, 5)),
    zstd=st.booleans(),
)
def test_events_that_are_taken_out_leave_the_others_in_their_place(
    stamp: Stamp, events: list[bytes], gone: set[int], zstd: bool
) -> None:
    [record] = packed_of(stamp, events, zstd=zstd)

    left = unpack(without(record, gone))

    assert left.events == [b"" if at in gone else event for at, event in enumerate(events)]
    empty = Stamp(stamp.received_at, "", stamp.project_id, stamp.key_kind)
    assert left.stamp == (stamp if any(left.events) else empty)


@pytest.mark.parametrize(
    ("left", "stays"),
    [
        (b'{"type":"page"}', True),
        (b'{"type":"page","userId":"bob","anonymousId":null}', True),
        (b"no JSON", True),
        (b'{"type":"page","anonymousId":"its own"}', False),
    ],
)
def test_the_batchs_anonymous_id_stays_while_an_event_takes_it(left: bytes, *, stays: bool) -> None:
    stamp = msgspec.structs.replace(STAMP, anonymous_id=b'"a-1"', context=b"{}")
    [record] = pack(stamp, [b'{"type":"page"}', left])

    kept = unpack(without(record, {0})).stamp

    assert kept == msgspec.structs.replace(stamp, anonymous_id=b'"a-1"' if stays else b"")


def test_what_is_known_of_a_cut_event_goes_with_it_alone() -> None:
    large = b"x" * (MAX_EVENT_BYTES + 1)
    [record] = pack(STAMP, [b"1", large, b"2"])

    assert unpack(without(record, {0})).cuts == unpack(record).cuts
    assert unpack(without(record, {1})).cuts == {}
