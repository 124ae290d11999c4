"""Serve the built browser SDK on one machine: under an immutable, content-addressed path, and under a stable one.

    /sdk/<version>-<hash>/mm.js   immutable: cached for a year, and checked by the page against its hash
    /sdk/mm.js                    the current version of this server: cached for minutes

Each released build is also served under its path, so that a page that pinned it works after an upgrade.

/docs leaves both out: it describes the API that programs call.
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

from manymetrics_cli.static_files import StaticFile, read_static_files

SCRIPT = "mm.js"
FOR_EVER = "public, max-age=31536000, immutable"
FOR_MINUTES = "public, max-age=300"
_PACKAGED = Path(__file__).parent / "sdk"  # in a wheel
_CHECKOUT = Path(__file__).parents[2] / "sdk-js"


@dataclass(frozen=True, slots=True)
class BuiltSdk:
    """``build`` is ``<version>-<hash>``, the hash covering all scripts: it changes if any of them does.

    ``released``: the files of released builds, by ``<version>-<hash>/<name>``.
    """

    build: str
    files: dict[str, StaticFile]
    released: dict[str, StaticFile]

    def script_tag(self, host: str, key: str) -> str | None:
        """Return the tag that loads the SDK into a page, checked by its hash (SRI); None if the SDK is not built.

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
    """Read ``dist`` and ``released`` of the package, or of the checkout; no files if neither has any."""
    folder = folder or (_PACKAGED if _PACKAGED.is_dir() else _CHECKOUT)
    files = read_static_files(folder / "dist")
    build = f"{version('manymetrics')}-{hash_scripts(files)}"
    return BuiltSdk(build, files, read_static_files(folder / "released"))


def hash_scripts(files: dict[str, StaticFile]) -> str:
    """Hash the names and bytes of all scripts, as infra/sdk.tf and sdk-js/release.mjs do."""
    tags = "".join(f"{name} {file.tag} " for name, file in sorted(files.items()) if name.endswith(".js"))
    return hashlib.sha256(tags.encode()).hexdigest()[:12]


def add_sdk_routes(app: FastAPI, sdk: BuiltSdk) -> None:
    """Add the routes. A path is looked up by name, never opened on the disk."""
    pinned = sdk.released | {f"{sdk.build}/{name}": file for name, file in sdk.files.items()}

    @app.api_route("/sdk/{path:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def built_file(request: Request, path: str) -> Response:
        file = pinned.get(path) or sdk.files.get(path)
        if file is None:
            raise HTTPException(404)
        return file.answer(request, FOR_EVER if path in pinned else FOR_MINUTES)
