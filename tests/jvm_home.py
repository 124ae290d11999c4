"""Where `make jvm` put what tests of Spark and Trino need. Without it they skip, and CI fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HOME = Path(sys.prefix) / "jvm"


def spark_environ() -> dict[str, str]:
    """What a process of the processor needs for Spark; skips the test where it is not there."""
    return {"JAVA_HOME": str(jvm_part("java21")), "MANYMETRICS_SPARK_JARS": str(jvm_part("jars"))}


def jvm_part(name: str) -> Path:
    """``jars``, ``java21``, ``java25`` or ``trino``; skips the test where it is not there."""
    part = HOME / name
    if not part.is_dir():
        pytest.skip(f"no {part} (make jvm)")
    return part
