"""The API's entry point on AWS Lambda: ``manymetrics_api.lambda_handler.handler``.

Works behind an HTTP API (payload 2.0 or 1.0), a REST API or a function URL. Hot routes, preflights and unknown paths
are handled directly from the payload. FastAPI and Mangum are imported only for the first request to another route,
since that takes seconds on a small function.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple, cast
from urllib.parse import urlencode

from manymetrics.limits import MAX_BODY_BYTES
from manymetrics.refusals import ENCODING_LOST, INVALID_ENCODING, NOT_FOUND, TOO_LARGE
from manymetrics.settings import Settings
from manymetrics.telemetry import embedded_metrics, log_json_lines
from manymetrics_api.aws.app import make_keys, make_sink
from manymetrics_api.aws.keys_parameter import READ_TIMEOUT_S
from manymetrics_api.collect import Answer, Collector, HeaderList, Request, is_preflight, refusal_answer
from manymetrics_api.keys import Keys
from manymetrics_api.routes import find_route, is_other
from manymetrics_api.sinks import Sink

Payload = dict[str, Any]
App = Callable[[Payload, object], Payload]

METRIC_EVERY_S = 60.0  # minimum interval per environment: a misconfigured client fails at every request


def handler(payload: Payload, context: object) -> Payload:
    """Handle a Lambda invocation. Raises SettingsError if a setting is missing."""
    return _root().answer(payload, context)


@cache
def _root() -> Root:
    log_json_lines(logging.WARNING)  # at INFO, Mangum logs paths, and one of them holds a key
    settings = Settings.read(os.environ)
    sink = make_sink(settings, os.environ, linger_s=0)
    return Root(settings, make_keys(settings, os.environ, wait_s=READ_TIMEOUT_S), sink)


class Root:
    """One environment of the function: a collector, and the whole app, created when first needed."""

    def __init__(self, settings: Settings, keys: Keys, sink: Sink) -> None:
        self._settings, self._keys, self._sink = settings, keys, sink
        self._collector = Collector(keys, sink, trusted_proxies=settings.trusted_proxies, has_threads=False)
        self._loop = asyncio.new_event_loop()
        self._app: App | None = None
        self._encodings_lost, self._told_at = 0, float("-inf")

    def answer(self, payload: Payload, context: object) -> Payload:
        """Return the response to a payload, in the payload's format."""
        form = _V2 if payload.get("version") == "2.0" else _V1
        asked = form.read(payload)
        if asked.method == "OPTIONS" and is_preflight(asked.pairs):
            return form.write(self._collector.preflight(asked.pairs))
        route = find_route(asked.path.encode())
        # No route has a percent-encoded path; Mangum would decode it.
        if "%" in asked.path or (route is None and not is_other(asked.path)):
            return form.write(self._collector.with_cors(refusal_answer(NOT_FOUND), asked.pairs))
        try:
            body = _decode_body(payload)
        except ValueError:
            return form.write(self._collector.refused(INVALID_ENCODING, asked.pairs, None))
        if len(body) > MAX_BODY_BYTES:
            return form.write(self._collector.refused(TOO_LARGE, asked.pairs, None))
        if _is_encoding_lost(payload, asked.pairs):
            self._tell_of_lost_encoding()
            return form.write(self._collector.refused(ENCODING_LOST, asked.pairs, None))
        if route is None or asked.method != "POST":
            return self.answer_with_app(form.put(payload, asked), context)
        request = Request(route, asked.pairs, asked.query, asked.source_ip, body)
        return form.write(self._loop.run_until_complete(self._collector.answer(request)))

    def answer_with_app(self, payload: Payload, context: object) -> Payload:
        """Answer through Mangum and FastAPI, which has all routes. ``payload``: as ``put`` makes it."""
        asyncio.set_event_loop(self._loop)
        if self._app is None:
            from mangum import Mangum

            from manymetrics_api.app import create_app

            app = create_app(settings=self._settings, keys=self._keys, sink=self._sink)
            self._app = cast("App", Mangum(app, lifespan="off"))
        return self._app(payload, context)

    def _tell_of_lost_encoding(self) -> None:
        """Count a damaged body in CloudWatch, at most once per METRIC_EVERY_S."""
        self._encodings_lost += 1
        if time.monotonic() - self._told_at < METRIC_EVERY_S:
            return
        values = {"encoding_lost": self._encodings_lost}
        line = embedded_metrics(self._settings.database, ["encoding_lost"], values)
        print(line, flush=True)  # noqa: T201  # the format is a line on stdout
        self._encodings_lost, self._told_at = 0, time.monotonic()

    @property
    def has_app(self) -> bool:
        """Return whether the whole app was loaded."""
        return self._app is not None

    def close(self) -> None:
        """Release resources. Never called on Lambda."""
        asyncio.set_event_loop(None)
        self._loop.close()


class _Asked(NamedTuple):
    """A request from either payload format. ``path`` is without the stage; ``pairs`` as in collect.Request."""

    method: str
    path: str
    query: bytes
    pairs: HeaderList
    source_ip: str | None


class _V2:
    """HTTP API payload 2.0, also used by function URLs: repeated headers are joined with commas."""

    @staticmethod
    def read(payload: Payload) -> _Asked:
        context = payload["requestContext"]
        source_ip = context["http"].get("sourceIp")
        return _Asked(
            context["http"]["method"],
            _without_stage(payload["rawPath"], context.get("stage")),
            payload.get("rawQueryString", "").encode(),
            _pairs(payload.get("headers") or {}, source_ip),
            source_ip,
        )

    @staticmethod
    def put(payload: Payload, asked: _Asked) -> Payload:
        context = payload["requestContext"]
        http = {**context["http"], "path": asked.path}
        return {**payload, "headers": _headers(asked), "requestContext": {**context, "http": http}}

    @staticmethod
    def write(answer: Answer) -> Payload:
        headers = {name: ",".join(values) for name, values in _by_name(answer.headers).items()}
        return {
            "statusCode": answer.status,
            "headers": headers,
            "body": answer.body.decode(),
            "isBase64Encoded": False,
        }


class _V1:
    """Payload 1.0, also used by REST APIs: repeated headers are separate values."""

    @staticmethod
    def read(payload: Payload) -> _Asked:
        source_ip = (payload["requestContext"].get("identity") or {}).get("sourceIp")
        many = payload.get("multiValueHeaders") or {}
        query = payload.get("multiValueQueryStringParameters") or payload.get("queryStringParameters") or {}
        return _Asked(
            payload["httpMethod"],
            payload["path"],
            urlencode(query, doseq=True).encode(),
            _pairs({**(payload.get("headers") or {}), **{n: ", ".join(v) for n, v in many.items()}}, source_ip),
            source_ip,
        )

    @staticmethod
    def put(payload: Payload, asked: _Asked) -> Payload:
        return {**payload, "headers": _headers(asked), "multiValueHeaders": None}

    @staticmethod
    def write(answer: Answer) -> Payload:
        headers = _by_name(answer.headers)
        return {
            "statusCode": answer.status,
            "headers": {name: values[0] for name, values in headers.items() if len(values) == 1},
            "multiValueHeaders": {name: values for name, values in headers.items() if len(values) > 1},
            "body": answer.body.decode(),
            "isBase64Encoded": False,
        }


def _without_stage(path: str, stage: str | None) -> str:
    """Remove the stage, which precedes every path if it has a name."""
    if stage in {None, "$default"}:
        return path
    return path.removeprefix(f"/{stage}") or "/"


def _pairs(headers: Mapping[str, str], source_ip: str | None) -> HeaderList:
    """Return headers without the entry that the gateway appends to X-Forwarded-For, as the collector expects."""
    named = {name.lower(): value for name, value in headers.items()}
    forwarded = named.get("x-forwarded-for")
    if forwarded is not None and source_ip:
        hops, _, last = forwarded.rpartition(",")
        if last.strip() == source_ip:
            named["x-forwarded-for"] = hops
    return [(name.encode(), value.encode("utf-8", "surrogatepass")) for name, value in named.items()]


def _headers(asked: _Asked) -> dict[str, str]:
    return {name.decode(): value.decode("utf-8", "surrogatepass") for name, value in asked.pairs}


def _is_encoding_lost(payload: Payload, pairs: HeaderList) -> bool:
    """Return whether a compressed body arrived as text, with each byte that is not UTF-8 replaced by U+FFFD.

    AWS's gateways treat a body as text only by its Content-Type (https://github.com/ministackorg/ministack/issues/766).
    """
    body: str = payload.get("body") or ""
    if payload.get("isBase64Encoded"):
        return False
    if body.startswith("\x1f") or (body.startswith("x") and "\ufffd" in body):  # gzip, zlib; JSON starts with neither
        return True
    deflated = any(name == b"content-encoding" and value.strip().lower() == b"deflate" for name, value in pairs)
    return deflated and "\ufffd" in body and not body.lstrip().startswith("{")


def _decode_body(payload: Payload) -> bytes:
    """Decode the body. Raises ValueError if it is marked as base64 but isn't."""
    body: str = payload.get("body") or ""
    if payload.get("isBase64Encoded"):
        return base64.b64decode(body, validate=True)
    return body.encode("utf-8", "surrogatepass")


def _by_name(headers: HeaderList) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name.decode(), []).append(value.decode("latin-1"))
    return values


if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    _root()  # during the environment's init, which has a whole core
