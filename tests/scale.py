"""How much tests try: ``TEST_SCALE`` is quick (the default), ci or full.

The tests are the same; on a larger scale they try more events, worlds, seeds and examples. Those that take minutes and
say what quicker ones say with parts that are real are marked with the least scale that they run on.
"""

from __future__ import annotations

import os
from typing import Final

SCALES: Final = ("quick", "ci", "full")
SCALE: Final = os.environ.get("TEST_SCALE") or "quick"
if SCALE not in SCALES:
    raise SystemExit(f"TEST_SCALE takes one of {', '.join(SCALES)}, not {SCALE!r}")


def scaled(quick: int, ci: int, full: int) -> int:
    """The number for this run's scale."""
    return (quick, ci, full)[SCALES.index(SCALE)]


def is_on(least: str) -> bool:
    """Whether this run's scale is at least this one."""
    return SCALES.index(SCALE) >= SCALES.index(least)
