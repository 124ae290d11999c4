"""Event -> row: when it happened, what has a column, and that nothing which was sent is lost."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from manymetrics.events import Rejected, parse_event
from manymetrics.outcomes import Reason
from manymetrics.records import Stamp, pack
from manymetrics.tables import EVENTS
from manymetrics_processor.decode import context as reading
from manymetrics_processor.decode.batch import StreamRecord, decode, encode_stamp, row_or_rejected
from manymetrics_processor.decode.ids import dedup_digest, place_digest
from manymetrics_processor.decode.row import Row, make_row, read_request

PLACE = ("local:1", "shard-0", "7", 3)
RECEIVED = datetime(2026, 3, 14, 12, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def row(fields: dict[str, Any], **stamp: Any) -> dict[str, object]:  # noqa: ANN401  # what a stamp takes
    """The row of a track event with these fields, by column."""
    return by_column(row_of_event({"type": "track", "event": "E", "userId": "u", **fields}, **stamp))


def row_of_event(event: dict[str, Any], **stamp: Any) -> Row:  # noqa: ANN401  # what a stamp takes
    given = {"received_at": micros(RECEIVED), "request_id": "r-1", "project_id": "shop", "key_kind": "server", **stamp}
    parsed = parse_event(msgspec.json.encode(event))
    assert not isinstance(parsed, Rejected)
    return make_row(parsed, read_request(Stamp(**given)), PLACE)


def by_column(values: Row) -> dict[str, object]:
    return dict(zip((column.name for column in EVENTS.row_columns), values, strict=True))


# --- event_time -------------------------------------------------------------------------------------------

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
AT_NINE = datetime(2026, 3, 14, 9, tzinfo=UTC)
UNREADABLE, OUT_OF_RANGE = "time_unreadable", "event_time_out_of_range"
EPOCH_TEXT, NO_ZONE = "time_epoch_text", "event_time_without_zone"


@pytest.mark.parametrize(
    ("fields", "expected", "repairs"),
    [
        pytest.param({}, RECEIVED, set(), id="no time at all"),
        pytest.param({"timestamp": "2026-03-14T09:00:00Z"}, AT_NINE, set(), id="timestamp alone"),
        pytest.param({"originalTimestamp": "2026-03-14T09:00:00Z"}, AT_NINE, set(), id="originalTimestamp alone"),
        pytest.param({"sentAt": "2026-03-14T09:00:00Z"}, RECEIVED, set(), id="sentAt alone"),
        pytest.param(
            {"originalTimestamp": "2026-03-14T09:00:00Z", "timestamp": "2020-01-01T00:00:00Z"},
            datetime(2020, 1, 1, tzinfo=UTC),
            set(),
            id="a timestamp beside another originalTimestamp is its user's own",
        ),
        pytest.param(
            {
                "originalTimestamp": "2026-03-14T08:00:00Z",
                "timestamp": "2026-03-13T00:00:00Z",
                "sentAt": "2026-03-14T08:00:01Z",
            },
            RECEIVED - 36 * HOUR,
            set(),
            id="and stands as it is, whatever the client's clock",
        ),
        pytest.param(
            {
                "originalTimestamp": "2026-03-14T08:00:00Z",
                "timestamp": "2026-03-14T09:00:00.000+01:00",
                "sentAt": "2026-03-14T08:00:01Z",
            },
            RECEIVED - timedelta(seconds=1),
            set(),
            id="the same time twice is one time",
        ),
        pytest.param(
            {"originalTimestamp": "2026-03-14T08:00:00Z", "timestamp": "2099-01-01T00:00:00Z"},
            RECEIVED,
            {OUT_OF_RANGE},
            id="an own timestamp far ahead",
        ),
        pytest.param(
            {"originalTimestamp": "", "timestamp": "2026-03-14T09:00:00Z"}, AT_NINE, set(), id="empty originalTimestamp"
        ),
        pytest.param(
            {"originalTimestamp": "2026-03-14T09:00:00Z", "timestamp": " "}, AT_NINE, set(), id="blank timestamp beside"
        ),
        pytest.param(
            {"originalTimestamp": "soon", "timestamp": "2026-03-14T09:00:00Z", "sentAt": "2026-03-14T09:00:01Z"},
            RECEIVED - timedelta(seconds=1),
            {UNREADABLE},
            id="unreadable originalTimestamp",
        ),
        pytest.param(
            {"originalTimestamp": "2026-03-14T09:00:00Z", "timestamp": "soon"},
            AT_NINE,
            {UNREADABLE},
            id="unreadable timestamp beside",
        ),
        *(
            pytest.param({name: text}, at, {EPOCH_TEXT}, id=f"{name} {text}")
            for name in ("timestamp", "originalTimestamp")
            for text, at in (
                ("1712011201530", datetime(2024, 4, 1, 22, 40, 1, 530_000, tzinfo=UTC)),
                ("1712011201", datetime(2024, 4, 1, 22, 40, 1, tzinfo=UTC)),
                ("1712011201.53", datetime(2024, 4, 1, 22, 40, 1, 530_000, tzinfo=UTC)),
                ("1712011201530123", datetime(2024, 4, 1, 22, 40, 1, 530_123, tzinfo=UTC)),
                ("1712011201530123456", datetime(2024, 4, 1, 22, 40, 1, 530_123, tzinfo=UTC)),
                ("999999999", datetime(2001, 9, 9, 1, 46, 39, tzinfo=UTC)),
            )
        ),
        *(
            pytest.param(
                {"timestamp": number}, datetime(2024, 4, 1, 22, 40, 1, micro, tzinfo=UTC), set(), id=f"{number}"
            )
            for number, micro in (
                (1712011201.53, 530_000),
                (1712011201530, 530_000),
                (1712011201530.123, 530_123),
                (1712011201530123, 530_123),
                (1712011201530123456, 530_123),
            )
        ),
        *(
            pytest.param({"timestamp": text}, at, set(), id=repr(text))
            for text, at in (
                ("2026-03-13T23:59:60Z", datetime(2026, 3, 14, tzinfo=UTC)),
                ("2026-03-13T23:59:60.5Z", datetime(2026, 3, 14, 0, 0, 0, 500_000, tzinfo=UTC)),
                ("2026-03-13T24:00:00Z", datetime(2026, 3, 14, tzinfo=UTC)),
                ("2026-03-13T24:00Z", datetime(2026, 3, 14, tzinfo=UTC)),
                ("20260313T240000Z", datetime(2026, 3, 14, tzinfo=UTC)),
                ("2026-03-14t09:00:00z", AT_NINE),
                (" 2026-03-14T09:00:00Z\n", AT_NINE),
                ("2026-03-14 10:00:00 +0100", AT_NINE),
                ("2026-03-14T09:00:00.123456789Z", AT_NINE + timedelta(microseconds=123_456)),
                ("2026-03-14 09:00:00 UTC", AT_NINE),
                ("20260314090000", AT_NINE),
                ("202603140900", AT_NINE),
                (" 2026-03-14 ", AT_NINE.replace(hour=0)),
                ("20260314090000500", AT_NINE + timedelta(milliseconds=500)),
                ("2026-03-14T09:00:00,5Z", AT_NINE + timedelta(milliseconds=500)),
            )
        ),
        pytest.param({"timestamp": "2026-03-13T24:00:01Z"}, RECEIVED, {UNREADABLE}, id="past midnight's end"),
        pytest.param({"timestamp": "2026-03-13T23:59:61Z"}, RECEIVED, {UNREADABLE}, id="no second"),
        pytest.param(
            {"timestamp": "2026-03-13T24:00:00.5Z"}, RECEIVED, {UNREADABLE}, id="past midnight's end, by half"
        ),
        pytest.param({"timestamp": "9999-12-31T24:00:00Z"}, RECEIVED, {UNREADABLE}, id="the end of time"),
        pytest.param(
            {"timestamp": "2026-03-14T14:00:00", "sentAt": "2026-03-14T12:00:00Z"},
            RECEIVED,
            {NO_ZONE},
            id="local time without a zone",
        ),
        pytest.param({"timestamp": "2026-03-14T12:00:01"}, RECEIVED, {NO_ZONE}, id="local time ahead"),
        pytest.param({"timestamp": "20260314120001"}, RECEIVED, {NO_ZONE}, id="local time ahead, in digits alone"),
        pytest.param(
            {"timestamp": str(int(RECEIVED.timestamp()) + 60)},
            RECEIVED + timedelta(minutes=1),
            {EPOCH_TEXT},
            id="an epoch as text is of a zone",
        ),
        pytest.param(
            {"originalTimestamp": "2026-03-14T12:00:00Z", "timestamp": "2026-03-14 14:00"},
            RECEIVED,
            {NO_ZONE},
            id="an own timestamp in local time",
        ),
        pytest.param(
            {"timestamp": "2026-03-14T14:00:00Z", "sentAt": "2026-03-14T12:00:00Z"},
            RECEIVED + 2 * HOUR,
            set(),
            id="ahead by its zone",
        ),
        pytest.param({"timestamp": "2026-03-14T10:00:00", "sentAt": ""}, AT_NINE + HOUR, set(), id="empty sentAt"),
        pytest.param(
            {"timestamp": "2031-03-14T09:00:00Z", "sentAt": "2031-03-14T09:00:01Z"},
            RECEIVED - timedelta(seconds=1),
            set(),
            id="a clock years ahead",
        ),
        pytest.param(
            {"timestamp": "2026-03-14T09:00:00.000001Z", "sentAt": "2026-03-14T09:00:00.000002Z"},
            RECEIVED - timedelta(microseconds=1),
            set(),
            id="to the microsecond",
        ),
        pytest.param({"timestamp": "2026-03-14T09:00:00"}, AT_NINE, set(), id="no zone is UTC"),
        pytest.param({"timestamp": "2026-03-14T14:30:00+05:30"}, AT_NINE, set(), id="zone ahead"),
        pytest.param({"timestamp": "2026-03-14T01:00:00-08:00"}, AT_NINE, set(), id="zone behind"),
        pytest.param({"timestamp": "20260314T090000Z"}, AT_NINE, set(), id="basic format"),
        pytest.param({"timestamp": "2026-03-14"}, RECEIVED - 12 * HOUR, set(), id="date alone"),
        *(
            pytest.param({"timestamp": text}, RECEIVED, {NO_ZONE}, id=f"ahead without a zone: {text}")
            for text in ("2026-12-01", "20261201", "2026-W49-2", "2026-W49", "2026-12-01T10", "2026-12-01 10:00")
        ),
        *(
            pytest.param({"timestamp": text}, RECEIVED + HOUR, set(), id=f"ahead by its zone: {text}")
            for text in ("2026-03-14T12-01", "20260314T14+0100", "2026-W11-6T13:00Z", " 2026-03-14 13:00 utc ")
        ),
        *(
            pytest.param(
                {"timestamp": "2026-03-14T12:00:00Z", "sentAt": text}, RECEIVED, {NO_ZONE}, id=f"sentAt {text}"
            )
            for text in ("2026-03-14T07:00:00", "2026-03-14", "2026-03-13 12:00")
        ),
        pytest.param(
            {"timestamp": 1773489600000, "sentAt": "2026-03-14T07:00:00"},
            RECEIVED,
            {NO_ZONE},
            id="an epoch, sentAt",
        ),
        pytest.param(
            {"timestamp": "2026-03-14T12:00:00Z", "sentAt": "2026-03-14T07:00:00-05:00"}, RECEIVED, set(), id="its zone"
        ),
        *(
            pytest.param({"timestamp": text}, RECEIVED, {UNREADABLE}, id=f"neither ISO nor an epoch: {text}")
            for text in (
                *("1712011201530Z", "1712011201530+00:00", "2024-04-01-10:00", "2024-04-01_10:00Z", "20240401x10"),
                *("2024W14x10:00", "+1712011201530", "1.712011201530e12", "17120112015\u0663\u0660"),
            )
        ),
        *(
            pytest.param(
                {"timestamp": text}, datetime(2024, 4, 1, 22, 40, 1, tzinfo=UTC), {EPOCH_TEXT}, id=f"epoch {text!r}"
            )
            for text in (" 1712011201000 ", "1712011201\n", "\t1712011201.0")
        ),
        pytest.param({"timestamp": AT_NINE.timestamp()}, AT_NINE, set(), id="epoch seconds"),
        pytest.param({"timestamp": int(AT_NINE.timestamp())}, AT_NINE, set(), id="whole epoch seconds"),
        pytest.param({"timestamp": int(AT_NINE.timestamp() * 1_000)}, AT_NINE, set(), id="epoch milliseconds"),
        pytest.param({"timestamp": 0}, EPOCH, set(), id="epoch zero"),
        pytest.param({"timestamp": "0001-01-01T00:00:00Z"}, datetime(1, 1, 1, tzinfo=UTC), set(), id="year 1"),
        pytest.param({"timestamp": "0001-01-01T00:00:00+14:00"}, RECEIVED, {UNREADABLE}, id="before year 1"),
        pytest.param({"timestamp": "2026-03-15T12:00:00Z"}, RECEIVED + DAY, set(), id="just a day ahead"),
        pytest.param({"timestamp": "2026-03-15T12:00:00.000001Z"}, RECEIVED, {OUT_OF_RANGE}, id="over a day ahead"),
        pytest.param({"timestamp": "2099-01-01T00:00:00Z"}, RECEIVED, {OUT_OF_RANGE}, id="year 2099"),
        pytest.param({"timestamp": "9999-12-31T23:59:59Z"}, RECEIVED, {OUT_OF_RANGE}, id="year 9999"),
        pytest.param({"timestamp": "9999-12-31T23:59:59-14:00"}, RECEIVED, {UNREADABLE}, id="after year 9999"),
        pytest.param(
            {"timestamp": "2026-03-14T09:00:00Z", "sentAt": "2020-01-01T00:00:00Z"},
            RECEIVED,
            {OUT_OF_RANGE},
            id="happened years after it was sent",
        ),
        pytest.param(
            {"timestamp": "0001-01-01T00:00:00Z", "sentAt": "9999-01-01T00:00:00Z"},
            RECEIVED,
            {OUT_OF_RANGE},
            id="skew beyond the calendar",
        ),
        pytest.param({"timestamp": "yesterday"}, RECEIVED, {UNREADABLE}, id="not a time"),
        pytest.param({"timestamp": ""}, RECEIVED, {UNREADABLE}, id="empty"),
        pytest.param({"timestamp": 1e300}, RECEIVED, {UNREADABLE}, id="number beyond the calendar"),
        pytest.param({"timestamp": -1e300}, RECEIVED, {UNREADABLE}, id="number before the calendar"),
        pytest.param({"timestamp": True}, RECEIVED, {UNREADABLE}, id="boolean"),
        pytest.param({"timestamp": ["2026-03-14"]}, RECEIVED, {UNREADABLE}, id="array"),
        pytest.param({"timestamp": None}, RECEIVED, set(), id="null"),
        pytest.param(
            {"timestamp": "2026-03-14T09:00:00Z", "sentAt": "soon"}, AT_NINE, {UNREADABLE}, id="unreadable sentAt"
        ),
        pytest.param(
            {"timestamp": "soon", "sentAt": "2026-03-14T09:00:00Z"}, RECEIVED, {UNREADABLE}, id="unreadable timestamp"
        ),
    ],
)
def test_event_time_is_when_it_happened_on_the_servers_clock(
    fields: dict[str, Any], expected: datetime, repairs: set[str]
) -> None:
    found = row({"messageId": "m", **fields})

    flags = set(str(found["repairs"]).split(",")) if found["repairs"] else set()
    assert (found["event_time"], flags) == (micros(expected), repairs)


@pytest.mark.parametrize("name", ["timestamp", "originalTimestamp", "sentAt"])
@pytest.mark.parametrize("value", ["soon", 1e300, True, [1], {"a": 1}, "9999-12-31T23:59:59-14:00"])
def test_a_time_that_cannot_be_read_is_kept_as_it_came(name: str, value: object) -> None:
    found = row({"messageId": "m", name: value})

    assert msgspec.json.decode(str(found["extra"])) == {name: value}
    assert (found["sent_at"], found["original_timestamp"]) == (None, None)


def test_the_batchs_sent_at_counts_where_the_event_has_none() -> None:
    envelope = b'"2026-03-14T10:00:00Z"'

    inherited = row({"timestamp": "2026-03-14T09:00:00Z"}, sent_at=envelope)
    own = row({"timestamp": "2026-03-14T09:00:00Z", "sentAt": "2026-03-14T09:00:01Z"}, sent_at=envelope)
    empty = row({"timestamp": "2026-03-14T09:00:00Z", "sentAt": ""}, sent_at=envelope)
    unreadable = row({"timestamp": "2026-03-14T09:00:00Z", "sentAt": "soon"}, sent_at=envelope)

    assert inherited["event_time"] == empty["event_time"] == unreadable["event_time"] == micros(RECEIVED - HOUR)
    assert inherited["sent_at"] == empty["sent_at"] == unreadable["sent_at"] == micros(AT_NINE + HOUR)
    assert own["event_time"] == micros(RECEIVED - timedelta(seconds=1))


def test_a_batchs_sent_at_without_a_zone_moves_no_event_ahead() -> None:
    envelope = b'"2026-03-14T07:00:00"'

    inherited = row({"messageId": "m", "timestamp": "2026-03-14T12:00:00Z"}, sent_at=envelope)
    own = row(
        {"messageId": "m", "timestamp": "2026-03-14T12:00:00Z", "sentAt": "2026-03-14T11:00:00Z"}, sent_at=envelope
    )

    assert (inherited["event_time"], inherited["repairs"]) == (micros(RECEIVED), NO_ZONE)
    assert (own["event_time"], own["repairs"]) == (micros(RECEIVED + HOUR), None)


def test_a_batchs_sent_at_that_cannot_be_read_is_kept_and_flagged_on_each_event() -> None:
    found = row({"messageId": "m", "timestamp": "2026-03-14T09:00:00Z"}, sent_at=b'"soon"')

    assert (found["event_time"], found["extra"], found["repairs"]) == (
        micros(AT_NINE),
        '{"sentAt":"soon"}',
        UNREADABLE,
    )


moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))


@given(original=st.none() | moments, sent=st.none() | moments)
def test_event_time_is_the_formula_for_any_two_times(original: datetime | None, sent: datetime | None) -> None:
    first, second = (at and f"{at.isoformat()}Z" for at in (original, sent))

    found = row({"originalTimestamp": first, "sentAt": second})

    received = micros(RECEIVED)
    at = None if original is None else micros(original.replace(tzinfo=UTC))
    sent_at = None if sent is None else micros(sent.replace(tzinfo=UTC))
    plain = received if at is None else at if sent_at is None else received - (sent_at - at)
    in_range = micros(datetime(1, 1, 1, tzinfo=UTC)) <= plain <= received + micros(EPOCH + DAY)
    assert found["event_time"] == (plain if in_range else received)
    assert (found["original_timestamp"], found["sent_at"]) == (at, sent_at)


# --- context ----------------------------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**33), 2**33)
    | st.sampled_from([2**63, -(2**63), 2**64, 1.0, 2.5, 1e20])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
)
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.sampled_from(["a", "name"]), scalars, max_size=2)
GROUPS = {group: tuple(reading._split(column)[1] for column in columns) for group, columns in reading._GROUPS.items()}
groups = {
    group: st.fixed_dictionaries({}, optional=dict.fromkeys([*names, "other"], scalars)) | values
    for group, names in GROUPS.items()
}
flat = tuple(reading._split(column)[1] for column in reading._FLAT)
contexts = st.fixed_dictionaries(
    {},
    optional={
        **groups,
        **dict.fromkeys([*flat, "userAgentData", "other"], values),
        "traits": st.dictionaries(st.just("email"), scalars),
    },
)
# About every context that is sent holds just what has columns, in the types of those: the quick way.
plain_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.none()
plain_contexts = st.fixed_dictionaries(
    {},
    optional={
        **{
            group: st.none()
            | st.fixed_dictionaries(
                {}, optional=dict.fromkeys(names, st.none() | st.integers(0, 9) if group == "screen" else plain_text)
            )
            for group, names in GROUPS.items()
        },
        **dict.fromkeys(("userAgent", "locale", "timezone", "channel", "sessionId"), plain_text),
        "sessionSequence": st.integers(0, 9),
        "userAgentData": values,
    },
)
types = st.sampled_from(["track", "page", "identify", "group"])


def event_of(kind: str, context: object) -> dict[str, object]:
    return {
        "type": kind,
        "event": "E",
        "userId": "u",
        "messageId": "m",
        "channel": "mobile",
        "context": context,
        "properties": {"url": "https://shop.example/", "title": 7},
    }


@given(kind=types, context=plain_contexts | contexts, key_kind=st.sampled_from(["browser", "server"]))
@example(kind="page", context={"page": {}}, key_kind="browser")
@example(kind="page", context={"page": {"url": None}}, key_kind="server")
@example(kind="page", context={"page": None}, key_kind="server")
@example(kind="track", context={"userAgentData": None, "screen": None}, key_kind="browser")
@example(kind="track", context={"screen": {"width": 2**31}, "attempt": 2**31}, key_kind="browser")
@example(kind="track", context={"sessionSequence": 2**64}, key_kind="browser")
def test_the_quick_way_gives_what_the_careful_way_gives(kind: str, context: object, key_kind: str) -> None:
    stamp = {"key_kind": key_kind, "ip": "192.0.2.7", "user_agent": "UA"}

    usual = row_of_event(event_of(kind, context), **stamp)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_quick_columns", lambda _event, _stamp: None)
        careful = row_of_event(event_of(kind, context), **stamp)

    assert usual == careful


@given(contexts)
def test_no_value_of_a_context_is_lost(context: dict[str, Any]) -> None:
    found = row({"context": context})

    rest = msgspec.json.decode(str(found["context"])) if found["context"] else {}
    nothing = {("ip", "")}  # then the sender's own address stands there
    assert leaves(rest) | leaves_in_columns(found, context) | nothing >= leaves(context)


def leaves(value: object, path: tuple[object, ...] = ()) -> set[tuple[object, ...]]:
    """Paths and values of what is not null, an empty object or an empty array, as text."""
    if isinstance(value, dict):
        return {leaf for key, one in value.items() for leaf in leaves(one, (*path, key))}
    if isinstance(value, list):
        return {leaf for at, one in enumerate(value) for leaf in leaves(one, (*path, at))}
    return set() if value is None else {(*path, as_text(value))}


def as_text(value: object) -> str:
    """As a text column holds it: so 1 and "1" are one, but 1.5 and 1 are not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def leaves_in_columns(found: dict[str, object], context: dict[str, Any]) -> set[tuple[object, ...]]:
    """The leaves of the context whose value stands in the column that is named for their path."""
    named = {tuple(column.path.split(".")[1:]): column.name for column in EVENTS.columns if column.path}
    taken = set()
    for leaf in leaves(context):
        *path, value = leaf
        column = named.get(tuple(map(str, path)))
        if column in found and found[column] is not None and number_or_text(found[column]) == number_or_text(value):
            taken.add(leaf)
    return taken


def number_or_text(value: object) -> object:
    try:
        number = float(str(value))
    except ValueError:
        return value
    return value if math.isnan(number) else number  # the text "NAN" is equal to itself, the number is not


@pytest.mark.parametrize("context", [7, "text", [1, 2], True])
def test_a_context_that_is_no_object_is_kept_as_it_came(context: object) -> None:
    found = row({"context": context})

    assert msgspec.json.decode(str(found["context"])) == context


def test_an_events_context_wins_over_its_batchs_key_by_key() -> None:
    envelope = {"locale": "de", "app": {"name": "Shop", "build": "9"}, "batch": 1}

    found = row(
        {"context": {"app": {"name": "Mine"}, "event": 2}}, context=msgspec.json.encode(envelope), key_kind="browser"
    )

    names = ("context_locale", "context_app_name", "context_app_build", "context")
    assert tuple(found[name] for name in names) == ("de", "Mine", None, '{"batch":1,"event":2}')


def test_an_events_integrations_win_over_its_batchs_key_by_key() -> None:
    found = row({"integrations": {"All": False}}, integrations=b'{"All":true,"Mixpanel":true}')

    assert msgspec.json.decode(str(found["extra"])) == {"integrations": {"All": False, "Mixpanel": True}}


@pytest.mark.parametrize("own", [None, [], {}, "", 7, True, "text", [1]])
@pytest.mark.parametrize("shared", [False, True])
def test_an_identify_whose_own_traits_say_nothing_has_those_of_its_context(own: object, shared: bool) -> None:
    context = {"traits": {"plan": "pro"}, "b": 1}
    event = {"type": "identify", "userId": "u", "traits": own} | ({} if shared else {"context": context})

    found = by_column(row_of_event(event, context=msgspec.json.encode(context) if shared else b""))

    assert (found["traits"], found["context"]) == ('{"plan":"pro"}', '{"b":1}')
    assert msgspec.json.decode(str(found["extra"] or "{}")) == ({} if own is None else {"traits": own})


@pytest.mark.parametrize("own", [{"a": 1}, {}, [], 7])
@pytest.mark.parametrize("other", [{}, [], "", None])
def test_traits_of_a_context_that_say_nothing_replace_none(own: object, other: object) -> None:
    event = {"type": "identify", "userId": "u", "traits": own, "context": {"traits": other}}

    found = by_column(row_of_event(event))

    assert msgspec.json.decode(str(found["traits"])) == own
    assert (found["context"], found["extra"]) == (msgspec.json.encode({"traits": other}).decode(), None)


NAN, SURROGATE = "not_a_number", "lone_surrogate"


@pytest.mark.parametrize(
    ("stamp", "fields", "repairs"),
    [
        ({"context": b'{"a":1e400,"b":1}'}, {}, NAN),
        ({"context": b'{"a":1e400,"b":1}'}, {"context": None}, NAN),
        ({"context": b'{"a":1e400,"b":1}'}, {"context": {"b": 2}}, NAN),
        ({"context": b'{"a":1e400,"b":1}'}, {"context": {"a": 2}}, None),
        ({"context": b'{"a":NaN,"b":-Infinity}'}, {"context": {"a": 2}}, NAN),
        ({"context": b'{"screen":{"width":NaN}}'}, {}, NAN),
        ({"context": b'{"a":"NaN"}'}, {}, None),
        ({"context": b'{"a":"\\ud83d"}'}, {}, SURROGATE),
        ({"context": b'{"\\ud83d":1}'}, {"context": {"b": 2}}, SURROGATE),
        ({"context": b'{"a":"\\ud83d\\ude00"}'}, {}, None),
        ({"context": b"[NaN]"}, {}, NAN),
        ({"context": b"[NaN]"}, {"context": {"b": 2}}, None),
        ({"integrations": b'{"a":1e400}'}, {}, NAN),
        ({"integrations": b'{"a":[-1e400]}'}, {"integrations": {"b": True}}, NAN),
        ({"integrations": b'{"a":Infinity}'}, {"integrations": {"a": True}}, None),
        ({"integrations": b"1e400"}, {}, NAN),
        ({"integrations": b"1e400"}, {"integrations": {"a": True}}, None),
        ({"sent_at": b"1e400"}, {}, NAN),
        ({"sent_at": b"NaN"}, {"sentAt": ""}, NAN),
        ({"sent_at": b"NaN"}, {"sentAt": "2026-03-14T09:00:00Z"}, None),
        ({"context": b'{"a":NaN}', "sent_at": b'"\\ud83d"'}, {}, f"{SURROGATE},{NAN},{UNREADABLE}"),
    ],
)
def test_what_a_batch_says_is_mended_and_flagged_where_a_row_shows_it(
    stamp: dict[str, bytes], fields: dict[str, Any], repairs: str | None
) -> None:
    found = row({"messageId": "m", **fields}, **stamp)

    assert found["repairs"] == (repairs and ",".join(sorted(repairs.split(","))))
    for name in ("context", "extra"):
        msgspec.json.decode(str(found[name] or "null"))
        assert not str(found[name]).count("1e400")


@pytest.mark.parametrize(
    ("shared", "expected"),
    [
        (b'"a\\ud83d"', ("a\\ud83d", SURROGATE)),
        (b"NaN", (None, NAN)),
        (b"1e400", (None, NAN)),
        (b"12", ("12", "anonymous_id_number")),
        (b'"a"', ("a", None)),
    ],
)
def test_a_batchs_anonymous_id_is_mended_as_an_events_own(shared: bytes, expected: tuple[str, str]) -> None:
    own = parse_event(b'{"type":"track","event":"A","userId":"u","messageId":"m","anonymousId":%b}' % shared)
    inherited = parse_event(b'{"type":"track","event":"A","userId":"u","messageId":"m"}', anonymous_id=shared)

    for event in (own, inherited):
        assert not isinstance(event, Rejected)
        found = by_column(make_row(event, read_request(Stamp(micros(RECEIVED), "r-1", "shop", "server")), PLACE))
        assert (found["anonymous_id"], found["repairs"]) == expected


def test_only_a_server_key_may_say_what_the_senders_address_is() -> None:
    context = {"ip": "198.51.100.9"}

    server = row({"context": context}, key_kind="server", ip="192.0.2.7")
    browser = row({"context": context}, key_kind="browser", ip="192.0.2.7")

    assert (server["context_ip"], server["context"]) == ("198.51.100.9", None)
    assert (browser["context_ip"], browser["context"]) == ("192.0.2.7", '{"ip":"198.51.100.9"}')


@pytest.mark.parametrize(("key_kind", "agent"), [("browser", "UA"), ("server", None)])
def test_only_a_browsers_own_header_fills_the_user_agent(key_kind: str, agent: str | None) -> None:
    assert row({}, key_kind=key_kind, user_agent="UA")["context_user_agent"] == agent


def test_a_page_event_without_context_page_is_described_by_its_properties() -> None:
    properties = {"url": "https://shop.example/a?b", "path": "/a", "title": "A", "referrer": "", "search": "?b"}

    found = by_column(row_of_event({"type": "page", "userId": "u", "properties": properties}))

    columns = {name: found[f"context_page_{name}"] for name in properties}
    assert columns == properties
    assert msgspec.json.decode(str(found["properties"])) == properties


# --- the rest ---------------------------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.sampled_from(["category", "_metadata", "rudderId", "name", "unknown", "repairs", "extra", "received_at"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.integers(0, 9),
    )
)
def test_no_top_level_field_is_lost(fields: dict[str, Any]) -> None:
    found = row({"messageId": "m", **fields})

    kept = msgspec.json.decode(str(found["extra"])) if found["extra"] else {}
    assert {key: as_text(value) for key, value in kept.items()} == {k: as_text(v) for k, v in fields.items()}


def test_a_write_key_in_an_event_is_stored_nowhere() -> None:
    found = row({"writeKey": "wk_secret"})

    assert "wk_secret" not in str(found)


def test_an_id_that_is_missing_is_made_from_the_place_alone() -> None:
    first = row({"properties": {"a": 1}})
    again = row({"properties": {"b": 2}}, received_at=1, request_id="r-2", project_id="other")

    made = str(uuid.UUID(bytes=place_digest(PLACE)))
    assert (first["message_id"], again["message_id"]) == (made, made)
    assert first["repairs"] == "message_id_missing"


@pytest.mark.parametrize(
    "text",
    [
        *("\u3000", "\u2003", "\u2007", "\u200b", "\ufeff", "\u2028", "\0", "\u0085", "\u2060", "\u3164", "\u2800"),
        *(
            "\u00a0undefined\u2003",
            "\ufeffnull",
            "\x1bNaN\x7f",
            "Null",
            "[object Undefined]",
            "[object Promise]",
            "UNDEFINED",
            "none",
            "NONE",
            "Nil",
            "(NULL)",
        ),
        *("[Object object]", "00000000-0000-0000-0000-000000000000", " 00000000-0000-0000-0000-000000000000\n"),
    ],
)
def test_an_id_that_names_nobody_is_kept_and_flagged(text: str) -> None:
    ids = {"userId": text, "anonymousId": text, "groupId": text, "previousId": text}

    found = row({"messageId": "m", **ids})

    columns = ("user_id", "anonymous_id", "group_id", "previous_id")
    assert [found[name] for name in columns] == [text] * 4
    assert str(found["repairs"]).split(",") == [f"{name}_placeholder" for name in sorted(columns)]


@pytest.mark.parametrize(
    "text", ["0", "nobody", "null-1", "a\u3000b", "undefined@shop.example", "n", "\u00e9", "\U0001f600", "user\u200b"]
)
def test_an_id_that_may_name_somebody_is_not_flagged(text: str) -> None:
    assert row({"messageId": "m", "userId": text})["repairs"] is None


def test_two_places_have_two_digests() -> None:
    numbers = ("1", "11", "111")
    places = [
        (stream, shard, sequence, at) for stream in "ab" for shard in numbers for sequence in numbers for at in (1, 11)
    ]

    assert len({place_digest(place) for place in places}) == len(places)


def test_ids_are_told_apart_by_project_and_to_the_letter() -> None:
    pairs = [("a", "m"), ("b", "m"), ("a", "M"), ("a", " m"), ("a", "m "), ("a", "\u00e9"), ("a", "e\u0301")]

    assert len({dedup_digest(project, message, "browser") for project, message in pairs}) == len(pairs)


# --- what a batch shares ----------------------------------------------------------------------------------

shared_values = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just({"name": "n", "z": 1, "url": "u"})
)
shared_contexts = st.dictionaries(
    st.sampled_from(["ip", "userAgent", "locale", "channel", "device", "page", "sessionSequence", "traits", "z"]),
    shared_values,
)


@given(
    shared=shared_contexts | shared_values,
    integrations=st.none() | shared_contexts | shared_values,
    event=st.fixed_dictionaries(
        {
            "type": st.sampled_from(["track", "identify", "page", "group"]),
            "event": st.just("E"),
            "userId": st.just("u"),
        },
        optional={
            "channel": st.text(max_size=3),
            "traits": shared_values,
            "properties": shared_values,
            "category": shared_values,
        },
    ),
    kind=st.sampled_from(["browser", "server"]),
)
@example(shared={"traits": {"a": 1}}, integrations=None, event={"type": "identify", "userId": "u"}, kind="server")
@example(shared={"page": {"z": 1}}, integrations=None, event={"type": "page", "userId": "u"}, kind="server")
def test_what_a_batch_shares_is_as_if_each_event_had_sent_it(
    shared: object, integrations: object, event: dict[str, Any], kind: str
) -> None:
    own = {**event, "context": shared, **({"integrations": integrations} if integrations is not None else {})}
    stamp = {"key_kind": kind, "user_agent": "Mozilla", "ip": "192.0.2.1"}

    spread = row_of_event(
        event,
        **stamp,
        context=msgspec.json.encode(shared),
        integrations=b"" if integrations is None else msgspec.json.encode(integrations),
    )

    assert by_column(spread) == by_column(row_of_event(own, **stamp))


def test_what_a_batch_shares_is_made_once_for_all_its_events() -> None:
    text = msgspec.json.encode({"x": "a" * 100_000, "locale": "b" * 100_000})
    request = read_request(Stamp(1, "r", "p", "server", context=text, integrations=text))
    events = [parse_event(b'{"type":"%s","event":"E","name":"E","userId":"u"}' % kind) for kind in (b"page", b"page")]

    one, other = (
        by_column(make_row(event, request, (*PLACE[:3], at)))
        for at, event in enumerate(event for event in events if not isinstance(event, Rejected))
    )

    assert len(str(one["context"])) > 100_000
    assert all(one[name] is other[name] for name in ("context", "context_locale"))
    alone = [parse_event(b'{"type":"page","name":"E","userId":"u"}') for _ in range(2)]
    extra, again = (make_row(event, request, PLACE) for event in alone if not isinstance(event, Rejected))
    assert by_column(extra)["extra"] is by_column(again)["extra"]


@pytest.mark.parametrize("shared", [{"context": b'{"\xff":1}'}, {"integrations": b'{"a":tru}'}, {"context": b"{"}])
def test_what_a_batch_shares_that_cannot_be_read_costs_its_events_alone(shared: dict[str, bytes]) -> None:
    request = read_request(
        Stamp(1, "r", "p", "server", context=shared.get("context", b""), integrations=shared.get("integrations", b""))
    )

    found = row_or_rejected(b'{"type":"track","event":"E","userId":"u"}', request, PLACE, {})

    assert isinstance(found, Rejected)
    assert found.reason is Reason.UNPROCESSABLE


def test_the_letters_of_a_record_keep_its_stamp_once() -> None:
    stamp = Stamp(1, "r", "p", "server", context=b'{"x":"%s"}' % (b"a" * 100_000))
    [record] = pack(stamp, [b"{}", b"[]"])

    with patch("manymetrics_processor.decode.batch.encode_stamp", wraps=encode_stamp) as made:
        batch = decode([StreamRecord("s", 1, record, 1)], "local:1")

    assert made.call_count == 1
    assert batch.letters.table["stamp"].to_pylist() == [encode_stamp(stamp)] * 2


@pytest.mark.parametrize("name", ["writeKey", "api_key", "write\\u004bey"])
@pytest.mark.parametrize("rest", ['"type":"dance"', '"type":"dance","v":NaN', '"event":7e9,"v":1'])
def test_no_dead_letter_and_no_row_holds_a_key_that_its_event_brought(name: str, rest: str) -> None:
    """Of whichever key: intake takes only that of the request out."""
    wrong = f'{{"userId":"u",{rest},"{name}":"wk_somebodys"}}'.encode()
    right = f'{{"type":"track","event":"A","userId":"u","{name}":"wk_somebodys"}}'.encode()
    [data] = pack(Stamp(1_764_000_000_000_000, "r", "shop", "browser"), [wrong, right])

    batch = decode([StreamRecord("s", 1, data, 0)], "stream")

    assert len(batch.letters.table) + len(batch.events.table) == 2
    assert "wk_somebodys" not in str(batch.letters.table.to_pylist()) + str(batch.events.table.to_pylist())
