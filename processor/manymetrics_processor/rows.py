"""Event -> row, pure: the one place that knows which field becomes which column, and the formula of event_time.

A row is a tuple in the order of ``tables.EVENTS.columns``. Times are microseconds since 1970, UTC.
What has no column of its own ends in `context` or `extra`, as JSON text: nothing that was sent is lost.
"""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from manymetrics.events import NO_RAW, Event
from manymetrics.records import Stamp
from manymetrics_processor.context import (
    NO_BATCH_CONTEXT,
    BatchContext,
    Raws,
    context_columns,
    json_text,
    read_batch_context,
    read_object,
)

DAY_US = 86_400_000_000
MAX_AHEAD_US = DAY_US  # an event_time further ahead of received_at than this is a wrong clock
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # what names no zone is UTC
_from_iso = datetime.fromisoformat
_YEAR_1 = -62_135_596_800_000_000  # 0001-01-01, the first that every engine can print
_YEAR_10_000 = 253_402_300_800_000_000  # a zone can move the last day of 9999 there, which Python can't read back
_MILLISECONDS_FROM = 100_000_000_000  # epoch numbers above are milliseconds: in seconds they'd be the year 5138

Row = tuple[object, ...]


Place = tuple[str, str, str, int]
"""Where an event stands: stream, shard, sequence number (decimal), position in its record."""


def place_digest(place: Place) -> bytes:
    """16 bytes that name the place; the same on every delivery."""
    return hashlib.blake2b("\n".join(map(str, place)).encode(), digest_size=16).digest()


class Request(NamedTuple):
    """A record's stamp with its envelope read: done once for all events of the record, however long it is.

    ``integrations``: the members of what the batch says, None where it is no object. ``extra``: the column of an event
    that adds nothing to ``shared_integrations``. ``failure``: why none of its events has a row; empty mostly.
    """

    stamp: Stamp
    sent_at: int | None
    sent_at_unreadable: bytes
    context: BatchContext
    integrations: Raws | None
    shared_integrations: msgspec.Raw
    extra: str
    failure: str = ""


_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode


def read_request(stamp: Stamp) -> Request:
    """Read what the envelope says for all of its events."""
    time, unreadable = None, b""
    if stamp.sent_at and stamp.sent_at != b"null":
        time = parse_time(_scalar(stamp.sent_at))
        unreadable = stamp.sent_at if time is None else b""
    try:
        context, integrations, shared = read_batch_context(stamp), None, NO_RAW
        if stamp.integrations:
            integrations = read_object(stamp.integrations)
            shared = msgspec.Raw(stamp.integrations if integrations is None else _encode(integrations))
        extra = _encode({"integrations": shared}).decode() if shared else ""
    except (ValueError, RecursionError) as error:  # what can't be decoded: every event would say so
        return Request(stamp, time, unreadable, NO_BATCH_CONTEXT, None, NO_RAW, "", type(error).__name__)
    return Request(stamp, time, unreadable, context, integrations, shared, extra)


def row_of(event: Event, request: Request, place: Place) -> Row:
    """The row of an event that parse_event accepted."""
    stamp = request.stamp
    repairs = list(event.repairs) if event.repairs else []
    extra = _extra(event, request)

    sent_at = request.sent_at
    if event.sent_at is not None:
        sent_at = _time(event.sent_at, "sentAt", extra, repairs)
    elif request.sent_at_unreadable:
        extra["sentAt"] = msgspec.Raw(request.sent_at_unreadable)
        repairs.append("time_unreadable")
    if event.original_timestamp is None:
        original = _time(event.timestamp, "timestamp", extra, repairs)
    else:
        original = _time(event.original_timestamp, "originalTimestamp", extra, repairs)
        if event.timestamp is not None and event.timestamp != event.original_timestamp:
            extra["timestamp"] = msgspec.Raw(_encode(event.timestamp))
    event_time = _event_time(stamp.received_at, sent_at, original, repairs)

    message_id = event.message_id
    if not message_id:
        message_id = str(uuid.UUID(bytes=place_digest(place)))
        repairs.append("message_id_missing")

    columns, traits, context_rest = context_columns(event, stamp, request.context)
    return (
        message_id,
        stamp.project_id,
        event.type,
        stamp.received_at,
        event_time,
        (event.event if event.type == "track" else event.name) or None,
        event.user_id or None,
        event.anonymous_id or None,
        event.previous_id or None,
        event.group_id or None,
        sent_at,
        original,
        *columns,
        json_text(event.properties),
        traits,
        context_rest,
        _extra_text(extra, request) if extra else None,
        ",".join(sorted(set(repairs))) if repairs else None,
        stamp.key_kind,
        stamp.request_id,
        *place,
    )


def dedup_digest(project_id: object, message_id: object, key_kind: object) -> bytes:
    """16 bytes for (project, kind of key, exact message id). Cryptographic, so that nobody can make two ids collide.

    A browser key is public, so its ids must not meet a server key's. A project is not empty and holds no NUL: no
    browser's text begins with one. A row without a kind counts as a browser's.
    """
    text = f"{project_id}\0{message_id}"
    return hashlib.blake2b((f"\0{text}" if key_kind == "server" else text).encode(), digest_size=16).digest()


# --- time -------------------------------------------------------------------------------------------------


def _event_time(received_at: int, sent_at: int | None, original: int | None, repairs: list[str]) -> int:
    """Segment's formula, so that a wrong client clock doesn't matter; never over 24 h ahead of received_at."""
    if original is None:
        return received_at
    time = original if sent_at is None else received_at - (sent_at - original)
    if time > received_at + MAX_AHEAD_US or time < _YEAR_1:
        repairs.append("event_time_out_of_range")
        return received_at
    return time


def _time(value: str | float | None, name: str, extra: Raws, repairs: list[str]) -> int | None:
    if value is None:
        return None
    time = parse_time(value)
    if time is None:
        extra[name] = msgspec.Raw(_encode(value))
        repairs.append("time_unreadable")
    return time


def parse_time(value: object) -> int | None:
    """Microseconds of ISO 8601 text (UTC where it names no zone) or of epoch seconds or milliseconds."""
    try:
        if type(value) is str:
            moment = _from_iso(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value / 1000 if abs(value) > _MILLISECONDS_FROM else value
            moment = datetime.fromtimestamp(seconds, UTC)
        else:
            return None
        since = moment - (_EPOCH if moment.tzinfo else _NAIVE_EPOCH)
    except (ValueError, OverflowError, OSError):
        return None
    time = since.days * DAY_US + since.seconds * 1_000_000 + since.microseconds
    return time if _YEAR_1 <= time < _YEAR_10_000 else None


# --- extra ------------------------------------------------------------------------------------------------


def _extra(event: Event, request: Request) -> Raws:
    """Top-level fields that have no column. The write key is not one: it's a credential."""
    extra: Raws = dict(event.extra) if event.extra else {}
    if event.integrations:
        extra["integrations"] = _merged(event.integrations, request)
    elif request.shared_integrations:
        extra["integrations"] = request.shared_integrations
    for name, raw in (("category", event.category), ("_metadata", event.metadata), ("rudderId", event.rudder_id)):
        if raw:
            extra[name] = raw
    if event.type == "track":
        if event.name is not None:
            extra["name"] = msgspec.Raw(_encode(event.name))
    elif event.event is not None:
        extra["event"] = msgspec.Raw(_encode(event.event))
    return extra


def _merged(own: msgspec.Raw, request: Request) -> msgspec.Raw:
    """Both are objects: the event's keys win. Else: the event's."""
    inner = read_object(bytes(own)) if request.integrations is not None else None
    if request.integrations is None or inner is None:
        return own
    return msgspec.Raw(_encode({**request.integrations, **inner}))


def _extra_text(extra: Raws, request: Request) -> str:
    if len(extra) == 1 and extra.get("integrations") is request.shared_integrations:
        return request.extra
    return _encode(extra).decode()


def _scalar(raw: bytes) -> object:
    try:
        return _any.decode(raw)
    except msgspec.MsgspecError:
        return None
