"""Show on a terminal how long a command has been at work, once it takes longer than a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

QUIET_S = 1.0
_EVERY_S = 0.2
_CLEAR = "\r\x1b[K"

Tell = Callable[[str], None]
"""Sets what is shown next to the seconds."""


@contextmanager
def showing_progress(target: TextIO, what: str) -> Iterator[Tell]:
    """Show ``what`` and the seconds on one line, which is gone afterwards. Nothing unless ``target`` is a terminal."""
    if not target.isatty():
        yield _ignore
        return
    line = _Line(target, what)
    thread = threading.Thread(target=line.run, daemon=True)
    thread.start()
    try:
        yield line.tell
    finally:
        line.over.set()
        thread.join()


def _ignore(_text: str) -> None:
    """Show nothing."""


class _Line:
    def __init__(self, target: TextIO, what: str) -> None:
        self.over = threading.Event()
        self._target = target
        self._what = what
        self._begun = time.monotonic()

    def tell(self, text: str) -> None:
        self._what = text

    def run(self) -> None:
        if self.over.wait(QUIET_S):
            return
        while True:
            self._target.write(f"{_CLEAR}{self._what}, {time.monotonic() - self._begun:.0f} s")
            self._target.flush()
            if self.over.wait(_EVERY_S):
                break
        self._target.write(_CLEAR)
        self._target.flush()
