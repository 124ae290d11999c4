"""What a batch costs on AWS, by the engine and its events: of a cold process, and of a warm one.

Each processor is a process as on Lambda, given Lambda's events; Glue and S3 are moto, in a process of its own, whose
CPU is not counted. Spark is measured with and without its class archive, where `make jvm` has put a JVM; without it at
one size alone. A warm process has committed twice; what counts is the mean of what follows, as the JVM's full
collections come with each third or fourth commit.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from manymetrics_cli.cost.measured import BATCHES
from tests.bench.report import Bar, Part
from tests.conftest import ROOT
from tests.glue_lake import BUCKET
from tests.jvm_home import HOME
from tests.strict_moto import REGION, Aws, strict_moto

COMMITS = 24  # windows of 300 s in the two hours for which a bill takes it that Lambda keeps a process
SIZE = 10_000  # that the bars are on
ROUNDS = 3
CLASS_ARCHIVE = ROOT / "docker" / "class_archive.py"
ARCHIVED = "spark, class archive"


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
    runs = [(way, size) for way in ways for size in (BATCHES if way in {"arrow", ARCHIVED} else (SIZE,))]
    costs: dict[tuple[str, int], list[Cost]] = {run: [] for run in runs}
    for _ in range(ROUNDS):
        for way, size in runs:
            with strict_moto() as aws:
                costs[way, size].append(_run(aws, ways[way], size, scratch / "report.json"))
    return _part({run: _median(some) for run, some in costs.items()})


def _ways(scratch: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    yield "arrow", {"MANYMETRICS_ENGINE": "arrow"}
    jars, java = HOME / "jars", HOME / "java21"
    if jars.is_dir():
        with_archive = scratch / "jars"
        with_archive.mkdir()
        for jar in jars.iterdir():
            (with_archive / jar.name).symlink_to(jar)
        make = ["--jars", str(with_archive), "--java-home", str(java), str(with_archive / "classes.jsa")]
        subprocess.run([sys.executable, CLASS_ARCHIVE, *make], cwd=ROOT, check=True)
        spark = {"MANYMETRICS_ENGINE": "spark", "JAVA_HOME": str(java)}
        yield "spark", {**spark, "MANYMETRICS_SPARK_JARS": str(jars)}
        yield ARCHIVED, {**spark, "MANYMETRICS_SPARK_JARS": str(with_archive)}


def _run(aws: Aws, environ: Mapping[str, str], events: int, report: Path) -> Cost:
    aws.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    subprocess.run(
        [sys.executable, "-m", "tests.bench.engine_process", str(COMMITS), str(events), report],
        env={"PATH": "/usr/bin:/bin", **aws.environ, "MANYMETRICS_WAREHOUSE": f"s3://{BUCKET}/tables", **environ},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    told = json.loads(report.read_text())
    cold, *warm = told["costs"]
    warm_cpu_s, warm_wall_s = (fmean(one[name] for one in warm[1:]) for name in ("cpu_s", "wall_s"))
    return Cost(cold["cpu_s"], cold["wall_s"], warm_cpu_s, warm_wall_s, told["peak_mb"])


def _median(costs: list[Cost]) -> Cost:
    return Cost(*(median(getattr(one, name) for one in costs) for name in Cost.__slots__))


def _part(costs: Mapping[tuple[str, int], Cost]) -> Part:
    part = Part(
        "Processor on AWS: a batch into Glue and S3, by engine",
        ("engine, events", "warm CPU s", "warm wall s", "cold CPU s", "cold wall s", "peak MB"),
    )
    for (way, size), cost in costs.items():
        name = f"{way}, {size:,} events"
        part.rows.append((name, cost.warm_cpu_s, cost.warm_wall_s, cost.cold_cpu_s, cost.cold_wall_s, cost.peak_mb))
        part.figures |= {f"{name}, {figure}": getattr(cost, figure) for figure in Cost.__slots__}
    arrow = costs["arrow", SIZE]
    part.bars = [
        Bar("arrow, a warm batch, CPU", arrow.warm_cpu_s, 0.3, unit=" s"),
        Bar("arrow, a warm batch, wall", arrow.warm_wall_s, 0.4, unit=" s"),
    ]
    for way, cold_s in (("spark", 11), (ARCHIVED, 7)):
        if (way, SIZE) in costs:
            cost = costs[way, SIZE]
            part.bars += [
                Bar(f"{way}, a warm batch, wall", cost.warm_wall_s, 1.2, unit=" s"),
                Bar(f"{way}, from start to first commit, wall", cost.cold_wall_s, cold_s, unit=" s"),
                Bar(f"{way}, most memory", _most_memory(costs, way), 1_800, unit=" MB"),
            ]
            part.figures[f"{way} / arrow, CPU of a warm batch"] = cost.warm_cpu_s / arrow.warm_cpu_s
    return part


def _most_memory(costs: Mapping[tuple[str, int], Cost], way: str) -> float:
    return max(cost.peak_mb for (name, _), cost in costs.items() if name == way)
