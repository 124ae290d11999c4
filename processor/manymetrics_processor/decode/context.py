"""Split a context into its columns, and the JSON text of the rest.

There are two paths with the same result. The fast path reads contexts in which every field has a column, which is true
of nearly all; the careful path splits any JSON, field by field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from operator import attrgetter
from typing import Annotated, Any, NamedTuple, cast

import msgspec

from manymetrics.events import NO_RAW, Event
from manymetrics.records import Stamp
from manymetrics.tables import EVENTS, Column

Raws = dict[str, msgspec.Raw]

_raws = msgspec.json.Decoder(Raws)
_any = msgspec.json.Decoder()
_text = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode


def _split(column: Column) -> tuple[str, str]:
    """Return the object that holds a column's value, and its name there."""
    group, _, leaf = column.path.removeprefix("context.").rpartition(".")
    return group, leaf


Columns = tuple[Sequence[object], str | None, str | None]
"""The values of CONTEXT_COLUMNS, the traits, and what is left of the context, as JSON text."""


_Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Strict(msgspec.Struct, gc=False, frozen=True, forbid_unknown_fields=True):
    """A context object in which every field has a column, as in nearly all: worth a fast path."""


_COLUMNS = tuple(column for column in EVENTS.columns if column.path)
CONTEXT_COLUMNS = tuple(column.name for column in _COLUMNS)
# By containing object; "" for the context itself.
_GROUPS: dict[str, tuple[Column, ...]] = {
    group: tuple(column for column in _COLUMNS if _split(column)[0] == group)
    for group in dict.fromkeys(_split(column)[0] for column in _COLUMNS)
}
_FLAT = _GROUPS.pop("")
_IP, _IP_AT = "context_ip", CONTEXT_COLUMNS.index("context_ip")
_AGENT_AT, _CHANNEL_AT = map(CONTEXT_COLUMNS.index, ("context_user_agent", "context_channel"))
_TYPES: dict[str, Any] = {"string": str | None, "int": _Int32 | None, "long": _Int64 | None}


def _field(column: Column) -> tuple[str, Any, Any]:
    """Define a strict struct's field. An IP address needs care, as only a server key may set it."""
    leaf = _split(column)[1]
    return (leaf, msgspec.Raw, NO_RAW) if column.name == _IP else (leaf, _TYPES[column.type], None)


def _define(name: str, fields: Iterable[tuple[str, Any, Any]]) -> type[_Strict]:
    return cast("type[_Strict]", msgspec.defstruct(name, fields, bases=(_Strict,), gc=False, frozen=True))


_GROUP_TYPES = {group: _define(group, map(_field, columns)) for group, columns in _GROUPS.items()}
_Context = _define(
    "_Context",
    [
        *map(_field, _FLAT),
        *((group, kind, kind()) for group, kind in _GROUP_TYPES.items()),
        ("userAgentData", msgspec.Raw, NO_RAW),  # the only field without a column that nearly every browser sends
    ],
)
_values: Callable[[_Strict], tuple[Any, ...]] = attrgetter(
    *(column.path.removeprefix("context.") for column in _COLUMNS)
)


class BatchContext(NamedTuple):
    """A batch's context, for its events: ``outer``, or ``outer_text`` if it is not an object.

    The other fields are computed once, for all events without a context. ``columns`` must not be changed; it is None if
    they can't be read, which each event then reports. ``rest`` is the JSON text of fields without a column,
    ``rest_of_identify`` the same without ``traits``, which become the event's.
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
    """Read the batch's context, once for all of its events. Raises msgspec.DecodeError."""
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
    rest = _to_json_text(left)
    traits = left.pop("traits", None)
    return BatchContext(outer, b"", columns, rest, rest if traits is None else _to_json_text(left), traits)


NO_BATCH_CONTEXT = BatchContext({}, b"", [], None, None, None)


def context_columns(event: Event, stamp: Stamp, batch: BatchContext) -> Columns:
    """Return the columns of an event's context merged over that of its batch."""
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
        traits = json_text(context.pop("traits"))  # where rudder-sdk-python puts them
    return _of_event(columns, event), traits, rest if rest is not None else _to_json_text(context)


def _columns_of_batch(columns: list[object], event: Event, batch: BatchContext) -> Columns:
    """Like ``context_columns``, for an event without a context: reuses long values of the batch."""
    traits, rest = json_text(event.traits), batch.rest
    if batch.traits is not None and _may_have_traits_elsewhere(event) and _are_better_traits(batch.traits, traits):
        traits, rest = json_text(batch.traits), batch.rest_of_identify
    return _of_event(columns, event), traits, rest


def _may_have_traits_elsewhere(event: Event) -> bool:
    return event.type == "identify" and not _has_keys(event.traits)


def _are_better_traits(raw: msgspec.Raw, traits: str | None) -> bool:
    """Return whether to use the context's traits: if the event's own are not a non-empty object."""
    return _has_keys(raw) or (traits is None and bool(raw))


def _has_keys(raw: msgspec.Raw) -> bool:
    text = bytes(raw)
    return text[:1] == b"{" and b'"' in text


def _of_event(columns: list[object], event: Event) -> list[object]:
    """Fill columns that the context leaves empty from the event's other fields."""
    if columns[_CHANNEL_AT] is None:
        columns[_CHANNEL_AT] = event.channel
    if event.type == "page":
        _fill_page(columns, event.properties)
    return columns


def _to_json_text(context: Raws) -> str | None:
    return _encode(context).decode() if context else None


def _quick_columns(event: Event, stamp: Stamp) -> Columns | None:
    """Like ``context_columns``, for a context in which every field has a column; None for any other."""
    try:
        context = _strict_context.decode(event.context) if event.context else _NO_CONTEXT
    except msgspec.ValidationError:
        return None
    columns = list(_values(context))
    if columns[_IP_AT] or (event.type == "page" and [columns[at] for at in _PAGE_AT] == _NO_PAGE):
        return None  # its properties have the values
    columns[_IP_AT] = stamp.ip
    if columns[_AGENT_AT] is None and stamp.key_kind == "browser":
        columns[_AGENT_AT] = stamp.user_agent
    if columns[_CHANNEL_AT] is None:
        columns[_CHANNEL_AT] = event.channel
    data: msgspec.Raw = context.userAgentData  # type: ignore[attr-defined]  # as _Context is defined
    rest = f'{{"userAgentData":{str(data, "utf-8")}}}' if data else None
    return columns, json_text(event.traits), rest


_NO_CONTEXT = _Context()
_PAGE_AT = [CONTEXT_COLUMNS.index(column.name) for column in _GROUPS["page"]]
_NO_PAGE: list[object] = [None] * len(_GROUPS["page"])


def _merged_context(event: Event, batch: BatchContext) -> tuple[Raws, str | None]:
    """Merge the event's context over its batch's; also returns the text itself if it is not an object."""
    own = event.context
    if not own:
        return dict(batch.outer), None
    context = read_object(bytes(own))
    if context is None:
        return dict(batch.outer), bytes(own).decode()
    return {**batch.outer, **context}, None


def _columns_with_care(context: Raws, stamp: Stamp) -> list[object]:
    """Return the columns of any context, removing them from it."""
    columns = {column.name: _TAKE[column.type](context, _split(column)[1]) for column in _FLAT if column.name != _IP}
    ip = _take_text(context, "ip") if stamp.key_kind == "server" else None  # a page can't override the IP address
    columns[_IP] = ip or stamp.ip
    if columns["context_user_agent"] is None and stamp.key_kind == "browser":
        columns["context_user_agent"] = stamp.user_agent
    for group in _GROUPS:
        raw = bytes(context.get(group, NO_RAW))
        read = _read_group if len(raw) <= _MAX_CACHED_BYTES else _read_group.__wrapped__
        values, rest = read(group, raw) if raw else ({}, b"")
        columns.update(values)
        if rest:
            context[group] = msgspec.Raw(rest)
        elif raw:
            del context[group]
    return list(map(columns.get, CONTEXT_COLUMNS))


_MAX_CACHED_BYTES = 1_024  # with the 8,192 entries below, this bounds the memory that clients can make us use


@lru_cache(maxsize=8_192)
def _read_group(group: str, raw: bytes) -> tuple[dict[str, object], bytes]:
    """Return a nested object's columns, and the JSON of the rest (all of it if it is not an object).

    Cached, since every event of a client has the same library, device or screen. Don't change the dict.
    """
    fields = read_object(raw)
    if fields is None:
        return {}, b"" if raw == b"null" else raw
    values = {column.name: _TAKE[column.type](fields, _split(column)[1]) for column in _GROUPS[group]}
    return values, _encode(fields) if fields else b""


def _fill_page(columns: list[object], properties: msgspec.Raw) -> None:
    """Without a context.page, fill the page columns from a page event's properties, which keep them too."""
    if [columns[at] for at in _PAGE_AT] == _NO_PAGE:
        fields = read_object(bytes(properties)) or {}
        for at, column in zip(_PAGE_AT, _GROUPS["page"], strict=True):
            columns[at] = _take_text(fields, _split(column)[1])


def _take_text(fields: Raws, name: str) -> str | None:
    """Remove and return a field as text (a number as written). Other values stay, except null."""
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
    """Remove and return a whole number from -limit to limit - 1, also from text. Other values stay, except null."""
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


ADDED_COLUMNS = tuple(column for column in _COLUMNS if column.added)


def take_added(context: str) -> tuple[dict[str, object], str | None]:
    """Return the values of ADDED_COLUMNS that an older processor left in a context, and the context without them.

    Text that is not a JSON object, which other writers may store, is unchanged.
    """
    try:
        return _take_added(context)
    except (msgspec.DecodeError, RecursionError):
        return {}, context


def _take_added(context: str) -> tuple[dict[str, object], str | None]:
    left = read_object(context.encode())
    if left is None:
        return {}, context
    values: dict[str, object] = {}
    for column in ADDED_COLUMNS:
        group, leaf = _split(column)
        inner = read_object(bytes(left.get(group, NO_RAW))) if group else left
        if inner is None or leaf not in inner:
            continue
        values[column.name] = _TAKE[column.type](inner, leaf)
        if group and inner:
            left[group] = msgspec.Raw(_encode(inner))
        elif group:
            del left[group]
    return values, _to_json_text(left)


_TAKE: dict[str, Callable[[Raws, str], Any]] = {
    "string": _take_text,
    "int": partial(_take_int, limit=_INT32),
    "long": partial(_take_int, limit=_INT64),
}
_WHOLE = re.compile(r"\s{0,9}-?[0-9]{1,19}(?:\.0*)?\s{0,9}", re.ASCII)
_DIGITS = frozenset(bytes([digit]) for digit in b"-0123456789")


def read_object(raw: bytes) -> Raws | None:
    """Return a JSON object's members; an empty dict for null or nothing, None for other values."""
    if not raw or raw == b"null":
        return {}
    try:
        return _raws.decode(raw)
    except msgspec.ValidationError:
        return None


def json_text(raw: msgspec.Raw) -> str | None:
    """Return a JSON value as stored in a column; None for null or nothing."""
    text = str(raw, "utf-8") if raw else "null"
    return None if text == "null" else text
