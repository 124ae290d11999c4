"""Web vitals are those that Google's own library measures on the same page, and are said once for each page load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.sdk.conftest import SDK, Browser
from tests.sdk.pages import Pages, pages

pytestmark = pytest.mark.browser

# What the library says, kept for the test; it says all that it knows, again as it changes.
LISTEN = """window.theirs = {};
for (const name of ["LCP", "CLS", "INP", "FCP", "TTFB"]) {
  webVitals["on" + name](({ value, rating }) => { theirs[name.toLowerCase()] = { value, rating } },
                         { reportAllChanges: true });
}"""
# An animation that never ends gives frames to wait for; a handler that takes its time makes a slow interaction.
BODY = """<h1 id="top">Shop</h1><button id="slow">slow</button><button id="quick" class="a b c">quick</button>
<main id="goods"><div class="card">Card</div></main><img id="late" class="hero big" src="/late.svg">
<script>
  const work = (ms) => { const until = performance.now() + ms; while (performance.now() < until); };
  document.getElementById("slow").onclick = () => work(600);
  const frames = (count) => new Promise((done) => {
    const next = () => (count-- ? requestAnimationFrame(next) : done());
    next();
  });
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const shift = (px) => { document.getElementById("top").style.paddingTop = px + "px"; };
  const hide = (state) => {
    Object.defineProperty(document, "visibilityState", { configurable: true, value: state });
    dispatchEvent(new Event("visibilitychange"));
  };
</script>"""
# An image of few bytes for its size is a background, for LCP.
IMAGE = f"""<svg xmlns="http://www.w3.org/2000/svg" width="600" height="400">
<rect width="600" height="400" fill="teal"/><rect width="300" height="200" fill="red"/><!--{"." * 20_000}--></svg>"""


@pytest.fixture
def shop() -> Iterator[Pages]:
    with pages() as made:
        library = SDK / "node_modules" / "web-vitals" / "dist" / "web-vitals.iife.js"
        made.files |= {"/library.js": library.read_text() + LISTEN, "/late.svg": IMAGE}
        made.files["/other"] = "<!doctype html><title>Elsewhere</title>"
        made.slow["/late.svg"] = 0.3
        yield made


def open_shop(browser: Browser, shop: Pages) -> None:
    browser.open(shop.page("/shop", BODY, "library.js", "mm-web-vitals.js"))
    browser.run("document.readyState === 'complete' || new Promise((done) => { onload = done })")
    browser.run("frames(5)")


def leave(browser: Browser, shop: Pages) -> dict[str, dict[str, Any]]:
    """Goes elsewhere; returns what the library says, last of all as the page goes."""
    browser.run("""addEventListener("pagehide", () => localStorage.setItem("theirs", JSON.stringify(theirs)));
        addEventListener("visibilitychange", () => localStorage.setItem("theirs", JSON.stringify(theirs)));
        location.href = "/other" """)
    browser.do("arrived", page="page", url=shop.url + "/other")
    said: dict[str, dict[str, Any]] = json.loads(browser.run("localStorage.getItem('theirs')"))
    return said


def rounded(theirs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    values = {name: round(said["value"] + 1e-9, 4 if name == "cls" else 0) for name, said in theirs.items()}
    return values | {name + "Rating": said["rating"] for name, said in theirs.items()}


def measured(event: dict[str, Any]) -> dict[str, Any]:
    names = {name + end for name in ("lcp", "cls", "inp", "fcp", "ttfb") for end in ("", "Rating")}
    return {name: value for name, value in event["properties"].items() if name in names}


def test_a_page_with_a_late_image_shifts_and_a_slow_handler(browser: Browser, shop: Pages) -> None:
    open_shop(browser, shop)
    browser.run("wait(600).then(() => { shift(40); return frames(3) })")
    browser.run("wait(100).then(() => { shift(90); return frames(3) })")
    browser.do("click", page="page", selector="#slow")
    browser.do("click", page="page", selector="#quick")
    browser.run("wait(1500).then(() => { shift(10); return frames(3) })")
    theirs = leave(browser, shop)

    (event,) = shop.once("Web Vitals")
    said = event["properties"]
    assert set(theirs) == {"lcp", "cls", "inp", "fcp", "ttfb"}
    assert measured(event) == rounded(theirs)
    assert said["lcp"] >= 300
    assert (said["inp"] >= 600, said["inpRating"]) == (True, "poor")
    assert said["cls"] > 0.01
    elements = {"lcpElement": "img#late.hero.big", "inpElement": "button#slow", "clsElement": "img#late.hero.big"}
    assert said | elements | {"report": 1, "navigation": "navigate"} == said
    assert event["context"]["page"]["path"] == "/shop"


def test_a_page_that_nobody_touches_has_no_inp(browser: Browser, shop: Pages) -> None:
    open_shop(browser, shop)
    theirs = leave(browser, shop)

    (event,) = shop.once("Web Vitals")
    assert set(theirs) == {"lcp", "cls", "fcp", "ttfb"}
    assert measured(event) == rounded(theirs)
    assert event["properties"]["cls"] == 0


def test_shifts_add_up_while_they_are_near_one_another(browser: Browser, shop: Pages) -> None:
    open_shop(browser, shop)
    browser.run("""(async () => {
        await wait(600);
        for (let n = 1; n < 36; n++) { shift(n % 2 * 60); await wait(200); }  // longer than a window
        await wait(1100);
        shift(0); await wait(950); shift(100); await frames(3);
    })()""")
    theirs = leave(browser, shop)

    (event,) = shop.once("Web Vitals")
    assert measured(event) == rounded(theirs)


def test_one_slow_interaction_in_fifty_is_passed_over(browser: Browser, shop: Pages) -> None:
    open_shop(browser, shop)
    browser.do("click", page="page", selector="#slow")
    browser.run("document.getElementById('slow').onclick = () => work(120)")
    browser.do("click", page="page", selector="#slow")
    for _ in range(48):
        browser.do("click", page="page", selector="#quick")
    browser.run("frames(5)")
    theirs = leave(browser, shop)

    (event,) = shop.once("Web Vitals")
    assert measured(event) == rounded(theirs)
    assert 120 <= event["properties"]["inp"] < 600


def test_an_interaction_with_a_slow_and_a_quick_part(browser: Browser, shop: Pages) -> None:
    open_shop(browser, shop)
    browser.do("click", page="page", selector="#late")  # the first is told of twice
    browser.run("document.getElementById('quick').onpointerdown = () => work(250)")
    browser.run("document.getElementById('quick').onclick = () => work(60)")
    browser.do("click", page="page", selector="#quick")
    browser.run("frames(5)")
    theirs = leave(browser, shop)

    (event,) = shop.once("Web Vitals")
    assert measured(event) == rounded(theirs)
    assert event["properties"]["inp"] >= 250


def test_what_the_browser_has_not_told_yet_is_asked_for(browser: Browser, shop: Pages) -> None:
    open_shop(browser, shop)
    browser.run("""new Promise((done) => setTimeout(() => requestAnimationFrame(() => {
        shift(80);
        const soon = new MessageChannel();
        soon.port1.onmessage = () => done(hide("hidden"));
        soon.port2.postMessage(0);
    }), 600))""")
    theirs = browser.run("theirs")

    (event,) = shop.once("Web Vitals")
    assert measured(event) == rounded(theirs)
    assert event["properties"]["cls"] > 0


def test_shifts_that_a_visitor_causes_do_not_count(browser: Browser, shop: Pages) -> None:
    open_shop(browser, shop)
    browser.run("document.getElementById('quick').onclick = () => shift(80)")
    browser.do("click", page="page", selector="#quick")
    browser.run("frames(5)")
    theirs = leave(browser, shop)

    (event,) = shop.once("Web Vitals")
    assert measured(event) == rounded(theirs)
    assert event["properties"]["cls"] == 0


def test_a_page_that_is_hidden_from_the_start_has_been_seen_by_nobody(browser: Browser, shop: Pages) -> None:
    hidden = "<script>Object.defineProperty(document, 'visibilityState', { configurable: true, value: 'hidden' });"
    hidden += "performance.getEntriesByType = ((real) => (type) => type === 'visibility-state' ? [] :"
    hidden += "real.call(performance, type))(performance.getEntriesByType)</script>"
    browser.open(shop.page("/shop", BODY, "library.js", "mm-web-vitals.js", head=hidden))
    browser.run("wait(500).then(() => frames(5))")
    theirs = leave(browser, shop)

    (event,) = shop.once("Web Vitals")
    assert set(theirs) == {"ttfb"}
    assert measured(event) == rounded(theirs)


def test_a_page_that_was_prerendered_begins_as_it_is_shown(browser: Browser, shop: Pages) -> None:
    activated = """<script>performance.getEntriesByType = ((real) => (type) => type !== "navigation"
        ? real.call(performance, type)
        : real.call(performance, type).map((entry) => new Proxy(entry, { get: (it, name) =>
            name === "activationStart" ? 150 : Reflect.get(it, name, it) })))(performance.getEntriesByType)</script>"""
    browser.open(shop.page("/shop", BODY, "library.js", "mm-web-vitals.js", head=activated))
    browser.run("wait(700).then(() => frames(5))")
    theirs = leave(browser, shop)

    (event,) = shop.once("Web Vitals")
    assert measured(event) == rounded(theirs)
    assert event["properties"]["ttfb"] == 0
    assert event["properties"]["lcp"] >= 150


def test_a_page_that_comes_back_begins_anew(browser: Browser, shop: Pages) -> None:
    open_shop(browser, shop)
    browser.do("click", page="page", selector="#slow")
    browser.run("wait(600).then(() => { shift(80); return frames(5) })")
    browser.run("hide('hidden')")
    browser.run("history.replaceState(null, '', '/back'); hide('visible')")
    browser.run("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true })); frames(5)")
    browser.run("document.getElementById('slow').onclick = () => work(120)")
    browser.do("click", page="page", selector="#slow")
    browser.run("wait(600).then(() => { shift(60); return frames(3) })")
    theirs = leave(browser, shop)

    first, second = sorted(shop.once("Web Vitals", 2), key=lambda event: str(event["context"]["page"]["path"]))[::-1]
    assert [first["context"]["page"]["path"], second["context"]["page"]["path"]] == ["/shop", "/back"]
    assert first["properties"]["pageLoadId"] != second["properties"]["pageLoadId"]
    assert [first["properties"]["report"], second["properties"]["report"]] == [1, 1]
    assert second["properties"]["navigation"] == "back-forward-cache"
    # Each takes the time of the second frame by itself.
    ours, library = measured(second), rounded(theirs)
    for name in ("fcp", "lcp"):
        assert ours.pop(name) == pytest.approx(library.pop(name), abs=20)
    assert ours == library
    assert 0 < second["properties"]["cls"] < first["properties"]["cls"]
    assert 120 <= second["properties"]["inp"] < 600


def test_a_page_that_comes_back_and_is_not_touched_has_no_inp(browser: Browser, shop: Pages) -> None:
    open_shop(browser, shop)
    browser.do("click", page="page", selector="#slow")
    browser.run("frames(5)")
    browser.run("hide('hidden'); hide('visible'); theirs = {}")
    browser.run("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true })); frames(5)")
    theirs = leave(browser, shop)

    events = {event["properties"]["navigation"]: event for event in shop.once("Web Vitals", 2)}
    assert "inp" in events["navigate"]["properties"]
    assert set(theirs) == {"lcp", "cls", "fcp", "ttfb"}
    assert set(measured(events["back-forward-cache"])) == set(rounded(theirs))


def test_what_changes_after_a_return_is_said_again(browser: Browser, shop: Pages) -> None:
    open_shop(browser, shop)
    browser.run("hide('hidden')")
    browser.run("hide('visible')")
    browser.run("hide('hidden')")  # nothing is new
    browser.run("hide('visible')")
    browser.do("click", page="page", selector="#slow")
    browser.run("document.getElementById('late').insertAdjacentHTML('beforebegin', '<h1>Much larger</h1>'.repeat(30))")
    browser.run("wait(600).then(() => frames(3))")
    browser.run("history.pushState(null, '', '/elsewhere')")
    theirs = leave(browser, shop)

    first, second = sorted(shop.once("Web Vitals", 2), key=lambda event: event["properties"]["report"])
    assert [first["properties"]["report"], second["properties"]["report"]] == [1, 2]
    assert first["properties"]["pageLoadId"] == second["properties"]["pageLoadId"]
    assert "inp" not in first["properties"]
    assert measured(second) == rounded(theirs)
    assert second["context"]["page"] == first["context"]["page"]


def test_it_says_nothing_of_texts_and_takes_any_element(browser: Browser, shop: Pages) -> None:
    body = (
        """<style>div { height: 90px } svg { width: 300px }</style><form id="f"><input name="id" value="4111">
    <div class="a b c d"><svg class="logo x"><text y="20">a secret</text></svg></div></form>"""
        + BODY
    )
    browser.open(shop.page("/shop", body, "mm-web-vitals.js"))
    browser.run("document.querySelector('svg').onclick = () => work(100)")
    browser.do("click", page="page", selector="svg")
    browser.run("frames(5)")
    browser.run("hide('hidden')")

    (event,) = shop.once("Web Vitals")
    assert event["properties"]["inpElement"] == "form#f > div.a.b > svg.logo.x"
    assert "secret" not in json.dumps(event)
