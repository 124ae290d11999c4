"""What AWS hands the API's function for an HTTP request, in each form that it documents."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from manymetrics_api.lambda_handler import Payload

SENDER = "203.0.113.7"
RECORDED = Path(__file__).with_name("recorded_payloads")
Make = Callable[..., Payload]


def http_api(method: str, target: str, headers: dict[str, str], body: bytes = b"", stage: str = "$default") -> Payload:
    """Payload 2.0, as AWS documents it; what is no text comes as base64."""
    path, _, query = target.partition("?")
    path = path if stage == "$default" else f"/{stage}{path}"
    http = {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": SENDER, "userAgent": "-"}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"host": "id.execute-api.eu-west-1.amazonaws.com", "x-forwarded-for": SENDER, **_lower(headers)},
        "requestContext": {"accountId": "1", "apiId": "id", "http": http, "requestId": "r", "stage": stage},
        **_body(body),
    }


def function_url(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Payload:
    """As payload 2.0; every body comes as base64."""
    encoded = {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
    return {**http_api(method, target, headers, body), **encoded}


def http_api_v1(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Payload:
    """Payload 1.0 of an HTTP API."""
    return {"version": "1.0", **rest_api(method, target, headers, body)}


def rest_api(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Payload:
    """A REST API's proxy payload."""
    path, _, query = target.partition("?")
    given: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        given.setdefault(name, []).append(value)
    sent = {"Host": "id.execute-api.eu-west-1.amazonaws.com", "X-Forwarded-For": SENDER, **headers}
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": sent,
        "multiValueHeaders": {name: [value] for name, value in sent.items()},
        "queryStringParameters": {name: values[-1] for name, values in given.items()} or None,
        "multiValueQueryStringParameters": given or None,
        "requestContext": {"identity": {"sourceIp": SENDER}, "stage": "prod", "path": f"/prod{path}"},
        **_body(body),
    }


def http_api_by_type(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Payload:
    """Payload 2.0 where Content-Type alone says what is text, as it was measured: bytes that are no UTF-8 are lost.

    https://github.com/ministackorg/ministack/issues/766, and for a function URL localstack/localstack#9842.
    """
    kind = _lower(headers).get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("text/") or kind in {"application/json", "application/javascript", "application/xml"}:
        text = {"body": body.decode(errors="replace") or None, "isBase64Encoded": False}
    else:
        text = {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
    return {**http_api(method, target, headers), **text}


FORMS = [http_api, function_url, http_api_v1, rest_api]


def _lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _body(body: bytes) -> Payload:
    try:
        return {"body": body.decode() or None, "isBase64Encoded": False}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}


def recorded_payloads(folder: Path = RECORDED) -> list[dict[str, Any]]:
    """Those that `make aws-conformance` recorded on AWS, of every file of the folder; none as long as nobody did."""
    return [one for path in sorted(folder.glob("*.json")) for one in json.loads(path.read_text())]
