"""The sinks for accepted records. A record is durable if its sink returns STORED; only then is 200 returned."""

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
    """Stores records. One result per record, in the same order; never raises for single records."""

    async def put(self, records: Sequence[bytes]) -> list[SinkResult]:
        """Store records, durable if the result is STORED."""

    async def ready(self) -> bool:
        """Test whether a put would be stored now."""

    async def close(self) -> None:
        """Wait for pending puts."""


class MemorySink:
    """Keeps records in a list, or discards them: for tests, and for measuring everything but the store."""

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
        """Do nothing."""
