"""Each page that somebody comes to is viewed once and left once, whatever a router does to the address."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.live_server import LiveServer, eventually
from tests.sdk.autocapture.conftest import Sent, Site, Tab

pytestmark = pytest.mark.browser

NO_NAVIGATION = "delete window.navigation; Object.defineProperty(window, 'navigation', { value: undefined });"
EITHER_WAY = pytest.mark.parametrize("before", ["", NO_NAVIGATION], ids=["navigation", "history"])
Wait = Callable[[str], list[dict[str, Any]]]


def push(path: str, title: str = "") -> str:
    return f"history.pushState(null, '', {path!r}); if ({title!r}) document.title = {title!r}"


@EITHER_WAY
def test_a_page_is_viewed_when_its_path_changes_and_only_then(tab: Tab, before: str) -> None:
    tab.show(before=before)
    assert tab.viewed() == ["/start"]

    tab.run("history.replaceState({ n: 1 }, '', '/start'); history.pushState(null, '', '/start?tab=2')")
    tab.run("history.replaceState(null, '', '#there'); location.hash = 'elsewhere'")
    assert tab.viewed() == ["/start"]

    tab.run(push("/second"))
    assert tab.viewed() == ["/start", "/second"]
    tab.run("history.replaceState(null, '', '/third')")
    assert tab.viewed() == ["/start", "/second", "/third"]
    tab.run("history.go(-1)")
    assert tab.viewed() == ["/start", "/second", "/third", "/start"]


@EITHER_WAY
@pytest.mark.parametrize(("part", "count"), [("path", 1), ("search", 2), ("hash", 3)])
def test_what_counts_as_another_page_is_an_option(tab: Tab, before: str, part: str, count: int) -> None:
    tab.show(before=before, options=f"{{ pages: '{part}' }}")
    tab.run(push("?a=1"))
    tab.events()
    tab.run("location.hash = '/route'")

    assert tab.viewed() == ["/start"] * count


@pytest.mark.parametrize("options", ["{ pages: false }", "{ pages: false, leave: false }"])
def test_page_views_can_be_off(tab: Tab, options: str) -> None:
    tab.show(options=options)
    tab.run(push("/second"))
    tab.events()
    tab.hide()

    assert tab.viewed() == []
    assert [event["context"]["page"]["path"] for event in tab.events()] == (
        [] if "leave" in options else ["/start", "/second"]
    )


@EITHER_WAY
def test_the_title_is_that_which_a_router_sets_after_the_address(tab: Tab, before: str) -> None:
    tab.show(before=before)
    tab.run("history.pushState(null, '', '/second'); setTimeout(() => document.title = 'The second', 30)")

    views = [event["context"]["page"] for event in tab.events() if event["type"] == "page"]
    assert [(view["path"], view["title"]) for view in views] == [("/start", "A page"), ("/second", "The second")]


def test_what_a_router_only_passes_through_is_no_page(tab: Tab) -> None:
    tab.show()
    tab.run(push("/private") + "; history.replaceState(null, '', '/login')")

    assert tab.viewed() == ["/start", "/login"]


def test_a_page_that_is_left_at_once_is_viewed(tab: Tab, sent: Sent) -> None:
    tab.show()
    tab.run(push("/second") + "; location.href = '/other'")

    eventually(lambda: paths_viewed(sent)[1:2] == ["/second"] or None)


def paths_viewed(sent: Sent) -> list[str]:
    return [event["context"]["page"]["path"] for event in sent.events() if event["type"] == "page"]


STACKED = """for (const name of ["pushState", "replaceState"]) {
    const original = history[name];
    window.wrapped = 0;
    history[name] = function (...given) { window.wrapped++; return original.apply(this, given) };
}"""


@pytest.mark.parametrize("when", ["before", "after", "both"])
def test_another_that_wraps_the_history_is_not_in_the_way(tab: Tab, when: str) -> None:
    tab.show(before=NO_NAVIGATION + (STACKED if when != "after" else ""))
    if when != "before":
        tab.run(STACKED)
    tab.run(push("/second"))

    assert tab.viewed() == ["/start", "/second"]
    assert tab.run("window.wrapped") == (2 if when == "both" else 1)


@EITHER_WAY
def test_a_script_that_runs_twice_captures_once(tab: Tab, before: str) -> None:
    tab.show("<button>Buy</button>", before=before)
    tab.run("import('/again.js?1').then(() => import('/again.js?2'))")
    tab.run(push("/second"))
    tab.click("button")

    assert tab.viewed(after_s=3.2) == ["/start", "/second"]  # the first client sends of itself
    assert len(tab.told("Element Clicked")) == 1


def test_what_the_history_throws_is_the_pages(tab: Tab) -> None:
    tab.show(before=NO_NAVIGATION)

    thrown = "(() => { try { history.pushState(() => 1, '', '/second') } catch ({ name }) { return name } })()"
    assert tab.run(thrown) == "DataCloneError"
    assert tab.viewed() == ["/start"]


def test_a_page_that_comes_back_from_the_cache_is_viewed_and_left_again(tab: Tab) -> None:
    tab.show()
    tab.run("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    tab.run("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    assert tab.viewed() == ["/start", "/start"]
    tab.run(push("/second"))

    lefts = [event["context"]["page"] for event in tab.events() if event.get("event") == "Page Left"]
    assert [left["path"] for left in lefts] == ["/start", "/start"]
    assert lefts[0]["id"] != lefts[1]["id"]


def test_a_page_made_ready_in_advance_is_viewed_when_somebody_comes(tab: Tab) -> None:
    tab.show(before="Object.defineProperty(document, 'prerendering', { value: true })")
    tab.run(push("/second"))
    tab.hide()
    assert tab.events() == []

    tab.run("document.dispatchEvent(new Event('prerenderingchange'))")
    assert tab.viewed() == ["/second"]


def test_a_page_is_left_where_it_was(tab: Tab) -> None:
    tab.show("<div style='height: 5000px'></div>")
    height = tab.run("innerHeight")
    tab.run("scrollTo(0, 2500 - innerHeight)")
    tab.events(0.5)
    tab.run("scrollTo(0, 0)")
    tab.events(0.1)
    tab.run(push("/second", "The second"))

    [left] = [event for event in tab.events() if event.get("event") == "Page Left"]
    properties = left["properties"]
    assert (left["context"]["page"]["path"], left["context"]["page"]["title"]) == ("/start", "A page")
    assert height < 2500
    assert properties["scrollDepth"] == pytest.approx(50, abs=2)
    assert 600 <= properties["engagedMs"] <= properties["durationMs"] < 5_000


def test_a_page_that_is_closed_is_left(tab: Tab, eventually_sent: Wait) -> None:
    tab.show()
    tab.events(0.4)
    tab.close()

    [left] = eventually_sent("Page Left")
    assert left["properties"]["engagedMs"] >= 400


def test_nothing_is_counted_twice_when_a_page_is_hidden_and_comes_back(tab: Tab, eventually_sent: Wait) -> None:
    tab.show()
    tab.events(0.5)
    tab.hide()
    first = tab.told("Page Left", after_s=0.6)
    tab.hide(hidden=False)
    tab.events(0.5)
    tab.hide()
    both = tab.told("Page Left")
    tab.drive("await page.goto('about:blank')")

    assert [len(first), len(both), len(eventually_sent("Page Left"))] == [1, 2, 2]
    engaged, durations = (sum(each[name] for each in both) for name in ("engagedMs", "durationMs"))
    assert durations - 1_000 < engaged < durations - 550


def test_a_page_without_the_focus_or_a_sign_of_anybody_is_not_looked_at(tab: Tab) -> None:
    tab.show(
        before="""window.shift = 0;
        const now = performance.now.bind(performance); performance.now = () => now() + shift;"""
    )
    tab.run("document.hasFocus = () => false; dispatchEvent(new Event('blur'))")
    tab.events(0.6)
    tab.run("document.hasFocus = () => true; dispatchEvent(new Event('focus'))")
    tab.run("window.mark = performance.now()")
    tab.run(push("/second"))
    assert tab.told("Page Left")[0]["engagedMs"] < 500

    tab.run("document.hasFocus = () => true")
    tab.run("shift = 3_600_000")
    tab.run(push("/third"))
    second = tab.told("Page Left")[1]
    assert second["engagedMs"] <= 30_500
    assert second["durationMs"] >= 3_600_000


# A scroll's event comes with the next frame, which a busy machine may draw late.
SCROLLED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def test_an_app_that_scrolls_an_element_is_measured_by_it(tab: Tab) -> None:
    tab.show("<main style='height: 100vh; overflow: auto'><div style='height: 400vh'></div></main>")
    tab.events()  # the view has begun
    tab.run("document.querySelector('main').scrollTo(0, innerHeight)")
    tab.run(SCROLLED)
    tab.hide()

    assert tab.told("Page Left")[0]["scrollDepth"] == pytest.approx(50, abs=2)


def test_views_and_leaving_are_rows(tab: Tab, server: LiveServer, site: Site) -> None:
    tab.show()
    tab.run(push("/second", "The second"))
    tab.events()
    tab.hide()
    tab.events()

    def rows() -> list[tuple[str, str, str]] | None:
        found = server.rows("events", ("type", "event", "context_page_url", "original_timestamp"))
        ours = [row for row in found if (row["context_page_url"] or "").startswith(site.url)]
        ours.sort(key=lambda row: row["original_timestamp"])
        told = [(row["type"], row["event"], row["context_page_url"].removeprefix(site.url)) for row in ours]
        return told if len(told) >= 4 else None

    assert eventually(rows) == [
        ("page", None, "/start"),
        ("track", "Page Left", "/start"),
        ("page", None, "/second"),
        ("track", "Page Left", "/second"),
    ]
