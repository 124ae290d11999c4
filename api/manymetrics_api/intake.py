"""Turns a request's bytes into records for the stream, in pure steps. Clock, ids and keys are arguments.

    find key in header -> inflate -> split, find key -> check origin -> check limits -> (strict mode: check events)
    -> remove the write key from the events

The key is checked before anything costly: with a Basic header, before the body is inflated; otherwise, after only one
pass of msgspec. Each step takes the draft and returns None, or a refusal, which ends it. No event of a refused request
counts as received.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from manymetrics.events import (
    BatchBody,
    ClientGoneError,
    Envelope,
    NeedsCareError,
    Rejected,
    TooManyValuesError,
    UnreadableBodyError,
    is_deeper_than,
    may_hold_text,
    near_key,
    only_batch,
    parse_event,
    parse_text,
    read_batch_envelope,
    read_envelope,
    read_envelope_with_care,
    split_batch,
    split_batch_with_care,
    split_items,
    without_key,
    without_text,
    written_keys,
)
from manymetrics.limits import (
    MAX_EVENT_DEPTH,
    MAX_EVENTS_A_REQUEST,
    MAX_INFLATED_BYTES,
    MAX_SENT_AT_BYTES,
    MAX_SHARED_BYTES,
    MAX_WEIGHT_BYTES,
    MIN_EVENT_WEIGHT,
)
from manymetrics.records import Stamp, pack, sum_weights
from manymetrics.refusals import (
    CLIENT_GONE,
    INVALID_ENCODING,
    INVALID_EVENTS,
    INVALID_JSON,
    KEYS_UNAVAILABLE,
    NO_BATCH,
    NO_KEY,
    ORIGIN_NOT_ALLOWED,
    TOO_DEEP,
    TOO_LARGE,
    TOO_LARGE_INFLATED,
    UNKNOWN_KEY,
    UNSUPPORTED_ENCODING,
    Refusal,
)
from manymetrics_api.keys import Keys, KeysUnavailableError, WriteKey

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

MAX_GZIP_MEMBERS = 100  # gzip allows several members
INFLATE_BLOCK_BYTES = 65_536  # data after a member is copied, so input is passed in blocks
QUICK_CARE_BYTES = 64_000  # up to this size, careful or strict parsing takes a millisecond
MAX_FAILED_RECORDS = 100  # in strict mode's response

Headers = Mapping[bytes, bytes]


_NO_ENVELOPE = Envelope()


class Draft(msgspec.Struct):  # not a dataclass: created for each request, in C
    """A request on its way through the steps."""

    body: bytes
    headers: Headers
    keys: Keys
    batch: bool  # whether the route takes a batch
    default_type: str | None
    query_key: str | None
    envelope: Envelope = _NO_ENVELOPE
    events: Sequence[bytes | msgspec.Raw] = ()
    key: WriteKey | None = None
    inflated: bool = False
    in_thread: bool = False  # whether parsing this body blocks no other request
    client: Client | None = None


class Client(Protocol):
    """The client that waits for the response."""

    disconnected: bool


class TakesLongError(Exception):
    """Parsing this body would block other requests: accept it again in a thread."""


Step = Callable[[Draft], Refusal | None]


def accept(
    draft: Draft, *, received_at: int, request_id: str, ip: str | None
) -> tuple[list[bytes], WriteKey] | Refusal:
    """Return the records to put and their key, or a refusal. ``received_at``: microseconds since 1970, UTC.

    Call find_key_in_header first. Raises TakesLongError, unless the draft is ``in_thread``.
    """
    for step in _steps_for(draft):
        refusal = step(draft)
        if refusal is not None:
            return refusal
        if draft.in_thread and _is_gone(draft):
            return CLIENT_GONE
    key = draft.key
    if key is None:
        return NO_KEY
    envelope, events = _without_keys(draft, key.key)
    agent = draft.headers.get(b"user-agent")
    stamp = Stamp(
        received_at,
        request_id,
        key.project,
        key.kind,
        ip,
        agent[:1_024].decode("latin-1") if agent is not None and key.kind == "browser" else None,
        draft.default_type,
        bytes(envelope.sent_at) if draft.batch else _sent_at_header(draft.headers),
        bytes(envelope.context) if draft.batch else b"",
        bytes(envelope.integrations) if draft.batch else b"",
        bytes(envelope.anonymous_id) if draft.batch else b"",
        key.ip,
        key.user_agent,
    )
    return pack(stamp, events), key


# --- steps ------------------------------------------------------------------------------------------------


def inflate_body(draft: Draft, most: int = MAX_INFLATED_BYTES) -> Refusal | None:
    """Inflate gzip or deflate, by header or first bytes, up to ``most`` bytes; past it, leave the draft unchanged."""
    if draft.inflated:
        return None
    encoding = draft.headers.get(b"content-encoding")
    if encoding is None and draft.body[:1] in _JSON_STARTS:
        return None
    is_compressed = _is_compressed(draft.body)
    if encoding is None and not is_compressed:
        return None
    encoding = (encoding or b"").strip().lower()
    if encoding not in _ENCODINGS:
        return UNSUPPORTED_ENCODING
    if not is_compressed and (encoding in _PLAIN or draft.body[:1] in _JSON_STARTS):
        return None
    try:
        draft.body, draft.inflated = _inflate(draft.body, most), True
    except OverflowError:
        return TOO_LARGE_INFLATED
    except (zlib.error, EOFError):
        return INVALID_ENCODING
    return None


def find_key_in_header(draft: Draft) -> Refusal | None:
    """Check the key of a Basic header first, so that bodies of unknown senders aren't read."""
    authorization = draft.headers.get(b"authorization")
    if authorization is None:
        return None
    try:
        draft.key = draft.keys.known(authorization)
        if draft.key is not None:
            return None
        is_basic, text = _basic_user(authorization)
        if not is_basic or text == "":
            return None
        draft.key = draft.keys.find(text) if text else None
    except KeysUnavailableError:
        return KEYS_UNAVAILABLE
    if draft.key is None:
        return UNKNOWN_KEY
    draft.keys.remember(authorization, draft.key)
    return None


def split_events(draft: Draft) -> Refusal | None:
    """Find the envelope, with the key if no header had one, and each event's bytes."""
    if draft.body[:3] == BYTE_ORDER_MARK:
        draft.body = draft.body[3:]
    try:
        return _split_quickly(draft)
    except NeedsCareError:
        pass
    except TooManyValuesError as error:
        return TOO_LARGE.with_message(str(error))
    try:
        if not _holds_live_key(draft):
            return UNKNOWN_KEY if any(_keys_that_came(draft)) else NO_KEY
    except KeysUnavailableError:
        return KEYS_UNAVAILABLE
    if not draft.in_thread and len(draft.body) > QUICK_CARE_BYTES:
        raise TakesLongError
    try:
        return _split_with_care(draft)
    except TooManyValuesError as error:
        return TOO_LARGE.with_message(str(error))
    except UnreadableBodyError as error:
        return INVALID_JSON.with_message(str(error))
    except ClientGoneError:
        return CLIENT_GONE


def _split_quickly(draft: Draft) -> Refusal | None:
    """Split with msgspec only. Raises NeedsCareError, TooManyValuesError."""
    if not draft.batch:
        draft.envelope, draft.events = read_envelope(draft.body), (draft.body,)
        return find_key(draft)
    try:
        is_trusted = _holds_live_key(draft)
    except KeysUnavailableError:
        is_trusted = False  # find_key reports it, if it is this batch's own key
    if is_trusted:
        body = split_batch(draft.body)
        draft.envelope = body
        return find_key(draft) or _take_batch(draft, body)
    envelope = read_batch_envelope(draft.body)
    draft.envelope = envelope
    return find_key(draft) or _take_batch(draft, only_batch(draft.body, split_items(envelope)))


def _holds_live_key(draft: Draft) -> bool:
    """Return whether any key in the request is active, even one that find_key won't use.

    Raises KeysUnavailableError if none is known to be active but one may be.
    """
    if draft.key is not None:
        return True
    unavailable: KeysUnavailableError | None = None
    for text in _keys_that_came(draft):
        try:
            if draft.keys.find(text) is not None:
                return True
        except KeysUnavailableError as error:
            unavailable = error
    if unavailable is not None:
        raise unavailable
    return False


def _keys_that_came(draft: Draft) -> Iterator[str]:
    for text in (near_key(draft.body), draft.query_key, _key_header(draft)):
        if text and (key := text.strip()):
            yield key
    yield from filter(None, map(str.strip, written_keys(draft.body)))


def _split_with_care(draft: Draft) -> Refusal | None:
    """Split bodies that msgspec can't. Raises UnreadableBodyError, ClientGoneError."""

    def gone() -> bool:
        return _is_gone(draft)

    if draft.batch:
        batch = split_batch_with_care(draft.body, gone)
        draft.envelope = batch
        return find_key(draft) or _take_batch(draft, batch)
    envelope = read_envelope_with_care(draft.body, gone, key_is_known=draft.key is not None)
    draft.envelope, draft.events = envelope, (draft.body,)
    return find_key(draft)


def _without_keys(draft: Draft, key: str) -> tuple[Envelope, Sequence[bytes | msgspec.Raw]]:
    """Remove the request's key: it is a credential, and never stored.

    Usually one search of the body, which is all that each byte may cost here. If the body doesn't contain the key
    literally, fields with another key are removed when rows and dead letters are made.
    """
    envelope, events = draft.envelope, draft.events
    if not may_hold_text(draft.body, key):
        return envelope, events
    events = [without_text(without_key(event), key) if may_hold_text(bytes(event), key) else event for event in events]
    if draft.batch:
        shared = {name: getattr(envelope, name) for name in Envelope.__struct_fields__}
        envelope = Envelope(**{name: msgspec.Raw(without_text(raw, key)) for name, raw in shared.items()})
    return envelope, events


def _take_batch(draft: Draft, body: BatchBody) -> Refusal | None:
    if body.batch is None:
        return NO_BATCH
    draft.envelope, draft.events = body, body.batch
    return None


def _is_gone(draft: Draft) -> bool:
    return draft.client is not None and draft.client.disconnected


def find_key(draft: Draft) -> Refusal | None:
    """Use the first non-blank of Basic user, the body's writeKey, ?writeKey=, X-Write-Key, the body's api_key."""
    if draft.key is not None:
        return None
    text = _key_elsewhere(draft)
    try:
        draft.key = draft.keys.find(text) if text else None
    except KeysUnavailableError:
        return KEYS_UNAVAILABLE
    if draft.key is None:
        return UNKNOWN_KEY if text else NO_KEY
    return None


def check_origin(draft: Draft) -> Refusal | None:
    """Check that the page's origin is one of its key's, compared exactly."""
    origin = draft.headers.get(b"origin")
    if origin is None or draft.key is None or not draft.key.origins:
        return None
    if origin.decode("latin-1") in draft.key.origins:
        return None
    return ORIGIN_NOT_ALLOWED


def check_limits(draft: Draft) -> Refusal | None:
    """Check the number of events, and the size and depth of the fields that they share."""
    envelope = draft.envelope
    if not draft.batch:
        return None
    if len(draft.events) > MAX_EVENTS_A_REQUEST:
        return TOO_LARGE.with_message(f"over {MAX_EVENTS_A_REQUEST} events in one request: send fewer at a time")
    if len(envelope.sent_at) > MAX_SENT_AT_BYTES:
        return TOO_LARGE.with_message(f"the batch's sentAt is over {MAX_SENT_AT_BYTES} bytes: send the time")
    size = len(envelope.context) + len(envelope.integrations) + len(envelope.anonymous_id)
    if _weighs_too_much(draft, size + len(envelope.sent_at)):
        return TOO_LARGE.with_message(
            f"the batch's events, each of at least {MIN_EVENT_WEIGHT} bytes and with a copy of the batch's "
            f"context, integrations, anonymousId, are over {MAX_WEIGHT_BYTES} bytes: send fewer events at a time, or "
            "share less"
        )
    if not size:
        return None
    shared = {"context": envelope.context, "integrations": envelope.integrations, "anonymousId": envelope.anonymous_id}
    for name, raw in shared.items():
        if len(raw) > MAX_SHARED_BYTES:
            return TOO_LARGE.with_message(f"the batch's {name} is over {MAX_SHARED_BYTES} bytes: send less of it")
        if is_deeper_than(bytes(raw), MAX_EVENT_DEPTH - 1):
            return TOO_DEEP.with_message(f"the batch's {name} is nested over {MAX_EVENT_DEPTH - 1} deep")
    return None


def _weighs_too_much(draft: Draft, shared: int) -> bool:
    events = draft.events
    most = len(draft.body) + (MIN_EVENT_WEIGHT + shared) * len(events)  # a quick upper bound, usually enough
    return most > MAX_WEIGHT_BYTES and sum_weights([len(event) for event in events], shared) > MAX_WEIGHT_BYTES


def check_events_if_strict(draft: Draft) -> Refusal | None:
    """With X-Strict-Mode: 1, reject the whole request if any event would become a dead letter."""
    if draft.headers.get(b"x-strict-mode") != b"1":
        return None
    if not draft.in_thread and sum(map(len, draft.events)) > QUICK_CARE_BYTES:
        raise TakesLongError
    shared_id = bytes(draft.envelope.anonymous_id) if draft.batch else b""
    parsed = [parse_event(bytes(raw), draft.default_type, shared_id) for raw in draft.events]
    failed = [
        {"index": index, "reason": event.reason.value, "detail": event.detail}
        for index, event in enumerate(parsed)
        if isinstance(event, Rejected)
    ]
    if not failed:
        return None
    first = f" (the first {MAX_FAILED_RECORDS} are named)" if len(failed) > MAX_FAILED_RECORDS else ""
    message = (
        f"{len(failed)} of {len(parsed)} events are refused, so none was taken: "
        f"correct failed_records{first}, or leave out X-Strict-Mode"
    )
    return INVALID_EVENTS.with_message(message, tuple(failed[:MAX_FAILED_RECORDS]))


STEPS: tuple[Step, ...] = (
    inflate_body,
    split_events,
    check_origin,
    check_limits,
    check_events_if_strict,
)


# For most requests: those without headers that need the other steps.
_USUAL_STEPS: tuple[Step, ...] = (split_events, check_limits)


def _steps_for(draft: Draft) -> tuple[Step, ...]:
    headers = draft.headers
    if b"origin" in headers or b"content-encoding" in headers or b"x-strict-mode" in headers:
        return STEPS
    return _USUAL_STEPS if draft.body[:1] in _JSON_STARTS else STEPS


# --- parts ------------------------------------------------------------------------------------------------

GZIP_MAGIC = b"\x1f\x8b"
_JSON_STARTS = b"{ \r\n\t"  # of a JSON object
_PADDING = b"\0 \t\r\n"  # allowed after a compressed body
_PLAIN = frozenset({b"", b"identity"})
_ENCODINGS = _PLAIN | {b"gzip", b"x-gzip", b"deflate"}


def _is_compressed(body: bytes) -> bool:
    """Return whether a body starts like gzip or zlib, as no JSON does."""
    start = body[:2]
    return start == GZIP_MAGIC or (start[:1] == b"x" and int.from_bytes(start, "big") % 31 == 0)


def _inflate(body: bytes, most: int) -> bytes:
    """Inflate a body. Raises OverflowError past the limits, EOFError if it is truncated, else zlib.error."""
    window_bits = 47 if _is_compressed(body) else -15  # 47: gzip or zlib, by its header; -15: raw deflate
    view, at, room = memoryview(body), 0, most + 1
    parts: list[bytes] = []
    for _ in range(MAX_GZIP_MEMBERS):
        inflater = zlib.decompressobj(window_bits)
        while not inflater.eof:
            if at >= len(view):
                raise EOFError
            block = view[at : at + INFLATE_BLOCK_BYTES]
            part = inflater.decompress(block, room)
            parts.append(part)
            room -= len(part)
            if room <= 0:
                raise OverflowError
            at += len(block) - len(inflater.unused_data)
        if not bytes(view[at:]).strip(_PADDING):
            return b"".join(parts)
    raise OverflowError


def _key_elsewhere(draft: Draft) -> str | None:
    """Return the first non-blank key outside of Basic. Body fields that aren't text are skipped."""
    envelope = draft.envelope
    return (
        (envelope.write_key and (parse_text(envelope.write_key) or "").strip())
        or (draft.query_key and draft.query_key.strip())
        or _key_header(draft).strip()
        or (envelope.api_key and (parse_text(envelope.api_key) or "").strip())
        or None
    )


def _key_header(draft: Draft) -> str:
    return draft.headers.get(b"x-write-key", b"").decode("latin-1")


def _basic_user(authorization: bytes) -> tuple[bool, str | None]:
    """Return whether the header is HTTP Basic, and its user, None if unreadable. Padding is optional."""
    scheme, _, text = authorization.replace(b"\t", b" ").strip().partition(b" ")
    if scheme.lower() != b"basic":
        return False, None
    text = text.strip()
    try:
        user = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
        return True, user.decode().partition(":")[0].strip()
    except (binascii.Error, ValueError):
        return True, None


def _sent_at_header(headers: Headers) -> bytes:
    """Return the SentAt header of RudderStack's browser SDK, as JSON text; empty if absent."""
    value = headers.get(b"sentat")
    return msgspec.json.encode(value[:100].decode("latin-1")) if value else b""
