"""The ids seen in the window: exact, compact, and as quick after a million ids as after none.

An id is 16 bytes (ids.dedup_digest). Ids are kept by the UTC day on which their event was received, in a few
sorted runs a day; a run is merged with its neighbour once they are of a size, so that a day has about log2 of
its ids in runs. A large run is merged no more, and lies in a file of the temp folder: 10 million ids take 160 MB there,
and little memory that the system can't have back.

A resend counts as one where it comes at most ``window_days`` UTC days after the first, either way round, so the
verdict depends only on the two events and not on when the process was started.
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

LARGE_IDS = 2_000_000  # 32 MB; a merge of two that are smaller takes 150 MB for a moment

log = logging.getLogger("manymetrics.dedup")


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Ids sorted by their first half. ``name``: what it is kept as, which is unique."""

    first: npt.NDArray[np.uint64]
    second: npt.NDArray[np.uint64]
    name: str = field(default_factory=lambda: uuid4().hex)

    @classmethod
    def of(cls, ids: Ids) -> Run:
        """Make a run of ids in any order."""
        order = np.argsort(ids[:, 0], kind="stable")
        return cls(np.ascontiguousarray(ids[order, 0]), np.ascontiguousarray(ids[order, 1]))

    @classmethod
    def decode(cls, data: bytes, name: str) -> Run:
        """Decode what ``encode`` made; the bytes are not copied."""
        first, second = np.frombuffer(data, dtype="<u8").reshape(2, -1)
        return cls(first, second, name)

    def encode(self) -> bytes:
        """All first halves, then all second ones; 16 bytes an id."""
        return np.concatenate((self.first, self.second)).astype("<u8", copy=False).tobytes()

    def __len__(self) -> int:
        return len(self.first)

    def positions_held(self, first: npt.NDArray[np.uint64], second: npt.NDArray[np.uint64]) -> list[int]:
        """Which of the ids (their halves; quickest where sorted by the first) are here, by their position."""
        at = np.searchsorted(self.first, first)
        same = np.flatnonzero(self.first.take(at, mode="clip") == first)
        if not len(same):
            return []
        # Two ids with equal first halves: about never (2**-64 a pair), yet no reason to lose an event.
        return [
            int(i)
            for i in same
            if self.second[at[i]] == second[i] or self._holds_after(int(at[i]), first[i], second[i])
        ]

    def _holds_after(self, start: int, first: np.uint64, second: np.uint64) -> bool:
        stop = int(np.searchsorted(self.first, first, side="right"))
        return bool((self.second[start:stop] == second).any())

    def merged(self, other: Run) -> Run:
        """Both, as one new run."""
        first = np.concatenate((self.first, other.first))
        order = np.argsort(first, kind="stable")
        return Run(first[order], np.concatenate((self.second, other.second))[order]).settled()

    def settled(self) -> Run:
        """Itself; a large one in a file that has no name, so it is gone with the process however that ends."""
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
    """Which ids are in the window. Holds what it is told; who refreshes it from the table is the lake's affair."""

    def __init__(self, window_days: int = DEDUP_WINDOW_DAYS) -> None:
        self.window_days = window_days
        self._runs: dict[int, list[Run]] = {}

    def __len__(self) -> int:
        return sum(len(run) for runs in self._runs.values() for run in runs)

    @property
    def runs(self) -> dict[int, list[Run]]:
        """By day; for who keeps them, not to be changed."""
        return self._runs

    @property
    def days(self) -> list[int]:
        """The days of which it holds ids, oldest first."""
        return sorted(self._runs)

    def put_run(self, day: int, run: Run) -> None:
        """Take in a run that was kept."""
        self._runs.setdefault(day, []).append(run.settled())

    def clear(self) -> None:
        """Forget all."""
        self._runs.clear()

    def add(self, day: int, ids: Ids) -> None:
        """Remember ids received on ``day`` (days since 1970, UTC)."""
        if not len(ids):
            return
        runs = self._runs.setdefault(day, [])
        runs.append(Run.of(ids).settled())
        for other, closed in self._runs.items():  # a day that no longer grows needs but one small run
            while other != day and _may_merge(closed):
                _merge_last(closed)
        while _may_merge(runs) and len(runs[-2]) <= 2 * len(runs[-1]):
            _merge_last(runs)

    def holds(self, day: int, ids: Ids) -> npt.NDArray[np.bool_]:
        """Which of these ids, received on ``day``, are resends of what is known. Shape (n,), in order."""
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
