"""``make bench``: how fast the product is, as ratios against references measured in the same run.

Prints a table a part and writes build/bench.json {commit, versions, load_average, ratios, figures}. Exits 0 whether the
bars are met or not, since a busy machine is no defect; what goes wrong while measuring does fail.
"""

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench import amplification, engines, http, insights, lambda_api, processor
from tests.bench.report import Part

PACKAGES = (
    "awscrt",
    "duckdb",
    "boto3",
    "fastapi",
    "msgspec",
    "pyarrow",
    "pydantic",
    "pyiceberg",
    "uvicorn",
    "uvloop",
    "zstandard",
)
PARTS = (
    http.measure,
    lambda_api.measure,
    processor.measure_backlog,
    processor.measure_age,
    processor.measure_window,
    amplification.measure,
    engines.measure,
    insights.measure,
)
REPORT = Path("build/bench.json")


def main() -> None:
    before = os.getloadavg()[0]
    REPORT.parent.mkdir(exist_ok=True)
    parts = []
    for measure in PARTS:
        with TemporaryDirectory(dir=REPORT.parent, prefix="bench-") as scratch:
            part = measure(Path(scratch))
        parts.append(part)
        print(part.markdown(), end="\n\n", flush=True)
    if before > len(os.sched_getaffinity(0)):
        print(f"The machine was busy before the bench began (load {before:.1f}): read this with care.")
    _write(parts, before)
    print(f"Written to {REPORT}")


def _write(parts: list[Part], load_before: float) -> None:
    report = {
        "commit": _commit(),
        "versions": {"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        "load_average": {"before": load_before, "after": os.getloadavg()[0]},
        "ratios": {
            bar.name: {"value": bar.value, "limit": bar.limit, "side": bar.side, "passed": bar.passed}
            for part in parts
            for bar in part.bars
        },
        "figures": {part.title: part.figures for part in parts},
    }
    REPORT.write_text(json.dumps(report, indent=2) + "\n")


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
