"""The sample page as Terraform hosts it, in a real Chromium: of another origin than the API's, with no rows to show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.infra.policies import of
from tests.infra.sample_root import TESTS, sample_root
from tests.infra.terraform import Resource
from tests.live_server import LiveServer, eventually
from tests.local_http import serving, url_of
from tests.sdk.conftest import KEY, Browser

pytestmark = [pytest.mark.browser, pytest.mark.terraform]

# What the module says of a stack that stands on mocks.
API, SITE = "https://mock.execute-api.eu-west-1.amazonaws.com", "https://mock.cloudfront.net"
LAMPS = """(title) => {
    const lines = [...document.querySelectorAll("#lines details")];
    const line = lines.find((one) => one.querySelector("b").textContent === title);
    return line ? [...line.querySelectorAll(".lamp")].map((lamp) => lamp.dataset.state) : null;
}"""
SEEN = "[...document.querySelectorAll('main *, header *')].filter((one) => one.checkVisibility()).map((one) => one.id)"


class Site:
    """What was asked of it, and in vain."""

    def __init__(self) -> None:
        self.url, self.missed = "", list[str]()


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Resource]:
    """The bucket's objects, by key, as Terraform would put them."""
    sample = sample_root(tmp_path_factory.mktemp("sample"))
    sample.keep_runs(TESTS, "first")
    tested = sample.test(TESTS, states=True)
    assert tested.errors == []
    for one in of(tested.states["first"], "aws_s3_object"):
        if one.values["source"]:
            one.values["content"] = (sample.module / one.values["source"]).read_text()
    return {one.values["key"]: one for one in of(tested.states["first"], "aws_s3_object")}


@pytest.fixture
def site(hosted: dict[str, Resource], server: LiveServer) -> Iterator[Site]:
    """CloudFront's stand-in. Its policy is as strict as a page without inline script bears."""
    made = Site()
    key = str(hosted["sample"].values["content"]).partition('data-key="')[2].partition('"')[0]
    assert key.startswith("wk_")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            one = hosted.get(self.path.removeprefix("/"))
            if one is None:
                made.missed.append(self.path)
                self.send_error(403)  # as S3 does to who may not list
                return
            text = str(one.values["content"]).replace(API, server.url).replace(SITE, made.url).replace(key, KEY)
            self.send_response(200)
            self.send_header("Content-Type", one.values["content_type"])
            self.send_header("Content-Security-Policy", f"default-src 'self'; connect-src {server.url}")
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_arguments: object) -> None:
            return

    with serving(Handler) as running:
        made.url = url_of(running)
        yield made


@pytest.fixture
def page(site: Site, browser: Browser) -> Browser:
    browser.open(site.url + "/sample")
    return browser


def lamps(page: Browser, title: str) -> list[str] | None:
    found: list[str] | None = page.run(f"({LAMPS})({json.dumps(title)})")
    return found


def accepted(page: Browser, title: str) -> None:
    eventually(lambda: lamps(page, title) == ["done", "done", "done"] or None)


def rows(server: LiveServer, page: Browser, **like: str) -> list[dict[str, Any]]:
    like["anonymous_id"] = page.run("manymetrics.anonymousId()")
    columns = ["anonymous_id", "type", "event", "properties", "context_page_path"]
    return [row for row in server.rows(columns=columns) if row.items() >= like.items()]


def test_a_click_goes_to_the_api_and_no_row_is_promised_that_the_page_can_t_see(
    page: Browser, site: Site, server: LiveServer
) -> None:
    page.do("click", page="page", selector="#goods li:nth-child(2) button")
    at_once = lamps(page, "Added to Cart")
    accepted(page, "Added to Cart")
    accepted(page, "Page view")

    [row] = eventually(lambda: rows(server, page, event="Added to Cart") or None)
    assert at_once == ["done", "on", "off"]
    assert json.loads(row["properties"]) == {"product": "Blue cup", "price": "12"}
    assert page.run("document.getElementById('said').textContent").startswith("Added to Cart is accepted, after ")
    assert not {"command", "count", "rows"} & set(page.run(SEEN))
    assert (site.missed, page.do("errors")) == ([], [])


def test_what_it_says_to_ask_names_the_database_and_reads_a_day(page: Browser) -> None:
    sql = page.run("document.getElementById('sql').textContent")
    text = page.run("document.body.innerText")

    assert "FROM sample.events\n" in sql
    assert page.run("manymetrics.anonymousId()") in sql
    assert "received_at > current_timestamp - INTERVAL '1' DAY" in sql
    assert "in about 5 minutes" in text
    assert "this machine" not in text
    assert page.run("document.querySelector('.sql a').href").startswith(
        "https://us-east-1.console.aws.amazon.com/athena"
    )


def test_its_other_page_is_there_by_a_click_and_by_a_load(page: Browser, site: Site, server: LiveServer) -> None:
    page.do("click", page="page", selector="nav a:nth-child(2)")
    address = page.run("location.href")
    page.open(address)

    assert address == site.url + "/sample/about"
    assert page.run("document.getElementById('about').hidden") is False
    accepted(page, "Page view")
    eventually(lambda: rows(server, page, type="page", context_page_path="/sample/about") or None)


@pytest.mark.parametrize(("width", "height", "scheme"), [(390, 844, "dark"), (1280, 900, "light")])
def test_it_fits_a_phone_and_a_desk(page: Browser, tmp_path: Path, width: int, height: int, scheme: str) -> None:
    page.do("click", page="page", selector="#form button")
    accepted(page, "Signed Up")
    shot = {"path": str(tmp_path / "page.png"), "width": width, "height": height, "colorScheme": scheme}
    page.do("screenshot", page="page", full=True, **shot)

    assert page.run("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
