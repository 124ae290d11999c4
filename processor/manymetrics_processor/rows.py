"""Event -> row, pure: the one place that knows which field becomes which column, and the formula of event_time.

A row is a tuple in the order of ``tables.EVENTS.columns``. Times are microseconds since 1970, UTC.
What has no column of its own ends in `context` or `extra`, as JSON text: nothing that was sent is lost.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec

from manymetrics.events import NO_RAW, Event
from manymetrics.records import Stamp

DAY_US = 86_400_000_000
MAX_AHEAD_US = DAY_US  # an event_time further ahead of received_at than this is a wrong clock
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # what names no zone is UTC
_from_iso = datetime.fromisoformat
_YEAR_1 = -62_135_596_800_000_000  # 0001-01-01, the first that every engine can print
_YEAR_10_000 = 253_402_300_800_000_000  # a zone can move the last day of 9999 there, which Python can't read back
_MILLISECONDS_FROM = 100_000_000_000  # epoch numbers above are milliseconds: in seconds they'd be the year 5138

Row = tuple[object, ...]
Raws = dict[str, msgspec.Raw]


Place = tuple[str, str, str, int]
"""Where an event stands: stream, shard, sequence number (decimal), position in its record."""


def place_digest(place: Place) -> bytes:
    """16 bytes that name the place; the same on every delivery."""
    return hashlib.blake2b("\n".join(map(str, place)).encode(), digest_size=16).digest()


class Request(NamedTuple):
    """A record's stamp with its envelope read: done once for all events of the record."""

    stamp: Stamp
    sent_at: int | None
    sent_at_unreadable: bytes
    context: Raws
    context_not_an_object: bytes
    integrations: bytes


_raws = msgspec.json.Decoder(Raws)
_any = msgspec.json.Decoder()
_text = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode


def read_request(stamp: Stamp) -> Request:
    """Read what the envelope says for all of its events."""
    time, unreadable = None, b""
    if stamp.sent_at and stamp.sent_at != b"null":
        time = _parse_time(_scalar(stamp.sent_at))
        unreadable = stamp.sent_at if time is None else b""
    context = _object(stamp.context)
    rest = stamp.context if context is None else b""
    return Request(stamp, time, unreadable, context or {}, rest, stamp.integrations)


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

    columns, traits, context_rest = _context_columns(event, request)
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
        _json(event.properties),
        traits,
        context_rest,
        _encode(extra).decode() if extra else None,
        ",".join(sorted(set(repairs))) if repairs else None,
        stamp.key_kind,
        stamp.request_id,
        *place,
    )


def dedup_digest(project_id: object, message_id: object) -> bytes:
    """16 bytes for (project, exact message id). Cryptographic, so that nobody can make two ids collide."""
    return hashlib.blake2b(f"{project_id}\0{message_id}".encode(), digest_size=16).digest()


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
    time = _parse_time(value)
    if time is None:
        extra[name] = msgspec.Raw(_encode(value))
        repairs.append("time_unreadable")
    return time


def _parse_time(value: object) -> int | None:
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
    if event.integrations or request.integrations:
        extra["integrations"] = _merged(event.integrations, request.integrations)
    for name, raw in (("category", event.category), ("_metadata", event.metadata), ("rudderId", event.rudder_id)):
        if raw:
            extra[name] = raw
    if event.type == "track":
        if event.name is not None:
            extra["name"] = msgspec.Raw(_encode(event.name))
    elif event.event is not None:
        extra["event"] = msgspec.Raw(_encode(event.event))
    return extra


def _merged(own: msgspec.Raw, envelope: bytes) -> msgspec.Raw:
    """Both are objects: the event's keys win. Else: the event's, where it has any."""
    if not envelope:
        return own
    outer, inner = _object(envelope), _object(bytes(own))
    if own and (outer is None or inner is None):
        return own
    return msgspec.Raw(_encode({**outer, **(inner or {})})) if outer is not None else msgspec.Raw(envelope)


# --- context ----------------------------------------------------------------------------------------------


class _Strict(msgspec.Struct, gc=False, forbid_unknown_fields=True, rename="camel"):
    """A context object that has no more than columns: about every one, so it's worth a quick way."""


class _Named(_Strict):
    name: str | None = None
    version: str | None = None


class _App(_Strict):
    name: str | None = None
    version: str | None = None
    build: str | None = None


class _Device(_Strict):
    id: str | None = None
    type: str | None = None
    manufacturer: str | None = None
    model: str | None = None


class _Screen(_Strict):
    width: int | None = None
    height: int | None = None


class _Page(_Strict):
    url: str | None = None
    path: str | None = None
    title: str | None = None
    referrer: str | None = None
    search: str | None = None


class _Campaign(_Strict):
    name: str | None = None
    source: str | None = None
    medium: str | None = None
    term: str | None = None
    content: str | None = None


class _Context(_Strict):
    user_agent: str | None = None
    locale: str | None = None
    timezone: str | None = None
    channel: str | None = None
    library: _Named | None = None
    app: _App | None = None
    device: _Device | None = None
    os: _Named | None = None
    screen: _Screen | None = None
    page: _Page | None = None
    campaign: _Campaign | None = None
    session_id: str | None = None
    session_sequence: int | None = None
    attempt: int | None = None
    user_agent_data: msgspec.Raw = NO_RAW  # the one field without a column that about every browser sends


_strict_context = msgspec.json.Decoder(_Context)
_INT32, _INT64 = 2**31, 2**63


def _context_columns(event: Event, request: Request) -> tuple[Sequence[object], str | None, str | None]:
    """The columns from context_ip to attempt, the traits, and what is left of the context, as JSON text."""
    if not request.context and not request.context_not_an_object:
        quick = _quick_columns(event, request.stamp)
        if quick is not None:
            return quick
    context, rest = _context(event, request)
    columns, traits = _columns_with_care(context, event, request.stamp)
    return columns, traits, rest if rest is not None else (_encode(context).decode() if context else None)


def _quick_columns(event: Event, stamp: Stamp) -> tuple[Sequence[object], str | None, str | None] | None:
    """As _context_columns, for a context that holds just what has columns; None for any other."""
    try:
        context = _strict_context.decode(event.context) if event.context else _NO_CONTEXT
    except msgspec.ValidationError:
        return None
    page, screen = context.page, context.screen
    if page is None:
        page = _NO_PAGE
    if event.type == "page" and page == _NO_PAGE:
        return None  # its properties say it
    if screen is None:
        screen = _NO_SCREEN
    elif not (_fits(screen.width, _INT32) and _fits(screen.height, _INT32)):
        return None
    if not (_fits(context.attempt, _INT32) and _fits(context.session_sequence, _INT64)):
        return None
    agent = context.user_agent
    if agent is None and stamp.key_kind == "browser":
        agent = stamp.user_agent
    library, os = context.library or _NO_NAMED, context.os or _NO_NAMED
    app, device, campaign = context.app or _NO_APP, context.device or _NO_DEVICE, context.campaign or _NO_CAMPAIGN
    columns = (
        stamp.ip,
        agent,
        context.locale,
        context.timezone,
        event.channel if context.channel is None else context.channel,
        library.name,
        library.version,
        app.name,
        app.version,
        app.build,
        device.id,
        device.type,
        device.manufacturer,
        device.model,
        os.name,
        os.version,
        screen.width,
        screen.height,
        page.url,
        page.path,
        page.title,
        page.referrer,
        page.search,
        campaign.name,
        campaign.source,
        campaign.medium,
        campaign.term,
        campaign.content,
        context.session_id,
        context.session_sequence,
        context.attempt,
    )
    rest = f'{{"userAgentData":{str(context.user_agent_data, "utf-8")}}}' if context.user_agent_data else None
    return columns, _json(event.traits), rest


_NO_CONTEXT, _NO_NAMED, _NO_APP, _NO_DEVICE = _Context(), _Named(), _App(), _Device()
_NO_SCREEN, _NO_PAGE, _NO_CAMPAIGN = _Screen(), _Page(), _Campaign()


def _fits(value: int | None, limit: int) -> bool:
    return value is None or -limit <= value < limit


def _context(event: Event, request: Request) -> tuple[Raws, str | None]:
    """The event's context over its batch's; and the text itself where it is no object."""
    own = event.context
    if not own:
        return dict(request.context), request.context_not_an_object.decode() or None
    context = _object(bytes(own))
    if context is None:
        return dict(request.context), bytes(own).decode()
    return {**request.context, **context}, None


def _columns_with_care(context: Raws, event: Event, stamp: Stamp) -> tuple[list[object], str | None]:
    """As _context_columns, for any context; takes what has a column out of ``context``."""
    ip = stamp.ip
    if stamp.key_kind == "server":
        ip = _take_text(context, "ip") or ip
    agent = _take_text(context, "userAgent")
    if agent is None and stamp.key_kind == "browser":
        agent = stamp.user_agent
    channel = _take_text(context, "channel")
    columns: list[object] = [
        ip,
        agent,
        _take_text(context, "locale"),
        _take_text(context, "timezone"),
        event.channel if channel is None else channel,
    ]
    for group, names in _GROUPS.items():
        raw = bytes(context.get(group, NO_RAW))
        read = _read_group if len(raw) <= _MAX_CACHED_BYTES else _read_group.__wrapped__
        values, rest = read(group, raw) if raw else ([None] * len(names), b"")
        columns += values
        if rest:
            context[group] = msgspec.Raw(rest)
        elif raw:
            del context[group]
    if event.type == "page":
        _fill_page(columns, event.properties)
    columns.append(_take_text(context, "sessionId"))
    columns.append(_take_int(context, "sessionSequence", _INT64))
    columns.append(_take_int(context, "attempt", _INT32))
    traits = _json(event.traits)
    if traits is None and event.type == "identify" and "traits" in context:  # rudder-sdk-python has them there
        traits = _json(context.pop("traits"))
    return columns, traits


# What a context's objects hold, in the order of the columns.
_GROUPS: dict[str, tuple[str, ...]] = {
    "library": ("name", "version"),
    "app": ("name", "version", "build"),
    "device": ("id", "type", "manufacturer", "model"),
    "os": ("name", "version"),
    "screen": ("width", "height"),
    "page": ("url", "path", "title", "referrer", "search"),
    "campaign": ("name", "source", "medium", "term", "content"),
}
_PAGE_AT = 5 + sum(len(_GROUPS[group]) for group in ("library", "app", "device", "os", "screen"))
_MAX_CACHED_BYTES = 1_024  # with the 8,192 entries below: a bound on what strangers can make us remember


@lru_cache(maxsize=8_192)
def _read_group(group: str, raw: bytes) -> tuple[list[object], bytes]:
    """A nested object's columns, and the JSON of what has none (all of it where it is no object).

    Cached, since the same library, device or screen comes with every event of a client. Don't change the list.
    """
    names = _GROUPS[group]
    fields = _object(raw)
    if fields is None:
        return [None] * len(names), b"" if raw == b"null" else raw
    take: Callable[[Raws, str], object] = _take_pixels if group == "screen" else _take_text
    values = [take(fields, name) for name in names]
    return values, _encode(fields) if fields else b""


def _fill_page(columns: list[object], properties: msgspec.Raw) -> None:
    """Where there is no context.page: what a page event says of itself in its properties, which keep it too."""
    names = _GROUPS["page"]
    end = _PAGE_AT + len(names)
    if columns[_PAGE_AT:end] == [None] * len(names):
        fields = _object(bytes(properties)) or {}
        columns[_PAGE_AT:end] = [_take_text(fields, name) for name in names]


def _take_text(fields: Raws, name: str) -> str | None:
    """Take a field out as text (a number as it is written). Other values stay, but for null."""
    raw = bytes(fields.get(name, NO_RAW))
    first = raw[:1]
    if first == b'"':
        del fields[name]
        return _text.decode(raw)
    if first == b"n":
        del fields[name]
    elif first in _DIGITS:
        del fields[name]
        return raw.decode()
    return None


def _take_int(fields: Raws, name: str, limit: int) -> int | None:
    """Take a whole number from -limit to limit - 1 out. Other values stay, but for null."""
    if name not in fields:
        return None
    try:
        value = _any.decode(fields[name])
    except msgspec.ValidationError:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and _fits(value, limit)):
        del fields[name]
        return value
    return None


def _take_pixels(fields: Raws, name: str) -> int | None:
    return _take_int(fields, name, _INT32)


_DIGITS = frozenset(bytes([digit]) for digit in b"-0123456789")


def _object(raw: bytes) -> Raws | None:
    if not raw or raw == b"null":
        return {}
    try:
        return _raws.decode(raw)
    except msgspec.ValidationError:
        return None


def _scalar(raw: bytes) -> object:
    try:
        return _any.decode(raw)
    except msgspec.MsgspecError:
        return None


def _json(raw: msgspec.Raw) -> str | None:
    text = str(raw, "utf-8") if raw else "null"
    return None if text == "null" else text
