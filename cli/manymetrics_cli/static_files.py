"""Static files, read once and served from memory, with their type, ETag, and gzip if it is smaller."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request, Response

_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".map": "application/json",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_NOT_TAKEN = re.compile(r"q=0(\.0*)?")


@dataclass(frozen=True, slots=True)
class StaticFile:
    """``tag`` is the hash of the plain bytes; ``zipped`` is None if gzip would save nothing."""

    body: bytes
    media_type: str
    tag: str
    zipped: bytes | None

    def answer(self, request: Request, cache_control: str) -> Response:
        """Return the file, or 304 if the client has it. Any page may load it and check its hash (CORS)."""
        zipped = self.zipped if takes_gzip(request.headers.get("accept-encoding", "")) else None
        tag = f'"{self.tag}-gzip"' if zipped is not None else f'"{self.tag}"'
        headers = {
            "cache-control": cache_control,
            "etag": tag,
            "vary": "Accept-Encoding",
            "access-control-allow-origin": "*",
            "x-content-type-options": "nosniff",
        }
        if has_already(tag, request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers=headers)
        if zipped is not None:
            headers["content-encoding"] = "gzip"
        body = self.body if zipped is None else zipped
        return Response(body, headers=headers, media_type=self.media_type)


def read_static_files(folder: Path) -> dict[str, StaticFile]:
    """Read the files that a browser loads in and below a folder, by relative path; empty if there is no folder."""
    paths = (path for path in sorted(folder.rglob("*")) if path.suffix in _TYPES and path.is_file())
    return {path.relative_to(folder).as_posix(): _read(path) for path in paths}


def _read(path: Path) -> StaticFile:
    body = path.read_bytes()
    zipped = gzip.compress(body, mtime=0)
    tag = hashlib.sha256(body).hexdigest()[:16]
    return StaticFile(body, _TYPES[path.suffix], tag, zipped if len(zipped) < len(body) else None)


def takes_gzip(accept_encoding: str) -> bool:
    """Return whether an Accept-Encoding header lists gzip with a weight above 0."""
    for part in accept_encoding.lower().split(","):
        name, _, weight = part.partition(";")
        if name.strip() == "gzip":
            return _NOT_TAKEN.fullmatch(weight.strip()) is None
    return False


def has_already(tag: str, if_none_match: str) -> bool:
    """Return whether If-None-Match holds the tag, by weak comparison (RFC 9110, 13.1.2)."""
    return if_none_match.strip() == "*" or tag in (one.strip().removeprefix("W/") for one in if_none_match.split(","))
