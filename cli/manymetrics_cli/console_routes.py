"""POST /console/insight: answer questions over HTTP, for the console and for scripts on this machine.

Answers show persons and their events, so only this machine is answered: a request with the header
``X-ManyMetrics-Console: 1``, which no page of another site can send, no foreign ``Origin``, and no sign of a proxy.
Where a token is set (MANYMETRICS_CONSOLE_TOKEN), whoever has it is answered, from anywhere: ``/console?token=`` puts
it into a cookie.
"""

from __future__ import annotations

import asyncio
import hmac
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from manymetrics_api.endpoints import is_from_this_machine
from manymetrics_insights.asking.worker import InsightFailedError, Insights, RefusedQuestionError

HEADER: Final = "x-manymetrics-console"
COOKIE: Final = "manymetrics_console"
MAX_BODY: Final = 1_000_000  # bytes; the largest question that the models admit is smaller by far
_POLL_S: Final = 0.2  # how soon a question stops whose client is gone
_HEADERS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_FORBIDDEN: Final = (
    "only this machine is answered, with the header X-ManyMetrics-Console: 1, without a proxy and from no other site; "
    "to ask from elsewhere, set MANYMETRICS_CONSOLE_TOKEN and open /console?token=... first"
)


def add_console_routes(app: FastAPI, insights: Insights, token: str, *, behind_proxies: bool) -> None:
    """Add the routes. ``token``: empty if none is set. ``behind_proxies``: every client appears to be a proxy."""

    def may_ask(request: Request) -> bool:
        if token:
            given = request.cookies.get(COOKIE, "")
            return hmac.compare_digest(given.encode(), token.encode()) and _is_same_origin(request)
        return (
            not behind_proxies
            and is_from_this_machine(request)
            and request.headers.get(HEADER) == "1"
            and _is_same_origin(request)
        )

    @app.get("/console", include_in_schema=False)
    async def console(request: Request) -> Response:
        if not token:
            raise HTTPException(404)
        given = request.query_params.get("token", "")
        if not hmac.compare_digest(given.encode(), token.encode()):
            return _refuse(403, _FORBIDDEN)
        answer = Response("You may ask now: POST /console/insight\n", headers=_HEADERS, media_type="text/plain")
        is_https = request.url.scheme == "https"
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=is_https, path="/console")
        return answer

    @app.get("/console/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> Response:
        if not may_ask(request):
            return _refuse(403, _FORBIDDEN)
        return _json(200, _openapi())

    @app.post("/console/insight", include_in_schema=False)
    async def insight(request: Request) -> Response:
        if not may_ask(request):
            return _refuse(403, _FORBIDDEN)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                return _refuse(413, f"a question takes at most {MAX_BODY:,} bytes")
        try:
            question = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return _refuse(400, f"the body is not JSON: {error}")
        return await _answer(insights, question, request)


async def _answer(insights: Insights, question: object, request: Request) -> Response:
    """Wait for the answer; stop the question if the client goes."""
    number, future = await asyncio.to_thread(insights.submit, question)
    answer = asyncio.wrap_future(future)
    try:
        while not (await asyncio.wait({answer}, timeout=_POLL_S))[0]:
            if await request.is_disconnected():
                return Response(status_code=499)
        return Response(answer.result(), headers=_HEADERS, media_type="application/json")
    except RefusedQuestionError as error:
        path, message = error.errors[0]
        return _refuse(400, message, path)
    except InsightFailedError as error:
        return _refuse(503, str(error))
    finally:
        insights.cancel(number)


def _is_same_origin(request: Request) -> bool:
    """Return whether a browser's request, which has an Origin, comes from a page of this server."""
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")
    return site in {"same-origin", "none"} and (
        origin is None or origin == f"{request.url.scheme}://{request.headers.get('host', '')}"
    )


def _refuse(status: int, message: str, path: list[str | int] | None = None) -> Response:
    return _json(status, {"error": {"path": path or [], "message": message}})


def _json(status: int, content: Any) -> Response:  # noqa: ANN401  # any JSON
    return Response(msgspec.json.encode(content), status, headers=_HEADERS, media_type="application/json")


def _openapi() -> dict[str, Any]:
    """Return the OpenAPI document of the route."""
    from manymetrics_insights.questions.models import question_schema

    question = question_schema(ref_template="#/components/schemas/{model}")
    question.pop("$schema", None)
    schemas = question.pop("$defs", {})
    error = {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {"path": {"type": "array"}, "message": {"type": "string"}},
                "required": ["path", "message"],
            }
        },
        "required": ["error"],
    }
    as_json = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "ManyMetrics insights", "version": "1"},
        "paths": {
            "/console/insight": {
                "post": {
                    "summary": "Ask a question",
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Question"}}},
                    },
                    "responses": {
                        "200": {"description": "The answer, as `manymetrics insight -o json` prints it"},
                        "400": {"description": "The question is refused", "content": as_json},
                        "403": {"description": "Not from here", "content": as_json},
                        "503": {"description": "The question failed", "content": as_json},
                    },
                }
            }
        },
        "components": {"schemas": {**schemas, "Question": question, "Error": error}},
    }
