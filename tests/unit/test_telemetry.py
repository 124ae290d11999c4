"""Log lines: one JSON object each, whatever is logged, and nothing of a payload in them."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manymetrics.telemetry import JsonLines


class Log:
    """A logger and what it wrote."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(JsonLines())
        self.logger = logging.Logger("test")  # noqa: LOG001  # of this test alone
        self.logger.addHandler(handler)

    def lines(self) -> list[dict[str, Any]]:
        text = self.stream.getvalue()
        assert text.isascii()
        assert text.endswith("\n")
        return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


@pytest.fixture
def log() -> Log:
    return Log()


hostile = st.sampled_from(
    ["\n", "\r", "\x1b[2J", "\u2028", "\x85", "\x9b", '"', "\\", "}", "\0", "\udc80", "x" * 9_000]
)
messages = st.lists(hostile | st.text(max_size=5), max_size=9).map("".join)


@given(messages)
def test_a_message_of_any_kind_is_one_line(message: str) -> None:
    log = Log()

    log.logger.warning("%s", message)

    [line] = log.lines()
    assert line["message"] in {message, message[: len(line["message"]) - 1] + "…"}
    assert (line["level"], line["log"]) == ("WARNING", "test")


def test_a_line_is_short_however_long_its_message_or_facts_are(log: Log) -> None:
    log.logger.warning("x" * 100_000, extra={"facts": {"code": 1, "long": "\x1b" * 100_000, "list": ["y"] * 100_000}})

    [line] = log.lines()
    assert len(log.stream.getvalue()) < 5_000
    assert line["code"] == 1


def test_facts_stand_beside_the_message(log: Log) -> None:
    log.logger.info("ended", extra={"facts": {"code": 7, "path": object}})

    [line] = log.lines()
    assert (line["message"], line["code"], line["path"]) == ("ended", 7, "<class 'object'>")


def test_an_exception_is_named_with_its_place_but_not_with_its_values(log: Log) -> None:
    try:
        int("jane@example.com")
    except ValueError:
        log.logger.exception("a commit failed")

    [line] = log.lines()
    assert (line["message"], line["error"]) == ("a commit failed", "ValueError")
    assert line["where"].partition(":")[0].endswith("test_telemetry.py")
    assert "jane" not in log.stream.getvalue()
