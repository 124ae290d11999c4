"""The definitions of a running server, read again as they may have changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from manymetrics_insights.definitions.models import NONE, Definitions
from manymetrics_insights.definitions.read import VARIABLE, load

FRESH_FOR_S: Final = 5.0


@dataclass(slots=True)
class WatchedDefinitions:
    """``environ``: names their location, if there are any. Threads may share it."""

    environ: Mapping[str, str]
    _definitions: Definitions = NONE
    _read_at: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def current(self) -> Definitions:
        """Return the definitions, at most five seconds old. Raises DefinitionsError."""
        location = self.environ.get(VARIABLE)
        if not location:
            return NONE
        with self._lock:
            now = time.monotonic()
            if self._read_at is None or now - self._read_at > FRESH_FOR_S:
                self._definitions = load(location, self.environ).definitions
                self._read_at = now
            return self._definitions
