"""Processes with a Spark of their own: they race, they are killed, and they run where a Lambda runs."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from pyspark.sql import SparkSession

from manymetrics_processor.lake.spark.session import SparkSettings
from tests.conftest import ROOT
from tests.faulty_aws import Calls
from tests.integration.micro_batches import books, counts, message_ids
from tests.spark.conftest import Lakes
from tests.spark.racing_processor import SHARDS, Arguments, deliver, events_of
from tests.strict_moto import REGION, Aws

pytestmark = [pytest.mark.jvm, pytest.mark.xdist_group("spark")]

EXACT = {"received": 200, "stored": 150, "duplicate": 50}


class Processor(NamedTuple):
    """A process and its JVM."""

    process: subprocess.Popen[bytes]
    java: int

    def kill(self) -> None:
        """Both, as when a Lambda's machine is gone."""
        for pid in (self.java, self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def processors(count: int, settings: SparkSettings, aws: Aws, tmp_path: Path) -> Iterator[list[Processor]]:
    """They begin at once, when all have started."""
    go = tmp_path / "go"
    started = [tmp_path / f"started-{n}" for n in range(count)]
    arguments = [
        Arguments(
            aws=str(settings.endpoint),
            warehouse=settings.warehouse,
            region=REGION,
            jars=str(settings.jars),
            java_home=str(settings.java_home),
            temp=str(tmp_path),
            started=str(file),
            go=str(go),
            seed=seed,
        )
        for seed, file in enumerate(started)
    ]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.spark.racing_processor", msgspec.json.encode(one).decode()],
            cwd=ROOT,
            env={**os.environ, **aws.environ},
        )
        for one in arguments
    ]
    try:
        _wait_until(lambda: all(file.exists() and file.read_text() for file in started))
        go.touch()
        yield [Processor(one, int(file.read_text())) for one, file in zip(running, started, strict=True)]
    finally:
        for process in running:
            process.kill()
            process.wait()


def _wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_processors_that_race_store_each_event_once(
    lakes: Lakes, settings: SparkSettings, aws: Aws, tmp_path: Path
) -> None:
    with processors(2, settings, aws, tmp_path) as racing:
        deliver(lakes.arrow, SHARDS, random.Random(9))  # and the arrow engine with them
        assert [one.process.wait(timeout=120) for one in racing] == [0, 0]

    assert message_ids(lakes.arrow) == events_of(SHARDS)
    assert counts(books(lakes.arrow)) == EXACT


@pytest.fixture
def alone(settings: SparkSettings, tmp_path: Path) -> dict[str, str]:
    """The environment of a process that runs ``ALONE``."""
    return {
        "PATH": os.environ["PATH"],
        "JARS": str(settings.jars),
        "JAVA_HOME_21": str(settings.java_home),
        "TMPDIR": str(tmp_path),
    }


ALONE = """
import os, sys
from pathlib import Path
from manymetrics_processor.lake.spark import session as spark_session
from manymetrics_processor.lake.spark.session import SparkSettings, start_session, stop_session

session = start_session(SparkSettings(
    warehouse="s3://none/none", region="eu-west-1", jars=Path(os.environ["JARS"]), heap_mb=512,
    java_home=Path(os.environ["JAVA_HOME_21"]),
))
java = session._jvm.java.lang.ProcessHandle.current().pid()
assert session.range(1000).selectExpr("sum(id) s").collect()[0].s == 499500
"""


def test_the_jvm_ends_with_its_process_and_leaves_nothing_where_it_is_stopped(
    alone: dict[str, str], tmp_path: Path
) -> None:
    script = ALONE + "print(java, flush=True); stop_session(session); print('stopped', flush=True)"
    done = subprocess.run([sys.executable, "-c", script], env=alone, capture_output=True, check=True, timeout=120)

    java, stopped = done.stdout.decode().split()
    assert stopped == "stopped"
    assert done.stderr == b""
    assert not Path("/proc", java).exists()
    assert list(tmp_path.iterdir()) == []

    killed = ALONE + "print(java, flush=True); os.kill(os.getpid(), 9)"
    java = subprocess.run([sys.executable, "-c", killed], env=alone, capture_output=True, check=False).stdout.decode()
    _wait_until(lambda: not Path("/proc", java.strip()).exists())


def test_only_this_machine_can_reach_the_jvm(session: SparkSession) -> None:
    jvm: Any = session._jvm
    java = Path("/proc", str(jvm.java.lang.ProcessHandle.current().pid()))
    own = {str(fd.readlink()) for fd in (java / "fd").iterdir()}

    addresses = {
        address.rpartition(":")[0]
        for protocol in ("tcp", "tcp6")
        for _, address, _, state, *_, inode in (_socket(line) for line in _lines(java / "net" / protocol))
        if state == LISTENS and f"socket:[{inode}]" in own
    }

    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert addresses


LISTENS = "0A"


def _lines(table: Path) -> list[str]:
    return table.read_text().splitlines()[1:]


def _socket(line: str) -> list[str]:
    return line.split()[:10]


def test_a_session_needs_no_home_no_shared_memory_and_no_folder_but_the_temporary(
    alone: dict[str, str], tmp_path: Path
) -> None:
    """As on Lambda: the root is read-only, /dev/shm isn't there, the user has no home."""
    script = ALONE + "stop_session(session); print('done')"
    steps = (
        f"mount --bind {tmp_path} {tmp_path}",
        "mount -o remount,ro,bind /",
        "umount -l /dev/shm",
        f"! touch {ROOT}/written 2>&-",
        'exec "$@"',
    )
    command = ["unshare", "--mount", "sh", "-c", " && ".join(steps), "sh", sys.executable, "-B", "-c", script]
    if subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("no right to mount")

    done = subprocess.run(command, env=alone, capture_output=True, check=False, timeout=120)

    assert (done.stdout, done.stderr) == (b"done\n", b"")


@pytest.mark.usefixtures("lakes")
def test_a_jvm_that_is_gone_is_told_from_a_conflict(
    settings: SparkSettings, aws: Aws, glue: Calls, tmp_path: Path
) -> None:
    with processors(1, settings, aws, tmp_path) as [victim]:
        glue.before = lambda _number: os.kill(victim.java, signal.SIGKILL)
        assert victim.process.wait(timeout=120) == 1  # by EngineLostError, not after twelve conflicts
    assert glue.count == 1


LOADS = """
import os, sys, tempfile
from pathlib import Path
from class_archive import warm_up
from manymetrics_processor.lake.spark.session import SparkSettings

settings = SparkSettings(
    warehouse="", region="us-east-1", jars=Path(os.environ["JARS"]), heap_mb=512,
    java_home=Path(os.environ["JAVA_HOME_21"]), class_archive=Path(sys.argv[1]),
)
with tempfile.TemporaryDirectory() as folder:
    warm_up(settings, Path(folder), options=f"-Xlog:class+load:file={sys.argv[2]}")
"""
WITHOUT_NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")


def test_a_class_archive_is_made_without_a_network_and_has_all_that_a_commit_over_tls_loads(
    alone: dict[str, str], tmp_path: Path
) -> None:
    if subprocess.run(["unshare", "--net", "true"], check=False).returncode:
        pytest.skip("no right to a network of its own")
    archive, loads = tmp_path / "classes.jsa", tmp_path / "loads"
    make = ["--jars", alone["JARS"], "--java-home", alone["JAVA_HOME_21"], "--heap-mb", "512", str(archive)]
    command = [*WITHOUT_NETWORK, sys.executable, str(ROOT / "docker" / "class_archive.py"), *make]
    subprocess.run(command, env=alone, check=True, timeout=400)

    use = [sys.executable, "-c", LOADS, str(archive), str(loads)]
    subprocess.run(use, env={**alone, "PYTHONPATH": str(ROOT / "docker")}, check=True, timeout=120)

    found = [line.split("] ")[-1].split(" source: ") for line in loads.read_text().splitlines() if " source: " in line]
    elsewhere = [name for name, source in found if not source.startswith("shared objects file")]
    of_tls = ("sun.security.ssl.", "org.apache.http.", "software.amazon.awssdk.", "org.apache.iceberg.")
    assert sum(name.startswith("sun.security.ssl.") for name, _ in found) > 300
    assert [name for name in elsewhere if name.startswith(of_tls) and "Lambda" not in name] == []
