"""What a byte of weight costs after the API, at worst, as a ratio to a batch of usual events measured next to it.

    pack      records of a request, compressed
    decode    records -> rows and dead letters
    commit    rows -> files -> tables
    merge     of as many small files
    query     person_events, all rows and columns

Each input is as the API takes it (limits.MAX_WEIGHT_BYTES), or a smaller one of the same kind. Costs are CPU time, the
least of several rounds, in which inputs and usual batches take turns. A search looks for what is worse.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import hypothesis
from hypothesis import strategies as st

from manymetrics.limits import MAX_SHARED_BYTES
from manymetrics.records import Stamp, compress, pack, weight
from manymetrics.tables import TABLES
from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.session import open_session
from manymetrics_processor.decode.batch import StreamRecord, decode
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest.lambda_records import split_parts
from manymetrics_processor.ingest.pipeline import commit, no_collection
from manymetrics_processor.lake.lake import Lake, local_catalog
from manymetrics_processor.lake.maintenance import MERGE_FROM_FILES, merge_small_files
from tests.bench.payloads import event_bytes
from tests.bench.report import Bar, Part

T = TypeVar("T")

LIMIT = 20.0
REQUEST_WEIGHT = 4_000_000
ROUNDS = 3
EXAMPLES = 150
SEARCHED_WEIGHT = 400_000
_AT_US = 1_763_990_000_000_000  # 2025-11-24

GOOD = b'{"type":"track","event":"e","userId":"u"}'
_LONG = b'{"x":"%s"}' % (b"a" * 127_900)
_KEYS = b"{%s}" % b",".join(b'"%d":1' % number for number in range(12_000))
_GROUPS = b'{"locale":"%s","device":{"name":"%s"},"page":{"url":"%s"}}' % ((b"a" * 40_000,) * 3)


@dataclass(frozen=True, slots=True)
class Request:
    """What every event of a request shares, and its one event, which is sent as often as it has room."""

    event: bytes
    context: bytes = b""
    integrations: bytes = b""
    user_agent: str | None = None

    @property
    def stamp(self) -> Stamp:
        return Stamp(
            _AT_US, "r" * 36, "bench", "browser", "192.0.2.1", self.user_agent,
            context=self.context, integrations=self.integrations,
        )  # fmt: skip

    def events(self, most_weight: int, _copy: int = 0) -> list[bytes]:
        [one] = pack(self.stamp, [self.event])
        return [self.event] * max(1, min(10_000, most_weight // weight(one)))


def _with(properties: bytes) -> bytes:
    return GOOD[:-1] + b',"properties":%s}' % properties


REQUESTS = {
    "{} with 18 kB of context": Request(b"{}", b'{"x":"%s"}' % (b"a" * 18_200)),
    "{} with 256 kB of context and integrations": Request(b"{}", _LONG, _LONG),
    "an event with 256 kB of context and integrations": Request(GOOD, _LONG, _LONG),
    "490 kB of one letter": Request(_with(b'{"a":"%s"}' % (b"a" * 490_000))),
    "490 kB of one letter, refused": Request(b'{"a":"%s"}' % (b"a" * 490_000)),
    "{}": Request(b"{}"),
    "{} of a browser with a long name": Request(b"{}", user_agent="M" * 1_024),
    "an event of 41 bytes": Request(GOOD),
    "12,000 shared keys beside an event's own": Request(GOOD[:-1] + b',"context":{"b":1}}', _KEYS),
    "12,000 shared integrations beside an event's own": Request(GOOD[:-1] + b',"integrations":{"b":1}}', b"", _KEYS),
    "shared columns of 40 kB": Request(b'{"type":"page","userId":"u"}', _GROUPS),
    "40,000 keys of an event": Request(GOOD[:-1] + b",%s}" % b",".join(b'"%d":1' % n for n in range(40_000))),
    "100,000 NaN": Request(_with(b"[%s]" % b",".join([b"NaN"] * 100_000))),
    "80,000 lone surrogates": Request(_with(b'"%s"' % (rb"\ud800" * 80_000))),
    "a context of 20,000 escapes": Request(GOOD[:-1] + b',"context":{"locale":"%s"}}' % (rb"\u00e9" * 20_000)),
}


class Usual(Request):
    """Batches of 100 usual events, no two alike."""

    def events(self, most_weight: int, copy: int = 0) -> list[bytes]:
        """Of a kilobyte each."""
        return [event_bytes(10_000 * copy + number) for number in range(most_weight // 1_050)]


USUAL = Usual(b"")


def measure(scratch: Path) -> Part:
    """Each input's ratios, and the worst that the search found."""
    part = Part("Amplification: CPU a byte of weight, in usual events", ("input", *_STAGES))
    worst = dict.fromkeys(_STAGES, 0.0)
    for name, ratios in measure_requests(REQUESTS, scratch).items():
        part.rows.append((name, *ratios.values()))
        worst = {stage: max(worst[stage], ratio) for stage, ratio in ratios.items()}
    found, ratio = search(EXAMPLES)
    part.rows.append((f"searched: {found!r:.60}", "", ratio, "", "", ""))
    part.bars = [Bar(f"the worst input at {stage}, a byte", figure, LIMIT) for stage, figure in worst.items()]
    part.bars.append(Bar(f"the worst of {EXAMPLES} searched, decode, a byte", ratio, LIMIT))
    return part


def measure_requests(
    requests: dict[str, Request], scratch: Path, *, rounds: int = ROUNDS, most_weight: int = REQUEST_WEIGHT
) -> dict[str, dict[str, float]]:
    """For each input, the ratio of each stage to usual events."""
    costs: dict[str, list[dict[str, float]]] = {name: [] for name in ("", *requests)}
    for _ in range(rounds):
        for name, request in (("", USUAL), *requests.items()):
            costs[name].append(_costs(request, scratch, most_weight))
    least = {name: {stage: min(one[stage] for one in some) for stage in _STAGES} for name, some in costs.items()}
    usual = least.pop("")
    return {name: {stage: cost / usual[stage] for stage, cost in one.items()} for name, one in least.items()}


_STAGES = ("pack", "decode", "commit", "merge", "query")


def _costs(request: Request, scratch: Path, most_weight: int) -> dict[str, float]:
    """CPU seconds a byte of weight, by stage."""
    with TemporaryDirectory(dir=scratch) as folder:
        lake, window = Lake(local_catalog(Path(folder))), Window()
        lake.ensure_tables()
        pack_s = decode_s = commit_s = float("inf")
        packed: list[bytes] = []
        for number in range(MERGE_FROM_FILES):
            start, events = 10_000 * number, request.events(most_weight, number)
            packed, one_s = _timed(lambda some=events: [compress(one) for one in pack(request.stamp, some)])  # type: ignore[misc]  # mypy#12557
            pack_s = min(pack_s, one_s)
            records = [StreamRecord("s", start + at, one, _AT_US) for at, one in enumerate(packed)]
            for part in split_parts(records):
                with no_collection():
                    batch, one_s = _timed(lambda part=part: decode(part, "bench"))  # type: ignore[misc]  # as above
                    decode_s = min(decode_s, one_s)
                    _, one_s = _timed(lambda batch=batch: commit(batch, lake, window))  # type: ignore[misc]  # as above
                    commit_s = min(commit_s, one_s)
        _, merge_s = _timed(lambda: [merge_small_files(lake, table) for table in TABLES])
        _, query_s = _timed(lambda: ask(Path(folder)))
    size = sum(map(weight, packed))
    return {
        "pack": pack_s / size,
        "decode": decode_s / size,
        "commit": commit_s / size,
        "merge": merge_s / size,
        "query": query_s / size,
    }


def ask(folder: Path) -> int:
    connection = open_session(Folder(folder)).connection
    connection.execute("SELECT * FROM person_events")
    rows = 0
    while some := connection.fetchmany(100):
        rows += len(some)
    connection.close()
    return rows


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.process_time()
    done = work()
    return done, time.process_time() - began


# --- search -----------------------------------------------------------------------------------------------

_pieces = st.sampled_from(
    [
        b"1",
        b"NaN",
        b"-Infinity",
        b"1e9",
        b'""',
        b'"a"',
        rb'"\u00e9"',
        rb'"\ud800"',
        rb'"\\"',
        '"é"'.encode(),
        b"[]",
        b"{}",
    ]
)
_values = st.builds(
    lambda piece, times, kind, depth: b"[" * depth + _many(piece, times, kind) + b"]" * depth,
    _pieces,
    st.sampled_from([1, 10, 1_000, 8_000, 40_000]),
    st.sampled_from(["one", "list", "object", "text"]),
    st.integers(0, 60),
)


def _many(piece: bytes, times: int, kind: str) -> bytes:
    match kind:
        case "list":
            return b"[%s]" % b",".join([piece] * times)
        case "object":
            return b"{%s}" % b",".join(b'"%d":%s' % (number, piece) for number in range(times))
        case "text":
            return b'"%s"' % (piece.strip(b'"') * times)
        case _:
            return piece


_names = st.sampled_from(
    [b"context", b"integrations", b"properties", b"traits", b"timestamp", b"messageId", b"name", b"category", b"other"]
)
_fields = st.lists(st.tuples(_names, _values), max_size=3)
_heads = st.sampled_from([b"", b'"type":"track","event":"e","userId":"u"', b'"type":"page","userId":1', b'"type":7'])
_shared = (
    st.just(b"")
    | _values
    | st.builds(
        lambda name, value: b'{"%s":%s}' % (name, value),
        st.sampled_from([b"locale", b"device", b"page", b"traits", b"x"]),
        _values,
    )
)
_requests = st.builds(
    lambda head, fields, context, integrations: Request(
        b"{%s}" % b",".join([*([head] if head else []), *(b'"%s":%s' % field for field in fields)]),
        context[: MAX_SHARED_BYTES * (len(context) <= MAX_SHARED_BYTES)],
        integrations[: MAX_SHARED_BYTES * (len(integrations) <= MAX_SHARED_BYTES)],
    ),
    _heads,
    _fields,
    _shared,
    _shared,
)


def search(examples: int) -> tuple[Request, float]:
    """The request whose decoding costs most a byte of weight, of so many that are aimed there, and its ratio."""
    worst: tuple[Request, float] = (USUAL, 1.0)

    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[hypothesis.Phase.generate, hypothesis.Phase.target],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(_requests)
    def look(request: Request) -> None:
        nonlocal worst
        ratio = _decode_cost(request) / usual
        if ratio > worst[1]:  # again, since something else may have had the core
            ratio = min(ratio, _decode_cost(request) / min(usual, _decode_cost(USUAL)))
        hypothesis.target(ratio)
        worst = max(worst, (request, ratio), key=lambda one: one[1])

    usual = min(_decode_cost(USUAL) for _ in range(3))
    look()
    return worst


def _decode_cost(request: Request) -> float:
    records = [
        StreamRecord("s", at, one, _AT_US)
        for at, one in enumerate(pack(request.stamp, request.events(SEARCHED_WEIGHT)), 1)
    ]
    cost = min(_timed(lambda: _decode_all(records))[1] for _ in range(2))
    return cost / sum(record.weight for record in records)


def _decode_all(records: Sequence[StreamRecord]) -> None:
    for part in split_parts(records):
        with no_collection():
            decode(part, "bench")
