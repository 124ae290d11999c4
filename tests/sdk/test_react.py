"""React's components have the client, and say each thing once, in StrictMode too, after a server has rendered them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sdk.conftest import NODE, SDK, Browser
from tests.sdk.pages import Pages, pages

pytestmark = pytest.mark.browser


@pytest.fixture
def shop(browser: Browser, tmp_path: Path) -> Iterator[Pages]:
    with pages() as made:
        subprocess.run([NODE, "tests/react/build.mjs", tmp_path, made.url], cwd=SDK, check=True)
        root = (tmp_path / "app.html").read_text()
        made.files["/app.js"] = (tmp_path / "app.js").read_text()
        made.files["/"] = (
            f'<!doctype html><title>A page</title><div id="root">{root}</div><script src="/app.js"></script>'
        )
        browser.do("before", code="window.manymetrics = window.warned = []; console.warn = (text) => warned.push(text)")
        browser.open(made.url + "/")
        browser.run("new Promise((done) => setTimeout(done, 200))")
        yield made


def texts(browser: Browser) -> list[str]:
    said: list[str] = browser.run("[...document.querySelectorAll('#root > *')].map((one) => one.textContent)")
    return said


def test_a_component_has_the_client_and_does_a_thing_once(browser: Browser, shop: Pages) -> None:
    for _ in range(3):  # the other plan comes, goes and comes again
        browser.do("click", page="page", selector="#more")
    browser.do("click", page="page", selector="#pro")
    browser.do("click", page="page", selector="#outside")

    assert [one["properties"] for one in shop.once("Plan Chosen")] == [{"plan": "pro"}]
    shown = [one["properties"]["plan"] for one in shop.once("Plan Shown", 3)]
    assert shown == ["pro", "free", "free"]
    assert shop.events("Lost") == []
    assert len([text for text in browser.run("warned") if "no <ManyMetricsProvider>" in text]) == 1


def test_what_a_server_rendered_is_taken_over_as_it_is(browser: Browser, shop: Pages) -> None:
    assert texts(browser) == ["0", "pro", "break", "fine", ""]
    browser.do("click", page="page", selector="#more")
    assert texts(browser) == ["1", "pro", "free", "break", "fine", ""]

    assert browser.do("errors") == []
    shop.once("Plan Shown", 2)


def test_a_boundary_says_what_its_children_throw(browser: Browser, shop: Pages) -> None:
    browser.do("click", page="page", selector="#break")
    assert texts(browser) == ["0", "pro", "RangeError: too much", "fine", ""]
    browser.do("click", page="page", selector="#again")
    assert texts(browser) == ["0", "pro", "break", "fine", ""]

    (event,) = shop.once("Error")
    said = event["properties"]
    assert (said["name"], said["message"], said["handled"]) == ("RangeError", "too much", True)
    assert "at Fragile" in said["componentStack"].splitlines()[1]
