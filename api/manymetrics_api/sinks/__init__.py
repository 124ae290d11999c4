"""Where accepted records go. A record is durable when its sink says STORED, and only then is a request answered 200."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol


class SinkResult(Enum):
    """Result of storing one record."""

    STORED = "stored"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"


class Sink(Protocol):
    """One result per record, same order; never raises for one record."""

    async def put(self, records: Sequence[bytes]) -> list[SinkResult]:
        """Durable where it says STORED."""

    async def ready(self) -> bool:
        """Whether a put would be stored now; tries it."""

    async def close(self) -> None:
        """Wait for what is under way."""


class MemorySink:
    """Keeps records in a list, or nothing at all: for tests and for measuring all but the store."""

    def __init__(self, *, keep: bool = True) -> None:
        self.records: list[bytes] = []
        self.result = SinkResult.STORED
        self._keep = keep

    async def put(self, records: Sequence[bytes]) -> list[SinkResult]:
        """Like ``Sink.put``, with the result that ``result`` is set to."""
        if self._keep and self.result is SinkResult.STORED:
            self.records += records
        return [self.result] * len(records)

    async def ready(self) -> bool:
        """Like ``Sink.ready``."""
        return self.result is SinkResult.STORED

    async def close(self) -> None:
        """Nothing to wait for."""
