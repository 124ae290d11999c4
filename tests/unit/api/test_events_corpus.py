"""Every request of the corpus, on the way that serves it and on the framework's own: the same answer and rows."""

from typing import Any

import pytest

from manymetrics_api.sinks import MemorySink
from tests.events_corpus import Case, outcomes_of, read_cases, request_of
from tests.in_process import Api, App, Reply, ask

CASES = read_cases()


def _answer_expected(case: Case) -> dict[str, Any]:
    expected = {name: case["expect"][name] for name in ("status", "code", "answer") if name in case["expect"]}
    if expected["status"] == 200 and "answer" not in expected:
        expected["answer"] = "a GIF" if "pixel" in case["route"] else {"success": True}
    return expected


def _answer_given(reply: Reply, expected: dict[str, Any]) -> dict[str, Any]:
    if reply.body.startswith(b"GIF89a"):
        return {"status": reply.status, "answer": "a GIF"}
    body = reply.json()
    given = {"status": reply.status, "code": body.get("code"), "answer": body}
    return {name: given[name] for name in expected}


def _play(app: App, sink: MemorySink, case: Case) -> tuple[Reply, list[dict[str, Any]]]:
    sink.records.clear()
    reply = ask(app, *request_of(case))
    return reply, outcomes_of(sink.records)


@pytest.mark.parametrize("name", CASES)
def test_each_event_of_the_corpus_ends_as_it_says(name: str, api: Api) -> None:
    case = CASES[name]

    reply, outcomes = _play(api.app, api.sink, case)

    expected = _answer_expected(case)
    assert _answer_given(reply, expected) == expected
    assert outcomes == case["expect"]["events"]


@pytest.mark.parametrize("name", CASES)
def test_the_framework_behind_the_hot_routes_answers_just_as_they_do(name: str, api: Api) -> None:
    case = CASES[name]

    assert _play(api.app, api.sink, case) == _play(api.app.behind, api.sink, case)
