"""A context -> its columns, and the JSON text of what has none.

Two ways with the same answer. The quick way reads a context that holds no more than has columns, which about every
one does; the careful way takes any JSON apart, piece by piece.
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
    """The object that holds a column's value, and its name there."""
    group, _, leaf = column.path.removeprefix("context.").rpartition(".")
    return group, leaf


Columns = tuple[Sequence[object], str | None, str | None]
"""The values of CONTEXT_COLUMNS, the traits, and what is left of the context, as JSON text."""


_Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _Strict(msgspec.Struct, gc=False, frozen=True, forbid_unknown_fields=True):
    """A context object that has no more than columns: about every one, so it's worth a quick way."""


_COLUMNS = tuple(column for column in EVENTS.columns if column.path)
CONTEXT_COLUMNS = tuple(column.name for column in _COLUMNS)
# By the object that holds them; "" for the context itself.
_GROUPS: dict[str, tuple[Column, ...]] = {
    group: tuple(column for column in _COLUMNS if _split(column)[0] == group)
    for group in dict.fromkeys(_split(column)[0] for column in _COLUMNS)
}
_FLAT = _GROUPS.pop("")
_IP, _IP_AT = "context_ip", CONTEXT_COLUMNS.index("context_ip")
_AGENT_AT, _CHANNEL_AT = map(CONTEXT_COLUMNS.index, ("context_user_agent", "context_channel"))
_TYPES: dict[str, Any] = {"string": str | None, "int": _Int32 | None, "long": _Int64 | None}


def _field(column: Column) -> tuple[str, Any, Any]:
    """Define a strict struct's field. An address is read with care, as only a server may set it."""
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
        ("userAgentData", msgspec.Raw, NO_RAW),  # the one field without a column that about every browser sends
    ],
)
_values: Callable[[_Strict], tuple[Any, ...]] = attrgetter(
    *(column.path.removeprefix("context.") for column in _COLUMNS)
)


class BatchContext(NamedTuple):
    """A batch's context, for its events: ``outer``, or ``outer_text`` where it is no object.

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
    rest = _to_json_text(left)
    traits = left.pop("traits", None)
    return BatchContext(outer, b"", columns, rest, rest if traits is None else _to_json_text(left), traits)


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
    return _of_event(columns, event), traits, rest if rest is not None else _to_json_text(context)


def _columns_of_batch(columns: list[object], event: Event, batch: BatchContext) -> Columns:
    """Like ``context_columns``, for an event without a context of its own: nothing that is long is made again."""
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
    """Fill columns that the context leaves empty from the event's other fields."""
    if columns[_CHANNEL_AT] is None:
        columns[_CHANNEL_AT] = event.channel
    if event.type == "page":
        _fill_page(columns, event.properties)
    return columns


def _to_json_text(context: Raws) -> str | None:
    return _encode(context).decode() if context else None


def _quick_columns(event: Event, stamp: Stamp) -> Columns | None:
    """Like ``context_columns``, for a context that holds just what has columns; None for any other."""
    try:
        context = _strict_context.decode(event.context) if event.context else _NO_CONTEXT
    except msgspec.ValidationError:
        return None
    columns = list(_values(context))
    if columns[_IP_AT] or (event.type == "page" and [columns[at] for at in _PAGE_AT] == _NO_PAGE):
        return None  # its properties say it
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
    columns = {column.name: _TAKE[column.type](context, _split(column)[1]) for column in _FLAT if column.name != _IP}
    ip = _take_text(context, "ip") if stamp.key_kind == "server" else None  # a page doesn't say whose address counts
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


_MAX_CACHED_BYTES = 1_024  # with the 8,192 entries below: a bound on what strangers can make us remember


@lru_cache(maxsize=8_192)
def _read_group(group: str, raw: bytes) -> tuple[dict[str, object], bytes]:
    """A nested object's columns, and the JSON of what has none (all of it where it is no object).

    Cached, since the same library, device or screen comes with every event of a client. Don't change the dict.
    """
    fields = read_object(raw)
    if fields is None:
        return {}, b"" if raw == b"null" else raw
    values = {column.name: _TAKE[column.type](fields, _split(column)[1]) for column in _GROUPS[group]}
    return values, _encode(fields) if fields else b""


def _fill_page(columns: list[object], properties: msgspec.Raw) -> None:
    """Where there is no context.page: what a page event says of itself in its properties, which keep it too."""
    if [columns[at] for at in _PAGE_AT] == _NO_PAGE:
        fields = read_object(bytes(properties)) or {}
        for at, column in zip(_PAGE_AT, _GROUPS["page"], strict=True):
            columns[at] = _take_text(fields, _split(column)[1])


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


ADDED_COLUMNS = tuple(column for column in _COLUMNS if column.added)


def take_added(context: str) -> tuple[dict[str, object], str | None]:
    """The values of ADDED_COLUMNS in what an older processor left of a context, and what is left without them.

    Text that is no JSON object, as others may write it, stays as it is.
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
