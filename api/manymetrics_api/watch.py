"""Tell in the log what no single request tells: write keys that can't be read, and bad input, counted by reason.

A line a minute at most, without payloads, addresses and keys: strangers send bad input too.
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
    """Look every LOOK_S seconds while the context is open; keys log by themselves what changes."""
    bad_input = BadInput(read_outcomes, see=see)
    await asyncio.to_thread(bad_input.counts)  # those of before this start are not told again
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
        except Exception:  # whatever it is: this goes on, and so does the server
            log.exception("looking for bad input failed")
        await asyncio.sleep(LOOK_S)


class BadInput:
    """Counts what was refused or became a dead letter since the last line.

    ``read_outcomes`` gives the committed books' outcomes; None where this process has none. ``see`` is what a line
    about dead letters says of where they are: the commands that show them, by name.
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
        """Dead letters by reason and refused requests by code since the last call."""
        refused, letters = telemetry.refusal_counts.copy(), self._read_letters()
        new = letters - self._letters if letters is not None and self._letters is not None else Counter[str]()
        new_refused = refused - self._refused
        self._refused, self._letters = refused, letters if letters is not None else self._letters
        return dict(new), dict(new_refused)

    def report(self) -> None:
        """Log a line where there was something to tell at the last call, and the last line is REPORT_S old.

        Not at once, since the events of a request become dead letters seconds after it is answered.
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
            facts["see_refused"] = "api/README.md, Answers; each answer's `message` says the cure"
        log.warning("some input was refused or could not become a row", extra={"facts": facts})

    def _read_letters(self) -> Counter[str] | None:
        """None where they can't be read just now."""
        if self._read_outcomes is None:
            return Counter()
        try:
            outcomes = self._read_outcomes()
        except Exception:  # noqa: BLE001  # a busy or damaged catalogue: /readyz and doctor tell that
            return None
        prefix = f"{DEAD_LETTERED}:"
        return Counter({name.removeprefix(prefix): n for name, n in outcomes.items() if name.startswith(prefix)})
