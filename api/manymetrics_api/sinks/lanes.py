"""Divert heavy requests to a second lane, so that the events of others don't wait behind them.

A request is heavy if it weighs over HEAVY_REQUEST (records.weight), or its owner has sent more than HEAVY_OWNER within
WINDOW_S. It is as durable as others; its records join the stream once there is nothing else to commit.

The owner is a project and a kind of key, so flooding with a page's browser key doesn't delay events of the project's
servers. Records don't distinguish keys of the same kind.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from manymetrics.records import owner_and_weight

HEAVY_REQUEST = 1_000_000
HEAVY_OWNER = 32_000_000  # 30,000 typical events: about what is committed per second
WINDOW_S = 2.0
MAX_ASIDE = 512_000_000  # per owner: half a minute of commits. Past it, the owner's heavy requests are rejected


class Load(NamedTuple):
    """A request's owner, the weight of each of its records, and whether it is diverted."""

    owner: str
    weights: list[int]
    is_heavy: bool


class Lanes:
    """Tracks how much each owner has sent recently. Not thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sent: dict[str, int] = defaultdict(int)
        self._until = 0.0

    def judge(self, records: Sequence[bytes]) -> Load:
        """Weigh a request's records, and decide whether to divert them."""
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
