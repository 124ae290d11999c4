"""What the processor costs, from records of the stream to a committed table, in a warm process.

    batches   CPU and wall time of one commit, by its number of events
    age       1,000 commits of 100 events: is the last as quick as the first?
    window    the same commit with up to a million ids to compare with, and the rate at which they were taken in

The records are packed before the clock starts. Nothing is mocked: Parquet files, manifests and the catalogue go to disk.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from manymetrics.records import Stamp, pack
from manymetrics_processor.lake import Lake, local_catalog
from manymetrics_processor.pipeline import StreamRecord, run
from manymetrics_processor.window import Window
from tests.bench.payloads import event_bytes
from tests.bench.report import Bar, Part

EVENTS_A_RECORD = 20
BATCHES = {1: 15, 100: 15, 1_000: 10, 10_000: 5, 100_000: 2}  # events a commit: how many commits
COMMITS = 1_000
IDS = (1_000, 10_000, 100_000, 1_000_000)
EVENTS_A_FILL = 50_000
PROBES = 21
SCRATCH = Path("build")

_BEGIN_US = 1_767_600_000_000_000  # 2026-01-05 08:00 UTC: a million events at 40 ms stay within the day


@dataclass(frozen=True, slots=True)
class Cost:
    cpu_s: float  # of all threads
    wall_s: float


class Committer:
    """A lake of its own, and a stream whose events are numbered, so that no two are alike."""

    def __init__(self, folder: Path) -> None:
        self.events = 0
        self._sequence = 0
        self._window = Window()
        self._lake = Lake(local_catalog(folder))
        self._lake.ensure_tables()

    def commit(self, events: int) -> Cost:
        """Commit as many new events at once."""
        records = self._records(events)
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        run(records, "bench", self._lake, self._window)
        return Cost(time.process_time() - cpu_s, time.perf_counter() - wall_s)

    def _records(self, events: int) -> list[StreamRecord]:
        numbers = range(self.events, self.events + events)
        self.events += events
        return [self._record(chunk) for chunk in _chunks(numbers, EVENTS_A_RECORD)]

    def _record(self, numbers: Sequence[int]) -> StreamRecord:
        self._sequence += 1
        at = _BEGIN_US + numbers[0] * 40_000
        stamp = Stamp(received_at=at, request_id=f"r{self._sequence}", project_id="bench", key_kind="browser")
        [packed] = pack(stamp, [event_bytes(number) for number in numbers], compress=False)
        return StreamRecord("shard-0", self._sequence, packed, at)


def measure_batches() -> Part:
    """Commits by their number of events."""
    part = Part(
        "Processor: one commit, by its number of events",
        ("events", "CPU ms", "wall ms", "CPU us an event", "events a wall second"),
    )
    with _committer() as committer:
        for _ in range(5):
            committer.commit(1_000)
        for events, commits in BATCHES.items():
            costs = [committer.commit(events) for _ in range(commits)]
            cpu_s, wall_s = median(cost.cpu_s for cost in costs), median(cost.wall_s for cost in costs)
            part.rows.append((f"{events:,}", cpu_s * 1e3, wall_s * 1e3, cpu_s * 1e6 / events, events / wall_s))
            part.figures |= {f"{events} events, CPU s": cpu_s, f"{events} events, wall s": wall_s}
    part.bars = [Bar("10,000 events to a committed table, CPU", part.figures["10000 events, CPU s"], 0.3, unit=" s")]
    return part


def measure_age() -> Part:
    """A thousand small commits."""
    with _committer() as committer:
        costs = [committer.commit(100) for _ in range(COMMITS)]
    young, old = costs[50:100], costs[-50:]
    part = Part(
        f"Processor: {COMMITS:,} commits of 100 events",
        ("commits", "CPU ms, median", "wall ms, median", "wall ms, longest"),
    )
    for name, some in (("50 to 100", young), (f"{COMMITS - 50} to {COMMITS}", old), ("all", costs)):
        walls = [cost.wall_s * 1e3 for cost in some]
        cpu_ms = median(cost.cpu_s for cost in some) * 1e3
        part.rows.append((name, cpu_ms, median(walls), max(walls)))
        part.figures |= {f"{name}, wall ms": median(walls), f"{name}, CPU ms": cpu_ms, f"{name}, longest": max(walls)}
    part.bars = [
        Bar("last 50 commits / commits 50 to 100, wall", _ratio(old, young, "wall_s"), 1.2),
        Bar("last 50 commits / commits 50 to 100, CPU", _ratio(old, young, "cpu_s"), 1.2),
    ]
    return part


def measure_window() -> Part:
    """Commits of 100 events beside more and more known ids."""
    part = Part(
        "Processor: a commit of 100 events, by the ids in the window",
        ("ids", "CPU ms, median", "wall ms, median"),
    )
    medians = []
    with _committer() as committer:
        for ids in IDS:
            fills = [committer.commit(len(chunk)) for chunk in _chunks(range(committer.events, ids), EVENTS_A_FILL)]
            probes = [committer.commit(100) for _ in range(PROBES)]
            medians.append(probes)
            cpu_ms, wall_ms = (median(getattr(p, name) for p in probes) * 1e3 for name in ("cpu_s", "wall_s"))
            part.rows.append((f"{ids:,}", cpu_ms, wall_ms))
            part.figures |= {f"{ids} ids, CPU ms": cpu_ms, f"{ids} ids, wall ms": wall_ms}
            sustained = len(fills) * EVENTS_A_FILL / sum(cost.wall_s for cost in fills)
    part.figures["events a second, sustained"] = sustained
    part.bars = [
        Bar(f"{IDS[-1]:,} ids / {IDS[0]:,} ids, CPU", _ratio(medians[-1], medians[0], "cpu_s"), 1.2),
        Bar("sustained with dedup on", sustained, 60_000, "at least", " events/s"),
    ]
    return part


def _ratio(some: Sequence[Cost], others: Sequence[Cost], name: str) -> float:
    return median(getattr(cost, name) for cost in some) / median(getattr(cost, name) for cost in others)


def _chunks(numbers: range, size: int) -> Iterator[range]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


@contextmanager
def _committer() -> Iterator[Committer]:
    SCRATCH.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=SCRATCH, prefix="bench-") as folder:
        yield Committer(Path(folder))
