"""The Lambda root: the short way answers what the whole app answers, in each form of payload that AWS documents."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from manymetrics.limits import MAX_BODY_BYTES
from manymetrics.records import unpack
from manymetrics.settings import Settings
from manymetrics_api import intake
from manymetrics_api.admission import SMALL_BODY_BYTES, LargeBodies
from manymetrics_api.keys import KeyTable
from manymetrics_api.lambda_handler import Root
from manymetrics_api.sinks import MemorySink, SinkResult
from tests.events_corpus import read_cases, request_of
from tests.gateway_payloads import FORMS, SENDER, Make, http_api, http_api_by_type
from tests.in_process import EVENT, KEYS, basic


class Function:
    """A root with the sink it fills."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401  # as Settings takes them
        self.sink = MemorySink()
        self.root = Root(Settings(**settings), KeyTable(KEYS), self.sink)

    def stored(self) -> list[tuple[list[bytes], str | None, str | None]]:
        """Each record's events, address and user agent; the sink is empty then."""
        records = [unpack(record) for record in self.sink.records]
        self.sink.records.clear()
        return [(record.events, record.stamp.ip, record.stamp.user_agent) for record in records]


@pytest.fixture
def function() -> Iterator[Function]:
    one = Function()
    yield one
    one.root.close()


@pytest.mark.parametrize("form", FORMS)
def test_the_corpus_is_answered_as_the_whole_app_answers_it(function: Function, form: Make) -> None:
    stored = 0
    for name, case in read_cases().items():
        payload = form(*request_of(case))

        short = function.root.answer(payload, None)
        events = function.stored()
        long = function.root.answer_with_app(payload, None)

        assert short == long, name
        assert events == function.stored(), name
        assert json.loads(json.dumps(short)) == short  # as Lambda sends it
        stored += len(events)
    assert stored > 20


@pytest.mark.parametrize("form", FORMS)
def test_an_event_is_stored_with_its_sender_and_answered(function: Function, form: Make) -> None:
    answer = function.root.answer(form("POST", "/v1/track", basic("wk_shop:") | {"User-Agent": "Mozilla"}, EVENT), None)

    assert (answer["statusCode"], answer["body"], answer["isBase64Encoded"]) == (200, '{"success": true}', False)
    assert answer["headers"]["content-type"] == "application/json"
    assert function.stored() == [([EVENT], SENDER, "Mozilla")]


@pytest.mark.parametrize("form", FORMS)
def test_the_docs_come_through_the_gateway(function: Function, form: Make) -> None:
    answer = function.root.answer(form("GET", "/docs", {}), None)

    assert answer["statusCode"] == 200
    assert "swagger" in answer["body"].lower()
    assert json.loads(function.root.answer(form("GET", "/openapi.json", {}), None)["body"])["paths"]


def test_a_stage_with_a_name_is_no_part_of_the_path(function: Function) -> None:
    sent = http_api("POST", "/v1/track", basic("wk_shop:"), EVENT, stage="prod")

    assert function.root.answer(sent, None)["statusCode"] == 200
    assert function.root.answer(http_api("GET", "/healthz", {}, stage="prod"), None)["statusCode"] == 200


@pytest.mark.parametrize("form", FORMS)
def test_a_path_with_an_escape_is_none_of_ours(function: Function, form: Make) -> None:
    for path in ("/v1%2Ftrack", "/%76%31/track"):
        assert function.root.answer(form("POST", path, basic("wk_shop:"), EVENT), None)["statusCode"] == 404
    assert function.stored() == []


@pytest.mark.parametrize("path", ["/v1/track", "/healthz"])
def test_a_body_that_is_no_base64_and_says_so_is_refused(function: Function, path: str) -> None:
    payload = {**http_api("POST", path, basic("wk_shop:")), "body": "é!", "isBase64Encoded": True}

    answer = function.root.answer(payload, None)

    assert (answer["statusCode"], json.loads(answer["body"])["code"]) == (400, "invalid_encoding")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("trusted", "forwarded", "ip"),
    [
        (0, f"198.51.100.1, {SENDER}", SENDER),
        (1, f"198.51.100.1, {SENDER}", "198.51.100.1"),
        (1, f"forged, 198.51.100.1, {SENDER}", "198.51.100.1"),
        (1, SENDER, SENDER),
        (2, f"198.51.100.1, 198.51.100.2, {SENDER}", "198.51.100.1"),
    ],
)
def test_only_so_many_proxies_are_believed(form: Make, trusted: int, forwarded: str, ip: str) -> None:
    function = Function(trusted_proxies=trusted)
    for path, method in (("/v1/track", "POST"), ("/v1/pixel/track?data=%7B%22userId%22%3A%22u%22%7D", "GET")):
        headers = basic("wk_shop:") | {"X-Forwarded-For": forwarded}
        function.root.answer(form(method, path, headers, EVENT if method == "POST" else b""), None)

    function.root.close()
    assert [sender for _, sender, _ in function.stored()] == [ip, ip]


def test_a_large_body_is_read_without_a_thread(function: Function, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LargeBodies, "turn", pytest.fail)
    body = gzip.compress(b'{"batch":[%s],"pad":"%s"}' % (EVENT, b" " * (2 * SMALL_BODY_BYTES)))

    answer = function.root.answer(http_api("POST", "/v1/batch", basic("wk_shop:"), body), None)

    assert answer["statusCode"] == 200


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (basic("wk_shop:"), b" " * (MAX_BODY_BYTES + 1), 413),
        (basic("wk_nobody:"), b"\x1f\x8bx", 401),
        ({}, b'{"batch":[NaN],"writeKey":"wk_nobody"}', 401),
    ],
    ids=["too-large", "not-inflated", "not-read-with-care"],
)
def test_a_body_has_the_bounds_that_it_has_on_a_server(
    function: Function, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], body: bytes, status: int
) -> None:
    monkeypatch.setattr(intake, "_inflate", pytest.fail)
    monkeypatch.setattr(intake, "split_batch_with_care", pytest.fail)

    answer = function.root.answer(http_api("POST", "/v1/batch", headers, body), None)

    assert answer["statusCode"] == status


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "text/plain"])
@pytest.mark.parametrize(
    ("encoding", "compressed"),
    [
        ("gzip", gzip.compress(EVENT)),
        (None, gzip.compress(EVENT)),
        ("deflate", zlib.compress(EVENT)),
        ("Deflate", zlib.compress(EVENT, wbits=-15)),
    ],
    ids=["gzip", "gzip-unsaid", "deflate", "raw-deflate"],
)
def test_a_compressed_body_that_a_gateway_took_for_text_is_refused_with_the_cure(
    function: Function,
    capsys: pytest.CaptureFixture[str],
    content_type: str,
    encoding: str | None,
    compressed: bytes,
) -> None:
    headers = basic("wk_shop:") | {"Content-Type": content_type}
    if encoding is not None:
        headers["Content-Encoding"] = encoding

    answers = [
        function.root.answer(http_api_by_type("POST", path, headers, compressed), None)
        for path in ("/v1/track", "/v1/batch", "/v1/import/")
    ]

    for answer in answers:
        refusal = json.loads(answer["body"])
        assert (answer["statusCode"], refusal["code"]) == (415, "encoding_lost")
        assert "turn gzip off" in refusal["message"]
    assert function.stored() == []
    [line] = capsys.readouterr().out.splitlines()  # at most one a minute
    metric = json.loads(line)
    assert (metric["encoding_lost"], metric["Database"]) == (1, "manymetrics")
    assert metric["_aws"]["CloudWatchMetrics"][0]["Metrics"] == [{"Name": "encoding_lost", "Unit": "Count"}]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/octet-stream", "Content-Encoding": "gzip"},
        {"Content-Type": "application/gzip"},
        {"Content-Encoding": "gzip"},
    ],
)
def test_a_compressed_body_that_came_as_base64_is_stored(function: Function, headers: dict[str, str]) -> None:
    sent = http_api_by_type("POST", "/v1/track", basic("wk_shop:") | headers, gzip.compress(EVENT))

    assert function.root.answer(sent, None)["statusCode"] == 200
    assert [events for events, _, _ in function.stored()] == [[EVENT]]


@pytest.mark.parametrize("encoding", ["deflate", "gzip", "identity"])
def test_plain_json_with_the_replacement_character_is_never_taken_for_a_damaged_body(
    function: Function, encoding: str
) -> None:
    event = ' {"userId":"u","event":"x\ufffd"}'.encode()
    headers = basic("wk_shop:") | {"Content-Type": "application/json", "Content-Encoding": encoding}

    answer = function.root.answer(http_api_by_type("POST", "/v1/track", headers, event), None)

    assert "encoding_lost" not in answer["body"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "path",
    ["/wp-login.php", "/.env", "/v1", "/v1/", "/v1/tracks", "/metrics", "/sdk/mm.js", "/sample", "/docs/x"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT"])
def test_a_path_that_is_none_of_ours_is_404_without_the_app_behind(
    function: Function, form: Make, method: str, path: str
) -> None:
    answer = function.root.answer(form(method, path, {"Origin": "https://shop.example"}, b""), None)

    assert (answer["statusCode"], json.loads(answer["body"])["code"]) == (404, "not_found")
    assert function.root.has_app is False
    assert "access-control-allow-origin" in answer["headers"]


@pytest.mark.parametrize("form", FORMS)
def test_a_preflight_needs_no_app_behind(function: Function, form: Make) -> None:
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}

    answer = function.root.answer(form("OPTIONS", "/v1/batch", asked), None)

    assert (answer["statusCode"], function.root.has_app) == (204, False)
    assert answer["headers"]["access-control-allow-origin"] == "https://shop.example"


def test_what_can_not_be_stored_is_not_acknowledged(function: Function) -> None:
    function.sink.result = SinkResult.THROTTLED

    answer = function.root.answer(http_api("POST", "/v1/track", basic("wk_shop:"), EVENT), None)

    assert (answer["statusCode"], answer["headers"]["retry-after"]) == (429, "1")


def test_nothing_heavy_is_loaded_for_the_hot_routes() -> None:
    script = """
import sys
from manymetrics_api.lambda_handler import Root
from manymetrics_api.keys import parse_key_list
from manymetrics.settings import Settings
from manymetrics_api.sinks import MemorySink
sent = {"version": "2.0", "rawPath": "/v1/track", "headers": {"x-write-key": "k"}, "body": '{"userId":"u","event":"A"}',
        "requestContext": {"http": {"method": "POST", "sourceIp": "192.0.2.1"}}}
assert Root(Settings(), parse_key_list("k"), MemorySink()).answer(sent, None)["statusCode"] == 200
heavy = {"awscrt", "boto3", "botocore", "fastapi", "mangum", "pyarrow", "pydantic", "uvicorn"}
heavy |= {"concurrent.futures.thread", "sqlite3", "tempfile"}
print(sorted(heavy & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
