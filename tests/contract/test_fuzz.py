"""Whatever a client sends is a row or a dead letter, and no commit is tried more than once.

TEST_SCALE decides how many events are tried (tests/scale.py).
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from manymetrics.records import Stamp, pack
from manymetrics.tables import DEAD_LETTERS, EVENTS
from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import isolation, pipeline
from manymetrics_processor.lake.lake import Lake
from manymetrics_processor.lake.maintenance import maintain
from tests.contract.conftest import Store
from tests.integration.micro_batches import NOW, STREAM, books, counts, rows
from tests.scale import scaled

EVENTS_TRIED = scaled(1_000, 5_000, 100_000)
AT_ONCE, EACH = 250, 4  # events a commit, and an example

# The characters on both sides of every border that UTF-8, UTF-16, Iceberg's bounds and SQLite know.
EDGES = [
    *map(chr, (0x00, 0x01, 0x1F, 0x20, 0x22, 0x5C, 0x7E, 0x7F, 0x80, 0x9F, 0xFF, 0x7FF, 0x800)),
    *map(chr, (0xD7FE, 0xD7FF, 0xE000, 0xFEFF, 0xFFFD, 0xFFFE, 0xFFFF, 0x10000, 0x10FFFE, 0x10FFFF)),
    "\ud800",
    "\udbff",
    "\udc00",
    "\udfff",
]
LENGTHS = [0, 1, 14, 15, 16, 17, 18, 31, 32, 33, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025]
NUMBERS = [
    sign * (2**power + step) for power in (7, 8, 15, 16, 31, 32, 53, 63, 64) for step in (-1, 0, 1) for sign in (1, -1)
]
TIMES = [
    *("0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "1582-10-04T00:00:00Z"),
    *("1677-09-21T00:12:43Z", "1969-12-31T23:59:59.999999Z", "1970-01-01T00:00:00Z", "2038-01-19T03:14:08Z"),
    *("2262-04-11T23:47:17Z", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-14:00", "10000-01-01T00:00:00Z"),
    *("2025-02-29T00:00:00Z", "2025-11-24T24:00:00Z", "2025-11-24T23:59:60Z", "294247-01-10T04:00:54Z", "", "now"),
]

edgy = st.builds(
    lambda filler, length, last, rest: filler * max(0, length - 1) + last + rest,
    st.sampled_from(["a", "\u00e9", "\ud7ff", "\U0010ffff", "\ue000"]),
    st.sampled_from(LENGTHS),
    st.sampled_from(EDGES),
    st.sampled_from(["", "z", "\ud7ff", "\U0010ffff"]),
)
text = st.one_of(edgy, st.text(max_size=20), st.sampled_from(["", "a", "u", "E"]))
number = st.one_of(st.sampled_from(NUMBERS), st.floats(width=64), st.integers())
scalar = st.one_of(text, number, st.none(), st.booleans(), st.sampled_from(TIMES))
value = st.recursive(
    scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=5
)
context = st.dictionaries(
    st.sampled_from(
        ["ip", "userAgent", "locale", "page", "screen", "os", "campaign", "sessionId", "sessionSequence", "attempt"]
    ),
    st.one_of(
        value,
        st.dictionaries(st.sampled_from(["name", "version", "width", "height", "url", "path"]), value, max_size=4),
    ),
    max_size=4,
)
event = st.fixed_dictionaries(
    {"type": st.sampled_from(["track", "identify", "page", "screen", "group", "alias"])},
    optional={
        "messageId": text,
        "userId": st.one_of(text, number),
        "anonymousId": text,
        "previousId": text,
        "groupId": text,
        "event": st.one_of(text, number),
        "name": text,
        "timestamp": st.one_of(st.sampled_from(TIMES), number, value),
        "originalTimestamp": st.one_of(st.sampled_from(TIMES), number),
        "sentAt": st.one_of(st.sampled_from(TIMES), number),
        "properties": value,
        "traits": value,
        "context": st.one_of(context, value),
        "integrations": value,
        "channel": value,
    },
)


PROJECTS = ["shop", "p" * 15 + "\ud7ffz"]


def as_json(one: Any) -> bytes:  # noqa: ANN401  # what the strategies make
    """As a client writes it: lone surrogates as escapes, NaN and Infinity bare."""
    return json.dumps(one).encode()


@pytest.fixture
def lake(store: Store) -> Lake:
    return store.lake


@cache
def corpus(size: int) -> list[bytes]:
    """The same events for every catalog and engine."""
    made: list[bytes] = []

    @settings(
        max_examples=max(1, size // EACH),
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(event, min_size=EACH, max_size=EACH))
    def make(events: list[Any]) -> None:
        made.extend(map(as_json, events))

    make()
    return made


def test_whatever_is_sent_is_a_row_or_a_dead_letter(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    window, sequence = Window(), 0
    events = corpus(EVENTS_TRIED)

    def never(*_: object) -> Any:  # noqa: ANN401  # never returns
        raise AssertionError("a commit failed and was tried in halves")

    monkeypatch.setattr(isolation.Spans, "__init__", never)
    for start in range(0, len(events), AT_ONCE):
        project, kind = PROJECTS[start // AT_ONCE % 2], ("browser", "server")[start // AT_ONCE % 2]
        stamp = Stamp(NOW, "r", project, kind)
        packed = pack(stamp, [msgspec.Raw(one) for one in events[start : start + AT_ONCE]])
        batch = [StreamRecord("shard", sequence + at, one, NOW) for at, one in enumerate(packed)]
        sequence += len(batch)

        committed = pipeline.run(batch, STREAM, lake, window)

        assert all(one is not None for one in committed.outcomes)
        assert committed.books.balanced

    kept = counts(books(lake))
    assert kept["received"] == len(events) >= EVENTS_TRIED // 2
    assert "dead_lettered:unprocessable" not in kept
    assert len(rows(lake)) == kept["stored"]
    letters = sum(count for name, count in kept.items() if name.startswith("dead_lettered"))
    assert len(rows(lake, DEAD_LETTERS)) == letters
    assert kept["stored"] > kept["received"] // 10
    before = sorted(map(str, rows(lake, EVENTS)))
    maintain(lake, keep_snapshots=1)
    assert sorted(map(str, rows(lake, EVENTS))) == before
