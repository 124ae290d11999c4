"""Pages with autocapture in them, what they send on its way to the real server, and a person who clicks."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.live_server import LiveServer, eventually
from tests.local_http import serving, url_of
from tests.sdk.conftest import KEY, Browser, built_scripts

START = """import {{ createClient }} from "/index.js";
import {{ autocapture }} from "/autocapture.js";
const client = createClient({{ key: "{key}", host: "{host}" }});
client.use(autocapture({options}));
window.manymetrics = client;"""
NUMBERS = itertools.count()


@dataclass
class Sent:
    """The bodies of the requests that the server has taken."""

    bodies: list[str] = field(default_factory=list)

    def events(self) -> list[dict[str, Any]]:
        """Each once, with what its batch shares: what a page hands over as it goes may be sent again."""
        events = {}
        for batch in map(json.loads, self.bodies):
            for event in batch["batch"]:
                events[event["messageId"]] = event | {"context": batch["context"] | event["context"]}
        return list(events.values())


@dataclass
class Site:
    """Every path is the same page: ``body``, with headers of its own.

    ``change``: what stands in autocapture, and what is put in its place.
    """

    url: str = ""
    api_url: str = ""
    head: str = "<title>A page</title>"
    start: str = "<script type=module src=/start.js></script>"
    body: str = ""
    options: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    change: tuple[str, str] = ("", "")

    def script(self, path: str) -> str | None:
        built = built_scripts().get(path[1:])
        if built is None:
            return None
        text, (old, new) = built.read_text(encoding="utf-8"), self.change
        if not old or path != "/autocapture.js":
            return text
        assert old in text
        return text.replace(old, new)


class Tab:
    """A page of the site, and what it has sent."""

    def __init__(self, browser: Browser, site: Site, sent: Sent) -> None:
        self._browser, self.site, self.sent = browser, site, sent
        self.name = f"page {next(NUMBERS)}"
        self.drive(
            """page.complaints = [];
            page.on("pageerror", (error) => page.complaints.push(String(error)));
            page.on("console", (said) => said.type() === "error" && page.complaints.push(said.text()));"""
        )

    def drive(self, code: str, given: object = None) -> Any:  # noqa: ANN401  # what the page says
        """Runs JavaScript beside the page: ``page`` is Playwright's."""
        return self._browser.do("drive", page=self.name, code=code, given=given)

    def run(self, code: str) -> Any:  # noqa: ANN401  # as above
        """Runs JavaScript in the page."""
        return self._browser.run(code, self.name)

    def show(self, body: str = "", path: str = "/start", options: str = "", before: str = "") -> None:
        """A page with that body; ``before``: what runs in it before all else."""
        self.site.body, self.site.options = body, options
        if before:
            self.drive("await page.addInitScript(given)", before)
        self.go(path)

    def go(self, path: str) -> None:
        self.drive("await page.goto(given); await page.waitForFunction('window.manymetrics')", self.site.url + path)

    def click(self, *selectors: str) -> None:
        for selector in selectors:
            self.drive("await page.locator(given).click({ noWaitAfter: true })", selector)

    def hide(self, *, hidden: bool = True) -> None:
        """As if somebody had gone to another tab, or come back."""
        state = "hidden" if hidden else "visible"
        self.run(
            f"""Object.defineProperty(document, "visibilityState", {{ value: "{state}", configurable: true }});
            document.dispatchEvent(new Event("visibilitychange", {{ bubbles: true }}))"""
        )

    def close(self) -> None:
        self._browser.do("close", page=self.name)

    def events(self, after_s: float = 0.2) -> list[dict[str, Any]]:
        """All that was sent, once the page had so long."""
        time.sleep(after_s)
        self.run("manymetrics.flush()")
        return self.sent.events()

    def told(self, *names: str, after_s: float = 0.2) -> list[dict[str, Any]]:
        """The properties of the events of these names."""
        return [event.get("properties", {}) for event in self.events(after_s) if event.get("event") in names]

    def viewed(self, after_s: float = 0.2) -> list[str]:
        """The paths of the page views."""
        return [event["context"]["page"]["path"] for event in self.events(after_s) if event["type"] == "page"]

    def complaints(self) -> list[str]:
        complaints: list[str] = self.drive("return page.complaints")
        return complaints


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def site(server: LiveServer, sent: Sent) -> Iterator[Site]:
    made = Site()

    class Api(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with urlopen(Request(server.url + self.path, body, {"Content-Type": "text/plain"})) as answer:  # noqa: S310  # ours
                answer.read()
            sent.bodies.append(body.decode())
            answer_with(self, b"{}", "application/json", {})

        def log_message(self, *_arguments: object) -> None:
            return

    class Pages(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path.endswith(".js"):
                script = made.script(path) or START.format(key=KEY, host=made.api_url, options=made.options)
                answer_with(self, script.encode(), "text/javascript", {})
                return
            html = f"<!doctype html>{made.start}{made.head}<body>{made.body}"
            answer_with(self, html.encode(), "text/html", made.headers)

        def log_message(self, *_arguments: object) -> None:
            return

    with ExitStack() as stack:
        made.api_url = url_of(stack.enter_context(serving(Api)))
        made.url = url_of(stack.enter_context(serving(Pages)))
        yield made


def answer_with(request: BaseHTTPRequestHandler, body: bytes, content_type: str, headers: dict[str, str]) -> None:
    request.send_response(200)
    all_headers = {"Content-Type": content_type, "Content-Length": str(len(body)), "Access-Control-Allow-Origin": "*"}
    for name, value in (all_headers | headers).items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)


@pytest.fixture
def tab(chromium: Browser, site: Site, sent: Sent) -> Iterator[Tab]:
    opened = Tab(chromium, site, sent)
    yield opened
    chromium.do("drive", page=opened.name, code="await page.close().catch(() => 0)")


@pytest.fixture
def eventually_sent(sent: Sent) -> Callable[[str], list[dict[str, Any]]]:
    """The events of that name, once there are some: of a page that is gone."""

    def wait(name: str) -> list[dict[str, Any]]:
        return eventually(lambda: [event for event in sent.events() if event.get("event") == name] or None, within_s=8)

    return wait
