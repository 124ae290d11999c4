"""The built browser SDK, served by one machine: under a path that names its very bytes, and under a moving one.

    /sdk/<version>-<hash>/mm.js   for ever the same: cached for a year, and checked by the page against its hash
    /sdk/mm.js                    whatever this server has: cached for minutes

/docs leaves both out: it describes what programs call.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from manymetrics.static_files import StaticFile, read_static_files

SCRIPT = "mm.js"
FOR_EVER = "public, max-age=31536000, immutable"
FOR_MINUTES = "public, max-age=300"
_PACKAGED = Path(__file__).parent / "sdk"  # in a wheel
_CHECKOUT = Path(__file__).parents[2] / "sdk-js" / "dist"


@dataclass(frozen=True, slots=True)
class BuiltSdk:
    """``build`` is ``<version>-<hash>``, the hash being of all scripts: it changes where any of them does."""

    build: str
    files: dict[str, StaticFile]

    def script_tag(self, host: str, key: str) -> str | None:
        """What a page loads the SDK with, checked by its hash (SRI); None where it is not built.

        ``host``: the URL of this server, without a slash at its end.
        """
        script = self.files.get(SCRIPT)
        if script is None:
            return None
        integrity = base64.b64encode(hashlib.sha384(script.body).digest()).decode()
        return (
            f'<script defer src="{escape(host)}/sdk/{self.build}/{SCRIPT}" integrity="sha384-{integrity}" '
            f'crossorigin="anonymous" data-key="{escape(key)}" data-host="{escape(host)}"></script>'
        )


def read_built_sdk(folder: Path | None = None) -> BuiltSdk:
    """What the package holds, or the checkout; no files where neither has any."""
    files = read_static_files(folder or (_PACKAGED if _PACKAGED.is_dir() else _CHECKOUT))
    digest = hashlib.sha256()
    for name, file in files.items():
        if name.endswith(".js"):
            digest.update(f"{name} {file.tag} ".encode())
    return BuiltSdk(f"{version('manymetrics')}-{digest.hexdigest()[:12]}", files)


def add_sdk_routes(app: FastAPI, sdk: BuiltSdk) -> None:
    """A path is a name that is looked up, never one on the disk."""

    @app.api_route("/sdk/{path:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def built_file(request: Request, path: str) -> Response:
        name = path.removeprefix(f"{sdk.build}/")
        file = sdk.files.get(name)
        if file is None:
            raise HTTPException(404)
        return file.answer(request, FOR_MINUTES if name == path else FOR_EVER)
