"""A committer in a process of its own, with no lock to keep others out: for tests of races."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from manymetrics_api.sinks.local_stream import SHARD, LocalSource
from manymetrics_cli.one_machine import stream_path
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import local_committer as committer
from manymetrics_processor.lake.lake import Lake, local_catalog

if __name__ == "__main__":
    data_dir = Path(sys.argv[1])
    committer.MAX_EVENTS = 200  # many small batches, so that there is much to race for
    lake = Lake(local_catalog(data_dir))
    lake.ensure_tables()
    racer = committer.Committer(LocalSource(stream_path(data_dir)), SHARD, lake, Window(), interval_s=0.01)
    racer.run(threading.Event())
