"""Complete /openapi.json beyond what FastAPI derives: where the write key goes, the bodies of events, the refusals."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from manymetrics import refusals
from manymetrics.refusals import Refusal
from manymetrics_api import models
from manymetrics_api.collect import error_body

_SCHEMES = {
    "WriteKey": {
        "type": "http",
        "scheme": "basic",
        "description": "The write key as user name, with an empty password. Takes precedence over the other places.",
    },
    "WriteKeyInQuery": {"type": "apiKey", "in": "query", "name": "writeKey"},
    "WriteKeyInHeader": {"type": "apiKey", "in": "header", "name": "X-Write-Key"},
}
SECURITY: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]

_TAGS = [
    {
        "name": "events",
        "description": "Ingestion. The Segment protocol: Segment's and RudderStack's clients work unmodified.",
    },
    {"name": "pixels", "description": "Events from places without scripts, mostly e-mails."},
    {"name": "operation", "description": "Liveness, readiness and metrics."},
    {
        "name": "client settings",
        "description": "Settings that browser clients load at startup. They contain no secrets.",
    },
    {"name": "events, other spellings", "description": "The same routes under the paths of other clients."},
]
_DESCRIPTION = """
Send events; query them with SQL in your own Iceberg tables.

* **200 means durable.** Anything else received no event: retry on 408, 429 and 503, fix the request on another 4xx.
* **The write key** is the user name of HTTP Basic; or `writeKey` in the body, `?writeKey=`, the header `X-Write-Key`,
  or `api_key` in the body, in this order.
* **A resend is stored once**: give each event a `messageId`.
* **A bad event harms only itself**: it becomes a row of `dead_letters`, with its bytes and the reason.
"""

_BODIES = (models.Track, models.Identify, models.Page, models.Screen, models.Group, models.Alias, models.Batch)


def _refusals(*given: Refusal, description: str) -> dict[str, Any]:
    examples: dict[str, dict[str, Any]] = {}
    for refusal in given:
        name = refusal.code if refusal.code not in examples else f"{refusal.code}_{len(examples) + 1}"
        examples[name] = {"summary": refusal.message, "value": error_body(refusal)}
    answer: dict[str, Any] = {
        "model": models.Refused,
        "description": description,
        "content": {"application/json": {"examples": examples}},
    }
    if any(refusal.retry_after_s for refusal in given):
        answer["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return answer


_FAILED = ({"index": 1, "reason": "no_identity", "detail": "userId, anonymousId"},)
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: _refusals(
        refusals.INVALID_JSON,
        refusals.NO_BATCH,
        refusals.INVALID_EVENTS.with_message(refusals.INVALID_EVENTS.message, _FAILED),
        description="Not JSON, no batch, or an invalid event in strict mode.",
    ),
    401: _refusals(refusals.NO_KEY, refusals.UNKNOWN_KEY, description="No write key, or an unknown or revoked one."),
    403: _refusals(refusals.ORIGIN_NOT_ALLOWED, description="The key may not be used from this page's origin."),
    408: _refusals(refusals.BODY_TIMEOUT, description="The body took over 30 s."),
    413: _refusals(refusals.TOO_LARGE, description="Body, inflated body, envelope or number of events over the limit."),
    415: _refusals(
        refusals.UNSUPPORTED_ENCODING,
        refusals.ENCODING_LOST,
        description="A Content-Encoding that is not gzip, deflate or identity; or a gateway that damaged the body.",
    ),
    429: _refusals(refusals.THROTTLED, description="The stream is throttled."),
    503: _refusals(
        refusals.STREAM_UNAVAILABLE,
        refusals.KEYS_UNAVAILABLE,
        refusals.OVERLOADED,
        description="The events can't be stored, the keys can't be read, or there are too many large requests.",
    ),
}


def describe(app: FastAPI) -> None:
    """Make ``app`` serve the complete description, generated at the first request."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=_DESCRIPTION,
        routes=app.routes,
        tags=_TAGS,
    )
    components = document["components"]
    _, definitions = models_json_schema(
        [(model, "validation") for model in _BODIES], ref_template="#/components/schemas/{model}"
    )
    components["schemas"] |= definitions["$defs"]
    components["securitySchemes"] = _SCHEMES
    for name in ("HTTPValidationError", "ValidationError"):  # no route returns FastAPI's 422
        components["schemas"].pop(name, None)
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    document["info"]["license"] = {"name": "MIT", "identifier": "MIT"}
    return document
