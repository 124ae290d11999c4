"""A processor in a process of its own that commits one batch, put together by the product's own root.

A test kills it in the middle. It is forked from a process that has imported what it needs, which takes a second.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Mapping

from manymetrics.settings import Settings
from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.ingest.factory import make_catalog, make_engine
from manymetrics_processor.lake.lake import Lake
from tests.bench.process import children
from tests.integration.micro_batches import STREAM, record, track

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["manymetrics_processor.ingest.lambda_handler"])


def batch_of(number: int) -> list[StreamRecord]:
    """An event of its own, one that each batch has, and one that is a dead letter."""
    return [record(number, track(f"m{number}"), track("again"), b"{}")]


class Doomed:
    """The process, and the JVM that it may have."""

    def __init__(self, number: int, environ: Mapping[str, str]) -> None:
        self._process = _FORKS.Process(target=_commit, args=(number, environ))
        self._process.start()

    def kill(self) -> None:
        """All of it, as when a machine is gone."""
        assert self._process.pid is not None
        for child in children(self._process.pid):
            os.kill(child, signal.SIGKILL)
        self._process.kill()

    def wait(self) -> int | None:
        """Its exit status."""
        self._process.join(120)
        status = self._process.exitcode
        self._process.kill()
        self._process.join()
        return status


def _commit(number: int, environ: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environ)
    settings = Settings.read(os.environ)
    lake = Lake(make_catalog(settings, os.environ), make_engine(settings, os.environ))
    pipeline.run(batch_of(number), STREAM, lake, Window())
