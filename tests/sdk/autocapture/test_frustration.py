"""Rage and dead clicks: told when somebody has reason to be cross, and not for what people do all day."""

from __future__ import annotations

import time

import pytest

from tests.live_server import eventually
from tests.sdk.autocapture.conftest import Tab

pytestmark = pytest.mark.browser

ALL_AT_ONCE = 60  # ms between clicks
# Long waits are a fifth as long: half a second for a click to be dead. A press may last a second as ever, since a busy
# machine takes its time between down and up.
FAST = "const wait = setTimeout; window.setTimeout = (run, ms) => wait(run, ms > 1000 ? ms / 5 : ms);"


def click_at(tab: Tab, selector: str, count: int = 1, every_ms: int = ALL_AT_ONCE, step_px: int = 0) -> None:
    tab.drive(
        """const box = await page.locator(given.selector).boundingBox();
        for (let n = 0; n < given.count; n++) {
            await page.mouse.click(box.x + 5 + n * given.step_px, box.y + 5);
            await page.waitForTimeout(given.every_ms);
        }""",
        {"selector": selector, "count": count, "every_ms": every_ms, "step_px": step_px},
    )


def test_somebody_who_clicks_and_clicks_is_cross_once_a_burst(tab: Tab) -> None:
    tab.show("<button name=save>Save</button>")
    click_at(tab, "button", 8)
    assert [told["name"] for told in tab.told("Rage Click")] == ["save"]

    time.sleep(1.2)
    click_at(tab, "button", 3)
    assert len(tab.told("Rage Click")) == 2


def test_rage_may_be_about_what_is_nothing_to_click_on(tab: Tab) -> None:
    tab.show("<div class=chart style='height: 99px; user-select: none'>Ann Smith</div>")
    click_at(tab, "div", 4)

    [told] = tab.told("Rage Click")
    assert told == {"tag": "div", "classes": "chart", "selector": "html > body > div.chart"}
    assert tab.told("Element Clicked") == []


@pytest.mark.parametrize(
    ("html", "selector", "count", "every_ms", "step_px"),
    [
        pytest.param("<button>Save</button>", "button", 2, 60, 0, id="a double click"),
        pytest.param("<button>Save</button>", "button", 4, 700, 0, id="at leisure"),
        pytest.param("<button style='width: 300px'>Save</button>", "button", 4, 60, 40, id="here and there"),
        pytest.param("<input value=words>", "input", 4, 60, 0, id="in a field"),
        pytest.param("<textarea>words</textarea>", "textarea", 4, 60, 0, id="in a text"),
        pytest.param("<input type=number value=1>", "input", 5, 60, 0, id="a number"),
        pytest.param("<select><option>A<option>B</select>", "select", 3, 60, 0, id="a choice"),
        pytest.param("<video width=200 controls></video>", "video", 4, 60, 0, id="a film"),
        pytest.param("<button onclick='this.textContent++'>1</button>", "button", 6, 60, 0, id="a counter"),
        pytest.param(
            "<button onclick='n.replaceChildren(Date.now())'>Next</button><p id=n></p>", "button", 6, 60, 0, id="pages"
        ),
        pytest.param("<label><input type=checkbox>Yes</label>", "label", 4, 60, 0, id="a box"),
    ],
)
def test_what_people_do_all_day_is_no_rage(
    tab: Tab, html: str, selector: str, count: int, every_ms: int, step_px: int
) -> None:
    tab.show(html)
    click_at(tab, selector, count, every_ms, step_px)

    assert tab.told("Rage Click") == []


def test_a_paragraph_that_is_selected_is_no_rage(tab: Tab) -> None:
    tab.show("<p>Some words to copy</p>")
    tab.drive("await page.locator('p').click({ clickCount: 3 })")

    assert tab.run("getSelection().type") == "Range"
    assert tab.told("Rage Click") == []


def test_a_key_that_is_held_is_no_rage(tab: Tab) -> None:
    tab.show("<button>Save</button>")
    tab.drive("await page.locator('button').focus(); for (let n = 0; n < 6; n++) await page.keyboard.press('Enter')")

    assert len(tab.told("Element Clicked")) == 6
    assert tab.told("Rage Click", "Dead Click", after_s=2.8) == []


@pytest.mark.parametrize("options", ["{ rage: false, dead: false }"])
def test_both_can_be_off(tab: Tab, options: str) -> None:
    tab.show("<button>Save</button>", options=options)
    click_at(tab, "button", 5)

    assert tab.told("Rage Click", "Dead Click", after_s=2.8) == []


@pytest.mark.parametrize(
    "html",
    [
        "<button name=it>Save</button>",
        "<div role=button name=it>Save</div>",
        "<a name=it>There</a>",
        "<a name=it href='javascript:void 0'>There</a>",
        "<button name=it onclick='setTimeout(() => n.textContent = 1, 3000)'>Save</button><p id=n></p>",
    ],
)
def test_a_click_that_nothing_answers_is_dead(tab: Tab, html: str) -> None:
    tab.show(html, before=FAST)
    click_at(tab, "[name=it]")

    [dead] = eventually(lambda: tab.told("Dead Click", after_s=0.8) or None)  # what is asked early is an answer
    assert dead["name"] == "it"


ANSWERED = {
    "a text": "<button id=it onclick='setTimeout(() => n.textContent = 1, 1500)'>Go</button><p id=n></p>",
    "a class": "<button id=it onclick='this.className = 1'>Go</button>",
    "a style": "<button id=it onclick='n.style.display = \"none\"'>Go</button><p id=n></p>",
    "a route": "<button id=it onclick='history.pushState(0, 0, \"/there\")'>Go</button>",
    "a hash": "<a id=it href='#there'>Go</a>",
    "a link": "<a id=it href='/slow'>Go</a>",
    "a link elsewhere": "<a id=it href='https://example.com/'>Go</a>",
    "a window": "<a id=it href='#' target=_blank>Go</a>",
    "a letter": "<a id=it href='mailto:a@example.com'>Go</a>",
    "a download": "<a id=it href='#' download>Go</a>",
    "a scroll": "<button id=it onclick='window.scrollTo(0, 500)'>Go</button><div style='height: 5000px'></div>",
    "a focus": "<button id=it onclick='n.focus()'>Go</button><input id=n>",
    "a dialog": "<button id=it onclick='n.showModal()'>Go</button><dialog id=n>Words</dialog>",
    "a popover": "<button id=it popovertarget=n>Go</button><div id=n popover>Words</div>",
    "details": "<details><summary id=it>Go</summary>Words</details>",
    "a menu that opens on the way down": "<button id=it onpointerdown='n.hidden = !n.hidden'>Go</button><p id=n>1</p>",
    "a tab that is there": "<button id=it role=tab aria-selected=true>Go</button>",
    "where somebody is": "<a id=it aria-current=page>Go</a>",
    "a request": "<button id=it onclick='fetch(\"/asked\")'>Go</button>",
    "a form that is sent": "<form onsubmit='return false'><button id=it>Go</button></form>",
    "a form with a gap": "<form onsubmit='return false'><input required><button id=it>Go</button></form>",
    "a form that is emptied": "<form><button type=reset id=it>Go</button></form>",
    "a box": "<input type=checkbox id=it>",
    "a choice": "<input type=radio id=it>",
    "a button that is a field": "<input type=button id=it value=Go>",
    "a drawing": "<button id=it>Go</button><canvas></canvas>",
    "a component": "<x-button><button id=it>Go</button></x-button>",
    "a selection": "<button id=it onclick='getSelection().selectAllChildren(n)'>Go</button><p id=n>Words</p>",
    "a copy": "<button id=it onclick='n.select(); document.execCommand(\"copy\")'>Go</button><input id=n value=1>",
    "what is none": "<p id=it>Words</p>",
}


STAY = (
    "addEventListener('click', (event) => /slow|com|download/.test(event.target.outerHTML) && event.preventDefault())"
)


@pytest.mark.parametrize("html", ANSWERED.values(), ids=ANSWERED.keys())
def test_what_is_answered_or_leads_away_is_not_dead(tab: Tab, html: str) -> None:
    tab.show(html, before=FAST + STAY)
    click_at(tab, "#it")

    assert tab.told("Dead Click", after_s=0.8) == []


def test_a_page_that_is_hidden_meanwhile_has_no_dead_click(tab: Tab) -> None:
    tab.show("<button>Go</button>")
    click_at(tab, "button")
    tab.hide()

    assert tab.told("Dead Click", after_s=2.8) == []


def test_the_document_is_watched_only_while_a_click_waits(tab: Tab) -> None:
    tab.show(
        "<button>Go</button>",
        before="""window.watching = new Set();
        const { observe, disconnect } = MutationObserver.prototype;
        MutationObserver.prototype.observe = function (...given) {
            if (new Error().stack.includes("autocapture.js")) watching.add(this);
            observe.apply(this, given);
        };
        MutationObserver.prototype.disconnect = function () { watching.delete(this); disconnect.apply(this) };""",
    )
    assert tab.run("watching.size") == 0
    click_at(tab, "button")
    assert tab.run("watching.size") == 2

    tab.events(3)
    assert tab.run("watching.size") == 0
