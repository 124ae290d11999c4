"""The paths of ingestion routes, for the HTTP protocol, the Lambda handler and FastAPI."""

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
    "/beacon/v1/batch": _BATCH,  # RudderStack's browser SDK, when the page is left
    # Segment's analytics.js 1 shortens them.
    "/v1/t": Route(default_type="track"),
    "/v1/i": Route(default_type="identify"),
    "/v1/p": Route(default_type="page"),
    "/v1/s": Route(default_type="screen"),
    "/v1/g": Route(default_type="group"),
    "/v1/a": Route(default_type="alias"),
    "/v1/b": _BATCH,
    "/v1/m": Route(discard=True),  # analytics.js's metrics about itself
}
# With a trailing slash too: some clients would treat a redirect as delivered.
ROUTES = {(path + slash).encode(): route for path, route in _PATHS.items() for slash in ("", "/")}
# FastAPI's routes on AWS. /metrics would show one process among many; CloudFront serves /sdk.
_OTHERS = re.compile(
    r"/(?:favicon\.ico|healthz|readyz|docs|openapi\.json|static-offline-docs/.+|sourceConfig|"
    r"v1/projects/[^/]+/settings|(?:v1/pixel|pixel/v1)/[^/]+)?"
)
_SLASHES = re.compile("/{2,}")


def plain_path(path: str) -> str:
    """Remove doubled and trailing slashes from a path: clients are configured with hosts that end in a slash."""
    return _SLASHES.sub("/", path).rstrip("/") or "/"


def find_route(path: bytes) -> Route | None:
    """Look up the route of a POST to this path."""
    route = ROUTES.get(path)
    if route is None and b"//" in path:
        return ROUTES.get(plain_path(path.decode("latin-1")).encode("latin-1"))
    return route


def is_other(path: str) -> bool:
    """Return whether FastAPI has a route for this path on AWS, with any method."""
    return _OTHERS.fullmatch(plain_path(path)) is not None
