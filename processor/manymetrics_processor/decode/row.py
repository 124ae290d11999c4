"""Convert an event to a row, pure: the only place that maps fields to columns, and computes event_time.

A row is a tuple in the order of ``tables.EVENTS.columns``. Times are microseconds since 1970, UTC.
Fields without a column go to `context` or `extra`, as JSON text: nothing that was sent is lost.
"""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from manymetrics.events import NO_RAW, PLACEHOLDER_ENDS, Event, is_placeholder, mend_json, needs_mending
from manymetrics.records import Stamp
from manymetrics_processor.decode.context import (
    ADDED_COLUMNS,
    CONTEXT_COLUMNS,
    NO_BATCH_CONTEXT,
    BatchContext,
    Raws,
    context_columns,
    json_text,
    read_batch_context,
    read_object,
)
from manymetrics_processor.decode.ids import Place, place_digest

DAY_US = 86_400_000_000
MAX_AHEAD_US = DAY_US  # an event_time further ahead of received_at indicates a wrong clock
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # times without a zone are UTC
_from_iso = datetime.fromisoformat
_YEAR_1 = -62_135_596_800_000_000  # 0001-01-01, the first day that every engine can print
_YEAR_10_000 = 253_402_300_800_000_000  # a zone can shift the last day of 9999 to it, which Python can't read back
_SECONDS_TO = 100_000_000_000  # the year 5138: larger epochs have a smaller unit, in which they are after 1973

Row = tuple[object, ...]


class Mended(NamedTuple):
    """The repairs in a field of the envelope. ``members``: the repaired members; None if it is not an object."""

    repairs: tuple[str, ...]
    members: frozenset[str] | None


class Request(NamedTuple):
    """A record's stamp with its envelope decoded, once for all events of the record.

    ``integrations``: the members of the batch's field, None if it is not an object. ``extra``: the column of an event
    that adds nothing to ``shared_integrations``. ``failure``: why none of the events has a row; mostly empty, as is
    ``mended``, which is by field of the stamp.
    """

    stamp: Stamp
    sent_at: int | None
    sent_at_written: object
    sent_at_unreadable: bytes
    context: BatchContext
    integrations: Raws | None
    shared_integrations: msgspec.Raw
    extra: str
    failure: str = ""
    mended: dict[str, Mended] | None = None


_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode


def read_request(stamp: Stamp) -> Request:
    """Decode the envelope, for all of its events."""
    time, written, unreadable, mended = None, None, b"", None
    try:
        if stamp.sent_at and stamp.sent_at != b"null":
            written = _scalar(stamp.sent_at)
            time = parse_time(written)
        if (stamp.sent_at and time is None) or stamp.context or stamp.integrations:
            stamp, mended = _mend(stamp)
            unreadable = stamp.sent_at if time is None and stamp.sent_at != b"null" else b""
        context, integrations, shared = read_batch_context(stamp), None, NO_RAW
        if stamp.integrations:
            integrations = read_object(stamp.integrations)
            shared = msgspec.Raw(stamp.integrations if integrations is None else _encode(integrations))
        extra = _encode({"integrations": shared}).decode() if shared else ""
    except (ValueError, RecursionError) as error:  # undecodable: every event would report it
        return Request(stamp, time, written, unreadable, NO_BATCH_CONTEXT, None, NO_RAW, "", type(error).__name__)
    return Request(stamp, time, written, unreadable, context, integrations, shared, extra, mended=mended)


def _mend(stamp: Stamp) -> tuple[Stamp, dict[str, Mended] | None]:
    """Repair the envelope's fields like those of an event. Raises ValueError."""
    texts, mended = {}, {}
    for name in ("sent_at", "context", "integrations"):
        raw: bytes = getattr(stamp, name)
        if raw and needs_mending(raw):
            text, repairs = mend_json(raw.decode())
            if repairs:
                texts[name] = text.encode()
                mended[name] = Mended(repairs, _mended_members(raw.decode(), texts[name]))
    return (msgspec.structs.replace(stamp, **texts), mended) if mended else (stamp, None)


def _mended_members(text: str, mended: bytes) -> frozenset[str] | None:
    """Return which members of an object ``mend_json`` changed."""
    members, marked = read_object(mended), read_object(mend_json(text, mark="0")[0].encode())
    if members is None or marked is None:
        return None
    return frozenset(name for name, raw in members.items() if bytes(raw) != bytes(marked.get(name, NO_RAW)))


def _shown_repairs(event: Event, mended: dict[str, Mended]) -> list[str]:
    """List the batch's repairs that show in this event's row: its own members replace them."""
    own: dict[str, msgspec.Raw] = {"context": event.context, "integrations": event.integrations}
    shown: list[str] = []
    for name, field in mended.items():
        if name == "sent_at":
            shown += field.repairs if _is_blank(event.sent_at) else ()
        elif not own[name]:
            shown += field.repairs
        elif field.members is not None:
            members = read_object(bytes(own[name]))
            shown += field.repairs if members is None or not field.members <= members.keys() else ()
    return shown


def make_row(event: Event, request: Request, place: Place) -> Row:
    """Make the row of an event that parse_event accepted."""
    stamp = request.stamp
    repairs = list(event.repairs) if event.repairs else []
    extra = _extra(event, request)
    if request.mended:
        repairs += _shown_repairs(event, request.mended)

    sent_at, original, event_time = _times(event, request, extra, repairs)

    message_id = event.message_id
    if not message_id:
        message_id = str(uuid.UUID(bytes=place_digest(place)))
        repairs.append("message_id_missing")

    if event.user_id and event.user_id[-1] in PLACEHOLDER_ENDS and is_placeholder(event.user_id):
        repairs.append("user_id_placeholder")
    if event.anonymous_id and event.anonymous_id[-1] in PLACEHOLDER_ENDS and is_placeholder(event.anonymous_id):
        repairs.append("anonymous_id_placeholder")
    if event.group_id and event.group_id[-1] in PLACEHOLDER_ENDS and is_placeholder(event.group_id):
        repairs.append("group_id_placeholder")
    if event.previous_id and event.previous_id[-1] in PLACEHOLDER_ENDS and is_placeholder(event.previous_id):
        repairs.append("previous_id_placeholder")

    columns, traits, context_rest = context_columns(event, stamp, request.context)
    if event.type == "identify" and event.traits and traits != (own := json_text(event.traits)) and own is not None:
        extra["traits"] = event.traits
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
        *columns[:_FIRST_ADDED],
        json_text(event.properties),
        traits,
        context_rest,
        _extra_text(extra, request) if extra else None,
        ",".join(sorted(set(repairs))) if repairs else None,
        stamp.key_kind,
        stamp.request_id,
        *place,
        *columns[_FIRST_ADDED:],
    )


_FIRST_ADDED = len(CONTEXT_COLUMNS) - len(ADDED_COLUMNS)  # context columns that older tables lack are the last


# --- time -------------------------------------------------------------------------------------------------


def _times(event: Event, request: Request, extra: Raws, repairs: list[str]) -> tuple[int | None, int | None, int]:
    """Compute sent_at, original_timestamp and event_time, in microseconds since 1970, UTC.

    Segment's formula corrects a wrong client clock: received_at - (sentAt - the client's time). But if an event has an
    originalTimestamp and a different timestamp, the latter is used unchanged: RudderStack's SDKs set the former to the
    time of the call, and the latter to the value given by their user. Never over 24 h ahead of received_at; and a
    result from a time without a zone, which may be local time, is never ahead of it.
    """
    received_at, sent_at, sent_as = request.stamp.received_at, request.sent_at, request.sent_at_written
    original, given = event.original_timestamp, event.timestamp
    if original == given:
        given = None
    if event.sent_at is None and (original is None or given is None) and not request.sent_at_unreadable:
        quick = _quick_time(original or given)
        if quick is not None and (sent_at is None or _names_zone(sent_as)):
            time = quick if sent_at is None else received_at - (sent_at - quick)
            if _YEAR_1 <= time <= received_at + MAX_AHEAD_US:
                return sent_at, quick, time
    if not _is_blank(event.sent_at):
        own = _time(event.sent_at, "sentAt", extra, repairs)
        if own is not None:
            sent_at, sent_as = own, event.sent_at
    elif request.sent_at_unreadable:
        extra["sentAt"] = msgspec.Raw(request.sent_at_unreadable)
        repairs.append("time_unreadable")
    if original is None or (_is_blank(original) and not _is_blank(given)):
        first = _time(given, "timestamp", extra, repairs)
        original, given = given, None
    else:
        first = _time(original, "originalTimestamp", extra, repairs)
    if not _is_blank(given) and given != original:
        second = _time(given, "timestamp", extra, repairs)
        if first is None:
            first, original = second, given
        elif second is not None and second != first:
            time = _checked(second, given, received_at, repairs)
            if time != second:
                extra["timestamp"] = msgspec.Raw(_encode(given))
            return sent_at, first, time
    if first is None or sent_at is None:
        return sent_at, first, _checked(first, original, received_at, repairs)
    return sent_at, first, _checked(received_at - (sent_at - first), original, received_at, repairs, sent_as)


def _quick_time(written: str | float | None) -> int | None:
    """Like ``parse_time``, for the form of nearly every client, 2026-01-02T03:04:05.678Z; None for any other."""
    if type(written) is not str or written[10:11] != "T" or written[-1:] != "Z":
        return None
    try:
        return _micros(_from_iso(written))
    except ValueError:
        return None


def _is_blank(value: str | float | None) -> bool:
    return value is None or (type(value) is str and (not value or value.isspace()))


def _checked(time: int | None, written: object, received_at: int, repairs: list[str], sent_as: object = None) -> int:
    """Limit ``time``. ``written``, ``sent_as``: the values it was computed from, as sent by the client."""
    if time is None:
        return received_at
    if time > received_at and not (_names_zone(written) and _names_zone(sent_as)):
        repairs.append("event_time_without_zone")
        return received_at
    if time > received_at + MAX_AHEAD_US or time < _YEAR_1:
        repairs.append("event_time_out_of_range")
        return received_at
    return time


def _names_zone(written: object) -> bool:
    """Return whether a time that parse_time accepted has a zone."""
    if type(written) is not str or (written[10:11] == "T" and written[-1:] == "Z"):  # nearly all
        return True
    return _is_epoch(written) or _ZONE.match(written) is not None


def _time(value: str | float | None, name: str, extra: Raws, repairs: list[str]) -> int | None:
    if value is None:
        return None
    time = parse_time(value)
    if time is None:
        extra[name] = msgspec.Raw(_encode(value))
        repairs.append("time_unreadable")
    elif type(value) is str and _is_epoch(value):
        repairs.append("time_epoch_text")
    return time


def parse_time(value: object) -> int | None:
    """Parse ISO 8601 text (UTC if it has no zone), or an epoch as a number or text, to microseconds.

    Surrounding blanks are ignored. The unit of an epoch is inferred from its size: seconds, milliseconds, microseconds
    or nanoseconds.
    """
    try:
        if type(value) is str:
            time = _of_text(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            time = _of_epoch(value)
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return time if _YEAR_1 <= time < _YEAR_10_000 else None


def _of_text(text: str) -> int:
    """Raises ValueError, OverflowError."""
    if text[10:11] in _SEPARATORS:  # nearly all
        try:
            return _micros(_from_iso(text))
        except ValueError:
            pass
    text = text.strip()
    if _is_epoch(text):
        return _of_epoch(float(text) if "." in text else int(text))
    if _DIGITS_ALONE.fullmatch(text):
        text = f"{text[:8]}T{text[8:14]}.{text[14:]}".rstrip(".")
    try:
        return _micros(_from_iso(text if _ISO_START.match(text) else ""))
    except ValueError:
        odd = _ODD_ISO.fullmatch(text)
        if odd is None:
            raise
    date, hour, minute, second, fraction, zone = odd.groups(default="")
    after = 0
    if hour == "24" and int(minute or 0) == int(second or 0) == int(fraction[1:] or 0):
        hour, after = "00", DAY_US
    if second == "60":  # a leap second: the beginning of the next second
        second, after = "59", after + 1_000_000
    clock = ":".join(part for part in (hour, minute, second) if part)
    return _micros(_from_iso(f"{date}T{clock}{fraction}{zone.upper().replace('UTC', 'Z').replace('GMT', 'Z')}")) + after


def _is_epoch(text: str) -> bool:
    if text[4:5] == "-":  # nearly all text is ISO 8601
        return False
    text = text.strip()
    return text[:9].isdigit() and _EPOCH_TEXT.fullmatch(text) is not None and not _DIGITS_ALONE.fullmatch(text)


def _of_epoch(value: float) -> int:
    """Raises ValueError, OverflowError."""
    size = abs(value)
    if size <= _SECONDS_TO:
        return round(value * 1_000_000)
    if size <= _SECONDS_TO * 1_000:
        return round(value * 1_000)
    return round(value) if size <= _SECONDS_TO * 1_000_000 else int(value // 1_000)


def _micros(moment: datetime) -> int:
    since = moment - (_EPOCH if moment.tzinfo else _NAIVE_EPOCH)
    return since.days * DAY_US + since.seconds * 1_000_000 + since.microseconds


_EPOCH_TEXT = re.compile(r"[0-9]{9,19}(?:\.[0-9]*)?", re.ASCII)  # eight digits are a date
# 20260314090000, and 202603140900: as epochs, the years 2612 and 1976
_DIGITS_ALONE = re.compile(
    r"(?:19|20)[0-9]{12}(?:[0-9]{3})?"
    r"|(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?:[01][0-9]|2[0-3])[0-5][0-9]",
    re.ASCII,
)
# fromisoformat accepts any character between date and time, and would read 1712011201530Z as a day of the year 1712.
_SEPARATORS = frozenset("Tt ")  # after a date of ten characters; shorter forms have none of these at that position
_ISO_START = re.compile(r"[0-9]{4}-?(?:[0-9]{2}-?[0-9]{2}|W[0-9]{2}(?:-?[0-9])?)(?:[Tt ]|\Z)", re.ASCII)
_ZONE = re.compile(  # after a time: the end of a date looks like one
    r"\s*[0-9W-]{7,10}(?:[Tt]|\s{1,9})[0-9][0-9:.,]*\s*(?:[zZ]|(?i:UTC|GMT)|[+-][0-9]{2}(?::?[0-9]{2}){0,2})\s*\Z",
    re.ASCII,
)
# Forms that fromisoformat does not accept: blanks, lower case, UTC (as printed by Ruby), 24:00, a leap second.
_ODD_ISO = re.compile(
    r"\s{0,100}(\d{4}-?\d{2}-?\d{2})(?:T|\s{1,9})(\d{2})(?::?(\d{2})(?::?(\d{2})([.,]\d{1,30})?)?)?"
    r"\s{0,9}(Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?\s{0,100}",
    re.ASCII | re.IGNORECASE,
)


# --- extra ------------------------------------------------------------------------------------------------


def _extra(event: Event, request: Request) -> Raws:
    """Collect the top-level fields without a column; not the write key, which records of older servers hold."""
    extra: Raws = dict(event.extra) if event.extra else {}
    extra.pop("api_key", None)
    if event.integrations:
        extra["integrations"] = _merged(event.integrations, request)
    elif request.shared_integrations:
        extra["integrations"] = request.shared_integrations
    if event.category:
        extra["category"] = event.category
    if event.metadata:
        extra["_metadata"] = event.metadata
    if event.rudder_id:
        extra["rudderId"] = event.rudder_id
    if event.type == "track":
        if event.name is not None:
            extra["name"] = msgspec.Raw(_encode(event.name))
    elif event.event is not None:
        extra["event"] = msgspec.Raw(_encode(event.event))
    return extra


def _merged(own: msgspec.Raw, request: Request) -> msgspec.Raw:
    """Merge two objects, in which the event's keys take precedence. If one is not an object, return the event's."""
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
