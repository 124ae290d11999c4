"""One process that takes heavy requests through a stage, and prints the most memory that it held, in MB.

python -m tests.integration.heavy_process FOLDER commit|merge|query INPUT [REQUESTS]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from manymetrics.limits import MAX_WEIGHT_BYTES
from manymetrics.records import compress, pack
from manymetrics.tables import TABLES
from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.ingest.lambda_records import split_parts
from manymetrics_processor.lake.maintenance import merge_small_files
from tests.bench.amplification import REQUESTS, ask
from tests.bench.process import peak_mb
from tests.integration.micro_batches import NOW, SHARD, STREAM, make_lake


def main(folder: Path, stage: str, name: str, requests: int = 0) -> None:
    """Do the stage, and print."""
    lake = make_lake(folder)
    if stage == "commit":
        request, window = REQUESTS[name], Window()
        for number in range(requests):
            packed = map(compress, pack(request.stamp, request.events(MAX_WEIGHT_BYTES)))
            records = [StreamRecord(SHARD, 1_000 * number + at, one, NOW) for at, one in enumerate(packed, 1)]
            for part in split_parts(records):
                pipeline.run(part, STREAM, lake, window)
    elif stage == "merge":
        for table in TABLES:
            merge_small_files(lake, table)
    else:
        ask(folder)
    sys.stdout.write(str(peak_mb(os.getpid())))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
