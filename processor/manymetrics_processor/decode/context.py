"""A context -> its columns, and the JSON text of what has none.

Two ways with the same answer. The quick way reads a context that holds no more than has columns, which about every
one does; the careful way takes any JSON apart, piece by piece.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, NamedTuple

import msgspec

from manymetrics.events import NO_RAW, Event
from manymetrics.records import Stamp

Raws = dict[str, msgspec.Raw]

_raws = msgspec.json.Decoder(Raws)
_any = msgspec.json.Decoder()
_text = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode

Columns = tuple[Sequence[object], str | None, str | None]
"""The columns from context_ip to attempt, the traits, and what is left of the context, as JSON text."""


_Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


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
    width: _Int32 | None = None
    height: _Int32 | None = None


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
    session_sequence: _Int64 | None = None
    attempt: _Int32 | None = None
    user_agent_data: msgspec.Raw = NO_RAW  # the one field without a column that about every browser sends


class BatchContext(NamedTuple):
    """What a batch's context says for its events: ``outer``, or ``outer_text`` where it is no object.

    The rest is made once, and is that of each event without a context of its own. ``columns`` is not to be changed, and
    None where they can't be read: then each event finds that out. ``rest`` is the JSON text of what has no column,
    ``rest_of_identify`` without ``traits``, which become the event's.
    """

    outer: Raws
    outer_text: bytes
    columns: list[object] | None
    rest: str | None
    rest_of_identify: str | None
    traits: msgspec.Raw | None


_strict_context = msgspec.json.Decoder(_Context)
_INT32, _INT64 = 2**31, 2**63


def read_batch_context(stamp: Stamp) -> BatchContext:
    """Read what the batch's context says, once for all of its events. Raises msgspec.DecodeError."""
    if not stamp.context:
        return NO_BATCH_CONTEXT
    outer = read_object(stamp.context)
    if outer is None:
        text = stamp.context.decode()
        return BatchContext({}, stamp.context, _columns_with_care({}, stamp), text, text, None)
    left = dict(outer)
    try:
        columns = _columns_with_care(left, stamp)
    except msgspec.DecodeError:
        return BatchContext(outer, b"", None, None, None, None)
    rest = _text_of(left)
    traits = left.pop("traits", None)
    return BatchContext(outer, b"", columns, rest, rest if traits is None else _text_of(left), traits)


NO_BATCH_CONTEXT = BatchContext({}, b"", [], None, None, None)


def context_columns(event: Event, stamp: Stamp, batch: BatchContext) -> Columns:
    """The columns of an event's context over that of its batch."""
    if not batch.outer and not batch.outer_text:
        quick = _quick_columns(event, stamp)
        if quick is not None:
            return quick
    elif not event.context and batch.columns is not None:
        return _columns_of_batch(batch.columns.copy(), event, batch)
    context, rest = _merged_context(event, batch)
    columns = _columns_with_care(context, stamp)
    traits = json_text(event.traits)
    if _may_have_traits_elsewhere(event) and _are_better_traits(context.get("traits", NO_RAW), traits):
        traits = json_text(context.pop("traits"))  # rudder-sdk-python has them there
    return _of_event(columns, event), traits, rest if rest is not None else _text_of(context)


def _columns_of_batch(columns: list[object], event: Event, batch: BatchContext) -> Columns:
    """As context_columns, for an event without a context of its own: nothing that is long is made again."""
    traits, rest = json_text(event.traits), batch.rest
    if batch.traits is not None and _may_have_traits_elsewhere(event) and _are_better_traits(batch.traits, traits):
        traits, rest = json_text(batch.traits), batch.rest_of_identify
    return _of_event(columns, event), traits, rest


def _may_have_traits_elsewhere(event: Event) -> bool:
    return event.type == "identify" and not _has_keys(event.traits)


def _are_better_traits(raw: msgspec.Raw, traits: str | None) -> bool:
    """Whether a context's are taken, where the event's own are no object with keys, which alone says something."""
    return _has_keys(raw) or (traits is None and bool(raw))


def _has_keys(raw: msgspec.Raw) -> bool:
    text = bytes(raw)
    return text[:1] == b"{" and b'"' in text


def _of_event(columns: list[object], event: Event) -> list[object]:
    """What the event says outside of a context, where that says nothing."""
    if columns[_CHANNEL_AT] is None:
        columns[_CHANNEL_AT] = event.channel
    if event.type == "page":
        _fill_page(columns, event.properties)
    return columns


def _text_of(context: Raws) -> str | None:
    return _encode(context).decode() if context else None


def _quick_columns(event: Event, stamp: Stamp) -> Columns | None:
    """As context_columns, for a context that holds just what has columns; None for any other."""
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
    return columns, json_text(event.traits), rest


_NO_CONTEXT, _NO_NAMED, _NO_APP, _NO_DEVICE = _Context(), _Named(), _App(), _Device()
_NO_SCREEN, _NO_PAGE, _NO_CAMPAIGN = _Screen(), _Page(), _Campaign()


def _merged_context(event: Event, batch: BatchContext) -> tuple[Raws, str | None]:
    """The event's context over its batch's; and the text itself where it is no object."""
    own = event.context
    if not own:
        return dict(batch.outer), None
    context = read_object(bytes(own))
    if context is None:
        return dict(batch.outer), bytes(own).decode()
    return {**batch.outer, **context}, None


def _columns_with_care(context: Raws, stamp: Stamp) -> list[object]:
    """The columns of any context, which are taken out of it."""
    ip = stamp.ip
    if stamp.key_kind == "server":
        ip = _take_text(context, "ip") or ip
    agent = _take_text(context, "userAgent")
    if agent is None and stamp.key_kind == "browser":
        agent = stamp.user_agent
    columns: list[object] = [
        ip,
        agent,
        _take_text(context, "locale"),
        _take_text(context, "timezone"),
        _take_text(context, "channel"),
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
    columns.append(_take_text(context, "sessionId"))
    columns.append(_take_int(context, "sessionSequence", _INT64))
    columns.append(_take_int(context, "attempt", _INT32))
    return columns


_CHANNEL_AT = 4
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
    fields = read_object(raw)
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
        fields = read_object(bytes(properties)) or {}
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
    """Take a whole number from -limit to limit - 1 out, also of text. Other values stay, but for null."""
    if name not in fields:
        return None
    try:
        value = _any.decode(fields[name])
    except msgspec.ValidationError:
        return None
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value.partition(".")[0])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and -limit <= value < limit):
        del fields[name]
        return value
    return None


def _take_pixels(fields: Raws, name: str) -> int | None:
    return _take_int(fields, name, _INT32)


_WHOLE = re.compile(r"\s{0,9}-?[0-9]{1,19}(?:\.0*)?\s{0,9}", re.ASCII)
_DIGITS = frozenset(bytes([digit]) for digit in b"-0123456789")


def read_object(raw: bytes) -> Raws | None:
    """A JSON object's members: none for null or nothing. None for what is no object."""
    if not raw or raw == b"null":
        return {}
    try:
        return _raws.decode(raw)
    except msgspec.ValidationError:
        return None


def json_text(raw: msgspec.Raw) -> str | None:
    """A JSON value as a column holds it; None for null or nothing."""
    text = str(raw, "utf-8") if raw else "null"
    return None if text == "null" else text
