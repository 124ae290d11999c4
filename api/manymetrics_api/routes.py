"""The paths that bring events, for all that routes by them: the HTTP protocol, the Lambda handler, and FastAPI."""

from __future__ import annotations

import re
from typing import NamedTuple


class Route(NamedTuple):
    """The kind of request that a path takes. ``default_type``: the type of an event without `type`."""

    batch: bool = False
    default_type: str | None = None
    discard: bool = False


_BATCH = Route(batch=True)
_PATHS = {
    "/v1/track": Route(default_type="track"),
    "/v1/identify": Route(default_type="identify"),
    "/v1/page": Route(default_type="page"),
    "/v1/screen": Route(default_type="screen"),
    "/v1/group": Route(default_type="group"),
    "/v1/alias": Route(default_type="alias"),
    "/v1/batch": _BATCH,
    "/v1/import": _BATCH,  # Segment's older server clients
    "/beacon/v1/batch": _BATCH,  # RudderStack's browser SDK, as the page is left
    # Segment's analytics.js 1 shortens them.
    "/v1/t": Route(default_type="track"),
    "/v1/i": Route(default_type="identify"),
    "/v1/p": Route(default_type="page"),
    "/v1/s": Route(default_type="screen"),
    "/v1/g": Route(default_type="group"),
    "/v1/a": Route(default_type="alias"),
    "/v1/b": _BATCH,
    "/v1/m": Route(discard=True),  # what analytics.js measures of itself
}
# With a trailing slash too: a redirect would be taken for delivered by some clients.
ROUTES = {(path + slash).encode(): route for path, route in _PATHS.items() for slash in ("", "/")}
# What FastAPI answers on AWS. /metrics would show one process among many; /sdk is CloudFront's.
_OTHERS = re.compile(
    r"/(?:favicon\.ico|healthz|readyz|docs|openapi\.json|static-offline-docs/.+|sourceConfig|"
    r"v1/projects/[^/]+/settings|(?:v1/pixel|pixel/v1)/[^/]+)?"
)
_SLASHES = re.compile("/{2,}")


def plain_path(path: str) -> str:
    """Take doubled slashes, and those at the end, out of a path: hosts are given with a slash at the end."""
    return _SLASHES.sub("/", path).rstrip("/") or "/"


def find_route(path: bytes) -> Route | None:
    """Look up what a POST to this path takes."""
    route = ROUTES.get(path)
    if route is None and b"//" in path:
        return ROUTES.get(plain_path(path.decode("latin-1")).encode("latin-1"))
    return route


def is_other(path: str) -> bool:
    """Whether FastAPI has a route for this path on AWS, by some method."""
    return _OTHERS.fullmatch(plain_path(path)) is not None
