"""GET /sample: a page that shows each event of a click being sent, accepted and stored as a row.

It contains a browser key and shows rows, so it is served only to a browser on this machine, not through a proxy, and
only under a host name that always means this machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Query, Request, Response
from starlette.exceptions import HTTPException

from manymetrics.refusals import SAMPLE_REFUSED
from manymetrics_api.collect import refusal_answer
from manymetrics_api.endpoints import is_from_this_machine, make_response
from manymetrics_api.keys import WriteKey
from manymetrics_cli.built_sdk import BuiltSdk
from manymetrics_cli.static_files import has_already, read_static_files

_PACKAGED = Path(__file__).parent / "sample"  # in a wheel
_CHECKOUT = Path(__file__).parents[2] / "sample" / "page"
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}
# sample/page.tf hosts the page on AWS too, with other values for these placeholders.
_HERE = {"where": "here", "host": "", "athena": "", "workgroup": "", "database": "", "wait": ""}


@dataclass(frozen=True, slots=True)
class SampleData:
    """The functions that the sample page needs.

    ``find_key``: an active browser key that pages of an origin may use, or None. ``query``: the command that queries
    the same tables. ``commit``: a cheap identifier of the table's current state. ``rows``: the newest of a project and
    anonymous id, newest first.
    """

    find_key: Callable[[str], WriteKey | None]
    query: str
    commit: Callable[[], str]
    rows: Callable[[str, str], list[dict[str, Any]]]


def add_sample_routes(app: FastAPI, sdk: BuiltSdk, data: SampleData, *, behind_proxies: bool) -> None:
    """Add the routes. ``behind_proxies``: every client appears to be a proxy, so the page is served to nobody."""
    folder = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT
    files = read_static_files(folder)
    page, message = (Template((folder / name).read_text("utf-8")) for name in ("index.html", "message.html"))
    one_at_a_time = asyncio.Lock()

    def own_origin(request: Request) -> str | None:
        """Return the server's URL as a browser on this machine names it; None for any other client."""
        if behind_proxies or not is_from_this_machine(request):
            return None
        if (
            "close" in request.headers.get("connection", "").lower()
        ):  # sent by nginx, also with HTTP/1.1, and by no browser
            return None
        return f"{request.url.scheme}://{request.headers['host']}"

    def browser_key(origin: str) -> WriteKey | None:
        key = data.find_key(origin)
        return key if key is not None and key.kind == "browser" else None

    def say(status: int, title: str, text: str) -> Response:
        body = message.substitute(title=escape(title), text=escape(text))
        return Response(body, status, headers=_HEADERS, media_type="text/html")

    @app.get("/sample", include_in_schema=False)
    @app.get("/sample/about", include_in_schema=False)  # reached by client-side navigation, and may be reloaded
    async def sample(request: Request) -> Response:
        origin = own_origin(request)
        if origin is None:
            return say(403, **_ELSEWHERE)
        key = browser_key(origin)
        if key is None:
            return say(503, **_NO_KEY)
        tag = sdk.script_tag(origin, key.key)
        if tag is None:
            return say(503, **_NO_SDK)
        asked = {"query": escape(data.query), "project": escape(key.project)}
        body = page.substitute(_HERE, sdk=tag, shown_sdk=escape(tag), **asked)
        return Response(body, headers=_HEADERS, media_type="text/html")

    @app.get("/sample/rows", include_in_schema=False)
    async def rows(request: Request, anonymous_id: Annotated[str, Query(max_length=4_096)] = "") -> Response:
        origin = own_origin(request)
        key = browser_key(origin) if origin is not None else None
        referer = request.headers.get("referer", f"{origin}/")
        if key is None or not referer.startswith(f"{origin}/"):  # behind a proxy, the page has another address
            return make_response(refusal_answer(SAMPLE_REFUSED))
        async with one_at_a_time:  # limits the load of many viewers, so that events have priority
            return await asyncio.to_thread(_rows_answer, data, key.project, anonymous_id, request)

    @app.get("/sample/{name}", include_in_schema=False)
    async def sample_file(request: Request, name: str) -> Response:
        if name not in files:
            raise HTTPException(404)
        return files[name].answer(request, "no-cache")


def _rows_answer(data: SampleData, project: str, anonymous_id: str, request: Request) -> Response:
    """Return the rows, or 304 if nothing was committed since: polling then costs one read of the catalog."""
    tag = f'"{data.commit()}"'
    headers = {"cache-control": "no-cache", "etag": tag, "x-content-type-options": "nosniff"}
    if has_already(tag, request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    body = msgspec.json.encode({"rows": data.rows(project, anonymous_id)})
    return Response(body, headers=headers, media_type="application/json")


# Title and text of the page that says why the sample page is unavailable.
_ELSEWHERE = {
    "title": "This page is only available on the machine that the server runs on",
    "text": """It shows a write key and rows of the table, so it is served only to a browser on the same machine, at
        http://127.0.0.1 or http://localhost with the server's port, and never through a proxy
        (MANYMETRICS_TRUSTED_PROXIES must be 0).""",
}
_NO_KEY = {
    "title": "No browser key allows this page",
    "text": """Add one of kind browser to keys.json in the data directory, without origins or with the address of this
        page among them. It takes effect within five seconds: then reload.""",
}
_NO_SDK = {
    "title": "The browser SDK is not built",
    "text": "There is no mm.js in sdk-js/dist: run `make sdk`, `node build.mjs` in sdk-js, and restart the server.",
}
