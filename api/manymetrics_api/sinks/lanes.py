"""Which requests wait aside, so that the events of others don't wait behind them.

A request is heavy that weighs over HEAVY_REQUEST (records.weight), or whose owner has sent more than HEAVY_OWNER within
WINDOW_S. It is as durable as any; its records join the stream once there is nothing else to commit.

The owner is a project and a kind of key: who floods with the key that is in a page holds up no event of the project's
servers. A record does not tell one key of a kind from another.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from manymetrics.records import owner_and_weight

HEAVY_REQUEST = 1_000_000
HEAVY_OWNER = 32_000_000  # 30,000 usual events: about what is committed in a second
WINDOW_S = 2.0
MAX_ASIDE = 512_000_000  # of one owner's; half a minute of commits. Past it, its heavy requests are not taken


class Load(NamedTuple):
    """A request's: whose it is, what each of its records weighs, and whether it is to wait aside."""

    owner: str
    weights: list[int]
    is_heavy: bool


class Lanes:
    """Remembers what each owner has sent of late. For one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sent: dict[str, int] = defaultdict(int)
        self._until = 0.0

    def judge(self, records: Sequence[bytes]) -> Load:
        """Weigh a request's records, and decide whether they wait aside."""
        now = self._clock()
        if now >= self._until:
            self._sent.clear()
            self._until = now + WINDOW_S
        weights = []
        owner = ""
        for record in records:
            owner, weight = owner_and_weight(record)
            weights.append(weight)
        of_request = sum(weights)
        self._sent[owner] += of_request
        return Load(owner, weights, of_request > HEAVY_REQUEST or self._sent[owner] > HEAVY_OWNER)
