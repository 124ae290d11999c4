"""POST /console/insight of a real server: answers, refusals, who is let in, cancelling, and a process that dies."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live_server import LiveServer, eventually, live_server

OURS = {"x-manymetrics-console": "1"}
TODAY: dict[str, Any] = {"insight": "trends", "last": "1d", "series": [{"event": "Bought", "measure": "persons"}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("console") / "data") as server:
        send(server, [{"event": "Bought", "userId": f"u-{number % 3}"} for number in range(5)])
        yield server


def send(server: LiveServer, events: list[dict[str, Any]]) -> None:
    batch = [{"type": "track", "messageId": os.urandom(8).hex()} | event for event in events]
    body = json.dumps({"batch": batch}).encode()
    assert server.post("/v1/batch", body, user_agent="Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0").status_code == 200
    wanted = {event["messageId"] for event in batch}
    eventually(lambda: wanted <= {row["message_id"] for row in server.rows()} or None)


def ask(server: LiveServer, question: object, **headers: str) -> httpx.Response:
    return server.client.post("/console/insight", json=question, headers=OURS | headers)


def test_a_question_is_answered_as_by_the_command_line(server: LiveServer) -> None:
    answer = ask(server, TODAY).json()

    assert [row[3] for row in answer["rows"]] == [3]
    assert answer["columns"] == ["series", "segment", "bucket", "value", "incomplete"]
    assert answer["complete_through"] is not None
    assert answer["engine"] == "duckdb"


def test_an_event_that_arrives_is_in_the_next_answer(server: LiveServer) -> None:
    before = ask(server, TODAY).json()
    send(server, [{"event": "Bought", "userId": "u-new"}])

    after = eventually(
        lambda: found if (found := ask(server, TODAY).json())["snapshot"] != before["snapshot"] else None
    )

    assert after["rows"][0][3] == before["rows"][0][3] + 1


def test_the_same_question_gives_the_same_rows(server: LiveServer) -> None:
    first, second = (ask(server, TODAY | {"by": [{"column": "type"}]}).json() for _ in range(2))

    assert (first["rows"], first["hash"], first["sql"]) == (second["rows"], second["hash"], second["sql"])


@pytest.mark.parametrize(
    ("question", "path", "message"),
    [
        (TODAY | {"intervall": "day"}, ["intervall"], "unknown field"),
        ({"insight": "funnel", "steps": [{"event": "A"}, {"event": 1}]}, ["steps", 1, "event"], "must be a text"),
        ([], [], "a question is a JSON object"),
    ],
)
def test_a_refused_question_says_where(server: LiveServer, question: object, path: list[object], message: str) -> None:
    refused = ask(server, question)

    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["path"] == path
    assert message in error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"insight": NaN}'])
def test_what_is_no_json_is_refused(server: LiveServer, body: bytes) -> None:
    refused = server.client.post("/console/insight", content=body, headers=OURS)

    assert refused.status_code == 400
    assert refused.json()["error"]["path"] == []


def test_a_body_that_is_too_large_is_refused(server: LiveServer) -> None:
    assert server.client.post("/console/insight", content=b" " * 1_000_001, headers=OURS).status_code == 413


@pytest.mark.parametrize(
    "headers",
    [
        {"x-manymetrics-console": ""},
        {"x-manymetrics-console": "0"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"x-forwarded-for": "127.0.0.1"},
        {"forwarded": "for=127.0.0.1"},
        {"via": "1.1 proxy"},
    ],
)
def test_nobody_else_is_answered(server: LiveServer, headers: dict[str, str]) -> None:
    refused = ask(server, TODAY, **headers)

    assert refused.status_code == 403
    assert "only this machine" in refused.json()["error"]["message"]


def test_the_schema_of_questions_is_in_its_own_openapi(server: LiveServer) -> None:
    document = server.client.get("/console/openapi.json", headers=OURS).json()

    text = json.dumps(document)
    assert document["paths"]["/console/insight"]["post"]["requestBody"]
    assert '"#/$defs' not in text
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named <= document["components"]["schemas"].keys()


def test_a_question_that_nobody_waits_for_is_stopped(server: LiveServer) -> None:
    ask(server, TODAY)  # the process is there
    slow = TODAY | {"last": "2000d", "by": [{"property": [f"p{number}"]} for number in range(3)]}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/console/insight", json=slow, headers=OURS, timeout=0.001)

    assert ask(server, TODAY).status_code == 200


def test_the_insights_process_has_lower_priority_and_comes_back(server: LiveServer) -> None:
    ask(server, TODAY)
    [process] = insights_processes(server.pid)
    assert os.getpriority(os.PRIO_PROCESS, process) == os.getpriority(os.PRIO_PROCESS, server.pid) + 10

    os.kill(process, signal.SIGKILL)
    answer = eventually(lambda: found if (found := ask(server, TODAY)).status_code == 200 else None)

    assert answer.json()["rows"]
    assert insights_processes(server.pid) != [process]


def test_the_insights_process_ends_with_the_server(tmp_path: Path) -> None:
    server = LiveServer(tmp_path / "data")
    server.start()
    try:
        ask(server, TODAY)
        [process] = insights_processes(server.pid)
    finally:
        server.stop(signal.SIGKILL)

    eventually(lambda: not Path(f"/proc/{process}").exists() or is_zombie(process) or None)


def test_whoever_has_the_token_is_answered_from_anywhere(tmp_path: Path) -> None:
    server = LiveServer(tmp_path / "data", console_token="let-me-in")
    server.start()
    try:
        elsewhere = {"x-forwarded-for": "203.0.113.9"}
        assert ask(server, TODAY).status_code == 403
        assert server.client.get("/console?token=wrong", headers=elsewhere).status_code == 403
        opened = server.client.get("/console?token=let-me-in", headers=elsewhere)
        cookie = opened.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie

        answered = ask(server, TODAY, cookie=cookie.split(";")[0], **elsewhere)
        from_a_page = ask(server, TODAY, cookie=cookie.split(";")[0], origin="https://evil.example")
        with_another = ask(server, TODAY, cookie="manymetrics_console=guess")

        assert (answered.status_code, from_a_page.status_code, with_another.status_code) == (200, 403, 403)
        assert "let-me-in" not in server.log.read_text() + server.output.read_text()
    finally:
        server.stop()


def insights_processes(server: int) -> list[int]:
    """The process that answers, among the server's children, which multiprocessing started."""
    found: list[int] = []
    deadline = time.monotonic() + 10
    while not found and time.monotonic() < deadline:
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        threads = Path(f"/proc/{server}/task").iterdir()
        children = [child for thread in threads for child in (thread / "children").read_text().split()]
        found = [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return found


def is_zombie(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
