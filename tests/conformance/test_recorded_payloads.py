"""Payloads that were recorded on AWS, replayed; and what may be recorded of one."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from manymetrics.settings import Settings
from manymetrics_api.keys import KeyTable, WriteKey
from manymetrics_api.lambda_handler import Root
from manymetrics_api.sinks import MemorySink
from sample.conformance.payloads import ACCOUNT, IPV4, IPV6, STAND_IN_KEY, redacted
from tests.gateway_payloads import Make, function_url, http_api, http_api_by_type, recorded_payloads

ZIPPED = gzip.compress(json.dumps({"event": "E", "userId": "u"}).encode(), mtime=0)
AUTHORIZATION = "Basic " + base64.b64encode(f"{STAND_IN_KEY}:".encode()).decode()
HEADERS = {"authorization": AUTHORIZATION, "content-encoding": "gzip", "content-type": "application/json"}


def answered_otherwise(recorded: list[dict[str, Any]]) -> list[str]:
    """Names of payloads that the function answers with another status than the API on AWS did."""
    wrong = []
    for one in recorded:
        root = Root(Settings(), KeyTable([WriteKey(key=STAND_IN_KEY, project="p")]), MemorySink())
        status = root.answer(one["payload"], None)["statusCode"]
        root.close()
        if one["answered"] not in {None, status}:
            wrong.append(f"{one['name']} by {one['ingress']}: {status} here, {one['answered']} on AWS")
    return wrong


def test_what_was_recorded_on_aws_is_answered_here_as_there() -> None:
    assert answered_otherwise(recorded_payloads()) == []


def test_a_recorded_file_is_read_and_another_answer_is_found(tmp_path: Path) -> None:
    payloads = {
        415: http_api_by_type("POST", "/v1/track", HEADERS, ZIPPED),
        200: http_api("POST", "/v1/track", HEADERS, ZIPPED),
    }
    recorded = [{"name": "gzip", "ingress": "http_api", "answered": s, "payload": p} for s, p in payloads.items()]
    (tmp_path / "eu-west-1.json").write_text(json.dumps(recorded))
    assert answered_otherwise(recorded_payloads(tmp_path)) == []

    (tmp_path / "eu-west-2.json").write_text(json.dumps([{**recorded[0], "answered": 200}]))

    assert answered_otherwise(recorded_payloads(tmp_path)) == ["gzip by http_api: 415 here, 200 on AWS"]


@pytest.mark.parametrize("make", [http_api, function_url])
def test_a_payload_is_redacted_and_stays_what_it_was_otherwise(make: Make) -> None:
    payload = make("POST", "//v1/track?a=1", HEADERS, ZIPPED)
    context = payload["requestContext"]
    context |= {
        "accountId": "210987654321",
        "apiId": "z9y8x7w6v5",
        "domainName": "z9y8x7w6v5.execute-api.us-east-1.amazonaws.com",
    }
    context["http"]["sourceIp"] = "2600:1f18:2:a::1"
    payload["headers"] |= {
        "x-forwarded-for": "198.51.100.77, 2600:1f18:2:a::1",
        "host": "z9y8x7w6v5.lambda-url.us-east-1.on.aws",
        "x-amzn-trace-id": "Root=1-65a1b2c3-0123456789abcdef01234567",
        "forwarded": "for=198.51.100.77;host=z9y8x7w6v5.execute-api.us-east-1.amazonaws.com;proto=https",
    }

    clean = redacted({"name": "n", "ingress": "http_api", "answered": 200, "payload": payload})["payload"]

    text = json.dumps(clean)
    assert not [one for one in ("2109", "z9y8", "198.51", "2600:", "65a1b2c3", "us-east-1") if one in text]
    assert (clean["requestContext"]["accountId"], clean["requestContext"]["http"]["sourceIp"]) == (ACCOUNT, IPV6)
    assert clean["headers"]["x-forwarded-for"] == f"{IPV4}, {IPV6}"
    assert (clean["body"], clean["isBase64Encoded"], clean["rawPath"], clean["rawQueryString"]) == (
        payload["body"], payload["isBase64Encoded"], "//v1/track", "a=1",
    )  # fmt: skip
    assert clean["headers"]["authorization"] == AUTHORIZATION


@pytest.mark.parametrize("private", ["wk_0123456789abcdef", "arn:aws:iam::210987654321:role/x", "AKIA0123456789ABCDEF"])
def test_what_may_be_private_is_not_written(private: str) -> None:
    payload = http_api("POST", "/v1/track", {"x-other": private})

    with pytest.raises(ValueError, match="would contain"):
        redacted({"name": "n", "payload": payload})
