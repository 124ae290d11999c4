"""A processor with a Spark of its own, for tests of races and crashes.

``python -m tests.spark.racing_processor ARGUMENTS``, JSON: see ``Arguments``. It delivers the batches of ``batches`` in
an order of its own, each until it is committed, and some twice.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import msgspec

from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.lake import CommitContentionError, Lake
from manymetrics_processor.lake.spark.engine import SparkEngine
from manymetrics_processor.lake.spark.session import SparkSettings, start_session
from tests.glue_lake import another_handle
from tests.integration.micro_batches import STREAM, record, track
from tests.strict_moto import Aws

SHARDS = ("shard-0", "shard-1")


class Arguments(msgspec.Struct, kw_only=True):
    """``started``: a file in which the process says that it is ready, and which java is its."""

    aws: str
    warehouse: str
    region: str
    jars: str
    java_home: str
    temp: str
    started: str
    go: str
    seed: int = 0


def batches(shard: str) -> list[list[StreamRecord]]:
    """Five of 20 events; half of each is the other shard's events again."""
    return [
        [record(n, *(track(f"m{n}-{i}" if i < 10 else f"{shard}-{n}-{i}") for i in range(20)), shard=shard)]
        for n in range(5)
    ]


def events_of(shards: tuple[str, ...]) -> list[str]:
    """The ids that all batches of these shards hold, once each."""
    shared = {f"m{n}-{i}" for n in range(5) for i in range(10)}
    return sorted(shared | {f"{shard}-{n}-{i}" for shard in shards for n in range(5) for i in range(10, 20)})


def deliver(lake: Lake, shards: tuple[str, ...], chance: random.Random) -> None:
    """Each shard's batches in order, the shards mixed, now and then one again."""
    window = Window()
    left = {shard: batches(shard) for shard in shards}
    while any(left.values()):
        shard = chance.choice([shard for shard, some in left.items() if some])
        batch = left[shard].pop(0)
        for _ in range(chance.choice((1, 1, 2))):
            while True:
                try:
                    pipeline.run(batch, STREAM, lake, window)
                    break
                except CommitContentionError:
                    continue


def main(given: Arguments) -> None:
    session = start_session(
        SparkSettings(
            warehouse=given.warehouse,
            region=given.region,
            jars=Path(given.jars),
            java_home=Path(given.java_home),
            temp=Path(given.temp),
            endpoint=given.aws,
            heap_mb=512,
        )
    )
    lake = another_handle(Aws(given.aws), SparkEngine(lambda: session))
    java = session._jvm.java.lang.ProcessHandle.current().pid()  # type: ignore[union-attr]  # it is running
    Path(given.started).write_text(str(java))
    while not Path(given.go).exists():
        pass
    deliver(lake, SHARDS, random.Random(given.seed))


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Arguments))
