"""All routes, declared for /docs. The collector handles ingestion routes; the others are handled here."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from hmac import compare_digest
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Path, Query, Request, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from manymetrics import telemetry
from manymetrics.events import EVENT_TYPES
from manymetrics.refusals import (
    BAD_REQUEST,
    KEYS_UNAVAILABLE,
    METHOD_NOT_ALLOWED,
    METRICS_REFUSED,
    NOT_FOUND,
    SERVER_KEY,
    STREAM_UNAVAILABLE,
)
from manymetrics.settings import Settings
from manymetrics_api import collect, models
from manymetrics_api.collect import Answer, Collector, refusal_answer
from manymetrics_api.committer_state import STALLED_S
from manymetrics_api.home_page import add_home_routes
from manymetrics_api.intake import Draft
from manymetrics_api.keys import KeysUnavailableError
from manymetrics_api.metrics import BooksReader, render_metrics
from manymetrics_api.openapi import REFUSALS, SECURITY, describe
from manymetrics_api.routes import ROUTES, Route

__all__ = ["BooksReader", "add_routes", "is_from_this_machine", "make_response"]

PROGRESS_AGE_S = 2.0
GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
_REFERRING = re.compile(rb"(https?://[^/?#@\\\s,]+)(?:[/?#]\S*)?")
_HOST = re.compile(r"[A-Za-z0-9.\-]+(:\d{1,5})?|\[[0-9a-fA-F:]+\](:\d{1,5})?")

Endpoint = Callable[[Request], Awaitable[Response]]


def add_routes(
    app: FastAPI,
    collector: Collector,
    settings: Settings,
    read_books: BooksReader | None,
    stalled_s: Callable[[], float] | None = None,
) -> None:
    """Declare all routes on ``app``. The arguments are those of create_app."""
    for path, route in ROUTES.items():
        _add_collecting(app, collector, path.decode(), route)
    _add_pixels(app, collector)
    _add_settings(app, collector)
    _add_health(app, collector, settings, read_books, _Progress(stalled_s))
    add_home_routes(app)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _server_error)
    describe(app)


# --- events -----------------------------------------------------------------------------------------------

_BODIES: dict[str, tuple[type[BaseModel], dict[str, Any]]] = {
    "track": (models.Track, {"userId": "u-1", "event": "Signed Up", "properties": {"plan": "pro"}}),
    "identify": (models.Identify, {"userId": "u-1", "anonymousId": "a-1", "traits": {"email": "ada@example.com"}}),
    "page": (
        models.Page,
        {"anonymousId": "a-1", "name": "Pricing", "properties": {"url": "https://example.com/pricing"}},
    ),
    "screen": (models.Screen, {"anonymousId": "a-1", "name": "Home"}),
    "group": (models.Group, {"userId": "u-1", "groupId": "g-1", "traits": {"name": "Example Ltd"}}),
    "alias": (models.Alias, {"previousId": "a-1", "userId": "u-1"}),
    "batch": (
        models.Batch,
        {
            "batch": [
                {"type": "track", "userId": "u-1", "event": "Signed Up", "messageId": "m-1"},
                {"type": "page", "anonymousId": "a-1", "name": "Pricing", "messageId": "m-2"},
            ],
            "sentAt": "2026-01-02T03:04:05.678Z",
        },
    ),
}
_DESCRIPTION = (
    "200 means that every event is on the disk. An invalid event does not fail the request: it becomes "
    "a row of `dead_letters`. Any Content-Type is read as JSON; gzip and deflate are accepted."
)
_STRICT = {
    "name": "X-Strict-Mode",
    "in": "header",
    "required": False,
    "description": "`1`: if any event would become a dead letter, reject the request with 400 and `failed_records`.",
    "schema": {"type": "string", "enum": ["1"]},
}


def _add_collecting(app: FastAPI, collector: Collector, path: str, route: Route) -> None:
    async def endpoint(request: Request) -> Response:
        answer = await collect.answer_asgi(collector, request.scope, request.receive, route)
        return make_response(answer) if answer is not None else Response(status_code=400)

    name = "batch" if route.batch else route.default_type or "discarded"
    app.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        summary=_SUMMARIES.get(name, f"Send one {name} event"),
        description="" if route.discard else _DESCRIPTION,
        tags=["events" if path in {f"/v1/{name}", "/v1/import"} else "events, other spellings"],
        response_model=models.Accepted,
        responses={413: REFUSALS[413], 408: REFUSALS[408]} if route.discard else REFUSALS,
        response_description="Stored durably." if not route.discard else "Thrown away.",
        operation_id="post" + path.replace("/", "_"),
        openapi_extra=_DISCARDED if route.discard else _describe_body(name),
    )


_SUMMARIES = {"batch": "Send a batch of events", "discarded": "analytics.js's metrics about itself: discarded"}
_DISCARDED: dict[str, Any] = {"requestBody": {"content": {"application/json": {"schema": {}}}}}


def _describe_body(name: str) -> dict[str, Any]:
    model, example = _BODIES[name]
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content}, "parameters": [_STRICT], "security": SECURITY}


# --- pixels -----------------------------------------------------------------------------------------------


_Type = Annotated[str, Path(description="The event's type.", json_schema_extra={"enum": sorted(EVENT_TYPES)})]
_Data = Annotated[
    str,
    Query(
        description="One event: JSON, plain or as base64url.",
        examples=['{"writeKey":"wk_shop","userId":"u-1","event":"Opened"}'],
    ),
]
_PixelKey = Annotated[str | None, Query(alias="writeKey", description="If the event doesn't contain it.")]
_PixelId = Annotated[str | None, Query(alias="anonymousId", description="Like every field; `properties.x` nests.")]
_PIXEL_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/gif": {}}, "description": "Stored durably. A 1x1 GIF."},
    404: {"model": models.Refused, "description": "No such type."},
    **{status: REFUSALS[status] for status in (400, 401, 403, 429, 503)},
}


def _add_pixels(app: FastAPI, collector: Collector) -> None:
    @app.get("/v1/pixel/{event_type}", tags=["pixels"], response_class=Response, responses=_PIXEL_ANSWERS)
    async def segment_pixel(request: Request, event_type: _Type, data: _Data = "", _key: _PixelKey = None) -> Response:
        """Store one event of `?data=`, as a row or a dead letter, and return a GIF."""
        return await _put_pixel(collector, request, event_type, _pixel_json(data))

    @app.get("/pixel/v1/{event_type}", tags=["pixels"], response_class=Response, responses=_PIXEL_ANSWERS)
    async def rudder_pixel(
        request: Request, event_type: _Type, _key: _PixelKey = None, _id: _PixelId = None
    ) -> Response:
        """Store one event of query parameters (`?writeKey=&anonymousId=&event=&properties.x=`), and return a GIF."""
        return await _put_pixel(collector, request, event_type, _parse_pixel(request.query_params.multi_items()))


async def _put_pixel(collector: Collector, request: Request, event_type: str, body: bytes) -> Response:
    if event_type not in EVENT_TYPES:
        return make_response(refusal_answer(NOT_FOUND))
    headers = collect.one_of_each(request.scope["headers"])
    headers.pop(b"content-encoding", None)
    headers.setdefault(b"origin", _referring_origin(headers.get(b"referer", b"")))
    draft = Draft(
        body,
        headers,
        collector.keys,
        batch=False,
        default_type=event_type,
        query_key=next(filter(str.strip, reversed(request.query_params.getlist("writeKey"))), None),
    )
    answer = await collector.put(draft, request.scope["headers"], collect.get_peer(request.scope))
    if answer.status != HTTPStatus.OK:
        return make_response(answer)
    kept = [pair for pair in answer.headers if pair[0].startswith((b"access-", b"vary"))]
    return Response(GIF, media_type="image/gif", headers={"cache-control": "no-store", **_text(kept)})


def _referring_origin(referer: bytes) -> bytes:
    """Return the origin of the page with the image, which browsers send only as Referer; empty if absent.

    A key with origins rejects an empty one: otherwise, omitting the header would bypass the check.
    """
    match = _REFERRING.fullmatch(referer)
    return match[1] if match else b""


def _pixel_json(data: str) -> bytes:
    """Decode JSON, or base64 in either alphabet; an unescaped plus sign in a query arrives as a blank."""
    if data.lstrip().startswith("{"):
        return data.encode("utf-8", "surrogatepass")
    text = data.strip().replace("\n", "").replace("\r", "").translate(_TO_PLAIN_BASE64).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return data.encode("utf-8", "surrogatepass")


_TO_PLAIN_BASE64 = str.maketrans(" -_", "++/")


def _parse_pixel(parameters: Sequence[tuple[str, str]]) -> bytes:
    """Build an event from parameters; dotted names nest: `properties.price=1` is {"properties": {"price": "1"}}."""
    event: dict[str, Any] = {}
    for name, value in parameters:
        *path, last = name.split(".", 8)
        inner = event
        for step in path:
            nested = inner.setdefault(step, {})
            inner = nested if isinstance(nested, dict) else inner
        inner[last] = value
    return msgspec.json.encode(event)


# --- settings stubs ---------------------------------------------------------------------------------------


def _add_settings(app: FastAPI, collector: Collector) -> None:
    def is_server_key(key: str) -> bool:
        """Return whether it is a server key: in a page it is compromised, so it is refused, and not echoed."""
        try:
            found = collector.keys.find(key.strip())
        except KeysUnavailableError:
            return False
        return found is not None and found.kind == "server"

    def json_answer(request: Request, content: object) -> Response:
        headers = _text(collector.cors(request.scope["headers"], None))
        return Response(msgspec.json.encode(content), media_type="application/json", headers=headers)

    @app.get(
        "/v1/projects/{key}/settings",
        tags=["client settings"],
        response_model=models.SegmentSettings,
        responses={
            404: {"model": models.Refused, "description": "Percent-encoded keys are not accepted."},
            403: _SERVER_KEY_ANSWER,
        },
    )
    async def segment_settings(request: Request, key: str) -> Response:
        """Return the settings that analytics.js loads at startup, so that a page need only change its `cdnURL`."""
        if is_server_key(key):
            return make_response(refusal_answer(SERVER_KEY))
        target: dict[str, object] = {"apiKey": key}
        host = request.headers.get("host", "")
        if _HOST.fullmatch(host):
            target |= {"apiHost": f"{host}/v1", "protocol": request.url.scheme}
        return json_answer(request, {"integrations": {"Segment.io": target}})

    @app.get(
        "/sourceConfig/",
        tags=["client settings"],
        response_model=models.RudderSettings,
        responses={403: _SERVER_KEY_ANSWER},
    )
    @app.get("/sourceConfig", tags=["client settings"], include_in_schema=False)
    async def rudder_settings(request: Request, key: Annotated[str, Query(alias="writeKey")] = "") -> Response:
        """Return the settings that RudderStack's browser SDK loads at startup."""
        if is_server_key(key):
            return make_response(refusal_answer(SERVER_KEY))
        quiet = {"errors": {"enabled": False}, "metrics": {"enabled": False}}
        source = {
            "id": "manymetrics",
            "name": "manymetrics",
            "writeKey": key,
            "enabled": True,
            "connections": [],
            "destinations": [],
            "config": {"statsCollection": quiet},
            "dataplanes": {},
        }
        return json_answer(request, {"source": source})


_SERVER_KEY_ANSWER: dict[str, Any] = {
    "model": models.Refused,
    "description": "A server key, which must not be used in a page.",
}


# --- health -----------------------------------------------------------------------------------------------


class _Progress:
    """Whether commits succeed, checked at most once per PROGRESS_AGE_S."""

    def __init__(self, stalled_s: Callable[[], float] | None) -> None:
        self._stalled_s = stalled_s
        self._looked_at, self._health = float("-inf"), models.Health(status="ok")

    async def health(self) -> models.Health:
        if self._stalled_s is not None and time.monotonic() - self._looked_at > PROGRESS_AGE_S:
            self._looked_at = time.monotonic()
            self._health = await asyncio.to_thread(self._look, self._stalled_s)
        return self._health

    @staticmethod
    def _look(stalled_s: Callable[[], float]) -> models.Health:
        import sqlite3

        try:
            seconds = stalled_s()
        except (OSError, sqlite3.Error):  # storing was just tested
            return models.Health(status="ok")
        if seconds < STALLED_S:
            return models.Health(status="ok")
        detail = f"events are accepted, but no commit has succeeded for {seconds:.0f} s: run `manymetrics doctor`"
        return models.Health(status="stalled", detail=detail)


_NO_KEYS = "the write keys can't be read, so no event is accepted: run `manymetrics doctor`, and see the log"


def _add_health(
    app: FastAPI, collector: Collector, settings: Settings, read_books: BooksReader | None, progress: _Progress
) -> None:
    @app.get("/healthz", tags=["operation"], response_model_exclude_none=True)
    async def healthz() -> models.Health:
        """Return whether the server is alive."""
        return models.Health(status="ok")

    @app.get("/readyz", tags=["operation"], response_model=models.Health, responses={503: REFUSALS[503]})
    async def readyz() -> Response:
        """Test whether an event sent now would be stored. `stalled`: it would be, but nothing is being committed."""
        if not await collector.sink.ready():
            return make_response(refusal_answer(STREAM_UNAVAILABLE))
        try:
            collector.keys.origins()
        except KeysUnavailableError:
            return make_response(refusal_answer(KEYS_UNAVAILABLE.with_message(_NO_KEYS)))
        health = await progress.health()
        return Response(health.model_dump_json(exclude_none=True), media_type="application/json")

    @app.get("/metrics", tags=["operation"], response_class=Response, responses=_METRICS_ANSWERS)
    async def metrics(request: Request) -> Response:
        """Prometheus metrics: the committed books, and this process's requests. Loopback, or with the metrics token."""
        if not _may_read_metrics(request, settings.metrics_token):
            return make_response(refusal_answer(METRICS_REFUSED))
        body, content_type = render_metrics(read_books)
        return Response(body, media_type=content_type)


_METRICS_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text format."},
    403: {"model": models.Refused, "description": "From elsewhere, without the metrics token."},
}


def _may_read_metrics(request: Request, token: str) -> bool:
    if token:
        given = request.headers.get("authorization", "")
        return compare_digest(given.encode(), f"Bearer {token}".encode())
    return is_from_this_machine(request)


def is_from_this_machine(request: Request) -> bool:
    """Return whether the request came over loopback, by a name that always means this machine, and without a proxy.

    A page of any other name could read the response by DNS rebinding. Proxies are detected by the headers that they
    add, and by HTTP/1.0: nginx's `proxy_pass` sends it, with the upstream's address as Host and no other header.
    """
    hosts = request.headers.getlist("host")
    return (
        request.client is not None
        and request.client.host in {"127.0.0.1", "::1"}
        and len(hosts) == 1
        and _OWN_HOST.fullmatch(hosts[0]) is not None
        and request.scope.get("http_version") != "1.0"
        and not any(name in _PROXY_HEADERS or name.startswith(_PROXY_PREFIXES) for name in request.headers)
    )


_OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
# Headers that proxies, load balancers and CDNs add to a request, in lower case.
_PROXY_HEADERS = frozenset(
    (
        *("forwarded", "forwarded-for", "via", "client-ip", "true-client-ip", "http-client-ip", "cdn-loop"),
        *("proxy-connection", "proxy-client-ip", "wl-proxy-client-ip", "x-client-ip", "x-cluster-client-ip"),
        *("x-host", "x-scheme", "x-rewrite-url", "x-varnish", "x-amzn-trace-id", "x-cloud-trace-context"),
        *("x-remote-addr", "x-remote-ip", "x-sucuri-clientip", "incap-client-ip", "x-edge-ip", "early-data"),
    )
)
_PROXY_PREFIXES = (
    *("x-forwarded", "x-original-", "x-real-", "x-proxy", "x-envoy-", "x-amz-cf-", "x-azure-", "x-arr-"),
    *("x-appengine-", "x-vercel-", "x-nf-", "x-akamai-", "akamai-", "cf-", "cloudfront-", "fastly-", "fly-"),
    *("tailscale-", "x-ngrok-", "x-traefik-", "x-nginx-", "x-haproxy-"),
)


# --- errors -----------------------------------------------------------------------------------------------


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == HTTPStatus.NOT_FOUND:
        if request.method == "POST":  # events sent to a wrong path, not a browser requesting an icon
            telemetry.refusal_counts[NOT_FOUND.code] += 1
        return make_response(refusal_answer(NOT_FOUND))
    refusal = METHOD_NOT_ALLOWED if status == HTTPStatus.METHOD_NOT_ALLOWED else replace(BAD_REQUEST, status=status)
    allowed = error.headers if isinstance(error, HTTPException) and error.headers else {}
    return make_response(refusal_answer(refusal), allowed)


async def _server_error(_request: Request, _error: Exception) -> Response:
    return make_response(collect.internal_error())


def make_response(answer: Answer, more: Mapping[str, str] | None = None) -> Response:
    """Convert a collector's response to the framework's."""
    response = Response(answer.body, status_code=answer.status, headers=more)
    response.raw_headers = [*(h for h in response.raw_headers if h[0] != b"content-length"), *answer.headers]
    return response


def _text(headers: collect.HeaderList) -> dict[str, str]:
    return {name.decode(): value.decode("latin-1") for name, value in headers}
