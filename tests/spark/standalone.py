"""Spark's own cluster on this machine: a master and workers, each a process with executors of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from manymetrics_processor import jobs
from tests.jvm_home import jvm_part
from tests.live_server import eventually
from tests.ports import free_port

COMMAND = Path(sys.prefix) / "bin" / "spark-submit"


@dataclass(frozen=True, slots=True)
class Standalone:
    """``workers``: each with its executors in a process group of its own."""

    master: str
    workers: list[subprocess.Popen[bytes]]
    environ: Mapping[str, str]

    def submit(self, job: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a job; how far it is and its report come on stdout."""
        script = Path(jobs.__file__).parent / f"{job}.py"
        spark = ["--master", self.master, "--driver-memory", "512m", "--executor-memory", "512m"]
        return subprocess.Popen(
            [COMMAND, *spark, "--conf", "spark.ui.enabled=false", script, *arguments],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )


@contextmanager
def standalone(count: int, home: Path, environ: Mapping[str, str]) -> Iterator[Standalone]:
    """``home``: where the cluster keeps its files. ``environ``: more than what Spark needs itself."""
    spark = find_spec("pyspark")
    assert spark is not None
    assert spark.origin is not None
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(home),
        "JAVA_HOME": str(jvm_part("java21").absolute()),
        "SPARK_HOME": str(Path(spark.origin).parent),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_MEMORY": "256m",
        "PYSPARK_PYTHON": sys.executable,
        **environ,
    }
    port = free_port()
    master = f"spark://127.0.0.1:{port}"
    logs = home / "logs"
    logs.mkdir()
    running: list[subprocess.Popen[bytes]] = []

    def start(name: str, main: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (logs / name).open("wb") as log:
            process = subprocess.Popen(
                [
                    COMMAND.with_name("spark-class"),
                    f"org.apache.spark.deploy.{main}",
                    "--host",
                    "127.0.0.1",
                    *arguments,
                ],
                env=env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        running.append(process)
        return process

    try:
        start("master", "master.Master", "--port", str(port), "--webui-port", "0")
        eventually(lambda: "New state: ALIVE" in (logs / "master").read_text() or None, within_s=60)
        own = ("--webui-port", "0", "--cores", "1", "--memory", "1g", "--work-dir", str(home / "work"))
        workers = [start(f"worker-{n}", "worker.Worker", *own, master) for n in range(count)]
        eventually(lambda: (logs / "master").read_text().count("Registering worker") == count or None, within_s=60)
        yield Standalone(master, workers, env)
    finally:
        for process in running:
            kill_group(process)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """A process and its children, as when their machine is gone."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
