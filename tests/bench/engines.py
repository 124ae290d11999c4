"""What a batch of 10,000 events costs on AWS, by the engine: of a cold process, and of a warm one.

Each processor is a process as on Lambda, given Lambda's events; Glue and S3 are moto, in a process of its own, whose
CPU is not counted. Spark is measured with and without its class archive, where `make jvm` has put a JVM.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench.report import Bar, Part
from tests.conftest import ROOT
from tests.glue_lake import BUCKET
from tests.jvm_home import HOME
from tests.strict_moto import REGION, Aws, strict_moto

COMMITS = 9
ROUNDS = 3
CLASS_ARCHIVE = "manymetrics_processor.class_archive"


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one process: seconds to its first commit since it began, those of a later one, and memory in MB."""

    cold_cpu_s: float
    cold_wall_s: float
    warm_cpu_s: float
    warm_wall_s: float
    peak_mb: float


def measure(scratch: Path) -> Part:
    """Each way in turn, round by round."""
    ways = dict(_ways(scratch))
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, environ in ways.items():
            with strict_moto() as aws:
                costs[name].append(_run(aws, environ, scratch / "report.json"))
    return _part({name: _median(some) for name, some in costs.items()})


def _ways(scratch: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    yield "arrow", {"MANYMETRICS_ENGINE": "arrow"}
    jars, java = HOME / "jars", HOME / "java21"
    if jars.is_dir():
        with_archive = scratch / "jars"
        with_archive.mkdir()
        for jar in jars.iterdir():
            (with_archive / jar.name).symlink_to(jar)
        make = ["--jars", str(with_archive), "--java-home", str(java), str(with_archive / "classes.jsa")]
        subprocess.run([sys.executable, "-m", CLASS_ARCHIVE, *make], cwd=ROOT, check=True)
        spark = {"MANYMETRICS_ENGINE": "spark", "JAVA_HOME": str(java)}
        yield "spark", {**spark, "MANYMETRICS_SPARK_JARS": str(jars)}
        yield "spark, class archive", {**spark, "MANYMETRICS_SPARK_JARS": str(with_archive)}


def _run(aws: Aws, environ: Mapping[str, str], report: Path) -> Cost:
    aws.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    subprocess.run(
        [sys.executable, "-m", "tests.bench.engine_process", str(COMMITS), report],
        env={"PATH": "/usr/bin:/bin", **aws.environ, "MANYMETRICS_WAREHOUSE": f"s3://{BUCKET}/tables", **environ},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    told = json.loads(report.read_text())
    cold, *warm = told["costs"]
    warm_cpu_s, warm_wall_s = (median(one[name] for one in warm[1:]) for name in ("cpu_s", "wall_s"))
    return Cost(cold["cpu_s"], cold["wall_s"], warm_cpu_s, warm_wall_s, told["peak_mb"])


def _median(costs: list[Cost]) -> Cost:
    return Cost(*(median(getattr(one, name) for one in costs) for name in Cost.__slots__))


def _part(costs: Mapping[str, Cost]) -> Part:
    part = Part(
        "Processor on AWS: a batch of 10,000 events into Glue and S3, by engine",
        ("engine", "warm CPU s", "warm wall s", "cold CPU s", "cold wall s", "peak MB"),
    )
    for name, cost in costs.items():
        part.rows.append((name, cost.warm_cpu_s, cost.warm_wall_s, cost.cold_cpu_s, cost.cold_wall_s, cost.peak_mb))
        part.figures |= {f"{name}, {figure}": getattr(cost, figure) for figure in Cost.__slots__}
    arrow = costs["arrow"]
    part.bars = [
        Bar("arrow, a warm batch, CPU", arrow.warm_cpu_s, 0.3, unit=" s"),
        Bar("arrow, a warm batch, wall", arrow.warm_wall_s, 0.4, unit=" s"),
    ]
    for name, cold_s in (("spark", 11), ("spark, class archive", 7)):
        if name in costs:
            part.bars += [
                Bar(f"{name}, a warm batch, wall", costs[name].warm_wall_s, 1.2, unit=" s"),
                Bar(f"{name}, from start to first commit, wall", costs[name].cold_wall_s, cold_s, unit=" s"),
                Bar(f"{name}, most memory", costs[name].peak_mb, 1_800, unit=" MB"),
            ]
            part.figures[f"{name} / arrow, CPU of a warm batch"] = costs[name].warm_cpu_s / arrow.warm_cpu_s
    return part
