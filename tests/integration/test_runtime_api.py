"""The stand-in for Lambda's Runtime API behaves as Lambda does, where tests of the handlers rely on it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.runtime_api import UNPRIVILEGED, RuntimeApi

CODE = """
import os, time
calls = 0
if os.environ.get("BROKEN"):
    raise ValueError("no such setting")
def handler(event, context):
    global calls
    calls += 1
    if "spin_s" in event:
        until = time.process_time() + event["spin_s"]
        while time.process_time() < until: pass
    time.sleep(event.get("sleep_s", 0))
    if event.get("raise"):
        raise LookupError(event["raise"])
    if "exit" in event:
        os._exit(event["exit"])
    if event.get("write"):
        open(event["write"], "w").close()
    print("handled", event)
    return {"calls": calls, "left_ms": context.get_remaining_time_in_millis(), "environ": dict(os.environ)}
"""
Start = Callable[..., RuntimeApi]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    (tmp_path / "app.py").write_text(CODE)
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            RuntimeApi("app.handler", options.pop("environ", {}), tmp_path, **options)
        )


def test_one_process_answers_until_it_is_killed_and_the_next_is_cold(start: Start) -> None:
    function = start(timeout_s=20)

    first, second = function.invoke({}), function.invoke({})
    killed = function.pid
    function.kill()
    third = function.invoke({})

    assert [(one.error, one.cold, one.response["calls"]) for one in (first, second, third)] == [
        (None, True, 1),
        (None, False, 2),
        (None, True, 1),
    ]
    assert function.pid != killed
    assert 0 < first.response["left_ms"] <= 20_000
    assert function.log.count("handled {}") == 3


def test_a_process_that_is_killed_at_work_is_an_error_and_its_event_can_be_sent_again(start: Start) -> None:
    function = start()
    function.invoke({})
    killing = threading.Timer(0.3, function.kill)

    killing.start()
    killed = function.invoke({"sleep_s": 20})
    again = function.invoke({})

    assert killed.error == {
        "errorType": "Runtime.ExitError",
        "errorMessage": "Runtime exited with error: signal: SIGKILL",
    }
    assert (again.error, again.cold, again.response["calls"]) == (None, True, 1)


def test_what_the_handler_raises_is_told_and_the_process_lives(start: Start) -> None:
    function = start()

    raised, after = function.invoke({"raise": "no row"}), function.invoke({})

    assert raised.response is None
    assert raised.error is not None
    assert (raised.error["errorType"], raised.error["errorMessage"]) == ("LookupError", "no row")
    assert (after.cold, after.response["calls"]) == (False, 2)


def test_what_is_wrong_at_the_start_is_told(start: Start) -> None:
    broken = start(environ={"BROKEN": "1"}).invoke({})

    assert broken.error is not None
    assert (broken.error["errorType"], broken.error["errorMessage"]) == ("ValueError", "no such setting")


def test_a_process_that_ends_is_told(start: Start) -> None:
    ended = start().invoke({"exit": 3})

    assert ended.error is not None
    assert ended.error["errorMessage"] == "Runtime exited with error: exit status 3"


def test_what_takes_too_long_is_killed(start: Start) -> None:
    function = start(timeout_s=2)
    function.invoke({})

    late = function.invoke({"sleep_s": 20})
    after = function.invoke({})

    assert late.error == {"errorType": "Sandbox.Timedout", "errorMessage": "Task timed out after 2.00 seconds"}
    assert (after.cold, after.response["calls"]) == (True, 1)


def test_its_time_is_the_process_s_own(start: Start) -> None:
    function = start()

    cold, slept, spun = (function.invoke(event) for event in ({}, {"sleep_s": 0.3}, {"spin_s": 0.2}))

    assert slept.wall_s >= 0.3 > slept.cpu_s
    assert 0.2 <= spun.cpu_s <= spun.wall_s + 0.05
    assert cold.cpu_s > 0.01  # starting Python
    assert function.cpu_s() >= cold.cpu_s + spun.cpu_s


def test_the_environment_is_lambda_s_and_what_is_given(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "1")

    environ = start(environ={"GIVEN": "1"}).invoke({}).response["environ"]

    assert environ["GIVEN"] == "1"
    assert environ["AWS_LAMBDA_FUNCTION_NAME"] == "function"
    assert not {"OURS", "HOME", "VIRTUAL_ENV"} & environ.keys()


def test_code_that_is_read_only_can_not_be_written(start: Start, tmp_path: Path) -> None:
    function = start(prefix=UNPRIVILEGED)
    (tmp_path / "writable").mkdir()
    tmp_path.chmod(0o555)

    here, elsewhere = function.invoke({"write": "x"}), function.invoke({"write": "writable/x"})

    tmp_path.chmod(0o755)
    assert here.error is not None
    assert here.error["errorType"] == "PermissionError"
    assert elsewhere.error is None
