"""The careful reader: it takes what is JSON but for NaN, Infinity, lone surrogates and depth, and refuses all else."""

import json
import math
import re
from contextlib import suppress
from typing import Any, NoReturn

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manymetrics import events
from manymetrics.events import (
    MAX_BRACKET_RUNS,
    MAX_CAREFUL_FIELDS,
    MAX_MENDED_BYTES,
    BatchBody,
    ClientGoneError,
    NeedsCareError,
    UnreadableBodyError,
    may_overflow,
    mend_json,
    read_envelope,
    read_envelope_with_care,
    split_batch,
    split_batch_with_care,
    written_keys,
)
from manymetrics.limits import MAX_EVENT_BYTES
from manymetrics.outcomes import Reason
from manymetrics_api import intake
from manymetrics_api.keys import KeysUnavailableError, KeyTable, WriteKey
from tests.in_process import EVENT, KEYS, Api, basic
from tests.unit.api.test_routes import error_of

_TOKENS = (
    *('"', ",", ":", "[", "]", "{", "}", "\\", '\\"', "\\\\", "\\ud83d", "\\ude00", "\\uD800", "\\x", "\\u12", "\\n"),
    *(
        "NaN",
        "-Infinity",
        "Infinity",
        "-",
        "1",
        "1e9",
        "0",
        " ",
        "\n",
        "true",
        "null",
        '""',
        "{}",
        "[]",
        '"a":',
        "\u00e9",
    ),
    *('"batch":', '"batch":[', '"writeKey":"wk_shop"', '"context":{', "\U0001f600", "\x00", "\ufeff", "[" * 1_500),
)
hostile = st.lists(st.sampled_from(_TOKENS), max_size=12).map("".join)
bodies = st.one_of(
    hostile, st.builds('{{"batch":[{}],"z":NaN}}'.format, hostile), st.builds('{{"batch":[{{}},{}]}}'.format, hostile)
)
_texts = st.text(st.sampled_from('a"\\\ud83d\ude00\ud800\u00e9\U0001f600:N[,'), max_size=6) | st.just("NaN")
_json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=12,
)


def _with_care(body: bytes) -> BatchBody:
    return split_batch_with_care(body)


@given(bodies)
def test_hostile_text_raises_nothing_but_what_is_expected(text: str) -> None:
    body = text.encode()
    for read in (split_batch, read_envelope):
        with suppress(NeedsCareError, UnreadableBodyError):
            read(body)
    for careful in (split_batch_with_care, read_envelope_with_care):
        with suppress(UnreadableBodyError):
            careful(body)
    list(written_keys(body))
    mend_json(text)


@given(bodies, st.booleans())
def test_hostile_text_is_refused_or_taken_but_is_no_fault_of_the_server(text: str, strict: bool) -> None:
    api = Api(hot=True)
    headers = basic("wk_shop:") | ({"x-strict-mode": "1"} if strict else {})

    for path in ("/v1/batch", "/v1/track"):
        assert api.ask("POST", path, headers, text.encode()).status in {200, 400, 413}
        assert api.ask("POST", path, {}, text.encode()).status in {200, 400, 401, 413}


@given(st.lists(_json_values, max_size=5), _json_values, st.booleans())
def test_each_item_is_found_as_it_was_written(items: list[Any], context: Any, pretty: bool) -> None:  # noqa: ANN401  # JSON
    text = json.dumps(
        {"a": math.nan, "batch": items, "context": context, "z": [math.inf]}, indent=1 if pretty else None
    )

    found = _with_care(text.encode())

    assert found.batch is not None
    assert repr([json.loads(bytes(raw)) for raw in found.batch]) == repr(json.loads(json.dumps(items)))
    assert repr(json.loads(bytes(found.context))) == repr(json.loads(json.dumps(context)))


@given(st.lists(_json_values, max_size=5))
def test_the_careful_reader_finds_in_json_what_the_fast_one_finds(items: list[Any]) -> None:
    body = json.dumps({"batch": items, "sentAt": "now", "batch ": 1}).encode()
    try:
        fast = split_batch(body)
    except NeedsCareError:
        return

    careful = _with_care(body)

    assert list(map(bytes, careful.batch or [])) == list(map(bytes, fast.batch or []))
    assert bytes(careful.sent_at) == bytes(fast.sent_at)


_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?\bInfinity\b|\bNaN\b', re.DOTALL)


@given(_json_values)
def test_what_is_mended_is_json_that_says_the_same(value: Any) -> None:  # noqa: ANN401  # JSON
    text = json.dumps(value)

    mended, repairs = mend_json(text)

    bare = [token for token in _STRING.findall(text) if token[0] != '"']
    assert ("not_a_number" in repairs) == bool(bare)
    json.loads(mended, parse_constant=pytest.fail)
    lone = re.search("[\ud800-\udfff]", json.dumps(json.loads(text), ensure_ascii=False))  # pairs are one character now
    assert ("lone_surrogate" in repairs) == (lone is not None)
    msgspec.json.decode(mended)


@pytest.mark.parametrize("number", ["1NaN", "-NaN", "NaNNaN", "1Infinity", "+Infinity", "--Infinity", "NaN1", "aNaN"])
def test_what_only_looks_like_nan_is_not_taken_for_it(number: str) -> None:
    with pytest.raises(UnreadableBodyError):
        _with_care(b'{"batch":[%s]}' % number.encode())


def test_the_events_of_two_batches_all_count() -> None:
    assert list(map(bytes, _with_care(b'{"batch":[NaN],"batch":[5],"a":NaN}').batch or [])) == [b"NaN", b"5"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"batch":[%b],"batch":[%b]}',
        b'{"batch":[%b],"b\\u0061tch":[%b]}',
        b'{"b\\u0061tch":[%b],"batch":[%b]}',
        b'{"batch":[%b],"batch":null,"sentAt":"2026-01-01","batch":[%b]}',
        b'{"x":"' + b"x" * 300_000 + b'","batch":[%b],"batch":[%b]}',
    ],
)
@pytest.mark.parametrize("properties", [b'{"batch":"\\u0062atch"}', b"{}"], ids=["which speak of one", "plain"])
def test_no_event_of_two_batches_is_lost(api: Api, body: bytes, properties: bytes) -> None:
    one = b'{"userId":"u","event":"A","type":"track","properties":%b}' % properties

    assert api.post("/v1/batch", body % (one, EVENT)).status == 200
    assert api.stored() == [one, EVENT]


_small = st.sampled_from(
    ["{}", "[]", "1", '"batch"', '{"batch":[]}', '{"batch":[{}]}', '{"a":[[{}]]}', '"batch":'[:-1]]
)
_batches = st.lists(st.lists(_small, max_size=4), min_size=1, max_size=3)


@given(
    _batches,
    st.sampled_from([",", ", ", " ,\n"]),
    st.sampled_from(["", '"a":1,', '"batch ":[{}],', '"c":{"batch":[1]},']),
)
def test_the_fast_reader_takes_one_batch_whole_and_no_other(items: list[list[str]], comma: str, other: str) -> None:
    members = ",".join(f'"batch":[{comma.join(batch)}]' for batch in items)
    bodies = (f"{{{other}{members}}}", f'{{{members},{other}"z":0}}')

    for body in map(str.encode, bodies):
        try:
            found = split_batch(body).batch or []
        except NeedsCareError:
            assert len(items) > 1 or "batch" in other
        else:
            assert [bytes(raw).decode() for raw in found] == items[0]
            assert len(items) == 1


def test_two_batches_are_counted_as_one(api: Api) -> None:
    many = b",".join([EVENT] * 6_000)

    assert api.post("/v1/batch", b'{"batch":[%b],"batch":[%b]}' % (many, many)).status == 413


def test_events_that_speak_of_a_batch_go_the_fast_way(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(intake, "split_batch_with_care")
    event = b'{"userId":"u","event":"A","properties":{"batch":7,"a":{"batch":["batch"]},"b":"\\u0026"}}'

    assert api.post("/v1/batch", b'{"batch":[%b,%b]}' % (event, event)).status == 200
    assert api.stored() == [event, event]


@pytest.mark.parametrize("name", [b'"w\\u0072iteKey"', b'"writeKey"'])
def test_a_field_is_known_with_escapes_in_its_name(name: bytes) -> None:
    assert bytes(_with_care(b'{%s : "k\\"" ,"batch":[NaN]}' % name).write_key) == b'"k\\""'


@pytest.mark.parametrize("value", [b"1", b"NaN"])
def test_an_escape_that_is_none_in_a_long_name_is_a_refusal_and_no_error(
    api: Api, caplog: pytest.LogCaptureFixture, value: bytes
) -> None:
    name = b'"%s\\x"' % (b"a" * (MAX_EVENT_BYTES + 1))

    for path in ("/v1/batch", "/v1/track"):
        refused = api.post(path, b'{%s:%s,"batch":[]}' % (name, value))
        assert error_of(refused) == (400, "invalid_json")
    assert caplog.records == []


def test_the_number_of_fields_that_are_visited_is_limited(api: Api) -> None:
    def of(fields: int) -> bytes:
        return b'{%s"userId":"u","event":"A","writeKey":"wk_shop"}' % (b'"a":NaN,' * (fields - 3))

    assert api.ask("POST", "/v1/track", {}, of(MAX_CAREFUL_FIELDS)).status == 200
    assert error_of(api.ask("POST", "/v1/track", {}, of(MAX_CAREFUL_FIELDS + 1))) == (413, "too_large")
    assert api.post("/v1/track", of(MAX_CAREFUL_FIELDS + 1)).status == 200  # the key is known, and nothing else needed


def test_the_size_of_what_a_batch_shares_and_is_mended_is_limited(api: Api) -> None:
    def of(size: int) -> bytes:
        return b'{"context":{"a":NaN,"b":"%s"},"batch":[%s]}' % (b"x" * (size - len(b'{"a":NaN,"b":""}')), EVENT)

    assert api.post("/v1/batch", of(MAX_MENDED_BYTES)).status == 200
    assert error_of(api.post("/v1/batch", of(MAX_MENDED_BYTES + 1))) == (413, "too_large")


def test_the_number_of_brackets_that_are_visited_is_limited(api: Api) -> None:
    def of(depth: int) -> bytes:
        return b'{"batch":[%s1%s,%s]}' % (b'{"a":' * depth, b"}" * depth, EVENT)

    assert api.post("/v1/batch", of(MAX_BRACKET_RUNS - 1)).status == 200
    assert error_of(api.post("/v1/batch", of(2 * MAX_BRACKET_RUNS))) == (400, "invalid_json")


def test_a_client_that_is_gone_ends_the_reading() -> None:
    body = b'{"batch":[NaN%s]}' % (b",1" * 5_000)
    asked = []

    def gone() -> bool:
        asked.append(True)
        return len(asked) > 3

    with pytest.raises(ClientGoneError):
        split_batch_with_care(body, gone)
    assert len(asked) == 4


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/track"])
@pytest.mark.parametrize("key", ["", "?writeKey=wk_nobody"])
def test_a_strangers_body_is_not_read_with_care(api: Api, monkeypatch: pytest.MonkeyPatch, path: str, key: str) -> None:
    monkeypatch.setattr(intake, "split_batch_with_care", pytest.fail)
    monkeypatch.setattr(intake, "read_envelope_with_care", pytest.fail)
    body = b'{"batch":[NaN],"writeKey":"wk_nobody"}'

    assert error_of(api.ask("POST", path + key, {}, body)) == (401, "invalid_write_key")


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/track"])
def test_a_body_is_not_inflated_for_a_wrong_basic_key(api: Api, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(intake, "_inflate", pytest.fail)
    headers = basic("wk_nobody:") | {"content-encoding": "gzip"}

    assert error_of(api.ask("POST", path, headers, b"\x1f\x8bx")) == (401, "invalid_write_key")


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("?writeKey=wk_shop", b'{"batch":[NaN]}'),
        ("", b'{"batch":[NaN],"writeKey":"wk_shop"}'),
        ("", b'{"writeKey": "wk_shop","batch":[NaN,%s]}' % b",".join([b'{"writeKey":"wk_nobody"}'] * 100)),
        ("", b'{"batch":[NaN,%s],"writeKey":"wk_shop"}' % b",".join([b'{"writeKey":"wk_nobody"}'] * 100)),
        ("", b'{"batch":[NaN],"api_key":"wk_shop"}'),
    ],
)
def test_a_body_with_nan_is_taken_with_its_key_wherever_that_is(api: Api, query: str, body: bytes) -> None:
    assert api.ask("POST", f"/v1/batch{query}", {}, body).status == 200


class _Unsure(KeyTable):
    """As keys read over the network: an unknown one may be new."""

    def find(self, key: str) -> WriteKey | None:
        found = super().find(key)
        if found is None:
            raise KeysUnavailableError("not just now")
        return found


@pytest.mark.parametrize("value", [b"1", b"NaN"])
def test_keys_that_may_be_new_decide_only_where_they_are_the_requests_own(value: bytes) -> None:
    api = Api(_Unsure(KEYS), hot=True)
    events = b'{"userId":"u","event":"A","writeKey":"wk_other","n":%s}' % value

    assert api.ask("POST", "/v1/batch", {}, b'{"batch":[%s],"writeKey":"wk_shop"}' % events).status == 200
    assert api.ask("POST", "/v1/batch", {}, b'{"writeKey":"wk_shop","batch":[%s]}' % events).status == 200
    own = api.ask("POST", "/v1/batch", {}, b'{"writeKey":"wk_new","batch":[%s]}' % events)
    assert error_of(own) == (503, "keys_unavailable")


def test_the_bodys_key_wins_over_the_querys_in_a_body_with_nan_too(api: Api) -> None:
    body = b'{"batch":[NaN],"writeKey":"wk_nobody"}'

    assert error_of(api.ask("POST", "/v1/batch?writeKey=wk_shop", {}, body)) == (401, "invalid_write_key")


@pytest.mark.parametrize("decoys", [0, 1, 49, 50, 51, 500])
def test_a_number_that_no_float_holds_is_found_behind_any_number_of_texts_that_look_like_it(decoys: int) -> None:
    """UUIDs have such places: `0e1234`."""
    uuids = ",".join(['"c0e12345-0e12-4e56-8e78-90e123456789"'] * decoys)

    assert may_overflow(b'{"a":[%b],"v":1e400}' % uuids.encode())
    assert may_overflow(b'{"a":[%b],"v":%b}' % (uuids.encode(), b"9" * 400))
    assert decoys > 10 or not may_overflow(b'{"a":[%b],"v":1e4}' % uuids.encode())


def test_ids_and_names_up_to_their_limits_stay_on_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def careful(_raw: bytes) -> NoReturn:
        raise AssertionError("the careful reader was asked")

    monkeypatch.setattr(events, "_parse_with_care", careful)
    body = {"type": "track", "event": "e" * 1_024, "userId": "\u00e9" * 512, "messageId": "m" * 512}

    parsed = events.parse_event(json.dumps(body, ensure_ascii=False).encode())

    assert isinstance(parsed, events.Event)
    assert (parsed.event, parsed.message_id) == ("e" * 1_024, "m" * 512)
    longer = json.dumps({**body, "messageId": "m" * 513}).encode()
    assert events.parse_event(longer) == events.Rejected(Reason.ID_TOO_LONG, "messageId")


def test_what_is_wrong_with_several_fields_has_one_reason_in_every_process() -> None:
    raw = b'{"type":"track","event":{},"userId":[],"anonymousId":{}}'

    assert events.parse_event(raw) == events.Rejected(Reason.INVALID_ID, "anonymousId")
