"""Runs the project's own commands like a user, on the stack's tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from sample.conformance.probe import NotRunError, ProbeFailedError, Run
from sample.conformance.world import ROOT

_JAVA = ROOT / ".venv" / "jvm" / "java21"


def query(run: Run, sql: str) -> list[dict[str, Any]]:
    """Return the rows printed by `manymetrics query`."""
    done = _start(run, ["manymetrics", "query", sql, "-o", "ndjson"])
    if done.returncode:
        raise ProbeFailedError(f"manymetrics query {sql!r}: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def replay(run: Run, location: str) -> dict[str, Any]:
    """Return the report of `manymetrics replay LOCATION`."""
    done = _start(run, ["manymetrics", "replay", location])
    if done.returncode:
        raise ProbeFailedError(f"manymetrics replay: {done.stderr.strip()[-1_000:]}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def erase(run: Run, user_id: str) -> dict[str, Any]:
    """Return the receipt of the erase job, run with Spark on this machine. Raises NotRunError without Java."""
    java = os.environ.get("JAVA_HOME") or (str(_JAVA) if _JAVA.is_dir() else "")
    if not java:
        raise NotRunError("The erase job runs on Spark, which needs Java 17 or 21: run `make jvm`, or set JAVA_HOME")
    arguments = ["--user-id", user_id, "--failures", run.outputs.failures_location, "--yes"]
    done = _start(run, ["manymetrics_processor.jobs.erase", *arguments], JAVA_HOME=java)
    try:
        receipt: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise ProbeFailedError(f"erase printed no receipt: {done.stderr.strip()[-1_000:]}") from None
    return receipt


def _start(run: Run, module: list[str], **environ: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(ROOT / room) for room in ("api", "processor", "insights"))
    given = {
        **run.world.environ,
        "PYTHONPATH": path,
        "MANYMETRICS_WAREHOUSE": run.outputs.warehouse,
        "MANYMETRICS_DATABASE": run.outputs.glue_database_name,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        **environ,
    }
    return subprocess.run(
        [sys.executable, "-m", *module], env=given, capture_output=True, text=True, check=False, cwd=ROOT
    )
