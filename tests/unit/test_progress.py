"""Progress on standard error: only on a terminal, only after a second, and gone afterwards."""

from __future__ import annotations

import io
import time

import pytest

import manymetrics_cli.progress
from manymetrics_cli.progress import showing_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def wait_for(target: io.StringIO, text: str) -> None:
    until = time.monotonic() + 10
    while text not in target.getvalue() and time.monotonic() < until:
        time.sleep(0.01)


def test_what_takes_longer_is_shown_with_its_seconds_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manymetrics_cli.progress, "QUIET_S", 0.0)
    target = Terminal()

    with showing_progress(target, "asking") as tell:
        wait_for(target, "asking, 0 s")
        tell("Athena: RUNNING")
        wait_for(target, "Athena: RUNNING, ")

    assert "\r\x1b[Kasking, 0 s" in target.getvalue()
    assert "\r\x1b[KAthena: RUNNING, " in target.getvalue()
    assert target.getvalue().endswith("\r\x1b[K")


def test_what_is_quick_shows_nothing() -> None:
    target = Terminal()

    with showing_progress(target, "asking") as tell:
        tell("still asking")

    assert target.getvalue() == ""


def test_a_file_gets_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manymetrics_cli.progress, "QUIET_S", 0.0)
    target = io.StringIO()

    with showing_progress(target, "asking") as tell:
        tell("still asking")
        time.sleep(0.05)

    assert target.getvalue() == ""


def test_progress_ends_when_the_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manymetrics_cli.progress, "QUIET_S", 0.0)
    target = Terminal()

    def fail() -> None:
        with showing_progress(target, "asking"):
            wait_for(target, "asking")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    ended = target.getvalue()
    time.sleep(0.3)
    assert target.getvalue() == ended
