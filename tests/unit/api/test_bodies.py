"""How a body is read: its size, its encoding, its time, and what is no body at all."""

import gzip
import json
import threading
import time
import zlib
from collections.abc import Sequence

import msgspec
import pytest

from manymetrics import telemetry
from manymetrics.events import TooManyValuesError, split_batch
from manymetrics.limits import (
    MAX_BODY_BYTES,
    MAX_EVENT_BYTES,
    MAX_EVENTS_A_REQUEST,
    MAX_INFLATED_BYTES,
    MAX_SENT_AT_BYTES,
    MAX_SHARED_BYTES,
    MAX_VALUES_A_REQUEST,
    MAX_WEIGHT_BYTES,
    MIN_EVENT_WEIGHT,
)
from manymetrics.outcomes import RequestOutcome
from manymetrics.records import Stamp, pack
from manymetrics.settings import Settings
from manymetrics_api import collect, intake
from tests.events_corpus import outcomes_of
from tests.in_process import EVENT, Api, basic
from tests.unit.api.test_routes import error_of

BATCH = b'{"batch":[%s]}' % EVENT
_RAW_DEFLATE = zlib.compressobj(wbits=-15)


def _padded(size: int) -> bytes:
    """A batch of one event, of just so many bytes."""
    return BATCH + b" " * (size - len(BATCH))


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(BATCH)),
        ("x-gzip", gzip.compress(BATCH)),
        ("GZIP", gzip.compress(BATCH)),
        ("", gzip.compress(BATCH)),
        ("identity", BATCH),
        ("gzip", BATCH),
        ("gzip", gzip.compress(BATCH[:9]) + gzip.compress(BATCH[9:])),
        ("gzip", gzip.compress(BATCH) + b"\n"),
        ("", gzip.compress(BATCH) + b"\r\n" + b"\0" * 100_000),
        ("deflate", zlib.compress(BATCH) + b"\0\0"),
        ("deflate", zlib.compress(BATCH)),
        ("deflate", zlib.compress(BATCH, 1)),
        *(("", zlib.compress(BATCH, level)) for level in (0, 1, 6, 9)),
        ("identity", zlib.compress(BATCH)),
        ("deflate", _RAW_DEFLATE.compress(BATCH) + _RAW_DEFLATE.flush()),
        ("deflate", BATCH),
    ],
    ids=(
        "gzip",
        "x-gzip",
        "upper-case",
        "by-magic",
        "identity",
        "said-but-not-done",
        "two-members",
        "newline-after",
        "padding-after",
        "zlib-padding-after",
        "zlib",
        "zlib-1",
        *(f"zlib-{level}-by-its-header" for level in (0, 1, 6, 9)),
        "zlib-said-to-be-plain",
        "raw-deflate",
        "deflate-said-but-not-done",
    ),
)
def test_gzip_and_deflate_are_known_by_header_or_by_their_first_bytes(api: Api, encoding: str, body: bytes) -> None:
    assert api.post("/v1/batch", body, content_encoding=encoding).status == 200
    assert api.stored() == [EVENT]


@pytest.mark.parametrize(
    ("encoding", "body", "error"),
    [
        ("br", BATCH, (415, "unsupported_encoding")),
        ("gzip, gzip", gzip.compress(gzip.compress(BATCH)), (415, "unsupported_encoding")),
        ("x", BATCH, (415, "unsupported_encoding")),
        ("gzip", gzip.compress(gzip.compress(BATCH)), (400, "invalid_json")),
        ("gzip", gzip.compress(BATCH)[:-9], (400, "invalid_encoding")),
        ("gzip", gzip.compress(BATCH)[:12], (400, "invalid_encoding")),
        ("gzip", gzip.compress(BATCH) + b"junk", (400, "invalid_encoding")),
        ("gzip", b"\x1f\x8b" + b"x" * 50, (400, "invalid_encoding")),
        ("deflate", b"\xff" * 50, (400, "invalid_encoding")),
        ("gzip", gzip.compress(b"") * 200, (413, "too_large")),
    ],
    ids=(
        "br",
        "two-encodings",
        "unknown",
        "gzip-in-gzip",
        "cut-at-its-end",
        "cut-early",
        "junk-behind",
        "not-gzip",
        "not-deflate",
        "200-members",
    ),
)
def test_what_can_not_be_inflated_is_refused(api: Api, encoding: str, body: bytes, error: tuple[int, str]) -> None:
    assert error_of(api.post("/v1/batch", body, content_encoding=encoding)) == error
    assert api.stored() == []


def test_a_body_is_inflated_up_to_its_limit_and_no_further(api: Api) -> None:
    at_the_limit = gzip.compress(_padded(MAX_INFLATED_BYTES), 1)
    above = gzip.compress(_padded(MAX_INFLATED_BYTES + 1), 1)

    assert api.post("/v1/batch", at_the_limit).status == 200
    assert error_of(api.post("/v1/batch", above)) == (413, "too_large")


def test_a_body_at_its_limit_is_taken_and_one_byte_more_is_not(api: Api) -> None:
    assert api.post("/v1/batch", _padded(MAX_BODY_BYTES)).status == 200

    assert error_of(api.post("/v1/batch", _padded(MAX_BODY_BYTES + 1))) == (413, "too_large")


@pytest.fixture
def soon_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows a refusal is waited for a moment alone."""
    monkeypatch.setattr(collect, "MAX_PAUSE_S", 0.05)


@pytest.mark.usefixtures("soon_read")
def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read(api: Api) -> None:
    reply = api.ask("POST", "/v1/batch", {"content-length": "10000000000"}, [], body_ends=False)

    assert error_of(reply) == (413, "too_large")
    assert reply.headers["connection"] == "close"


@pytest.mark.usefixtures("soon_read")
def test_a_body_without_a_length_is_read_up_to_the_limit(api: Api) -> None:
    chunks = [b" " * 1_000_000] * 7

    reply = api.ask("POST", "/v1/batch", basic("wk_shop:"), chunks, body_ends=False)

    assert error_of(reply) == (413, "too_large")


def test_a_body_in_many_parts_is_one_body(api: Api) -> None:
    assert api.post("/v1/batch", [BATCH[i : i + 1] for i in range(len(BATCH))]).status == 200
    assert api.stored() == [EVENT]


@pytest.mark.parametrize("parts", [[], [BATCH[:5]], [b""], [b"", BATCH[:5]]])
def test_a_body_that_takes_too_long_is_given_up(parts: list[bytes]) -> None:
    api = Api(settings=Settings(body_timeout_s=0.05), hot=True)

    reply = api.ask("POST", "/v1/batch", basic("wk_shop:"), parts, body_ends=False)

    assert error_of(reply) == (408, "body_timeout")
    assert reply.headers["connection"] == "close"
    assert api.stored() == []


def test_10_000_events_are_taken_at_once_and_one_more_is_not(api: Api) -> None:
    assert api.post("/v1/batch", b'{"batch":[%s]}' % b",".join([EVENT] * MAX_EVENTS_A_REQUEST)).status == 200
    assert len(api.stored()) == MAX_EVENTS_A_REQUEST

    too_many = b'{"batch":[%s]}' % b",".join([EVENT] * (MAX_EVENTS_A_REQUEST + 1))
    assert error_of(api.post("/v1/batch", too_many)) == (413, "too_large")


def test_an_event_over_its_limit_is_a_dead_letter_among_good_ones(api: Api) -> None:
    frame = b'{"type":"track","userId":"u","event":"A","messageId":"m","properties":"%s"}'
    at_the_limit = frame % (b"x" * (MAX_EVENT_BYTES - len(frame) + 2))
    above = frame % (b"x" * (MAX_EVENT_BYTES - len(frame) + 3))

    assert api.post("/v1/batch", b'{"batch":[%s,%s,%s]}' % (at_the_limit, above, at_the_limit)).status == 200

    outcomes = outcomes_of(api.sink.records)
    assert [(outcome["outcome"], outcome.get("reason")) for outcome in outcomes] == [
        ("stored", None),
        ("dead_lettered", "too_large"),
        ("stored", None),
    ]


@pytest.mark.parametrize("name", [b"context", b"integrations", b"anonymousId"])
def test_what_a_batch_says_for_its_events_has_a_limit_too(api: Api, name: bytes) -> None:
    too_large = b'{"%s":{"a":"%s"},"batch":[%s]}' % (name, b"x" * MAX_SHARED_BYTES, EVENT)
    too_deep = b'{"%s":%s,"batch":[%s]}' % (name, b'{"a":' * 64 + b"1" + b"}" * 64, EVENT)

    assert error_of(api.post("/v1/batch", too_large)) == (413, "too_large")
    assert error_of(api.post("/v1/batch", too_deep)) == (400, "too_deep")


def test_what_a_batch_says_of_all_its_events_is_limited_by_their_number(api: Api) -> None:
    context, device = b'{"a":"%s"}' % (b"x" * 100_000), b'"%s"' % (b"y" * 100_000)
    fit = MAX_WEIGHT_BYTES // (MIN_EVENT_WEIGHT + len(context) + len(device))

    def of(events: int) -> bytes:
        return b'{"context":%s,"anonymousId":%s,"batch":[%s]}' % (context, device, b",".join([b"{}"] * events))

    assert api.post("/v1/batch", of(fit)).status == 200
    assert error_of(api.post("/v1/batch", of(fit + 1))) == (413, "too_large")


def test_ten_thousand_events_may_share_what_real_clients_share(api: Api) -> None:
    context = b'{"a":"%s"}' % (b"x" * 1_500)
    body = b'{"context":%s,"sentAt":"2026-11-25T12:00:00Z","batch":[%s]}'

    assert api.post("/v1/batch", body % (context, b",".join([EVENT] * MAX_EVENTS_A_REQUEST))).status == 200


@pytest.mark.parametrize(
    ("events", "shared"),
    [
        (3_500, {"context": {"x": "a" * 18_200}}),
        (165, {"context": {"x": "a" * 127_900}, "integrations": {"x": "a" * 127_900}}),
    ],
)
def test_a_hundred_bytes_on_the_wire_do_not_weigh_sixty_million(
    api: Api, events: int, shared: dict[str, object]
) -> None:
    body = gzip.compress(json.dumps({"batch": [{}] * events, **shared}).encode())

    answer = api.post("/v1/batch", body)

    assert error_of(answer) == (413, "too_large")
    assert "send fewer events at a time, or share less" in str(answer.json())


def test_a_long_sent_at_can_not_be_multiplied_by_the_events_of_its_batch(api: Api) -> None:
    body = b'{"sentAt":"%s","batch":[%s]}' % (b"x" * MAX_SENT_AT_BYTES, EVENT)

    assert error_of(api.post("/v1/batch", body)) == (413, "too_large")


@pytest.mark.parametrize(
    "items",
    [
        b"1," * MAX_VALUES_A_REQUEST + b"1",
        b"[NaN" + b"," * MAX_VALUES_A_REQUEST + b"]",
        b"[" * MAX_VALUES_A_REQUEST + b"]" * MAX_VALUES_A_REQUEST,
        b"NaN," * MAX_EVENTS_A_REQUEST + b"1",
    ],
    ids=["numbers", "commas", "brackets", "events-beside-nan"],
)
def test_more_values_than_can_be_held_are_refused_before_they_are(api: Api, items: bytes) -> None:
    assert error_of(api.post("/v1/batch", b'{"batch":[%s]}' % items)) == (413, "too_large")


def test_a_string_of_ten_thousands_of_escapes_is_read_the_careful_way_too(api: Api) -> None:
    event = b'{"type":"track","event":"e","userId":"u","properties":{"a":"%s","b":NaN}}' % (b'\\"' * 200_000)

    assert api.post("/v1/batch", b'{"batch":[%s]}' % event).status == 200
    assert [outcome["outcome"] for outcome in outcomes_of(api.sink.records)] == ["stored"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"5",
        b'"x"',
        b"[]",
        b"[" * 100000,
        b'{"a":' * 5000,
        b"{",
        b"}",
        b"{}x",
        b"{'a':1}",
        b"{a:1}",
        b'{"batch":5}',
        b'{"batch":{}}',
        b'{"batch":"x"}',
        b'{"batch":null}',
        b'{"batch":[',
        b'{"batch":[1,]}',
        b'{"batch":[]}\x00',
        b'{"batch":[\xff]}',
        b'{"batch":["\xc0\xaf"]}',
        BATCH.decode().encode("utf-16"),
        b"\x81\xa5batch\x90",
        b"(dp0\n.",
        b"batch:\n- 1",
        b"<batch/>",
        b"batch=%5B%5D",
        b'{"batch":[01]}',
        b'{"batch":[+1]}',
    ],
)
def test_a_batch_that_is_no_json_or_has_no_batch_is_400(api: Api, body: bytes) -> None:
    status, code = error_of(api.post("/v1/batch", body))

    assert status == 400
    assert code in {"invalid_json", "no_batch"}
    assert api.stored() == []


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x", ""]
)
def test_the_content_type_does_not_matter(api: Api, content_type: str) -> None:
    assert api.post("/v1/track", EVENT, content_type=content_type).status == 200


def test_strict_mode_names_every_event_that_is_wrong_and_takes_none(api: Api) -> None:
    events = [{"type": "track", "userId": "u", "event": "A"}, {"type": "x", "userId": "u"}, 5, {"type": "page"}]
    body = json.dumps({"batch": events}).encode()

    reply = api.post("/v1/batch", body, x_strict_mode="1")

    assert error_of(reply) == (400, "invalid_events")
    assert reply.json()["failed_records"] == [
        {"index": 1, "reason": "unknown_type", "detail": "type"},
        {"index": 2, "reason": "not_an_object", "detail": "the item is not an object"},
        {"index": 3, "reason": "no_identity", "detail": "userId, anonymousId"},
    ]
    assert api.stored() == []
    assert api.post("/v1/batch", body).status == 200


def test_strict_mode_names_the_first_events_only_and_says_how_many_there_are(api: Api) -> None:
    reply = api.post("/v1/batch", b'{"batch":[%s]}' % b",".join([b"5"] * MAX_EVENTS_A_REQUEST), x_strict_mode="1")

    assert error_of(reply) == (400, "invalid_events")
    assert [failed["index"] for failed in reply.json()["failed_records"]] == list(range(intake.MAX_FAILED_RECORDS))
    assert f"{MAX_EVENTS_A_REQUEST} of {MAX_EVENTS_A_REQUEST} events" in reply.json()["message"]
    assert len(reply.body) < 10_000


def test_an_origin_too_long_to_be_one_is_not_sent_back(api: Api) -> None:
    origin = "https://" + "x" * 600

    assert origin not in str(api.post("/v1/track", origin=origin).headers)


def test_items_beyond_the_number_of_events_are_not_even_found(api: Api) -> None:
    body = b'{"batch":[%s1]}' % (b"1," * 200_000)

    with pytest.raises(TooManyValuesError):
        split_batch(body)
    assert error_of(api.post("/v1/batch", body)) == (413, "too_large")


class _CountingInflater:
    """Of zlib, with the bytes that it was handed, and those that it gave back as a copy."""

    copied = 0

    def __init__(self, inflater: "zlib._Decompress") -> None:
        self._inflater = inflater

    def decompress(self, data: bytes, most: int) -> bytes:
        part = self._inflater.decompress(data, most)
        _CountingInflater.copied += len(self._inflater.unused_data) + len(self._inflater.unconsumed_tail)
        return part

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data


def test_members_of_gzip_cost_no_copies_of_all_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    body = gzip.compress(b" ") * 90 + gzip.compress(bytes(2_000_000), 0)
    make = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", lambda bits: _CountingInflater(make(bits)))

    assert len(intake._inflate(body, MAX_INFLATED_BYTES)) == 2_000_090

    assert _CountingInflater.copied <= 91 * intake.INFLATE_BLOCK_BYTES


def test_strict_mode_knows_what_an_event_has_from_its_batch(api: Api) -> None:
    body = b'{"anonymousId":%s,"batch":[{"type":"track","event":"A"}]}'

    assert api.post("/v1/batch", body % b'"a-1"', x_strict_mode="1").status == 200
    refused = api.post("/v1/batch", body % b"[]", x_strict_mode="1").json()["failed_records"]
    assert refused == [{"index": 0, "reason": "invalid_id", "detail": "anonymousId"}]


def test_strict_mode_holds_on_single_routes_too(api: Api) -> None:
    assert error_of(api.post("/v1/track", b'{"userId":"u"}', x_strict_mode="1")) == (400, "invalid_events")
    assert api.post("/v1/track", EVENT, x_strict_mode="1").status == 200


def test_each_request_is_counted_once_by_what_happened_to_it(api: Api) -> None:
    before = telemetry.request_counts.copy()

    api.post("/v1/track")
    api.post("/v1/track", b"{")
    api.post("/v1/track", EVENT, authorization="Basic x")
    api.post("/v1/track", EVENT, content_length="10000000000")

    assert telemetry.request_counts - before == {
        RequestOutcome.OK: 1,
        RequestOutcome.BAD_REQUEST: 1,
        RequestOutcome.UNAUTHORIZED: 1,
        RequestOutcome.TOO_LARGE: 1,
    }


@pytest.fixture
def reading_threads(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each body that was read, whether that was in the thread of the event loop."""
    threads = []

    def seen(stamp: Stamp, events: Sequence[bytes | msgspec.Raw]) -> list[bytes]:
        threads.append(threading.current_thread() is threading.main_thread())
        return pack(stamp, events)

    monkeypatch.setattr(intake, "pack", seen)
    return threads


@pytest.mark.parametrize("inflated_bytes", [1_000, 1_000_000])
def test_a_body_that_inflates_to_much_is_read_beside_the_event_loop(
    api: Api, reading_threads: list[bool], inflated_bytes: int
) -> None:
    body = gzip.compress(_padded(inflated_bytes))

    assert len(body) < 2_000
    assert api.post("/v1/batch", body).status == 200
    assert reading_threads == [inflated_bytes == 1_000]


@pytest.mark.parametrize(("size", "value"), [(1_000, "NaN"), (100_000, "1"), (100_000, "NaN")])
def test_a_body_that_needs_care_for_long_is_read_beside_the_event_loop(
    api: Api, reading_threads: list[bool], size: int, value: str
) -> None:
    event = b'{"userId":"u","event":"A","properties":{"n":%s,"text":"%s"}}' % (value.encode(), b"x" * size)

    assert api.post("/v1/track", event).status == 200
    assert reading_threads == [size == 1_000 or value == "1"]


def test_a_header_that_comes_fifty_thousand_times_costs_no_time(api: Api) -> None:
    def cpu_of(headers: int) -> float:
        began = time.process_time()
        api.ask("POST", "/v1/track", [("x-a", "1")] * headers, EVENT)
        return time.process_time() - began

    few, many = (min(cpu_of(headers) for _ in range(5)) for headers in (5_000, 50_000))

    assert many < 40 * few  # with each looked for among all others: 100 times, and over a minute
