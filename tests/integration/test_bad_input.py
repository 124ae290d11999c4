"""Bad input is told in the log: a line a minute, by reason, and nothing of what a client sent."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from manymetrics import telemetry
from manymetrics.outcomes import RequestOutcome
from manymetrics_api.watch import REPORT_S, BadInput
from tests.live_server import LiveServer, eventually, live_server

SECRET = "jane@example.com"


def told(server: LiveServer) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    return [line for line in lines if line["log"] == "manymetrics.bad_input"]


def test_bad_input_is_told_in_one_line_without_what_was_sent(tmp_path: Path) -> None:
    with live_server(tmp_path / "data") as server:
        for _ in range(3):
            server.post("/v1/track", b'{"event": "%s"}' % SECRET.encode())
        server.post("/v1/track", b'{"userId": "%s"}' % SECRET.encode())
        server.post("/v1/track", b"{}", key="wk_of_nobody")
        server.post("/v1/batch", b'{"%s": 1}' % SECRET.encode())
        server.post(f"/v1/{SECRET}", b"{}")
        server.client.get("/favicon.ico")
        server.settle()

        lines = eventually(lambda: told(server) or None)
        server.post("/v1/track", b"{}", key="wk_of_nobody")
        server.settle()

        assert len(told(server)) == 1
        [line] = lines
        assert line["dead_letters"] == {"no_identity": 3, "no_event_name": 1}
        assert line["refused"] == {"invalid_write_key": 1, "no_batch": 1, "not_found": 1}
        assert shlex.split(line["see_live"])[1:] == ["tail", "--data-dir", str(server.data_dir), "--bad"]
        found = subprocess.check_output(["sh", "-c", f"{line['see']}"], cwd="/", text=True)
        assert (found.count("no_identity"), found.count("no_event_name"), SECRET in found) == (3, 1, True)
        text = server.log.read_text()
        assert [part for part in (SECRET, "wk_of_nobody", "wk_shop", "127.0.0.1") if part in text] == []


def test_each_line_counts_what_came_since_the_last_one() -> None:
    outcomes = {"stored": 5, "dead_lettered:too_deep": 7}
    bad_input = BadInput(lambda: outcomes)
    bad_input.counts()

    assert bad_input.counts() == ({}, {})
    outcomes |= {"dead_lettered:too_deep": 8, "dead_lettered:no_identity": 2, "stored": 9}
    telemetry.count_request(RequestOutcome.UNAUTHORIZED, "invalid_write_key")
    assert bad_input.counts() == ({"too_deep": 1, "no_identity": 2}, {"invalid_write_key": 1})
    assert bad_input.counts() == ({}, {})


def test_a_line_comes_at_the_second_look_and_the_next_no_sooner_than_a_minute_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outcomes = {"dead_lettered:too_deep": 0}
    times = [0.0, 1.0, 2.0, REPORT_S, REPORT_S + 1, REPORT_S + 2, 3 * REPORT_S]
    now = [0.0]
    bad_input = BadInput(lambda: outcomes, lambda: now[0])
    bad_input.counts()
    told = []
    for now[0] in times:
        outcomes["dead_lettered:too_deep"] += 1
        bad_input.report()
        told.append([record.facts["dead_letters"] for record in caplog.records])  # type: ignore[attr-defined]
        caplog.clear()

    assert told == [[], [{"too_deep": 2}], [], [], [], [{"too_deep": 4}], []]


def test_books_that_cannot_be_read_just_now_lose_no_count() -> None:
    outcomes: dict[str, int] | None = {"dead_lettered:too_deep": 1}

    def read() -> dict[str, int]:
        if outcomes is None:
            raise OSError
        return outcomes

    bad_input = BadInput(read)
    bad_input.counts()
    outcomes = None
    assert bad_input.counts()[0] == {}
    outcomes = {"dead_lettered:too_deep": 3}
    assert bad_input.counts()[0] == {"too_deep": 2}
