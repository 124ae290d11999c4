"""The snippet takes calls before the script is there; none is lost, and each has the time that it was made at."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.sdk.conftest import KEY, SDK, Browser
from tests.sdk.pages import Pages, pages

pytestmark = pytest.mark.browser

SNIPPET = SDK / "lib" / "snippet.html"
EARLY = """<script>
    const later = manymetrics;
    manymetrics.identify("u-1", { plan: "pro" });
    manymetrics.track("First", { n: 1 });
    manymetrics.register({ theme: "dark" });
    manymetrics.track("Second");
    manymetrics.use((core) => core.track("Plugged"));
    manymetrics.flush().then(() => { window.flushed = true });
    const calls = [...manymetrics];
</script>"""


def test_it_is_short_and_what_the_documentation_says() -> None:
    assert len(SNIPPET.read_bytes()) <= 500
    documented = (SDK / "docs" / "snippet.md").read_text()
    assert f"    {SNIPPET.read_text()}" in documented
    assert f"It is {len(SNIPPET.read_bytes())} bytes" in documented


@pytest.fixture
def shop() -> Iterator[Pages]:
    with pages() as made:
        snippet = SNIPPET.read_text().replace("wk_...", KEY).replace("https://events.your.site", made.url)
        made.files["/"] = f"<!doctype html><title>A page</title>{snippet}{EARLY}"
        made.files["/twice"] = f"<!doctype html><title>A page</title>{snippet}{EARLY}{snippet}"
        made.slow["/mm.js"] = 1.5
        yield made


@pytest.mark.parametrize("path", ["/", "/twice"])
def test_what_is_called_before_the_script_is_there(browser: Browser, shop: Pages, path: str) -> None:
    browser.open(shop.url + path)
    called = browser.run("calls.map(([name, time]) => [name, time])")
    browser.run("new Promise((done) => (document.readyState === 'complete' ? done() : (onload = done)))")
    browser.run("later.track('Late')")

    first, second, plugged, late = (shop.once(name)[0] for name in ("First", "Second", "Plugged", "Late"))
    times = {name: at for name, at in called if name == "track"}
    assert [name for name, _ in called] == ["identify", "track", "register", "track", "use", "flush"]
    assert first["timestamp"] <= second["timestamp"] == times["track"]
    assert late["timestamp"] - first["timestamp"] > 1_000
    assert [first["properties"], second["properties"]] == [{"n": 1}, {"theme": "dark"}]
    assert {one["userId"] for one in (first, second, plugged, late)} == {"u-1"}
    identified = next(one for one in shop.sent if one["type"] == "identify")
    assert identified["traits"] == {"plan": "pro"}
    assert (browser.run("flushed"), browser.run("later === manymetrics"), browser.run("later.length")) == (
        True,
        True,
        0,
    )
    assert len([one for one in shop.sent if one["type"] == "page"]) == 1


def test_a_page_whose_script_never_comes_goes_on(browser: Browser, shop: Pages) -> None:
    del shop.files["/mm.js"]
    browser.open(shop.url + "/")
    time.sleep(2)

    assert browser.run("manymetrics.track('Lost'); manymetrics.length") == 7


@pytest.mark.parametrize(
    ("tag", "cure"),
    [
        ('src="/mm.js" data-host="https://events.your.site"', 'its script tag needs data-key="wk_...", a write key'),
        ('src="/mm.js" data-key=""', 'its script tag needs data-key="wk_...", a write key'),
        (
            'src="/mm.js" data-key="wk" data-host=""',
            'its script tag needs data-host="https://...", the address of the API',
        ),
        (
            'src="/mm.js" data-key="wk" data-host="your.site"',
            'its script tag needs data-host="https://...", the address of the API',
        ),
        ('data-key="wk"', 'its script tag needs data-host="https://...", the address of the API'),
        ('src="/mm.js" data-key="wk" type="module"', "load mm.js with a classic script tag, not as a module"),
    ],
)
def test_a_tag_that_can_send_nothing_says_in_the_console_what_it_needs(
    browser: Browser, shop: Pages, tag: str, cure: str
) -> None:
    code = "" if "src" in tag else shop.files["/mm.js"]
    shop.slow.clear()
    shop.files["/icon"], shop.files["/bare"] = "", f'<link rel="icon" href="/icon"><script {tag}>{code}</script>'

    browser.do("open", page="page", url=shop.url + "/bare")

    assert browser.do("errors") == [f"ManyMetrics sends nothing: {cure}."]
    assert browser.run("window.manymetrics === undefined")


@pytest.mark.parametrize("host", ["", 'data-host="{url}"', 'data-host="/m"'])
def test_a_tag_with_all_that_it_needs_says_nothing_in_the_console(browser: Browser, shop: Pages, host: str) -> None:
    shop.slow.clear()
    shop.files["/icon"] = ""
    shop.files["/bare"] = (
        f'<link rel="icon" href="/icon"><script src="/mm.js" data-key="wk" {host.format(url=shop.url)}></script>'
    )

    browser.open(shop.url + "/bare")

    assert browser.do("errors") == []
