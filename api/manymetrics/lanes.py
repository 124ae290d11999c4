"""Which requests wait aside, so that the events of others don't wait behind them.

A request is heavy that weighs over HEAVY_REQUEST (records.weight), or whose project has sent more than HEAVY_PROJECT
within WINDOW_S. It is as durable as any; its records join the stream once there is nothing else to commit.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from manymetrics.records import project_and_weight

HEAVY_REQUEST = 1_000_000
HEAVY_PROJECT = 32_000_000  # 30,000 usual events: about what is committed in a second
WINDOW_S = 2.0


class Lanes:
    """Remembers what each project has sent of late. For one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sent: dict[str, int] = defaultdict(int)
        self._until = 0.0

    def is_heavy(self, records: Sequence[bytes]) -> bool:
        """Whether a request's records are to wait aside."""
        now = self._clock()
        if now >= self._until:
            self._sent.clear()
            self._until = now + WINDOW_S
        of_request = 0
        project = ""
        for record in records:
            project, weight = project_and_weight(record)
            of_request += weight
        self._sent[project] += of_request
        return of_request > HEAVY_REQUEST or self._sent[project] > HEAVY_PROJECT
