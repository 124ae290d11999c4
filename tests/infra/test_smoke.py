"""`make aws-smoke` against the real API and moto's Athena, which answers what it is told to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest

from manymetrics_api.keys import WriteKey
from sample import smoke
from sample.smoke import SmokeError, Stack, read_stack, run, send
from tests.live_server import LiveServer, live_server
from tests.local_http import read_body, serving, url_of
from tests.strict_moto import REGION, Aws, strict_moto

KEY, ID = "wk_smoke", "smoke-of-this-test"
ROW = [{"Data": [{"VarCharValue": "message_id"}]}]


class Time:
    """A clock that moves by what is slept."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("smoke") / "data", [WriteKey(key=KEY, project="smoke")]) as running:
        yield running


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with strict_moto() as running:
        running.client("athena").create_work_group(
            Name="sample", Configuration={"ResultConfiguration": {"OutputLocation": "s3://results/"}}
        )
        yield running


@pytest.fixture
def stack(server: LiveServer) -> Stack:
    return Stack(server.url, KEY, "manymetrics", "sample", "https://dashboard.example", REGION, 300)


def will_find(aws: Aws, *answers: list[str]) -> None:
    """What Athena will say to one question after the other: the message ids of the rows."""
    results = [
        {"rows": ROW + [{"Data": [{"VarCharValue": found}]} for found in answer], "column_info": []}
        for answer in answers
    ]
    said = httpx.post(f"{aws.url}/moto-api/static/athena/query-results", json={"region": REGION, "results": results})
    assert said.status_code == 201


def test_it_asks_until_the_row_is_there(
    aws: Aws, server: LiveServer, stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    time = Time()
    will_find(aws, [], [], [ID])

    run(stack, aws.client("athena"), ID, clock=time.clock, sleep=time.sleep)

    said = capsys.readouterr().out.splitlines()
    assert [re.sub(r"^https?://\S+", "URL", line) for line in said] == [
        f"URL accepted event {ID}; its row is due in 300 s",
        "0 s: no row yet",
        "20 s: no row yet",
        "40 s: its row is in manymetrics.events",
    ]
    assert KEY not in "".join(said)
    assert server.rows_once(1, columns=["message_id", "event"])[0] == {"message_id": ID, "event": "Smoke"}
    asked = aws.client("athena").list_query_executions(WorkGroup="sample")["QueryExecutionIds"]
    [query] = {
        aws.client("athena").get_query_execution(QueryExecutionId=one)["QueryExecution"]["Query"] for one in asked
    }
    assert f"message_id = '{ID}'" in query


def test_what_never_arrives_is_said_with_where_to_look(aws: Aws, stack: Stack) -> None:
    time = Time()
    will_find(aws, *[["another"]] * 40)

    with pytest.raises(SmokeError, match=r"(?s)No row after 620 s.*dashboard\.example.*dead_letters"):
        run(stack, aws.client("athena"), ID, clock=time.clock, sleep=time.sleep)


def test_a_key_that_is_unknown_is_said_before_anything_is_asked(stack: Stack) -> None:
    with pytest.raises(SmokeError, match="The API returned 401") as refused:
        run(replace(stack, write_key="wk_revoked"), None, ID)

    assert "write_keys_parameter" in str(refused.value)
    assert "wk_" not in str(refused.value)


def test_an_api_out_of_reach_is_said(stack: Stack) -> None:
    with pytest.raises(SmokeError, match="can't be reached"):
        run(replace(stack, api_instance_url="http://127.0.0.1:9"), None, ID)


@pytest.mark.parametrize(("refusals", "taken"), [(3, True), (1_000, False)])
def test_a_new_stack_that_can_not_reach_its_keys_yet_is_waited_for_a_minute(
    stack: Stack, refusals: int, *, taken: bool
) -> None:
    asked = list[None]()

    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            read_body(self)
            asked.append(None)
            self.send_response(503 if len(asked) <= refusals else 200)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    time = Time()
    with serving(Api) as server:
        new = replace(stack, api_instance_url=url_of(server))
        if taken:
            send(new, ID, clock=time.clock, sleep=time.sleep)
        else:
            with pytest.raises(SmokeError, match="returned 503"):
                send(new, ID, clock=time.clock, sleep=time.sleep)

    assert len(asked) == (refusals + 1 if taken else 21)  # each 3 seconds of the first 60, and the last one


def test_a_question_that_fails_says_athenas_reason(stack: Stack) -> None:
    class Athena:
        def start_query_execution(self, **_given: object) -> dict[str, str]:
            return {"QueryExecutionId": "1"}

        def get_query_execution(self, **_given: object) -> dict[str, Any]:
            return {"QueryExecution": {"Status": {"State": "FAILED", "StateChangeReason": "TABLE_NOT_FOUND"}}}

    with pytest.raises(SmokeError, match="TABLE_NOT_FOUND"):
        run(stack, Athena(), ID)


def test_a_workgroup_that_is_not_there_is_said(aws: Aws, stack: Stack) -> None:
    with pytest.raises(SmokeError, match="credentials that may use workgroup none"):
        run(replace(stack, athena_workgroup="none"), aws.client("athena"), ID)


@pytest.fixture
def terraform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in that prints a file of that name, or fails without one."""
    program = tmp_path / "terraform"
    program.write_text(f'#!/bin/sh\necho "no state here" >&2\nexec /bin/cat {tmp_path}/outputs 2>/dev/null\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "outputs"


def test_the_stack_is_what_terraform_says(terraform: Path, stack: Stack) -> None:
    said = {name: {"value": getattr(stack, name)} for name in Stack.__dataclass_fields__}
    terraform.write_text(json.dumps({**said, "script_tag": {"value": "<script>"}}))

    assert read_stack(terraform.parent) == stack


def test_without_a_stack_it_says_how_to_make_one(terraform: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SmokeError, match=r"(?s)no state here.*make deploy"):
        read_stack(terraform.parent)
    terraform.write_text("{}")
    with pytest.raises(SmokeError, match="Nothing is applied"):
        read_stack(terraform.parent)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SmokeError, match="terraform is not on PATH"):
        read_stack(terraform.parent)


def test_the_outputs_that_it_reads_are_those_of_the_sample() -> None:
    outputs = (Path(smoke.__file__).parent / "outputs.tf").read_text()

    assert {*Stack.__dataclass_fields__} <= {*re.findall(r'^output "(\w+)"', outputs, re.MULTILINE)}


def test_the_command_ends_with_1_and_the_cure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    assert smoke.main() == 1
    assert capsys.readouterr().err == "terraform is not on PATH.\n"
