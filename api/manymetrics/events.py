"""The contract in: what an event is, how large it may be, and how its bytes are read.

Two readers, each of which sees an event's bytes once:

    split_batch(body)   in the API: the request's envelope, and each event's own bytes, untouched
    parse_event(raw)    in the processor (and in strict mode): the event's fields, mended and flagged

What is wrong with one event never fails its batch: it travels on as it came and becomes a dead letter.
Only a body that is not JSON at all, or has no batch, is refused.

Both readers have a fast way (msgspec, which is strict) and a careful way for what real clients send and
msgspec refuses: bare NaN and Infinity, lone surrogates, nesting beyond its recursion limit.
"""

from __future__ import annotations

import re
from typing import Literal, cast, get_args

import msgspec

from manymetrics.outcomes import Reason

EventType = Literal["track", "identify", "page", "screen", "group", "alias"]
EVENT_TYPES: frozenset[str] = frozenset(get_args(EventType))

MAX_BODY_BYTES = 6_000_000  # on the wire; what a Lambda payload lets through too
MAX_INFLATED_BYTES = 20_000_000  # after gzip; a hard cap, checked while inflating
MAX_VALUES_A_REQUEST = 2_000_000  # JSON values: 20 MB of `1,1,1` are 10 million, and take 0.9 GB to hold (2026-11-25)
MAX_EVENTS_A_REQUEST = 10_000  # Segment documents 2,500; its Node client was seen above that
MAX_SHARED_BYTES = 128_000  # each of what a batch says for its events: it rides on every one of its stream records
MAX_SENT_AT_BYTES = 1_000
MAX_SPREAD_BYTES = 64_000_000  # all of it, times the events: each gets its own copy in the tables
MAX_EVENT_BYTES = 512_000  # Segment documents 32 kB; real clients send 60 kB and more
MAX_EVENT_DEPTH = 64  # objects and arrays inside each other, the event itself being 1
MAX_MESSAGE_ID_BYTES = 512
MAX_ID_BYTES = 1_024  # user_id, anonymous_id, group_id, previous_id
MAX_EVENT_NAME_BYTES = 1_024
OVERSIZE_PREFIX_BYTES = 65_536  # what is kept of an event over MAX_EVENT_BYTES

NO_RAW = msgspec.Raw(b"")


class Envelope(msgspec.Struct, gc=False, frozen=True, rename="camel"):
    """What a request says beside its events. JSON values, as their own bytes; empty where absent."""

    write_key: msgspec.Raw = NO_RAW
    api_key: msgspec.Raw = msgspec.field(default=NO_RAW, name="api_key")
    sent_at: msgspec.Raw = NO_RAW
    anonymous_id: msgspec.Raw = NO_RAW
    context: msgspec.Raw = NO_RAW
    integrations: msgspec.Raw = NO_RAW


class BatchBody(Envelope, gc=False, frozen=True, rename="camel"):
    """The body of a batch. ``batch`` holds each event's own bytes, in order; None where there is none."""

    batch: list[msgspec.Raw] | None = None


QUICK_CARE_BYTES = 16_000  # a body up to here is read with care in a few milliseconds


class TakesLongError(Exception):
    """The body needs the careful reader, and is large: read it again where nobody waits."""


class UnreadableBodyError(ValueError):
    """The body is not JSON in UTF-8, or not the object that its route needs. The message says the cure."""


class TooManyValuesError(UnreadableBodyError):
    """The body holds more than is read. The message says the cure."""


class Extra(dict[str, msgspec.Raw]):
    """Unknown top-level fields. A type of its own, so that no client can fill the attribute from outside."""


class Repairs(tuple[str, ...]):
    """What was mended, sorted. A type of its own, as Extra."""

    __slots__ = ()


class Event(msgspec.Struct, gc=False, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """An event as its client sent it. JSON values stay as their own bytes; empty bytes mean absent.

    ``extra`` holds unknown top-level fields, ``repairs`` what was mended (empty mostly).
    """

    type: str | None = None
    message_id: str | None = None
    user_id: str | None = None
    anonymous_id: str | None = None
    previous_id: str | None = None
    group_id: str | None = None
    event: str | None = None
    name: str | None = None
    timestamp: str | int | float | None = None
    original_timestamp: str | int | float | None = None
    sent_at: str | int | float | None = None
    channel: str | None = None
    properties: msgspec.Raw = NO_RAW
    traits: msgspec.Raw = NO_RAW
    context: msgspec.Raw = NO_RAW
    # Known, without a column of their own: they end in the column `extra`, or nowhere (the key).
    integrations: msgspec.Raw = NO_RAW
    category: msgspec.Raw = NO_RAW
    metadata: msgspec.Raw = msgspec.field(default=NO_RAW, name="_metadata")
    rudder_id: msgspec.Raw = NO_RAW
    write_key: msgspec.Raw = NO_RAW
    extra: Extra | None = None
    repairs: Repairs | None = None


class Rejected(msgspec.Struct, gc=False, frozen=True):
    """An event that becomes a dead letter, and why. ``detail`` never quotes more than a field's name."""

    reason: Reason
    detail: str


_batch_decoder = msgspec.json.Decoder(BatchBody)
_envelope_decoder = msgspec.json.Decoder(Envelope)
_event_decoder = msgspec.json.Decoder(Event)
_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raw_decoder = msgspec.json.Decoder(msgspec.Raw)
_any_decoder = msgspec.json.Decoder()

# msgspec raises each of these on hostile input; a stdlib parser would raise others (trust.md 3.1).
_PARSE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def split_batch(body: bytes, *, may_take_long: bool = True) -> BatchBody:
    """Find a batch's envelope and each event's bytes.

    The bytes of an event are checked to be JSON but not read; invalid UTF-8 anywhere is refused, since
    skipping would let it through.

    Raises UnreadableBodyError; and TakesLongError where it needs care that would take long and must not.
    """
    _check_values(body)
    try:
        if not body.isascii():
            body.decode()
        return _batch_decoder.decode(body)
    except _PARSE_ERRORS:
        if not may_take_long and len(body) > QUICK_CARE_BYTES:
            raise TakesLongError from None
        members = _members_with_care(body)
        return BatchBody(batch=_items(members.pop("batch", b"null")), **_envelope_fields(members))


def read_envelope(body: bytes, *, may_take_long: bool = True) -> Envelope:
    """What a single event's body says for the API. Checked as in split_batch, and raises the same."""
    _check_values(body)
    try:
        if not body.isascii():
            body.decode()
        return _envelope_decoder.decode(body)
    except _PARSE_ERRORS:
        if not may_take_long and len(body) > QUICK_CARE_BYTES:
            raise TakesLongError from None
        return Envelope(**_envelope_fields(_members_with_care(body)))


def _check_values(body: bytes) -> None:
    """Before anything is made of them. Commas and brackets in strings count too: they are about as many at most."""
    if len(body) > MAX_VALUES_A_REQUEST and sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES_A_REQUEST:
        raise TooManyValuesError(f"over {MAX_VALUES_A_REQUEST} JSON values in one request: send fewer at a time")


def parse_event(raw: bytes, default_type: str | None = None, anonymous_id: bytes = b"") -> Event | Rejected:
    """Read one event's bytes; ``default_type`` is what its route says, where it is not a batch.

    ``anonymous_id`` is what its batch says, as split_batch found it. It is the event's where that has none of its own
    (absent, null or empty), and read just as its own would be: a number becomes text, a wrong one makes a dead letter.

    Never raises. Ids are compared and kept as sent: no trimming, no folding, no normal form.
    """
    if len(raw) > MAX_EVENT_BYTES:
        return Rejected(Reason.TOO_LARGE, f"{len(raw)} bytes")
    if raw.count(b"{") + raw.count(b"[") > MAX_EVENT_DEPTH and is_deeper_than(raw, MAX_EVENT_DEPTH):
        return Rejected(Reason.TOO_DEEP, f"over {MAX_EVENT_DEPTH} levels")
    try:
        event = _event_decoder.decode(raw)
    except _PARSE_ERRORS:
        careful = _parse_with_care(raw)
        if isinstance(careful, Rejected):
            return careful
        event = careful
    if anonymous_id and not event.anonymous_id:
        reason = _put_field(event, "anonymousId", msgspec.Raw(anonymous_id))
        if reason is not None:
            return Rejected(reason, "anonymousId")
    if event.type is None:
        event.type = default_type
    name = event.event if event.type == "track" else event.name
    if event.type not in EVENT_TYPES:
        return Rejected(Reason.UNKNOWN_TYPE, "type")
    if event.type == "track" and not name:
        return Rejected(Reason.NO_EVENT_NAME, "event")
    if not event.user_id and not event.anonymous_id:
        return Rejected(Reason.NO_IDENTITY, "userId, anonymousId")
    # A character is at most 4 bytes, so most texts are known to fit without being encoded.
    if name and len(name) > MAX_EVENT_NAME_BYTES // 4 and len(name.encode()) > MAX_EVENT_NAME_BYTES:
        return Rejected(Reason.EVENT_NAME_TOO_LONG, "event" if event.type == "track" else "name")
    if (
        (event.message_id and len(event.message_id) > _SURELY_SHORT)
        or (event.user_id and len(event.user_id) > _SURELY_SHORT)
        or (event.anonymous_id and len(event.anonymous_id) > _SURELY_SHORT)
        or (event.previous_id and len(event.previous_id) > _SURELY_SHORT)
        or (event.group_id and len(event.group_id) > _SURELY_SHORT)
    ):
        return _check_ids(event)
    return event


_SURELY_SHORT = MAX_MESSAGE_ID_BYTES // 4  # characters


def _check_ids(event: Event) -> Event | Rejected:
    for value, limit in (
        (event.message_id, MAX_MESSAGE_ID_BYTES),
        (event.user_id, MAX_ID_BYTES),
        (event.anonymous_id, MAX_ID_BYTES),
        (event.previous_id, MAX_ID_BYTES),
        (event.group_id, MAX_ID_BYTES),
    ):
        if value and len(value.encode()) > limit:
            return Rejected(Reason.ID_TOO_LONG, _name_of_id(event, value))
    return event


def _name_of_id(event: Event, value: str) -> str:
    """As its client writes it."""
    ids = {"message_id": "messageId", "user_id": "userId", "anonymous_id": "anonymousId", "previous_id": "previousId"}
    return next((name for attribute, name in ids.items() if getattr(event, attribute) is value), "groupId")


# --- depth ------------------------------------------------------------------------------------------------

_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
# Possessive here and below: what is kept for going back takes 60 bytes an escape, and none is of use.
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


def is_deeper_than(raw: bytes, limit: int) -> bool:
    """Whether a JSON text nests objects and arrays more than ``limit`` deep."""
    if raw.count(b"{") + raw.count(b"[") <= limit:
        return False
    return _depth(raw, limit + 1) > limit


def _depth(raw: bytes, enough: int) -> int:
    """Nesting of a JSON text, counted up to ``enough``. Works on bytes, without recursion."""
    brackets = raw.translate(None, _ALL_BUT_BRACKETS)
    level = _peel(brackets, enough)
    if level is None:  # brackets inside strings: take the strings out first
        level = _peel(_STRINGS.sub(b"", raw).translate(None, _ALL_BUT_BRACKETS), enough)
    return enough if level is None else level


def _peel(brackets: bytes, enough: int) -> int | None:
    level = 0
    while brackets and level < enough:
        inner = brackets.replace(b"{}", b"").replace(b"[]", b"")
        if len(inner) == len(brackets):
            return None
        brackets, level = inner, level + 1
    return level


# --- the careful way --------------------------------------------------------------------------------------

_TOKENS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?\bInfinity\b|\bNaN\b', re.DOTALL)
_ESCAPES = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


def mend_json(text: str) -> tuple[str, tuple[str, ...]]:
    """Make JSON of what clients send for JSON; returns the text and what was mended.

    Bare NaN and Infinity (Python's json writes them) become null. A lone surrogate becomes its own escape
    text, so that two ids that differ in it stay two.
    """
    repairs: set[str] = set()

    def mend_escape(match: re.Match[str]) -> str:
        lone = match[1]
        if lone is None:
            return match[0]
        repairs.add("lone_surrogate")
        return "\\\\" + lone

    def mend_token(match: re.Match[str]) -> str:
        token = match[0]
        if token[0] == '"':
            return _ESCAPES.sub(mend_escape, token) if "\\u" in token else token
        repairs.add("not_a_number")
        return "null"

    return _TOKENS.sub(mend_token, text), tuple(sorted(repairs))


def _parse_with_care(raw: bytes) -> Event | Rejected:
    try:
        text, repairs = mend_json(raw.decode())
        fields = _object_decoder.decode(text)
    except msgspec.ValidationError:
        return Rejected(Reason.NOT_AN_OBJECT, "the item is not an object")
    except _PARSE_ERRORS:
        return Rejected(Reason.INVALID_JSON, "the item is not JSON")
    extra = Extra((name, value) for name, value in fields.items() if name not in _ATTRIBUTES)
    event = Event(extra=extra, repairs=Repairs(repairs))
    # `type` first: it decides whether a wrong `event` or `name` matters.
    for name in sorted(fields.keys() & _ATTRIBUTES.keys(), key=lambda name: name != "type"):
        reason = _put_field(event, name, fields[name])
        if reason is not None:
            return Rejected(reason, name)
    return event


def _put_field(event: Event, name: str, raw: msgspec.Raw) -> Reason | None:
    attribute, first = _ATTRIBUTES[name], bytes(raw)[:1]
    if attribute in _RAW_ATTRIBUTES:
        setattr(event, attribute, raw)
    elif first == b'"':
        setattr(event, attribute, _any_decoder.decode(raw))
    elif first == b"n":  # null: as if absent
        pass
    elif attribute in _TIME_ATTRIBUTES:
        _put_time(event, name, raw)
    elif first in _NUMBER_STARTS and attribute != "type":
        setattr(event, attribute, bytes(raw).decode())
        _flag(event, f"{attribute}_number")
    elif attribute == "type":
        return Reason.UNKNOWN_TYPE
    elif attribute in {"channel", "name" if event.type == "track" else "event"}:
        _keep(event, name, raw)  # decides nothing here, so it is kept as an unknown field would be
    else:
        return Reason.INVALID_EVENT_NAME if attribute in {"event", "name"} else Reason.INVALID_ID
    return None


def _put_time(event: Event, name: str, raw: msgspec.Raw) -> None:
    try:
        value = _any_decoder.decode(raw)
    except msgspec.ValidationError:  # a number that no machine type holds
        value = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        setattr(event, _ATTRIBUTES[name], value)
    else:
        _keep(event, name, raw)
        _flag(event, "time_unreadable")


def _keep(event: Event, name: str, raw: msgspec.Raw) -> None:
    event.extra = Extra({**(event.extra or {}), name: raw})


def _flag(event: Event, repair: str) -> None:
    event.repairs = Repairs(sorted({*(event.repairs or ()), repair}))


_ATTRIBUTES = {
    field.encode_name: field.name for field in msgspec.structs.fields(Event) if field.name not in {"extra", "repairs"}
}
_RAW_ATTRIBUTES = frozenset(field.name for field in msgspec.structs.fields(Event) if field.type is msgspec.Raw)
_TIME_ATTRIBUTES = frozenset({"timestamp", "original_timestamp", "sent_at"})
_NUMBER_STARTS = frozenset(bytes([digit]) for digit in b"-0123456789")


# --- a body that the fast way refused ---------------------------------------------------------------------

MAX_MEMBERS = 10_000  # top-level fields of a body
_STRUCTURE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],:"]', re.DOTALL)
_CLOSED_BY = {ord("{"): ord("}"), ord("["): ord("]")}


def _members_with_care(body: bytes) -> dict[str, bytes]:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise UnreadableBodyError(f"the body is not UTF-8 at byte {error.start}: send JSON in UTF-8") from None
    body = body.strip(b" \t\r\n")
    if not body.startswith(b"{"):
        raise UnreadableBodyError('the body is not a JSON object: send one event, or {"batch": [...]}')
    return dict(_member(span) for span in _children(body, MAX_MEMBERS))


def _envelope_fields(members: dict[str, bytes]) -> dict[str, msgspec.Raw]:
    for value in members.values():
        _check_json(value)
    return {
        _ENVELOPE_FIELDS[name]: msgspec.Raw(_mended(value))
        for name, value in members.items()
        if name in _ENVELOPE_FIELDS
    }


def _mended(value: bytes) -> bytes:
    return mend_json(value.decode())[0].encode() if len(value) <= MAX_EVENT_BYTES else value


def _items(batch: bytes) -> list[msgspec.Raw] | None:
    if batch == b"null":
        return None
    if not batch.startswith(b"["):
        raise UnreadableBodyError('`batch` is not an array: send {"batch": [...]}')
    items = _children(batch, MAX_EVENTS_A_REQUEST)
    for item in items:
        _check_json(item)
    return [msgspec.Raw(item) for item in items]


def _children(container: bytes, most: int) -> list[bytes]:
    """What stands between the commas of an object or array, its own brackets being the first and last byte."""
    spans: list[bytes] = []
    closers: list[int] = []
    begin = 1
    for match in _STRUCTURE.finditer(container):
        byte = container[match.start()]
        if byte in _CLOSED_BY:
            closers.append(_CLOSED_BY[byte])
        elif byte in b"}]":
            if not closers or closers.pop() != byte:
                raise UnreadableBodyError(f"the body is not JSON: a bracket at byte {match.start()} closes nothing")
            if not closers:
                break
        elif byte == ord(",") and len(closers) == 1:
            spans.append(container[begin : match.start()].strip())
            if len(spans) >= most:
                raise TooManyValuesError(f"over {most} items in one request: send fewer at a time")
            begin = match.end()
        elif byte == ord('"') and match.end() == match.start() + 1:
            raise UnreadableBodyError("the body is not JSON: a string has no end")
    else:
        raise UnreadableBodyError("the body is not JSON: it ends too early")
    if match.end() != len(container):
        raise UnreadableBodyError(f"the body is not JSON: more follows its end at byte {match.end()}")
    last = container[begin : match.start()].strip()
    return [*spans, last] if last or spans else []


def _member(span: bytes) -> tuple[str, bytes]:
    match = _STRUCTURE.match(span)
    rest = span[match.end() :].lstrip() if match else b""
    if match is None or match[0][:1] != b'"' or rest[:1] != b":":
        raise UnreadableBodyError("the body is not JSON: a field has no name")
    _check_json(match[0])
    name, _ = mend_json(match[0].decode())
    return cast("str", _any_decoder.decode(name)), rest[1:].strip()


def _check_json(raw: bytes) -> None:
    """Pass what is JSON, or would be once mended, or is only too deep or too large (parse_event says so later)."""
    if len(raw) > MAX_EVENT_BYTES:
        return
    try:
        _raw_decoder.decode(mend_json(raw.decode())[0])
    except RecursionError:
        return
    except _PARSE_ERRORS as error:
        raise UnreadableBodyError(f"the body is not JSON: {error}") from None


_ENVELOPE_FIELDS = {field.encode_name: field.name for field in msgspec.structs.fields(Envelope)}
