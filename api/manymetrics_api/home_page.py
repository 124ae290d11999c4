"""GET / and /favicon.ico: the home page, for browsers."""

from __future__ import annotations

from fastapi import FastAPI, Response

_HEADERS = {
    "cache-control": "max-age=3600",
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
}
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ManyMetrics</title>
<style>
  :root {{ color-scheme: light dark }}
  body {{ font: 1rem/1.6 system-ui, sans-serif; max-width: 38rem; margin: 10vh auto; padding: 0 1.5rem }}
  h1 {{ font-size: 1.5rem }}
</style>
<h1><img src="/favicon.ico" alt="" width="24" height="24"> ManyMetrics</h1>
<p>This server collects product analytics events over HTTP and stores them as rows that SQL can query.</p>
<ul>
{links}
</ul>
"""
_LINKS = {
    "/sample": "sample page, on this machine only: shows each event being sent, accepted and stored",
    "/docs": "the HTTP API, with examples to try",
    "/readyz": "whether an event sent now would be stored",
}
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#2450a4"/>'
    '<path d="M4 12V9m4 3V4m4 8V7" stroke="#fff" stroke-width="2" stroke-linecap="round"/></svg>'
)


def add_home_routes(app: FastAPI) -> None:
    """Add the routes; the page links to the routes that ``app`` has at the time of the request."""

    @app.get("/", include_in_schema=False)
    async def home() -> Response:
        paths = {getattr(route, "path", None) for route in app.routes}
        links = (f'  <li><a href="{path}">{path}</a>: {text}' for path, text in _LINKS.items() if path in paths)
        return Response(_PAGE.format(links="\n".join(links)), headers=_HEADERS, media_type="text/html")

    @app.get("/favicon.ico", include_in_schema=False)
    async def favicon() -> Response:
        return Response(_ICON, headers=_HEADERS, media_type="image/svg+xml")
