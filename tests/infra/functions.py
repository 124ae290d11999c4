"""Lambda's part of an emulated AWS: each function is a process of AWS's own runtime client, as ``runtime_api`` runs it.

A zip runs as it was uploaded, with Lambda's Python; in the place of an image runs the code at hand.
"""

from __future__ import annotations

import os
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.jvm_home import spark_environ
from tests.runtime_api import UNPRIVILEGED, RuntimeApi

_SOURCES = os.pathsep.join(str(ROOT / folder) for folder in ("contract", "api", "processor"))


@dataclass(frozen=True, slots=True)
class Function:
    """A version of a function as an emulation holds it. ``zip`` is None for an image's."""

    name: str
    version: str
    environ: Mapping[str, str]
    timeout_s: float
    handler: str
    zip: bytes | None


class Functions:
    """A process for each version of a function, from its first invocation on.

    ``environ``: what every process is told beside its function's own; ``python`` and ``runtime`` are Lambda's: an
    interpreter, and a folder with the client. Code and logs are in ``folder``.
    """

    def __init__(self, environ: Mapping[str, str], folder: Path, python: str, runtime: str) -> None:
        self._environ, self._folder, self._python, self._runtime = environ, folder, python, runtime
        self._running: dict[str, tuple[RuntimeApi, threading.Lock]] = {}
        self._lock = threading.Lock()

    def invoke(self, function: Function, event: object) -> tuple[Any, bool]:
        """What it answered, and whether that is an error."""
        with self._lock:
            # Another configuration is another process, as on Lambda.
            key = f"{function.version} {sorted(function.environ.items())}"
            if key not in self._running:
                self._running[key] = self._start(function, len(self._running)), threading.Lock()
            process, one_at_a_time = self._running[key]
        with one_at_a_time:
            done = process.invoke(event)
        return (done.response, False) if done.error is None else (done.error, True)

    def _start(self, function: Function, number: int) -> RuntimeApi:
        task = self._folder / f"{function.name}-{number}"
        task.mkdir()
        environ = {**self._environ, "HOME": str(task), **function.environ}
        log = self._folder / f"{task.name}.log"
        if function.zip is not None:
            with zipfile.ZipFile(BytesIO(function.zip)) as archive:
                archive.extractall(task)
            return RuntimeApi(
                function.handler,
                {**environ, "PYTHONPATH": self._runtime},
                task,
                function.timeout_s,
                python=self._python,
                prefix=UNPRIVILEGED,
                log=log,
            )
        spark = spark_environ() if environ.get("MANYMETRICS_ENGINE", "spark") == "spark" else {}
        return RuntimeApi(
            "manymetrics_processor.ingest.lambda_handler.handler",
            {**environ, "PYTHONPATH": _SOURCES, **spark},
            task,
            function.timeout_s,
            log=log,
        )

    def close(self) -> None:
        """End the processes."""
        for process, _ in self._running.values():
            process.close()
