"""What the processor costs, from the durable stream to committed tables, in a warm process.

    backlog   CPU and wall time of what waits in the stream, by its number of events
    age       1,000 commits of 100 events: is the last as quick as the first?
    window    the same commit with up to a million ids to compare with, and the rate at which those were taken in

It is the committer that `manymetrics serve` runs: the clock is on while it reads the stream, commits, and tidies up.
Nothing is mocked: stream, Parquet files, manifests and catalog are on the disk.
"""

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from manymetrics.records import Stamp, pack
from manymetrics_api.sinks import SinkResult
from manymetrics_api.sinks.local_stream import SHARD, LocalSource, LocalStream
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest.local_committer import Committer
from manymetrics_processor.lake.lake import Lake, local_catalog
from tests.bench.payloads import event_bytes
from tests.bench.process import cpu_seconds_below
from tests.bench.report import Bar, Part

EVENTS_A_RECORD = 20
RECORDS_A_PUT = 250
BACKLOGS = {1: 15, 100: 15, 1_000: 11, 10_000: 5, 100_000: 1}  # events that wait: how often
COMMITS = 1_000
IDS = (1_000, 10_000, 110_000, 1_000_000)
WITHIN_S = 50  # a part that is slower than that ends early, and says so
PROBES = 21

_BEGIN_US = 1_767_600_000_000_000  # 2026-01-05 08:00 UTC: a million events at 40 ms stay within the day


@dataclass(frozen=True, slots=True)
class Cost:
    cpu_s: float  # of all threads, and of the processes that the committer started
    wall_s: float


class Lakeside:
    """A stream and a lake of their own. Its events are numbered, so that no two are alike."""

    def __init__(self, folder: Path) -> None:
        self.events = 0
        self._stream = LocalStream(folder / "stream.db")
        asyncio.run(self._stream.ready())
        lake = Lake(local_catalog(folder))
        lake.ensure_tables()
        self._committer = Committer(LocalSource(folder / "stream.db"), SHARD, lake, Window(), 0)

    def commit(self, events: int) -> Cost:
        """Put as many new events into the stream, then commit them."""
        numbers = range(self.events, self.events + events)
        self.events += events
        for some in _chunks(numbers, EVENTS_A_RECORD * RECORDS_A_PUT):
            records = [_record(few) for few in _chunks(some, EVENTS_A_RECORD)]
            if set(asyncio.run(self._stream.put(records))) != {SinkResult.STORED}:
                raise RuntimeError("the stream stored nothing")
        cpu_s, wall_s = _cpu_s(), time.perf_counter()
        while not self._committer.step():
            pass
        return Cost(_cpu_s() - cpu_s, time.perf_counter() - wall_s)


def _cpu_s() -> float:
    return time.process_time() + cpu_seconds_below(os.getpid())


def _record(numbers: range) -> bytes:
    at = _BEGIN_US + numbers[0] * 40_000
    stamp = Stamp(received_at=at, request_id=f"r{numbers[0]}", project_id="bench", key_kind="browser")
    [packed] = pack(stamp, [event_bytes(number) for number in numbers])
    return packed


def measure_backlog(scratch: Path) -> Part:
    """What waits in the stream, by its number of events."""
    part = Part(
        "Processor: from stream to committed table, by the events that wait",
        ("events", "CPU ms", "wall ms", "CPU us an event", "events a wall second"),
    )
    with _lakeside(scratch) as lakeside:
        for _ in range(3):
            lakeside.commit(1_000)
        lakeside.commit(50_000)  # starts what a backlog starts
        for events, times in BACKLOGS.items():
            costs = [lakeside.commit(events) for _ in range(times)]
            cpu_s, wall_s = median(cost.cpu_s for cost in costs), median(cost.wall_s for cost in costs)
            part.rows.append((f"{events:,}", cpu_s * 1e3, wall_s * 1e3, cpu_s * 1e6 / events, events / wall_s))
            part.figures |= {f"{events} events, CPU s": cpu_s, f"{events} events, wall s": wall_s}
    part.bars = [Bar("10,000 events to a committed table, CPU", part.figures["10000 events, CPU s"], 0.3, unit=" s")]
    return part


def measure_age(scratch: Path) -> Part:
    """A thousand small commits."""
    costs: list[Cost] = []
    until = time.monotonic() + WITHIN_S
    with _lakeside(scratch) as lakeside:
        while len(costs) < COMMITS and time.monotonic() < until:
            costs.append(lakeside.commit(100))
    young, old = costs[50:100], costs[-50:]
    part = Part(
        f"Processor: {len(costs):,} commits of 100 events",
        ("commits", "CPU ms, median", "wall ms, median", "wall ms, longest"),
    )
    for name, some in (("50 to 100", young), ("the last 50", old), ("all", costs)):
        cpu_ms, wall_ms, longest_ms = (*_medians_ms(some), max(cost.wall_s for cost in some) * 1e3)
        part.rows.append((name, cpu_ms, wall_ms, longest_ms))
        part.figures |= {f"{name}, CPU ms": cpu_ms, f"{name}, wall ms": wall_ms, f"{name}, longest ms": longest_ms}
    part.bars = [
        Bar(f"commits within {WITHIN_S} s", len(costs), COMMITS, "at least", ""),
        Bar("last 50 commits / commits 50 to 100, CPU", _medians_ms(old)[0] / _medians_ms(young)[0], 1.2),
        Bar("last 50 commits / commits 50 to 100, wall", _medians_ms(old)[1] / _medians_ms(young)[1], 1.2),
    ]
    return part


def measure_window(scratch: Path) -> Part:
    """Commits of 100 events beside more and more known ids."""
    part = Part(
        "Processor: a commit of 100 events, by the ids in the window",
        ("ids", "CPU ms, median", "wall ms, median"),
    )
    probes: list[list[Cost]] = []
    sustained = 0.0  # events a second, of the last and longest backlog
    with _lakeside(scratch) as lakeside:
        for ids in IDS:
            backlog = ids - lakeside.events
            sustained = backlog / lakeside.commit(backlog).wall_s
            probes.append([lakeside.commit(100) for _ in range(PROBES)])
            cpu_ms, wall_ms = _medians_ms(probes[-1])
            part.rows.append((f"{ids:,}", cpu_ms, wall_ms))
            part.figures |= {f"{ids} ids, CPU ms": cpu_ms, f"{ids} ids, wall ms": wall_ms}
    growth = _medians_ms(probes[-1])[0] / _medians_ms(probes[0])[0]
    part.figures["events a second, sustained"] = sustained
    part.bars = [
        Bar("a commit with the most ids / with the fewest, CPU", growth, 1.2),
        Bar("events a second, sustained with dedup on", sustained, 60_000, "at least", ""),
    ]
    return part


def _medians_ms(costs: Sequence[Cost]) -> tuple[float, float]:
    """CPU and wall time."""
    return median(cost.cpu_s for cost in costs) * 1e3, median(cost.wall_s for cost in costs) * 1e3


def _chunks(numbers: range, size: int) -> Iterator[range]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


@contextmanager
def _lakeside(scratch: Path) -> Iterator[Lakeside]:
    with TemporaryDirectory(dir=scratch) as folder:
        yield Lakeside(Path(folder))
