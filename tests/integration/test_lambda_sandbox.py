"""Lambda's limits on this machine hold what runs under them; each is shown by a function that would do without."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import runtime_api
from tests.lambda_sandbox import MB_A_CPU, ControlGroup, control_group
from tests.live_server import eventually
from tests.runtime_api import UNPRIVILEGED, RuntimeApi

MEMORY_MB = MB_A_CPU // 4
CODE = """
import pathlib, subprocess, sys, threading, time

marks = pathlib.Path("marks")
marks.write_text(marks.read_text() + "+" if marks.exists() else "+")
subprocess.Popen(["sleep", "600"], start_new_session=True)
if len(marks.read_text()) == 1 and pathlib.Path("slow").exists():
    time.sleep(600)

ticks = []

def tick():
    while True:
        ticks.append(time.monotonic())
        time.sleep(0.01)

threading.Thread(target=tick, daemon=True).start()

def handler(event, context):
    began = time.process_time(), time.monotonic()
    while time.process_time() - began[0] < event.get("spin_s", 0):
        pass
    held = bytearray(event.get("bytes", 0))
    return {"wall_s": time.monotonic() - began[1], "ticks": ticks, "left_ms": context.get_remaining_time_in_millis()}
"""


@pytest.fixture
def group() -> Iterator[ControlGroup]:
    with control_group(MEMORY_MB) as one:
        yield one


@pytest.fixture
def function(group: ControlGroup, tmp_path: Path) -> Iterator[RuntimeApi]:
    (tmp_path / "function.py").write_text(CODE)
    environ = {"PYTHONPATH": str(tmp_path)}
    with RuntimeApi("function.handler", environ, tmp_path, 20, prefix=UNPRIVILEGED, group=group) as one:
        yield one


def test_a_function_has_its_share_of_a_cpu_and_none_between_its_invocations(function: RuntimeApi) -> None:
    spun = function.invoke({"spin_s": 0.3})
    began = time.monotonic()
    time.sleep(0.5)
    ended = time.monotonic()
    ticks = function.invoke({}).response["ticks"]

    assert spun.response["wall_s"] >= 0.3 * 4 - 0.1  # the first period's quota may be unused
    assert [tick for tick in ticks if began < tick < ended] == []
    assert [tick for tick in ticks if tick > ended]


def test_a_function_that_takes_more_than_its_memory_is_killed_and_the_next_process_has_it_all(
    function: RuntimeApi, group: ControlGroup
) -> None:
    within = function.invoke({"bytes": MEMORY_MB * 700_000})
    over = function.invoke({"bytes": MEMORY_MB * 1_100_000})
    again = function.invoke({"bytes": MEMORY_MB * 700_000})

    assert (within.error, again.error, again.cold) == (None, None, True)
    assert over.error == {
        "errorType": "Runtime.ExitError",
        "errorMessage": "Runtime exited with error: signal: SIGKILL",
    }
    assert 0.7 < group.memory_mb / MEMORY_MB <= 1


def test_an_init_that_takes_too_long_is_killed_and_begun_again_in_the_time_of_the_invocation(
    function: RuntimeApi, group: ControlGroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_api, "INIT_S", 1.0)
    (tmp_path / "slow").touch()

    first = function.invoke({})
    left = len(group.pids)
    function.kill()
    second = function.invoke({})

    assert (first.error, function.killed_inits, (tmp_path / "marks").read_text()) == (None, 1, "+++")
    assert first.wall_s > 1
    assert left == 3  # Python, and what both inits started: only the runtime itself is killed
    for done in (first, second):  # an init that is begun again takes of the function's own time
        assert 10_000 < done.response["left_ms"] < 20_000 - 50
    assert eventually(lambda: len(group.pids) == 4 or None)
