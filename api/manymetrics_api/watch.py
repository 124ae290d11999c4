"""Log what spans requests: write keys that can't be read, and bad input, counted by reason.

At most one line per minute, without payloads, IP addresses or keys, since anyone can send bad input.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType
from typing import Final

from manymetrics import telemetry
from manymetrics.outcomes import DEAD_LETTERED
from manymetrics_api.keys import Keys, KeysUnavailableError

log = logging.getLogger("manymetrics.bad_input")

LOOK_S = 5.0
REPORT_S = 60.0

OutcomesReader = Callable[[], Mapping[str, int]]
_NOWHERE: Final[Mapping[str, str]] = MappingProxyType({})


@asynccontextmanager
async def watching(
    keys: Keys, read_outcomes: OutcomesReader | None, see: Mapping[str, str] = _NOWHERE
) -> AsyncIterator[None]:
    """Check every LOOK_S seconds while the context is open; keys log their own changes."""
    bad_input = BadInput(read_outcomes, see=see)
    await asyncio.to_thread(bad_input.counts)  # don't report those from before this start
    task = asyncio.create_task(_watch(keys, bad_input))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _watch(keys: Keys, bad_input: BadInput) -> None:
    while True:
        try:
            with suppress(KeysUnavailableError):
                keys.origins()
            await asyncio.to_thread(bad_input.report)
        except Exception:  # any error: continue, and leave the server running
            log.exception("checking for bad input failed")
        await asyncio.sleep(LOOK_S)


class BadInput:
    """Counts refused requests and dead letters since the last line.

    ``read_outcomes`` returns the committed books' outcomes; None if this process has none. ``see``: the commands that
    show dead letters, by name, for the log line.
    """

    def __init__(
        self,
        read_outcomes: OutcomesReader | None,
        clock: Callable[[], float] = time.monotonic,
        see: Mapping[str, str] = _NOWHERE,
    ) -> None:
        self._read_outcomes, self._clock, self._see = read_outcomes, clock, see
        self._refused = telemetry.refusal_counts.copy()
        self._letters: Counter[str] | None = None
        self._reported_at = float("-inf")
        self._is_due = False

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return dead letters by reason and refused requests by code since the last call."""
        refused, letters = telemetry.refusal_counts.copy(), self._read_letters()
        new = letters - self._letters if letters is not None and self._letters is not None else Counter[str]()
        new_refused = refused - self._refused
        self._refused, self._letters = refused, letters if letters is not None else self._letters
        return dict(new), dict(new_refused)

    def report(self) -> None:
        """Log a line if there was something to report at the last call, and the last line is REPORT_S old.

        Not immediately, since events become dead letters seconds after the response.
        """
        if self._clock() - self._reported_at < REPORT_S:
            return
        if not self._is_due:
            self._is_due = telemetry.refusal_counts != self._refused or self._read_letters() not in (
                None,
                self._letters,
            )
            return
        letters, refused = self.counts()
        self._reported_at, self._is_due = self._clock(), False
        facts: dict[str, object] = {"dead_letters": letters, "refused": refused}
        if letters:
            facts |= self._see
        if refused:
            facts["see_refused"] = "api/README.md, Answers; the `message` of each response names the fix"
        log.warning("some input was rejected or dead-lettered", extra={"facts": facts})

    def _read_letters(self) -> Counter[str] | None:
        """Read the dead letter counts; None if they can't be read right now."""
        if self._read_outcomes is None:
            return Counter()
        try:
            outcomes = self._read_outcomes()
        except Exception:  # noqa: BLE001  # a busy or damaged catalog: /readyz and doctor report it
            return None
        prefix = f"{DEAD_LETTERED}:"
        return Counter({name.removeprefix(prefix): n for name, n in outcomes.items() if name.startswith(prefix)})
