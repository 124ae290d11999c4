"""The page notices nothing: no error, no event that is stopped or changed, wherever it runs."""

from __future__ import annotations

import pytest

from tests.sdk.autocapture.conftest import Tab
from tests.sdk.conftest import KEY

pytestmark = pytest.mark.browser

USE = """<a id=link href='#a'>There</a><button id=button>Buy</button><form id=form><input id=field name=field>
    <button id=submit>Go</button></form><svg id=drawn onclick=1 width=20 height=20><path d='M0 0h20v20H0z'/></svg>"""
NO_SUBMIT = "addEventListener('submit', (event) => event.preventDefault());"


def use(tab: Tab) -> None:
    tab.drive("await page.locator('#field').fill('hush')")
    tab.click("#link", "#button", "#drawn", "#submit")
    tab.run("history.pushState(null, '', '/second')")


def test_a_strict_policy_lets_it_work(tab: Tab) -> None:
    tab.site.headers = {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src *; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    }
    tab.show(USE.replace("onclick=1", "role=button"))
    tab.click("#link", "#button", "#drawn")
    tab.run("history.pushState(null, '', '/second')")

    assert len(tab.told("Element Clicked")) == 3
    assert tab.viewed() == ["/start", "/second"]
    assert tab.complaints() == []


def test_a_sandboxed_frame_lets_it_work(tab: Tab) -> None:
    tab.show(
        "<div></div>", options="{ pages: false, leave: false, clicks: false, forms: false, rage: false, dead: false }"
    )
    tab.site.options, tab.site.body = "", USE
    tab.run(
        """new Promise((done) => {
            const frame = document.createElement('iframe');
            frame.setAttribute('sandbox', 'allow-scripts');
            frame.src = '/framed';
            frame.onload = () => setTimeout(done, 300);
            document.body.append(frame);
        })"""
    )
    tab.drive(
        """const frame = page.frames()[1];
        for (const id of ["link", "button", "drawn"]) await frame.locator("#" + id).click();
        await frame.evaluate("history.pushState(null, '', '#b')");
        await frame.evaluate("localStorage.length").then(() => { throw new Error("not sandboxed") }, () => 0);
        await page.waitForTimeout(200);
        await frame.evaluate("manymetrics.flush()");"""
    )

    told = [event.get("event", event["type"]) for event in tab.sent.events()]
    assert told == ["page", "Element Clicked", "Element Clicked", "Element Clicked"]
    assert tab.complaints() == []


def test_a_script_that_runs_before_there_is_a_title_or_a_body(tab: Tab) -> None:
    tab.site.start = f"<script src=/mm.js data-key={KEY} data-host={tab.site.api_url}></script>"
    tab.show(USE, before=NO_SUBMIT)
    use(tab)

    views = [event["context"]["page"] for event in tab.events() if event["type"] == "page"]
    assert [(view["path"], view["title"]) for view in views] == [("/start", "A page"), ("/second", "A page")]
    assert len(tab.told("Element Clicked", "Form Submitted", "Field Changed")) == 6
    assert tab.complaints() == []


def test_a_page_whose_body_goes_lets_it_work(tab: Tab) -> None:
    tab.show()
    tab.run("document.documentElement.remove()")
    tab.hide()

    assert len(tab.told("Page Left")) == 1
    assert tab.complaints() == []


def test_nothing_is_stopped_changed_or_asked_for(tab: Tab) -> None:
    watching = """window.seen = [];
        for (const name of ["preventDefault", "stopPropagation", "stopImmediatePropagation"]) {
            const original = Event.prototype[name];
            Event.prototype[name] = function () { seen.push(name); original.call(this) };
        }
        for (const kind of [HTMLInputElement, HTMLTextAreaElement, HTMLSelectElement]) {
            const { get, set } = Object.getOwnPropertyDescriptor(kind.prototype, "value");
            Object.defineProperty(kind.prototype, "value", { set, get() {
                if (new Error().stack.includes("autocapture.js")) seen.push("value");
                return get.call(this);
            } });
        }"""
    tab.show(USE, before=NO_SUBMIT + watching)
    before = tab.run("document.documentElement.outerHTML")
    use(tab)

    assert len(tab.told("Element Clicked", "Form Submitted", "Field Changed")) == 6
    assert tab.run("seen.filter((name) => name !== 'preventDefault')") == []
    assert tab.run("document.documentElement.outerHTML") == before
    assert tab.complaints() == []


BROKEN = {
    "attributes": "Element.prototype.getAttribute = () => { throw new Error('no') }",
    "matching": "Element.prototype.matches = () => { throw new Error('no') }",
    "paths": "Event.prototype.composedPath = () => { throw new Error('no') }",
    "addresses": "URL = function () { throw new Error('no') }",
    "times": "performance.now = () => { throw new Error('no') }",
    "tasks": "scheduler.postTask = () => { throw new Error('no') }",
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_what_a_page_breaks_breaks_no_page(tab: Tab, broken: str) -> None:
    tab.show(USE, before=NO_SUBMIT)
    tab.run(f"void ({broken})")
    tab.drive("for (const [x, y] of [[20, 20], [60, 20], [90, 20], [20, 60]]) await page.mouse.click(x, y)")
    tab.run("history.pushState(null, '', '/second')")
    tab.hide()
    tab.events(0.3)

    assert tab.complaints() == []


def test_an_element_that_is_gone_is_told_as_it_was(tab: Tab) -> None:
    tab.show("<div id=list><button id=buy>Buy</button></div>")
    tab.run("document.addEventListener('click', () => list.remove(), true)")
    tab.click("#buy")

    assert [(told["id"], told["text"]) for told in tab.told("Element Clicked")] == [("buy", "Buy")]
    assert tab.complaints() == []


def test_frames_are_not_followed(tab: Tab) -> None:
    tab.show("<iframe srcdoc='<button>Buy</button>'></iframe>")
    tab.drive("await page.frames()[1].locator('button').click()")

    assert tab.told("Element Clicked") == []
    assert tab.complaints() == []


@pytest.mark.parametrize("before", ["delete window.scheduler; delete window.navigation"])
def test_an_older_browser_lets_it_work(tab: Tab, before: str) -> None:
    tab.show(USE, before=NO_SUBMIT + before)
    use(tab)

    assert tab.viewed() == ["/start", "/second"]
    assert len(tab.told("Element Clicked", "Form Submitted", "Field Changed")) == 6
    assert tab.complaints() == []
