"""What a page's scripts throw is said once, without anybody's data, and whatever it is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live_server import eventually
from tests.sdk.conftest import KEY, Browser
from tests.sdk.pages import Pages, pages

pytestmark = pytest.mark.browser

APP = """function fails() { null.x }
function later() { return Promise.reject(new RangeError("too far")) }
function throws(value) { setTimeout(() => { throw value }) }
"""


@pytest.fixture
def shop() -> Iterator[Pages]:
    with pages() as made:
        made.files["/app.js"] = APP
        made.page("/", '<script src="/app.js?secret=1"></script>', "mm-errors.js")
        yield made


@pytest.fixture
def page(browser: Browser, shop: Pages) -> Browser:
    browser.open(shop.url + "/")
    browser.run("document.readyState === 'complete' || new Promise((done) => { onload = done })")
    return browser


def said(event: dict[str, Any]) -> dict[str, Any]:
    """What doesn't depend on where the page is."""
    return {name: value for name, value in event["properties"].items() if name not in {"stack", "file"}}


def test_what_nobody_caught(page: Browser, shop: Pages) -> None:
    page.run("setTimeout(fails)")

    (event,) = shop.once("Error")
    message = "Cannot read properties of null (reading 'x')"
    assert said(event) == {"name": "TypeError", "message": message, "line": 1, "column": 25, "handled": False}
    assert event["properties"]["file"] == shop.url + "/app.js"
    assert event["properties"]["stack"] == f"TypeError: {message}\n    at fails ({shop.url}/app.js:1:25)"


def test_the_tag_of_the_script_asks_for_it(browser: Browser, shop: Pages) -> None:
    tag = f'<script defer src="/mm.js" data-key="{KEY}" data-host="{shop.url}" data-errors data-vitals></script>'
    shop.files["/tag"] = f"<!doctype html><title>A page</title>{tag}<p>text"
    browser.open(shop.url + "/tag")
    browser.run("new Promise((done) => setTimeout(done, 500))")
    browser.run("reportError(new Error('mine')); location.href = '/'")

    assert said(shop.once("Error")[0])["message"] == "mine"
    assert shop.once("Web Vitals")[0]["context"]["page"]["path"] == "/tag"


def test_a_promise_that_nobody_waited_for(page: Browser, shop: Pages) -> None:
    page.run("void later()")

    (event,) = shop.once("Error")
    assert said(event) == {"name": "RangeError", "message": "too far", "line": 2, "column": 42, "handled": False}
    assert event["properties"]["file"] == shop.url + "/app.js"


def test_what_a_page_reports_itself(page: Browser, shop: Pages) -> None:
    page.run("reportError(new SyntaxError('mine'))")

    (event,) = shop.once("Error")
    assert event["properties"]["message"] == "mine"


def test_data_of_people_are_taken_out(page: Browser, shop: Pages) -> None:
    page.run(
        """throws(new Error("No ann@example.com, 4111 1111 1111 1111, 1234567890 at https://x.test/a?token=t0ken#f"))"""
    )

    (event,) = shop.once("Error")
    assert event["properties"]["message"] == "No ***, ***, *** at https://x.test/a"
    text = json.dumps(event)
    # Nothing that an id could hold by chance.
    assert not [part for part in ("ann@", "4111 1111", "1234567890", "t0ken", "secret") if part in text]


def test_the_names_of_files_are_left_as_they_are(page: Browser, shop: Pages) -> None:
    stack = "Error: no 123456789\\n    at f (https://x.test/app.123456789.js?v=3:12:34)\\n    at g (https://y.test/b.js:1:2)"
    page.run(f"throws(Object.assign(new Error('no 123456789'), {{ stack: '{stack}' }}))")

    (event,) = shop.once("Error")
    lines = ["Error: no ***", "    at f (https://x.test/app.123456789.js:12:34)", "    at g (https://y.test/b.js:1:2)"]
    assert event["properties"]["stack"].split("\n") == lines


def test_texts_are_cut(page: Browser, shop: Pages) -> None:
    page.run("throws(Object.assign(new Error('\U0001f600'.repeat(5_000_000)), { stack: 'y'.repeat(10_000_000) }))")

    (event,) = shop.once("Error")
    assert event["properties"]["message"] == "\U0001f600" * 250
    assert event["properties"]["stack"] == "y" * 2_000
    page.run("throws(new Error('-' + '\U0001f600'.repeat(500)))")
    (_, event) = shop.once("Error", 2)
    assert event["properties"]["message"] == "-" + "\U0001f600" * 249


def test_the_same_is_said_once_a_page_view(page: Browser, shop: Pages) -> None:
    page.run("for (let n = 0; n < 5; n++) setTimeout(fails)")
    page.run("throws('last')")
    assert [one["properties"]["message"] for one in shop.once("Error", 2)][1] == "last"

    page.run("history.pushState(null, '', '/next'); setTimeout(fails)")
    assert shop.once("Error", 3)[2]["context"]["page"]["path"] == "/next"


def test_no_more_than_ten_are_said_of_a_page_view(page: Browser, shop: Pages) -> None:
    page.run("for (let n = 0; n < 15; n++) throws(new Error('number ' + n))")
    page.run("new Promise((done) => setTimeout(done, 100)).then(() => manymetrics.track('Last'))")
    shop.once("Last")

    assert len(shop.once("Error", 10)) == 10


HOSTILE = {
    "undefined": "undefined",
    "null": "null",
    "'a text'": "a text",
    "404": "404",
    "Symbol('s')": "Symbol(s)",
    "10n ** 7n": "10000000",
    "new DOMException('gone', 'AbortError')": "gone",
    "{ code: 7, why: 'x' }": "an object with code, why",
    "(() => { const c = { c: 0 }; c.c = c; return c })()": "an object with c",
    "Object.create(null)": "",
    "new Error()": "Error",
    "{ get message() { throw 1 }, get stack() { throw 3 } }": "an object with message, stack",
    "{ get name() { throw 1 }, message: 'named' }": "named",
    "{ get message() { reportError(new Error('inner')); return 'outer' } }": "outer",
    "{ message: { toString() { throw 1 } } }": "an object with message",
    "{ message: ['a', 1] }": "a,1",
    "new Proxy({}, { get() { throw 1 }, ownKeys() { throw 2 }, has() { throw 3 }, getPrototypeOf() { throw 4 } })": "",
    "(() => { const p = Proxy.revocable({}, {}); p.revoke(); return p.proxy })()": "",
    "function f() {}": "function f() {}",
    "document.body": "[object HTMLBodyElement]",
    "window": "[object Window]",
    "'z'.repeat(1e7)": "z" * 500,
}


@pytest.mark.parametrize("how", ["Promise.reject({})", "reportError({})"])
def test_whatever_is_thrown(page: Browser, shop: Pages, how: str) -> None:
    for number, value in enumerate(HOSTILE):
        page.run(f"history.pushState(null, '', '/{number}'); void {how.format('(' + value + ')')}; 0")
        page.run("new Promise((done) => setTimeout(done, 20))")

    events = shop.once("Error", len(HOSTILE))
    found = {one["context"]["page"]["path"]: one["properties"]["message"] for one in events}
    found = {path: message.removeprefix("Uncaught ") for path, message in found.items()}  # the browser's words
    expected = {f"/{number}": message for number, message in enumerate(HOSTILE.values())}
    if how.startswith("report"):  # what says nothing at all
        expected |= {path: found[path] for path, message in expected.items() if not message and found[path]}
    assert found == expected


@pytest.mark.parametrize("text", ["a", "1 ", "%41", "a@", "http://a?"])
def test_a_long_text_takes_less_time_than_reading_it(page: Browser, text: str) -> None:
    told, read = page.run(f"""(() => {{
        const text = {json.dumps(text)}.repeat({10_000_000 // len(text)});
        const value = Object.assign(new Error(text), {{ stack: text }});
        const timed = (run) => Math.min(...[1, 2, 3, 4, 5].map(() => {{
            const before = performance.now();
            run();
            return performance.now() - before;
        }}));
        let sum = 0;
        const read = timed(() => {{ for (let n = 0; n < text.length; n++) sum += text.charCodeAt(n) }});
        const told = timed(() => dispatchEvent(new ErrorEvent("error", {{ error: value, message: "m" }})));
        return sum && [told, read];
    }})()""")

    assert told < read


def test_what_is_no_error_of_the_page_is_passed_over(page: Browser, shop: Pages) -> None:
    page.run("""dispatchEvent(new Event("error"));
        document.body.append(Object.assign(new Image(), { src: "/none.png" }));
        const stack = "Error: ours\\n    at f (chrome-extension://a/b.js:1:2)";
        reportError(Object.assign(new Error("ours"), { stack }));
        new ResizeObserver(() => { document.body.style.height = Math.random() * 900 + "px" }).observe(document.body);
        new Promise((done) => setTimeout(done, 300)).then(() => manymetrics.track("Last"))""")
    shop.once("Last")

    assert shop.events("Error") == []


def test_the_script_of_another_site_says_nothing_and_that_is_said(page: Browser, shop: Pages) -> None:
    # As the standard says; the Chromium of the tests has its guards down.
    page.run("""dispatchEvent(new ErrorEvent("error", { message: "Script error.", error: null }))""")

    (event,) = shop.once("Error")
    assert said(event) == {"name": "Error", "message": "Script error.", "isCrossOrigin": True, "handled": False}


def test_an_error_in_the_page_s_own_hooks_makes_no_loop(browser: Browser, shop: Pages) -> None:
    shop.files["/hooked.js"] = f"""
        import {{ createClient }} from "/index.js";
        import {{ captureError, captureErrors }} from "/errors.js";
        captureError(new Error("too early"));
        window.seen = 0;
        const before = (event) => {{
            seen++;
            setTimeout(() => {{ throw new Error("hook " + seen) }});
            throw new Error("hook");
        }};
        window.manymetrics = createClient({{ key: "wk_hooked", host: "{shop.url}", before }});
        manymetrics.use(captureErrors());
        setTimeout(() => {{ throw new Error("first") }});
    """
    shop.files["/hooked"] = '<!doctype html><script type="module" src="/hooked.js"></script>'
    browser.open(shop.url + "/hooked")
    eventually(lambda: browser.run("seen") == 10 or None)
    time.sleep(0.5)

    assert browser.run("seen") == 10


def test_what_a_page_caught_is_said_with_what_it_adds(browser: Browser, shop: Pages) -> None:
    shop.files["/caught.js"] = f"""
        import {{ createClient }} from "/index.js";
        import {{ captureError, captureErrors }} from "/errors.js";
        window.manymetrics = createClient({{ key: "wk_caught", host: "{shop.url}" }});
        manymetrics.use(captureErrors({{ ignore: /not this/ }}));
        captureError(new Error("not this"));
        captureError(new TypeError("this"), {{ order: 7, handled: 2, message: "mine" }});
    """
    shop.files["/caught"] = '<!doctype html><script type="module" src="/caught.js"></script>'
    browser.open(shop.url + "/caught")

    (event,) = shop.once("Error")
    assert said(event) | {"line": 0, "column": 0} == {
        "order": 7,
        "name": "TypeError",
        "message": "this",
        "line": 0,
        "column": 0,
        "handled": True,
    }
