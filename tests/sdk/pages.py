"""A site of a few pages, and an API that only writes down what it is sent: for tests of what the SDK says, not how."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.live_server import eventually
from tests.local_http import read_body, serving, url_of
from tests.sdk.conftest import KEY, built_scripts

Sent = dict[str, Any]
TYPES = {".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass
class Pages:
    """Files by their paths, what was built among them. ``slow``: the seconds that a path's answer takes."""

    url: str = ""
    files: dict[str, str] = field(default_factory=dict)
    slow: dict[str, float] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)

    def page(self, path: str, body: str, *scripts: str, head: str = "") -> str:
        """Puts a page there that loads the SDK and then these scripts; returns its address."""
        tags = "".join(f'<script defer src="/{name}"></script>' for name in scripts)
        sdk = f'<script defer src="/mm.js" data-key="{KEY}" data-host="{self.url}"></script>'
        self.files[path] = f"<!doctype html><title>A page</title>{head}{sdk}{tags}<body>{body}"
        return self.url + path

    def events(self, event: str) -> list[Sent]:
        """Those of this name that have come, each once."""
        named = {one["messageId"]: one for one in self.sent if one.get("event") == event}
        return list(named.values())

    def once(self, event: str, count: int = 1) -> list[Sent]:
        """As ``events``, once there are so many."""
        eventually(lambda: len(self.events(event)) >= count or None)
        assert len(self.events(event)) == count
        return self.events(event)


@contextmanager
def pages() -> Iterator[Pages]:
    made = Pages(files={f"/{name}": file.read_text() for name, file in built_scripts().items()})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            time.sleep(made.slow.get(path, 0))
            suffix = path[path.rfind(".") :] if "." in path else ""
            self._send(200 if path in made.files else 404, TYPES.get(suffix, "text/html"), made.files.get(path, ""))

        def do_POST(self) -> None:
            body = json.loads(read_body(self))
            made.sent.extend(one | {"context": body["context"] | one["context"]} for one in body["batch"])
            self._send(200, "application/json", "{}")

        def _send(self, status: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            return

    with serving(Handler) as server:
        made.url = url_of(server)
        yield made
