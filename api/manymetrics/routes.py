"""Every route, declared for /docs. What brings events is answered by the collector; the rest is answered here."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Sequence
from hmac import compare_digest
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from manymetrics import collect, models, telemetry
from manymetrics.collect import ROUTES, Answer, Collector, refusal_answer
from manymetrics.events import EVENT_TYPES
from manymetrics.intake import Draft, Refusal
from manymetrics.metrics import BooksReader, render_metrics
from manymetrics.outcomes import RequestOutcome
from manymetrics.settings import Settings

__all__ = ["BooksReader", "add_routes"]

GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
_HOST = re.compile(r"[A-Za-z0-9.\-]+(:\d{1,5})?|\[[0-9a-fA-F:]+\](:\d{1,5})?")

Endpoint = Callable[[Request], Awaitable[Response]]

_BODIES: dict[str, type[models.BaseModel]] = {
    "track": models.Track,
    "identify": models.Identify,
    "page": models.Page,
    "screen": models.Screen,
    "group": models.Group,
    "alias": models.Alias,
}
_EXAMPLES: dict[str, dict[str, Any]] = {
    "track": {"userId": "u-1", "event": "Signed Up", "properties": {"plan": "pro"}},
    "identify": {"userId": "u-1", "anonymousId": "a-1", "traits": {"email": "ada@example.com"}},
    "page": {"anonymousId": "a-1", "name": "Pricing", "properties": {"url": "https://example.com/pricing"}},
    "screen": {"anonymousId": "a-1", "name": "Home"},
    "group": {"userId": "u-1", "groupId": "g-1", "traits": {"name": "Example Ltd"}},
    "alias": {"previousId": "a-1", "userId": "u-1"},
    "batch": {"batch": [{"type": "track", "userId": "u-1", "event": "Signed Up"}, {"type": "page", "anonymousId": "a-1"}]},
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": models.Refused, "description": "Not JSON, no batch, or strict mode and an event is wrong."},
    401: {"model": models.Refused, "description": "No valid write key."},
    403: {"model": models.Refused, "description": "The key may not be used from this page's origin."},
    408: {"model": models.Refused, "description": "The body took over 30 s."},
    413: {"model": models.Refused, "description": "Body, inflated body or number of events over the limit."},
    415: {"model": models.Refused, "description": "A Content-Encoding that is not gzip, deflate or identity."},
    429: {"model": models.Refused, "description": "The stream is throttled; Retry-After says when."},
    503: {"model": models.Refused, "description": "It can't be stored, or keys can't be read; Retry-After says when."},
}


def add_routes(app: FastAPI, collector: Collector, settings: Settings, read_books: BooksReader | None) -> None:
    """Declare all routes on ``app``."""
    for path, route in ROUTES.items():
        _add_collecting(app, collector, path.decode(), route)
    _add_pixels(app, collector)
    _add_settings(app, collector)
    _add_health(app, collector, settings, read_books)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _server_error)


# --- events -----------------------------------------------------------------------------------------------


def _add_collecting(app: FastAPI, collector: Collector, path: str, route: collect.Route) -> None:
    async def endpoint(request: Request) -> Response:
        answer = await collector.answer(request.scope, request.receive, route)
        return _response(answer) if answer is not None else Response(status_code=400)

    name = "batch" if route.batch else route.default_type
    main = not path.endswith("/") and path in {f"/v1/{name}", "/v1/import"}
    app.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        summary=f"Send {'a batch of events' if route.batch else f'one {name} event'}" if name else "Discarded",
        description=_DESCRIPTION if name else "What analytics.js measures of itself: answered, and thrown away.",
        tags=["events" if main else "events, other spellings"],
        response_model=models.Accepted,
        responses=_REFUSALS,
        operation_id="post" + path.replace("/", "_"),
        openapi_extra=_request_body(name) | _SECURITY,
    )


_DESCRIPTION = (
    "Speaks the Segment and RudderStack protocol. 200 means that every event is on disk. An event that is wrong in "
    "itself does not fail the request: it becomes a row of `dead_letters`. Any Content-Type; gzip is taken."
)
_SECURITY = {"security": [{"WriteKeyAsBasicUser": []}]}


def _request_body(name: str | None) -> dict[str, Any]:
    if name is None:
        return {"requestBody": {"content": {"application/json": {"schema": {}}}}}
    model = models.Batch if name == "batch" else _BODIES[name]
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    content = {"application/json": {"schema": schema, "example": _EXAMPLES[name]}}
    return {"requestBody": {"required": True, "content": content}}


# --- pixels -----------------------------------------------------------------------------------------------


def _add_pixels(app: FastAPI, collector: Collector) -> None:
    responses: dict[int | str, dict[str, Any]] = {200: {"content": {"image/gif": {}}, "description": "Stored."}, **_REFUSALS}

    @app.get("/v1/pixel/{event_type}", tags=["pixels"], response_class=Response, responses=responses)
    async def segment_pixel(request: Request, event_type: str, data: str | None = None) -> Response:
        """One event as `?data=`, base64url or plain JSON; answers a GIF once it is stored."""
        return await _put_pixel(collector, request, event_type, _pixel_json(data or ""))

    @app.get("/pixel/v1/{event_type}", tags=["pixels"], response_class=Response, responses=responses)
    async def rudder_pixel(request: Request, event_type: str) -> Response:
        """One event as query parameters: `?writeKey=&anonymousId=&event=&properties.x=`; answers a GIF once stored."""
        return await _put_pixel(collector, request, event_type, _event_of(request.query_params.multi_items()))


async def _put_pixel(collector: Collector, request: Request, event_type: str, body: bytes) -> Response:
    if event_type not in EVENT_TYPES:
        return _response(refusal_answer(collect.NOT_FOUND))
    headers = dict(request.scope["headers"])
    headers.pop(b"content-encoding", None)
    draft = Draft(body, headers, collector.keys, False, event_type, request.query_params.get("writeKey"))
    answer = await collector.put(draft, request.scope)
    if answer.status != 200:
        return _response(answer)
    kept = {name.decode(): value.decode() for name, value in answer.headers if name.startswith((b"access-", b"vary"))}
    return Response(GIF, media_type="image/gif", headers={"cache-control": "no-store", **kept})


def _pixel_json(data: str) -> bytes:
    if data.lstrip().startswith("{"):
        return data.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(data.strip() + "=" * (-len(data.strip()) % 4), altchars=b"-_")
    except (binascii.Error, ValueError):
        return data.encode("utf-8", "surrogatepass")


def _event_of(parameters: Sequence[tuple[str, str]]) -> bytes:
    """Dotted names nest: `properties.price=1` is {"properties": {"price": "1"}}."""
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
    def json_answer(request: Request, content: object) -> Response:
        headers = {name.decode(): value.decode("latin-1") for name, value in collector.cors(request.scope["headers"], None)}
        return Response(msgspec.json.encode(content), media_type="application/json", headers=headers)

    @app.get("/v1/projects/{key}/settings", tags=["client settings"])
    async def segment_settings(request: Request, key: str) -> Response:
        """What analytics.js asks for at its start: points it here, so that a page need only change its `cdnURL`."""
        target: dict[str, object] = {"apiKey": key}
        host = request.headers.get("host", "")
        if _HOST.fullmatch(host):
            target |= {"apiHost": f"{host}/v1", "protocol": request.url.scheme}
        return json_answer(request, {"integrations": {"Segment.io": target}})

    @app.get("/sourceConfig/", tags=["client settings"])
    @app.get("/sourceConfig", tags=["client settings"], include_in_schema=False)
    async def rudder_settings(request: Request, writeKey: str = "") -> Response:  # noqa: N803  # the protocol's name
        """What RudderStack's browser SDK asks for at its start."""
        quiet = {"errors": {"enabled": False}, "metrics": {"enabled": False}}
        source = {
            "id": "manymetrics",
            "name": "manymetrics",
            "writeKey": writeKey,
            "enabled": True,
            "connections": [],
            "destinations": [],
            "config": {"statsCollection": quiet},
            "dataplanes": {},
        }
        return json_answer(request, {"source": source})


# --- health -----------------------------------------------------------------------------------------------


def _add_health(app: FastAPI, collector: Collector, settings: Settings, read_books: BooksReader | None) -> None:
    @app.get("/healthz", tags=["operation"])
    async def healthz() -> models.Health:
        """Alive."""
        return models.Health(status="ok")

    @app.get("/readyz", tags=["operation"], responses={503: {"model": models.Health, "description": "It can't store."}})
    async def readyz() -> Response:
        """Whether an event sent now would be stored: tries it."""
        ready = await collector.sink.ready()
        body = models.Health(status="ok" if ready else "unavailable").model_dump_json()
        return Response(body, status_code=200 if ready else 503, media_type="application/json")

    @app.get("/metrics", tags=["operation"], response_class=Response)
    async def metrics(request: Request) -> Response:
        """Prometheus text: the committed books, and this process's requests. Loopback, or with the metrics token."""
        if not _may_read_metrics(request, settings.metrics_token):
            return _response(refusal_answer(_METRICS_REFUSED))
        body, content_type = render_metrics(read_books)
        return Response(body, media_type=content_type)


_METRICS_REFUSED = Refusal(
    403, RequestOutcome.UNAUTHORIZED, "metrics_refused", "only loopback, or a bearer of MANYMETRICS_METRICS_TOKEN, reads this"
)


def _may_read_metrics(request: Request, token: str) -> bool:
    if token:
        given = request.headers.get("authorization", "")
        return compare_digest(given.encode(), f"Bearer {token}".encode())
    proxied = "x-forwarded-for" in request.headers or "forwarded" in request.headers
    return request.client is not None and request.client.host in {"127.0.0.1", "::1"} and not proxied


async def _http_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        return _response(refusal_answer(collect.NOT_FOUND))
    code = "method_not_allowed" if status == 405 else "bad_request"
    answer = refusal_answer(Refusal(status, RequestOutcome.BAD_REQUEST, code, "this route takes another method: see /docs"))
    allowed = error.headers if isinstance(error, HTTPException) and error.headers else {}
    return _response(answer, dict(allowed))


async def _server_error(_request: Request, _error: Exception) -> Response:
    """A fault of ours: 503, so that clients send it again."""
    telemetry.count_request(RequestOutcome.UNAVAILABLE)
    return _response(refusal_answer(Refusal(503, RequestOutcome.UNAVAILABLE, "internal", "a fault of ours: send it again")))


def _response(answer: Answer, more: dict[str, str] | None = None) -> Response:
    response = Response(answer.body, status_code=answer.status, headers=more)
    response.raw_headers = [*(h for h in response.raw_headers if h[0] != b"content-length"), *answer.headers]
    return response
