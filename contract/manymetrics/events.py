"""The input contract: what an event is, how large it may be, and how its bytes are read.

Two readers, each of which sees an event's bytes once:

    split_batch(body)   in the API: the request's envelope, and each event's own bytes, untouched
    parse_event(raw)    in the processor (and in strict mode): the event's fields, repaired and flagged

A bad event never fails its batch: it is passed on unchanged and becomes a dead letter. Only a body that is not JSON at
all, or has no batch, is refused.

Both readers have a fast path (msgspec, which is strict) and a careful one for what real clients send and
msgspec refuses: bare NaN and Infinity, lone surrogates, nesting beyond its recursion limit.

The careful reader costs a few times as much as the fast one, whatever the body holds: only C code visits each byte, and
what Python code visits is counted and limited (top-level fields, items of `batch`, runs of brackets).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import Annotated, Literal, NamedTuple, get_args

import msgspec

from manymetrics.limits import (
    MAX_EVENT_BYTES,
    MAX_EVENT_DEPTH,
    MAX_EVENT_NAME_BYTES,
    MAX_EVENTS_A_REQUEST,
    MAX_ID_BYTES,
    MAX_MESSAGE_ID_BYTES,
    MAX_VALUES_A_REQUEST,
)
from manymetrics.outcomes import Reason

EventType = Literal["track", "identify", "page", "screen", "group", "alias"]
EVENT_TYPES: frozenset[str] = frozenset(get_args(EventType))

NO_RAW = msgspec.Raw(b"")


class Envelope(msgspec.Struct, gc=False, frozen=True, rename="camel"):
    """The fields of a request next to its events. JSON values, as their own bytes; empty where absent."""

    write_key: msgspec.Raw = NO_RAW
    api_key: msgspec.Raw = msgspec.field(default=NO_RAW, name="api_key")
    sent_at: msgspec.Raw = NO_RAW
    anonymous_id: msgspec.Raw = NO_RAW
    context: msgspec.Raw = NO_RAW
    integrations: msgspec.Raw = NO_RAW


class BatchBody(Envelope, gc=False, frozen=True, rename="camel"):
    """The body of a batch. ``batch`` holds each event's bytes, in order; None if absent."""

    batch: list[msgspec.Raw] | None = None


class BatchEnvelope(Envelope, gc=False, frozen=True, rename="camel"):
    """The body of a batch whose events are not split yet: `batch` is the bytes of its array."""

    batch: msgspec.Raw = NO_RAW


QUICK_SPLIT_BYTES = 256_000  # a batch up to this size is split in one pass: it can't have too many items
MAX_CAREFUL_FIELDS = 1_000  # top-level fields that the careful reader visits, a microsecond each
MAX_BRACKET_RUNS = 6_000  # runs of brackets that it visits, and one more each 64 bytes; 0.2 us each
MAX_MENDED_BYTES = 32_000  # of envelope fields that need repair to be valid JSON
GONE_CHECK_ITEMS = 256  # items between checks whether the client is still connected

Gone = Callable[[], bool]


class NeedsCareError(Exception):
    """msgspec refuses the body; the careful reader may not."""


class ClientGoneError(Exception):
    """The client is no longer waiting for the response."""


class UnreadableBodyError(ValueError):
    """The body is not JSON in UTF-8, or not the object that its route needs. The message names the fix."""


class TooManyValuesError(UnreadableBodyError):
    """The body holds too many values. The message names the fix."""


class Extra(dict[str, msgspec.Raw]):
    """Unknown top-level fields. A type of its own, so that no client can fill the attribute from outside."""


class Repairs(tuple[str, ...]):
    """The repairs of an event, sorted. A type of its own, like Extra."""

    __slots__ = ()


# Surely within the limit: a character is at most 4 bytes. The careful reader measures longer texts.
_ShortId = Annotated[str, msgspec.Meta(max_length=min(MAX_MESSAGE_ID_BYTES, MAX_ID_BYTES) // 4)]
_ShortName = Annotated[str, msgspec.Meta(max_length=MAX_EVENT_NAME_BYTES // 4)]


class Event(msgspec.Struct, gc=False, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """An event as its client sent it. JSON values stay as their own bytes; empty bytes mean absent.

    ``extra`` holds unknown top-level fields, ``repairs`` the repairs made (mostly none).
    """

    type: str | None = None
    message_id: _ShortId | None = None
    user_id: _ShortId | None = None
    anonymous_id: _ShortId | None = None
    previous_id: _ShortId | None = None
    group_id: _ShortId | None = None
    event: _ShortName | None = None
    name: _ShortName | None = None
    timestamp: str | int | float | None = None
    original_timestamp: str | int | float | None = None
    sent_at: str | int | float | None = None
    channel: str | None = None
    properties: msgspec.Raw = NO_RAW
    traits: msgspec.Raw = NO_RAW
    context: msgspec.Raw = NO_RAW
    # Known fields without a column: they go to the column `extra`, or are dropped (the key).
    integrations: msgspec.Raw = NO_RAW
    category: msgspec.Raw = NO_RAW
    metadata: msgspec.Raw = msgspec.field(default=NO_RAW, name="_metadata")
    rudder_id: msgspec.Raw = NO_RAW
    write_key: msgspec.Raw = NO_RAW
    extra: Extra | None = None
    repairs: Repairs | None = None


class _LongEvent(Event, gc=False, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """An event whose ids or names may be over their limits: their bytes are yet to be counted."""

    message_id: str | None = None
    user_id: str | None = None
    anonymous_id: str | None = None
    previous_id: str | None = None
    group_id: str | None = None
    event: str | None = None
    name: str | None = None


class Rejected(msgspec.Struct, gc=False, frozen=True):
    """An event that becomes a dead letter, and why. ``detail`` quotes nothing but a field's name."""

    reason: Reason
    detail: str


_batch_decoder = msgspec.json.Decoder(BatchBody)
_batch_envelope_decoder = msgspec.json.Decoder(BatchEnvelope)
_items_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_envelope_decoder = msgspec.json.Decoder(Envelope)
_text_decoder = msgspec.json.Decoder(str)
_event_decoder = msgspec.json.Decoder(Event)
_long_event_decoder = msgspec.json.Decoder(_LongEvent)
_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raw_decoder = msgspec.json.Decoder(msgspec.Raw)
_any_decoder = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode

# msgspec raises each of these on hostile input; a stdlib parser would raise others (trust.md 3.1).
_PARSE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def split_batch(body: bytes) -> BatchBody:
    """Find a batch's envelope and each event's bytes.

    The bytes of an event are checked to be JSON but not decoded; invalid UTF-8 anywhere is refused, since
    msgspec would skip it unchecked.

    Raises TooManyValuesError, and NeedsCareError, also if there is more than one `batch`.
    """
    if len(body) > QUICK_SPLIT_BYTES:
        return only_batch(body, split_items(read_batch_envelope(body)))
    try:
        if not body.isascii():
            body.decode()
        return only_batch(body, _batch_decoder.decode(body))
    except _PARSE_ERRORS:
        raise NeedsCareError from None


def only_batch(body: bytes, found: BatchBody) -> BatchBody:
    """Raise NeedsCareError if the body may have another `batch`, whose events msgspec would drop."""
    if not _is_only_batch(body, found.batch or ()):
        batches = body.count(_BATCH)
        if batches > 1:
            batches -= sum(bytes(item).count(_BATCH) for item in found.batch or ())
        if batches > 1:
            raise NeedsCareError
    if _has_escaped_letters(body) and _ESCAPED_BATCH.search(body):
        raise NeedsCareError
    return found


def _is_only_batch(body: bytes, events: Sequence[msgspec.Raw]) -> bool:
    """Return whether these events, the last `batch`'s, are also the first one's, by their total length.

    The events of another `batch` would have to fit between its name and the end of the body. So its name could only be
    in the first bytes after the array's start, as many as the body has besides the events: only these are searched.
    """
    start = _ARRAY.match(body, body.find(_BATCH) + len(_BATCH)) if events else None
    if start is None:
        return False
    at = start.end()
    left = len(body) - at - sum(map(len, events)) - len(events)
    return body.find(_BATCH, at, at + left) < 0


_ARRAY = re.compile(rb"[ \t\r\n]*+:[ \t\r\n]*+\[[ \t\r\n]*+")
_BATCH = b'"batch"'
_ESCAPED_BATCH = re.compile(rb"\\u00(?:6[1238]|74)")  # one of its letters


def read_batch_envelope(body: bytes) -> BatchEnvelope:
    """Read a batch's fields other than its events, at a cost proportional to its bytes. Raises as split_batch."""
    _check_values(body)
    try:
        if not body.isascii():
            body.decode()
        return _batch_envelope_decoder.decode(body)
    except _PARSE_ERRORS:
        raise NeedsCareError from None


def split_items(envelope: BatchEnvelope) -> BatchBody:
    """Split a batch's array into items. Raises as split_batch."""
    raw = bytes(envelope.batch)
    fields = {name: getattr(envelope, name) for name in Envelope.__struct_fields__}
    if raw in {b"", b"null"}:
        return BatchBody(**fields)
    if raw[:1] != b"[":
        raise NeedsCareError  # the careful reader then reports what is wrong
    if len(raw) > QUICK_SPLIT_BYTES and raw.count(b",") > len(raw) // 16:  # msgspec would make millions of items
        text = _Careful(raw, _shadow(raw), _never)
        return BatchBody(batch=[msgspec.Raw(raw[begin:end]) for begin, end in text.items(0)[0]], **fields)
    try:
        return BatchBody(batch=_items_decoder.decode(raw), **fields)
    except _PARSE_ERRORS:
        raise NeedsCareError from None


def read_envelope(body: bytes) -> Envelope:
    """Read the fields of a single event's body that the API needs. Checked as in split_batch, and raises the same."""
    _check_values(body)
    try:
        if not body.isascii():
            body.decode()
        return _envelope_decoder.decode(body)
    except _PARSE_ERRORS:
        raise NeedsCareError from None


def split_batch_with_care(body: bytes, gone: Gone | None = None) -> BatchBody:
    """Do what split_batch does, for a body that it refused.

    Raises UnreadableBodyError, and ClientGoneError once ``gone`` returns True.
    """
    text = _read_with_care(body, gone or _never)
    items, fields = text.members()
    batch = None if items is None else [msgspec.Raw(body[begin:end]) for begin, end in items]
    return BatchBody(batch=batch, **_envelope_fields(body, fields))


def read_envelope_with_care(body: bytes, gone: Gone | None = None, *, key_is_known: bool = False) -> Envelope:
    """Do what read_envelope does, for a body that it refused. Raises as split_batch_with_care.

    If the key is known, nothing else is needed, so the number of fields is not limited.
    """
    text = _read_with_care(body, gone or _never)
    if key_is_known:
        text.check_object()
        return Envelope()
    _, fields = text.members()
    return Envelope(**_envelope_fields(body, fields))


def near_key(body: bytes) -> str | None:
    """Return a write key found near the beginning or end of a body, where clients write it."""
    at = body.find(_WRITE_KEY, -_NEAR_BYTES)
    if at < 0:
        at = body.find(_WRITE_KEY, 0, _NEAR_BYTES)
    return _key_after(body, at + len(_WRITE_KEY)) if at >= 0 else None


def written_keys(body: bytes) -> Iterator[str]:
    """Return write keys found anywhere in a body, valid or not: the first and last few of each field name."""
    for name in (_WRITE_KEY, b'"api_key"'):
        for at in _places(body, name):
            text = _key_after(body, at + len(name))
            if text:
                yield text


def may_hold_key(text: bytes) -> bool:
    """Return whether JSON may have a field that a write key is read from, even if its name is escaped."""
    return b"riteKey" in text or b"api_key" in text or _has_escapes(text)


def _has_escapes(text: bytes) -> bool:
    """Return whether JSON may hold a backslash escape. One byte is searched 20 times as fast as four (2026-11-30)."""
    return b"\\" in text and b"\\u00" in text


def _has_escaped_letters(text: bytes) -> bool:
    """Return whether JSON may hold escapes of characters of names and keys: of ASCII letters, digits, `-` or `_`.

    Most bodies hold few backslashes, if any; a regular expression takes three times as long for those.
    """
    at = text.find(b"\\")
    for _ in range(_FEW_ESCAPES):
        if at < 0:
            return False
        if _ESCAPED_WORD.match(text, at):
            return True
        at = text.find(b"\\", at + 2)
    return at >= 0 and _ESCAPED_WORD.search(text, at) is not None


_FEW_ESCAPES = 64


def without_key(raw: bytes | msgspec.Raw) -> bytes | msgspec.Raw:
    """Return an event's bytes without the top-level fields that a write key is read from; unchanged if it has none."""
    text = bytes(raw)
    if not may_hold_key(text):
        return raw
    try:
        fields = _object_decoder.decode(text)
    except _PARSE_ERRORS:  # invalid JSON is kept unchanged, except for what looks like a key
        return _KEY_FIELD.sub(rb"\1null", text)
    if not _KEY_FIELDS & fields.keys():
        return raw
    return _encode({name: value for name, value in fields.items() if name not in _KEY_FIELDS})


def may_hold_text(text: bytes, key: str) -> bool:
    """Return whether JSON may hold this exact key; mostly False, after two searches for one byte each.

    Searching for one byte takes 0.01 ns per byte; for several, 0.05 to 0.1 from the end, and three times that from the
    start (2026-11-30).
    """
    written, byte, offset = _rarest(key)
    at = text.find(byte, offset)
    for _ in range(_FEW_BYTES):
        if at < 0:
            return _may_hold_escaped(text, key)
        if text.startswith(written, at - offset):
            return True
        at = text.find(byte, at + 1)
    return text.rfind(written) >= 0 or _may_hold_escaped(text, key)


def _may_hold_escaped(text: bytes, key: str) -> bool:
    return _has_escaped_letters(text) or (not key.isascii() and b"\\u" in text)


@lru_cache(maxsize=256)
def _rarest(key: str) -> tuple[bytes, bytes, int]:
    """Return the key as JSON encodes it, its byte that is rarest in JSON, and that byte's index."""
    written = _written(key)
    code = min(written, key=lambda code: _RARE_BYTES.find(code) % 256)
    return written, bytes([code]), written.index(code)


_RARE_BYTES = b"QJYFVzjXDNHCqOPR"  # the rarest first, by a count over events of browsers and of other sources
_FEW_BYTES = 8


def without_text(raw: bytes | msgspec.Raw, key: str) -> bytes | msgspec.Raw:
    """Remove this exact key from JSON, wherever it is a whole string, or follows a key's field name.

    Unchanged if it doesn't hold it. A whole string becomes null; a field name, or a part of a string, becomes empty.
    Keys as the server generates them are removed from longer strings too. A short key may be an ordinary word: it is
    only removed after a key's field name.
    """
    text = bytes(raw)
    written = _masked(_written(key))
    plain = _masked(text)
    if b"\\u" in plain:
        for escape, letter in _key_escapes(key):
            # A search from the end takes a fifth of the time of a replacement that finds nothing.
            if plain.rfind(escape) >= 0:
                plain = plain.replace(escape, letter)
    if written not in plain:
        return raw
    patterns = _key_patterns(key)
    quoted = b'"%b"' % written
    if patterns.name is None:
        plain = patterns.value.sub(rb"\1null", plain)
    elif b" " + written in plain or written + b" " in plain:
        plain = patterns.value.sub(b"null", patterns.name.sub(b'""', plain))
    else:  # a regular expression takes ten times as long
        has_blanks = any(quoted + blank in plain for blank in (b" ", b"\t", b"\r", b"\n"))
        plain = patterns.name.sub(b'""', plain) if has_blanks else plain.replace(quoted + b":", b'"":')
        plain = plain.replace(quoted, b"null")
    if written in plain:
        plain = patterns.named.sub(rb"\1", plain)
        if _MADE_KEY.fullmatch(key):
            plain = plain.replace(written, b"")
    for short, escape in _MASKS:
        plain = plain.replace(escape, short)
    return plain


# An escaped backslash and an escaped quote are masked as two bytes that are never valid UTF-8: then each remaining
# quote delimits a string, and each remaining backslash begins another escape.
_MASKS = ((b'\\"', b"\xfe\xfe"), (b"\\\\", b"\xff\xff"))


def _masked(text: bytes) -> bytes:
    if b"\\" in text:
        for escape, mask in reversed(_MASKS):
            if text.rfind(escape) >= 0:
                text = text.replace(escape, mask)
    return text


class _KeyPatterns(NamedTuple):
    """Patterns over masked text. ``name``: the key as a field's name; None for a short key, which can't be one."""

    name: re.Pattern[bytes] | None
    value: re.Pattern[bytes]
    named: re.Pattern[bytes]


@lru_cache(maxsize=256)
def _key_patterns(key: str) -> _KeyPatterns:
    text = re.escape(_masked(_written(key)))
    name = b"(?:write_?[Kk]ey|api_?[Kk]ey)"
    is_told = len(key) >= MIN_TOLD_KEY and key[0] not in " \t\r\n:,]}"  # these also follow the end of a string
    whole = rb'" *+%b *+"' % text
    after_name = rb'("%b"[ \t\r\n]*+:[ \t\r\n]*+)" *+%b *+"' % (name, text)
    return _KeyPatterns(
        re.compile(whole + rb"(?=[ \t\r\n]*+:)") if is_told else None,
        re.compile(whole if is_told else after_name),
        re.compile(rb"(%b(?:=|%%3[dD]|[^A-Za-z0-9%%]{1,12}(?<!\\)))%b(?![A-Za-z0-9_-])" % (name, text)),
    )


@lru_cache(maxsize=256)
def _key_escapes(key: str) -> tuple[tuple[bytes, bytes], ...]:
    """Return how the key's letters may be escaped, and the letters; Python's clients escape all but ASCII's."""
    letters = sorted({one for one in key if not one.isascii() or one.isalnum() or one in "-_"})
    return tuple((escape, one.encode()) for one in letters for escape in sorted(_escapes(one)))


def _escapes(letter: str) -> set[bytes]:
    """Return a character's escapes in JSON, in all spellings of their hexadecimal digits."""
    units = letter.encode("utf-16-be")
    digits = "".join(rf"\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
    spellings = product(*({one, one.upper()} if one in "abcdef" else {one} for one in digits))
    return {"".join(spelling).encode() for spelling in spellings}


@lru_cache(maxsize=256)
def _written(key: str) -> bytes:
    """Encode text as a JSON string, without its quotes."""
    return _encode(key)[1:-1]


def _spellings(letter: str) -> bytes:
    plain = re.escape(_written(letter))
    return rb"(?:%b|(?<!\\)\\u(?i:%04x))" % (plain, ord(letter)) if letter.isascii() else plain


MIN_TOLD_KEY = 8  # characters; shorter keys may occur in data by chance
_MADE_KEY = re.compile(r"wk_[A-Za-z0-9_-]{20,}")
# Characters of names and keys; not & < >, which Go escapes in every URL.
_ESCAPED_WORD = re.compile(rb"\\u00(?:2[dD]|3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF])")
_KEY_FIELDS = frozenset({"writeKey", "api_key"})
_KEY_FIELD = re.compile(
    rb'("(?:%b|%b)"[ \t\r\n]*+:[ \t\r\n]*+)"(?:[^"\\]|\\.)*+(?:"|\Z)'
    % tuple(b"".join(map(_spellings, name)) for name in ("writeKey", "api_key")),
    re.DOTALL,
)
_WRITE_KEY = b'"writeKey"'
_NEAR_BYTES = 500
_FEW_KEYS = 8
_KEY_VALUE = re.compile(rb'[ \t\r\n]{0,100}:[ \t\r\n]{0,100}("(?:[^"\\]|\\.){1,1000}+")', re.DOTALL)


def _key_after(body: bytes, at: int) -> str | None:
    match = _KEY_VALUE.match(body, at)
    return parse_text(match[1]) if match is not None else None


def _places(body: bytes, name: bytes) -> Iterator[int]:
    at = -1
    for _ in range(_FEW_KEYS):
        at = body.find(name, at + 1)
        if at < 0:
            return
        yield at
    at = len(body)
    for _ in range(_FEW_KEYS):
        at = body.rfind(name, 0, at)
        if at < 0:
            return
        yield at


def parse_text(raw: bytes | msgspec.Raw) -> str | None:
    """Decode a JSON string; None if it is not a string."""
    try:
        return _text_decoder.decode(raw)
    except _PARSE_ERRORS:
        return None


def _never() -> bool:
    return False


def _check_values(body: bytes) -> None:
    """Limit the number of values before decoding, by an upper bound: commas and brackets in strings count too."""
    if len(body) > MAX_VALUES_A_REQUEST and sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES_A_REQUEST:
        raise TooManyValuesError(f"over {MAX_VALUES_A_REQUEST} JSON values in one request: send fewer at a time")


def parse_event(raw: bytes, default_type: str | None = None, anonymous_id: bytes = b"") -> Event | Rejected:
    """Read one event's bytes; ``default_type`` is the type implied by its route, if that is not a batch's.

    ``anonymous_id`` is that of its batch, as found by split_batch. It applies if the event has none (absent, null or
    empty), and is read like the event's own: a number becomes text, an invalid one makes a dead letter.

    Never raises. Ids are compared and kept as sent: no trimming, case folding or Unicode normalization.
    """
    if len(raw) > MAX_EVENT_BYTES:
        return Rejected(Reason.TOO_LARGE, f"{len(raw)} bytes")
    shape = raw.translate(_SHAPE)
    if shape.count(b"{") > MAX_EVENT_DEPTH and is_deeper_than(raw, MAX_EVENT_DEPTH):
        return Rejected(Reason.TOO_DEEP, f"over {MAX_EVENT_DEPTH} levels")
    event = _parse_quickly(raw, shape)
    is_short = type(event) is Event
    if event is None:
        parsed = _parse_with_care(raw)
        if isinstance(parsed, Rejected):
            return parsed
        event = parsed
    if anonymous_id and not event.anonymous_id:
        reason, is_short = _put_shared_id(event, anonymous_id), False
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
    return event if is_short else _check_lengths(event, name)


def _parse_quickly(raw: bytes, shape: bytes) -> Event | None:
    if _may_overflow(raw, shape):
        return None
    for decoder in (_event_decoder, _long_event_decoder):
        try:
            return decoder.decode(raw)
        except msgspec.ValidationError:
            continue
        except _PARSE_ERRORS:
            break
    return None


# How JavaScript, Python, Ruby, Objective-C, Go and SQL write a missing value, in any case; and the advertising id of a
# phone whose user has disabled it.
PLACEHOLDER_IDS = frozenset(
    (
        *("undefined", "null", "nan", "none", "nil", "(null)", "<null>", "<nil>", "[object object]", ""),
        *("00000000-0000-0000-0000-000000000000", "0" * 32),
    )
)
# Invisible characters: Unicode's blanks, controls, zero-width characters, direction marks and fillers.
ID_BLANKS = "".join(  # a placeholder id may consist of these, or be surrounded by them
    chr(code)
    for first, last in (
        *((0x00, 0x20), (0x7F, 0xA0), (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x1680, 0x1680)),
        *((0x17B4, 0x17B5), (0x180B, 0x180F), (0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x206F), (0x2800, 0x2800)),
        *((0x3000, 0x3000), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF9, 0xFFFB)),
    )
    for code in range(first, last + 1)
)
# About half of all ids are decided by their first or last character: stripping costs 0.2 us.
_STARTS, PLACEHOLDER_ENDS = (
    frozenset({*ID_BLANKS, *(case(word)[end] for word in PLACEHOLDER_IDS for case in (str.lower, str.upper))})
    for end in (slice(1), slice(-1, None))
)


def is_placeholder(text: str) -> bool:
    """Return whether an id names nobody. Such ids are stored as sent, but never used to identify a person."""
    if text[:1] not in _STARTS or text[-1:] not in PLACEHOLDER_ENDS:
        return False
    word = text.strip(ID_BLANKS).lower()
    return word in PLACEHOLDER_IDS or (word.startswith("[object ") and word.endswith("]"))


def _check_lengths(event: Event, name: str | None) -> Event | Rejected:
    if name and len(name.encode()) > MAX_EVENT_NAME_BYTES:
        return Rejected(Reason.EVENT_NAME_TOO_LONG, "event" if event.type == "track" else "name")
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
    """Return the name of the id's field as clients write it."""
    ids = {"message_id": "messageId", "user_id": "userId", "anonymous_id": "anonymousId", "previous_id": "previousId"}
    return next((name for attribute, name in ids.items() if getattr(event, attribute) is value), "groupId")


# --- depth ------------------------------------------------------------------------------------------------

_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
# Possessive here and below: backtracking state takes 60 bytes per escape, and is never needed.
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


def is_deeper_than(raw: bytes, limit: int) -> bool:
    """Return whether a JSON text nests objects and arrays more than ``limit`` deep."""
    if raw.count(b"{") + raw.count(b"[") <= limit:
        return False
    return _depth(raw, limit + 1) > limit


def _depth(raw: bytes, enough: int) -> int:
    """Return the nesting depth of a JSON text, counted up to ``enough``. Works on bytes, without recursion."""
    brackets = raw.translate(None, _ALL_BUT_BRACKETS)
    level = _peel(brackets, enough)
    if level is None:  # brackets inside strings: remove the strings first
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


# --- the careful reader --------------------------------------------------------------------------------------

_HIGH, _LOW = r"u[dD][89abAB][0-9a-fA-F]{2}", r"u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE = re.compile(rf"\\(?={_HIGH}(?!\\{_LOW}))|(?<!\\{_HIGH})\\(?={_LOW})")
# Decoded UTF-8 never holds a lone surrogate, so these are used as placeholders and replaced at the end.
_BACKSLASHES, _QUOTE = "\udc80\udc80", "\udc81"
_NUMBER = re.compile(r"-?[0-9]++(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")
_HUGE = re.compile(r"[eE]\+?[0-9]{3}|[0-9]{200}")  # any number over 1.8e308 matches


def may_overflow(raw: bytes) -> bool:
    """Return whether JSON may hold a number too large for a float. No false negatives; mostly False.

    Every digit is mapped to 0, so that one search finds all. UUIDs match too, but no number ends there.
    """
    return _may_overflow(raw, raw.translate(_SHAPE))


def _may_overflow(raw: bytes, shape: bytes) -> bool:
    at = shape.find(b"0e000")
    for _ in range(_MAX_PLACES):
        if at < 0:
            return _LONG_ZEROS in shape
        after = raw[at + 5 : at + 64].lstrip(b"0123456789")
        if after[:1] in _AFTER_NUMBERS:
            return True
        at = shape.find(b"0e000", at + 1)
    return True


_SHAPE = bytes.maketrans(b"123456789E+[", b"000000000e0{")  # digits, exponents and brackets alike
_AFTER_NUMBERS = frozenset({b",", b"}", b"]", b" ", b"\t", b"\r", b"\n", b""})
_LONG_ZEROS = b"0" * 200
_MAX_PLACES = 50  # matches that are examined, a microsecond each


def needs_mending(raw: bytes) -> bool:
    """Return whether JSON may need mend_json. No false negatives; mostly False."""
    return _has_faults(raw) or may_overflow(raw)


def _has_faults(raw: bytes) -> bool:
    return any(part in raw for part in _FAULTS)


_FAULTS = (b"NaN", b"Infinity", b"\\ud", b"\\uD")


def mend_json(text: str, mark: str = "") -> tuple[str, tuple[str, ...]]:
    """Make valid JSON of what clients send as JSON; returns the text and the repairs made.

    Bare NaN and Infinity (Python's json writes them), and numbers too large for a float, become null. A lone surrogate
    becomes the text of its escape, so that ids that differ in it stay distinct. Other invalid JSON stays invalid.

    ``mark``: a digit that replaces each such null, and is put into each escape's text, to show where they are.
    """
    nothing = mark or "null"
    repairs = []
    masked = text.replace("\\\\", _BACKSLASHES) if "\\" in text else text
    if "\\u" in masked:
        masked, lone = _LONE.subn(_BACKSLASHES + mark, masked)
        repairs += ["lone_surrogate"] if lone else []
    if "NaN" in masked or "Infinity" in masked or _HUGE.search(masked):
        parts = masked.replace('\\"', _QUOTE).split('"')
        outside = '"'.join(parts[::2])
        mended = outside.replace("-Infinity", nothing).replace("Infinity", nothing).replace("NaN", nothing)
        if _HUGE.search(mended):
            mended = _NUMBER.sub(lambda number: number[0] if math.isfinite(float(number[0])) else nothing, mended)
        if mended != outside:
            repairs.append("not_a_number")
            parts[::2] = mended.split('"')
            masked = '"'.join(parts).replace(_QUOTE, '\\"')
    return masked.replace(_BACKSLASHES, "\\\\"), tuple(repairs)


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
    for name in sorted(fields.keys() & _ATTRIBUTES.keys(), key=lambda name: (name != "type", name)):
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
    elif first == b"n":  # null counts as absent
        pass
    elif attribute in _TIME_ATTRIBUTES:
        _put_time(event, name, raw)
    elif first in _NUMBER_STARTS and attribute != "type":
        setattr(event, attribute, bytes(raw).decode())
        _flag(event, f"{attribute}_number")
    elif attribute == "type":
        return Reason.UNKNOWN_TYPE
    elif attribute in {"channel", "name" if event.type == "track" else "event"}:
        _keep(event, name, raw)  # irrelevant here, so it is kept as an unknown field
    else:
        return Reason.INVALID_EVENT_NAME if attribute in {"event", "name"} else Reason.INVALID_ID
    return None


def _put_shared_id(event: Event, raw: bytes) -> Reason | None:
    if (raw[:1] != b'"' or b"\\u" in raw) and needs_mending(raw):
        text, repairs = mend_json(raw.decode())
        raw = text.encode()
        for repair in repairs:
            _flag(event, repair)
    return _put_field(event, "anonymousId", msgspec.Raw(raw))


def _put_time(event: Event, name: str, raw: msgspec.Raw) -> None:
    try:
        value = _any_decoder.decode(raw)
    except msgspec.ValidationError:  # a number too large for any machine type
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


# --- a body that the fast reader refused ---------------------------------------------------------------------

Span = tuple[int, int]

_SPACE = b" \t\r\n"
_NAME = re.compile(rb'"([^"]*+)"[ \t\r\n]*+:[ \t\r\n]*+')
_SCALAR = re.compile(rb'"[^"]*+"|[^ \t\r\n,\]}"\[{:]++')
_GAP = re.compile(rb"[ \t\r\n]*+")
# The text before the next run of brackets, and that run; or to the end, or a string without brackets. Always matches.
_RUN = re.compile(rb'[^"{}\[\]]*+(?:"[^"]*+"[^"{}\[\]]*+)*+([\[{]++|[\]}]++|"|\Z)')
_TRAILING = re.compile(r"trailing characters \(byte (\d+)\)")
_LONGEST_NAME = 200  # bytes: a field name known to the API, with every letter escaped


def _read_with_care(body: bytes, gone: Gone) -> _Careful:
    try:
        if not body.isascii():
            body.decode()
    except UnicodeDecodeError as error:
        raise UnreadableBodyError(f"the body is not UTF-8 at byte {error.start}: send JSON in UTF-8") from None
    if body[:100].lstrip(_SPACE)[:1] not in {b"", b"{"}:  # fail before any costly work
        raise _not_an_object()
    text = _Careful(body, _shadow(body), gone)
    text.check()
    return text


def _too_many_events() -> TooManyValuesError:
    return TooManyValuesError(f"over {MAX_EVENTS_A_REQUEST} events in one request: send fewer at a time")


def _not_an_object() -> UnreadableBodyError:
    return UnreadableBodyError('the body is not a JSON object: send one event, or {"batch": [...]}')


def _shadow(body: bytes) -> bytes:
    """Make a text of the same length that msgspec accepts, with each value at its position in the body.

    It has no escaped quotes, so a string ends at the next quote. Its values are never used.
    """
    if b"\\" in body:
        body = body.replace(b"\\\\", b"__").replace(b'\\"', b"__")
        if b"\\u" in body:
            body = body.replace(b"\\ud", b"\\u0").replace(b"\\uD", b"\\u0")
    if b"Infinity" in body:  # becomes an array, which no preceding character can turn into part of a number
        body = body.replace(b"-Infinity", b"[5555555]").replace(b"Infinity", b"[555555]")
    return body.replace(b"NaN", b"[5]")


def _envelope_fields(body: bytes, spans: dict[str, Span]) -> dict[str, msgspec.Raw]:
    """Return the fields unrepaired: parse_event repairs them, and can then flag the affected events."""
    values = {_ENVELOPE_FIELDS[name]: body[begin:end] for name, (begin, end) in spans.items()}
    if sum(len(value) for value in values.values() if _has_faults(value)) > MAX_MENDED_BYTES:
        raise TooManyValuesError(
            f"over {MAX_MENDED_BYTES} bytes of a batch's own fields hold NaN, Infinity or a lone surrogate: send null"
        )
    return {name: msgspec.Raw(value) for name, value in values.items()}


class _Careful:
    """Locates the values of a body by its shadow."""

    def __init__(self, body: bytes, shadow: bytes, gone: Gone) -> None:
        self._body, self._text, self._gone = body, shadow, gone
        self._view = memoryview(shadow)
        self._is_checked = False
        self._runs = MAX_BRACKET_RUNS + len(body) // 64

    def check(self) -> None:
        """Raise UnreadableBodyError if it is not JSON; what is too deep for msgspec is checked when visited."""
        try:
            _raw_decoder.decode(self._text)
            self._is_checked = True
        except RecursionError:
            pass
        except _PARSE_ERRORS as error:
            raise UnreadableBodyError(f"the body is not JSON: {error}") from None
        self._ask_client()

    def check_object(self) -> None:
        """Raise UnreadableBodyError if it is not an object."""
        begin = self._begin()
        if not self._is_checked:
            self._check_end(self._value_end(begin))

    def members(self) -> tuple[list[Span] | None, dict[str, Span]]:
        """Locate the items of each `batch`, and the fields known to the API; of duplicate names, the last counts."""
        items: list[Span] | None = None
        fields: dict[str, Span] = {}
        at = self._gap(self._begin() + 1)
        if self._text[at : at + 1] == b"}":
            self._check_end(at + 1)
            return items, fields
        for _ in range(MAX_CAREFUL_FIELDS):
            match = _NAME.match(self._text, at)
            if match is None:
                raise UnreadableBodyError(f"the body is not JSON: a field has no name at byte {at}")
            name, begin = self._name(*match.span(1)), match.end()
            if name == "batch":
                more, at = self._batch(begin)
                items = more if items is None else items + (more or [])
                if len(items or ()) > MAX_EVENTS_A_REQUEST:
                    raise _too_many_events()
            else:
                at = self._value_end(begin)
                if name in _ENVELOPE_FIELDS:
                    fields[name] = begin, at
            at = self._gap(at)
            if self._text[at : at + 1] == b"}":
                self._check_end(at + 1)
                return items, fields
            if self._text[at : at + 1] != b",":
                raise UnreadableBodyError(f"the body is not JSON: a comma is missing at byte {at}")
            at = self._gap(at + 1)
        raise TooManyValuesError(
            f"over {MAX_CAREFUL_FIELDS} top-level fields in a body with NaN, Infinity, a lone surrogate or deep nesting"
            ": send the write key as Basic user name, or fewer fields"
        )

    def items(self, begin: int) -> tuple[list[Span], int]:
        """Locate the items of the array that begins at a position, and its end."""
        spans: list[Span] = []
        at = self._gap(begin + 1)
        if self._text[at : at + 1] == b"]":
            return spans, at + 1
        while True:
            end = self._value_end(at)
            spans.append((at, end))
            if len(spans) > MAX_EVENTS_A_REQUEST:
                raise _too_many_events()
            if len(spans) % GONE_CHECK_ITEMS == 0:
                self._ask_client()
            at = self._gap(end)
            if self._text[at : at + 1] == b"]":
                return spans, at + 1
            if self._text[at : at + 1] != b",":
                raise UnreadableBodyError(f"the body is not JSON: a comma is missing at byte {at}")
            at = self._gap(at + 1)

    def _batch(self, begin: int) -> tuple[list[Span] | None, int]:
        if self._text[begin : begin + 1] == b"[" and self._body[begin : begin + 1] == b"[":
            return self.items(begin)
        end = self._value_end(begin)
        if self._body[begin:end] == b"null":
            return None, end
        raise UnreadableBodyError('`batch` is not an array: send {"batch": [...]}')

    def _begin(self) -> int:
        begin = self._gap(0)
        if self._text[begin : begin + 1] != b"{":
            raise _not_an_object()
        return begin

    def _check_end(self, at: int) -> None:
        if self._gap(at) != len(self._text):
            raise UnreadableBodyError(f"the body is not JSON: more follows its end at byte {at}")

    def _gap(self, at: int) -> int:
        """Return the position of the next non-space character."""
        if self._text[at : at + 1] not in _SPACES:
            return at
        match = _GAP.match(self._text, at)
        return match.end() if match else at

    def _name(self, begin: int, end: int) -> str:
        """Return a field's name; an arbitrary one if it is too long to be known to the API."""
        raw = self._body[begin:end] if end - begin <= _LONGEST_NAME else b""
        return raw.decode() if b"\\" not in raw else parse_text(b'"%b"' % raw) or ""

    def _value_end(self, at: int) -> int:
        """Return the end of the value that begins at a position. Checks it, unless all was checked at the start."""
        if self._text[at : at + 1] not in _OPENERS:
            match = _SCALAR.match(self._text, at)
            if match is None:
                raise UnreadableBodyError(f"the body is not JSON: a value is missing at byte {at}")
            if not self._is_checked:
                self._check_scalar(*match.span())
            return match.end()
        try:
            _raw_decoder.decode(self._view[at:])
        except RecursionError:
            return self._deep_end(at)
        except _PARSE_ERRORS as error:
            trailing = _TRAILING.search(str(error))
            if trailing is None:
                raise UnreadableBodyError(f"the body is not JSON: from byte {at}: {error}") from None
            return at + len(self._text[at : at + int(trailing[1]) - 1].rstrip(_SPACE))  # msgspec counts bytes from 1
        return len(self._text.rstrip(_SPACE))

    def _check_scalar(self, begin: int, end: int) -> None:
        try:
            _raw_decoder.decode(self._view[begin:end])
        except _PARSE_ERRORS as error:
            raise UnreadableBodyError(f"the body is not JSON: at byte {begin}: {error}") from None

    def _deep_end(self, at: int) -> int:
        """Find the end by counting brackets, without checking them: an event nested so deep becomes a dead letter."""
        depth = 0
        for match in _RUN.finditer(self._text, at):
            run = match[1]
            if not run or run == b'"':
                break
            self._runs -= 1
            if self._runs < 0:
                raise UnreadableBodyError(
                    f"the body is nested too deep: send events nested {MAX_EVENT_DEPTH} deep at most"
                )
            if run[:1] in _OPENERS:
                depth += len(run)
            elif len(run) >= depth:
                return match.start(1) + depth
            else:
                depth -= len(run)
        raise UnreadableBodyError("the body is not JSON: it ends too early")

    def _ask_client(self) -> None:
        if self._gone():
            raise ClientGoneError


_OPENERS = frozenset({b"{", b"["})
_SPACES = frozenset({b" ", b"\t", b"\r", b"\n"})


_ENVELOPE_FIELDS = {field.encode_name: field.name for field in msgspec.structs.fields(Envelope)}
