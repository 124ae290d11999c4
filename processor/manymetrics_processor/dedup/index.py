"""The index of ids in the dedup window: exact, compact, and as fast with a million ids as with none.

An id is 16 bytes (ids.dedup_digest). Ids are kept by the UTC day on which their event was received, in a few
sorted runs per day; a run is merged with its neighbour once they are of similar size, so that a day of n ids has about
log2(n) runs. Runs of LARGE_IDS stop merging and spill to an unlinked temporary file: 10 million ids take 160 MB there,
and little memory that the system can't reclaim.

A resend counts as one if the two are received at most ``window_days`` UTC days apart, in either order, so the result
depends only on the two events and not on when the process was started.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass, field
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from manymetrics.settings import DEDUP_WINDOW_DAYS
from manymetrics_processor.decode.ids import Ids

LARGE_IDS = 2_000_000  # 32 MB; merging two smaller ones takes 150 MB temporarily

log = logging.getLogger("manymetrics.dedup")


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Ids sorted by their first half. ``name``: its unique name in the store."""

    first: npt.NDArray[np.uint64]
    second: npt.NDArray[np.uint64]
    name: str = field(default_factory=lambda: uuid4().hex)

    @classmethod
    def of(cls, ids: Ids) -> Run:
        """Make a run from ids in any order."""
        order = np.argsort(ids[:, 0], kind="stable")
        return cls(np.ascontiguousarray(ids[order, 0]), np.ascontiguousarray(ids[order, 1]))

    @classmethod
    def decode(cls, data: bytes, name: str) -> Run:
        """Decode bytes of ``encode``, without copying."""
        first, second = np.frombuffer(data, dtype="<u8").reshape(2, -1)
        return cls(first, second, name)

    def encode(self) -> bytes:
        """Encode all first halves, then all second ones; 16 bytes per id."""
        return np.concatenate((self.first, self.second)).astype("<u8", copy=False).tobytes()

    def __len__(self) -> int:
        return len(self.first)

    def positions_held(self, first: npt.NDArray[np.uint64], second: npt.NDArray[np.uint64]) -> list[int]:
        """Return the positions of ids (given as halves; fastest if sorted by the first) that the run holds."""
        at = np.searchsorted(self.first, first)
        same = np.flatnonzero(self.first.take(at, mode="clip") == first)
        if not len(same):
            return []
        # Two ids with equal first halves: almost never (2**-64 per pair), but that must not lose an event.
        return [
            int(i)
            for i in same
            if self.second[at[i]] == second[i] or self._holds_after(int(at[i]), first[i], second[i])
        ]

    def _holds_after(self, start: int, first: np.uint64, second: np.uint64) -> bool:
        stop = int(np.searchsorted(self.first, first, side="right"))
        return bool((self.second[start:stop] == second).any())

    def merged(self, other: Run) -> Run:
        """Merge both into a new run."""
        first = np.concatenate((self.first, other.first))
        order = np.argsort(first, kind="stable")
        return Run(first[order], np.concatenate((self.second, other.second))[order]).settled()

    def settled(self) -> Run:
        """Return the run; a large one is moved to an unlinked file, which disappears with the process."""
        if len(self) < LARGE_IDS:
            return self
        try:
            with tempfile.TemporaryFile(buffering=0) as file:
                for half in (self.first, self.second):
                    half.astype("<u8", copy=False).tofile(file)
                first, second = np.asarray(np.memmap(file, "<u8", "r", shape=(2, len(self))))
        except OSError as error:
            log.warning("the temp folder has no space for dedup ids: they stay in memory", exc_info=error)
            return self
        return Run(first, second, self.name)


class DedupIndex:
    """The ids in the window. Callers keep it up to date with the table."""

    def __init__(self, window_days: int = DEDUP_WINDOW_DAYS) -> None:
        self.window_days = window_days
        self._runs: dict[int, list[Run]] = {}

    def __len__(self) -> int:
        return sum(len(run) for runs in self._runs.values() for run in runs)

    @property
    def runs(self) -> dict[int, list[Run]]:
        """Return the runs by day, for the store; not to be changed."""
        return self._runs

    @property
    def days(self) -> list[int]:
        """Return the days with ids, oldest first."""
        return sorted(self._runs)

    def put_run(self, day: int, run: Run) -> None:
        """Add a stored run."""
        self._runs.setdefault(day, []).append(run.settled())

    def clear(self) -> None:
        """Remove all ids."""
        self._runs.clear()

    def add(self, day: int, ids: Ids) -> None:
        """Add ids received on ``day`` (days since 1970, UTC)."""
        if not len(ids):
            return
        runs = self._runs.setdefault(day, [])
        runs.append(Run.of(ids).settled())
        for other, closed in self._runs.items():  # a day that no longer grows needs only one small run
            while other != day and _may_merge(closed):
                _merge_last(closed)
        while _may_merge(runs) and len(runs[-2]) <= 2 * len(runs[-1]):
            _merge_last(runs)

    def holds(self, day: int, ids: Ids) -> npt.NDArray[np.bool_]:
        """Return which of these ids, received on ``day``, are resends of known ones. Shape (n,), in order."""
        found = np.zeros(len(ids), dtype=np.bool_)
        order = np.argsort(ids[:, 0])
        first, second = ids[order, 0], ids[order, 1]
        for known_day, runs in self._runs.items():
            if abs(known_day - day) <= self.window_days:
                for run in runs:
                    found[order[run.positions_held(first, second)]] = True
        return found

    def forget_before(self, day: int) -> None:
        """Drop the days before ``day``."""
        for old in [known for known in self._runs if known < day]:
            del self._runs[old]


def _may_merge(runs: list[Run]) -> bool:
    return len(runs) > 1 and max(len(runs[-2]), len(runs[-1])) < LARGE_IDS


def _merge_last(runs: list[Run]) -> None:
    last = runs.pop()
    runs[-1] = runs[-1].merged(last)
