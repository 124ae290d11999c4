"""A processor as it starts on Lambda, for the bench: ``python -m tests.bench.engine_process COMMITS EVENTS REPORT``.

It commits as many batches of so many events (hundreds), by the settings in the environment, and writes to the file
REPORT, as JSON, the CPU and wall seconds of each (of the first: since the process began) and the most memory it held.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from manymetrics.records import Stamp, compress, pack
from manymetrics.settings import Settings
from manymetrics_processor.ingest.factory import make_catalog, make_processor
from tests.bench.payloads import event_bytes
from tests.bench.process import cpu_seconds_below, peak_mb, seconds_since_start
from tests.integration.micro_batches import kinesis_event

A_RECORD = 100
_BEGIN_US = 1_767_600_000_000_000


def batch(number: int, records: int) -> dict[str, Any]:
    """Lambda's event with records of events that no other batch has."""
    return kinesis_event(
        "arn:aws:kinesis:eu-west-1:1:stream/bench",
        *((one + 1, _record(one)) for one in range(number * records, (number + 1) * records)),
    )


def _record(number: int) -> bytes:
    stamp = Stamp(_BEGIN_US + number * 1_000, f"r{number}", "bench", "browser")
    [data] = pack(stamp, [event_bytes(one) for one in range(number * A_RECORD, (number + 1) * A_RECORD)])
    return compress(data)


def main(commits: int, events: int, report: Path) -> None:
    began = _now()
    batches = [batch(number, events // A_RECORD) for number in range(commits)]
    last = tuple(now - then for now, then in zip(_now(), began, strict=True))  # as if that had taken no time
    settings = Settings.read(os.environ)
    processor = make_processor(settings, make_catalog(settings, os.environ), os.environ, lambda arn: arn)
    costs = []
    for one in batches:
        if processor.handle(one, None) != {"batchItemFailures": []}:
            sys.exit("the processor did not commit")
        now = _now()
        costs.append({"cpu_s": now[0] - last[0], "wall_s": now[1] - last[1]})
        last = now
    report.write_text(json.dumps({"costs": costs, "peak_mb": peak_mb(os.getpid())}))


def _now() -> tuple[float, float]:
    """CPU and wall seconds since the process began."""
    return time.process_time() + cpu_seconds_below(os.getpid()), seconds_since_start(os.getpid())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
