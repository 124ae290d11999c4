"""Where `make jvm` put what tests of Spark and Trino need. Without it they skip, and CI fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HOME = Path(sys.prefix) / "jvm"


def jvm_part(name: str) -> Path:
    """``jars``, ``java21``, ``java25`` or ``trino``; skips the test where it is not there."""
    part = HOME / name
    if not part.is_dir():
        pytest.skip(f"no {part} (make jvm)")
    return part
