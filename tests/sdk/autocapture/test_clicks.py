"""What is told of clicks and forms, and what is no click at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.live_server import LiveServer, eventually
from tests.sdk.autocapture.conftest import Site, Tab

pytestmark = pytest.mark.browser

STAY = "addEventListener('click', (event) => event.preventDefault());"
NO_SUBMIT = "addEventListener('submit', (event) => event.preventDefault());"
NO_GLOBALS = "delete window.navigation; delete window.scheduler;"
Wait = Callable[[str], list[dict[str, Any]]]


def test_a_button_is_told_by_its_names_and_its_text(tab: Tab) -> None:
    tab.show(
        """<main id=plans><div class="row wide"><button class="cta big" name=choose aria-label="Choose Pro"
        data-mm-plan=pro data-mm-seats-left=3> Choose <b>Pro</b>
        <script type=text/plain>no</script></button></div></main>"""
    )
    tab.click("b")

    assert tab.told("Element Clicked") == [
        {
            "tag": "button",
            "classes": "cta big",
            "name": "choose",
            "ariaLabel": "Choose Pro",
            "selector": "main#plans > div.row.wide > button.cta.big",
            "text": "Choose Pro",
            "plan": "pro",
            "seatsLeft": "3",
        }
    ]


@pytest.mark.parametrize(
    ("link", "told"),
    [
        ("href='/next?page=2'", {"href": "SITE/next?page=2"}),
        ("href='https://example.com/a'", {"href": "https://example.com/a", "outbound": True}),
        ("href='/report.PDF?a'", {"href": "SITE/report.PDF?a", "download": True}),
        ("href='/file' download", {"href": "SITE/file", "download": True}),
        ("href='mailto:ann@example.com'", {"href": "mailto:"}),
        ("href='javascript:void(0)'", {"href": "javascript:"}),
        (
            "href='https://ann:pw@example.com:99/?token=t'",
            {"href": "https://example.com:99/?token=***", "outbound": True},
        ),
        ("href='http://'", {}),
        ("", {}),
    ],
)
def test_a_link_is_told_by_where_it_leads(tab: Tab, link: str, told: dict[str, Any]) -> None:
    tab.show(f"<a {link}>There</a>", before=STAY)
    tab.click("a")

    href = {"href": told["href"].replace("SITE", tab.site.url)} if told else {}
    assert tab.told("Element Clicked") == [
        {"tag": "a", "selector": "html > body > a", "text": "There"} | told | href,
    ]


def test_a_click_that_leaves_the_page_is_told_and_of_the_page_that_it_left(tab: Tab, eventually_sent: Wait) -> None:
    tab.show("<a href='/other'>There</a>")
    tab.click("a")

    [clicked] = eventually_sent("Element Clicked")
    assert clicked["context"]["page"]["path"] == "/start"


def test_a_click_that_a_router_acts_upon_is_told_as_it_was(tab: Tab) -> None:
    tab.show(
        """<button data-mm-state=off onclick="history.pushState(null, '', '/second'); this.textContent = 'After';
        this.dataset.mmState = 'on'; this.remove()">Before</button>"""
    )
    tab.click("button")

    [clicked] = [event for event in tab.events() if event.get("event") == "Element Clicked"]
    assert clicked["context"]["page"]["path"] == "/start"
    assert (clicked["properties"]["text"], clicked["properties"]["state"]) == ("Before", "off")


def test_a_click_that_the_page_stops_is_told(tab: Tab) -> None:
    tab.show("<button>Buy</button>")
    tab.run("document.addEventListener('click', (event) => event.stopImmediatePropagation(), true)")
    tab.click("button")

    assert len(tab.told("Element Clicked")) == 1


@pytest.mark.parametrize(
    "html",
    [
        "<p id=it>Words</p>",
        "<div onclick='1' data-mm-ignore><p id=it>Words</p></div>",
        "<section data-mm-ignore><div><button id=it>Buy</button></div></section>",
        "<div contenteditable><a href='#' id=it>Words</a></div>",
        "<div role=button><input id=it></div>",
        "<div role=button><textarea id=it></textarea></div>",
        "<button disabled id=it>Buy</button>",
    ],
)
def test_what_is_no_click_on_something(tab: Tab, html: str) -> None:
    tab.show(html)
    tab.drive("await page.locator('#it').click({ force: true, noWaitAfter: true })")

    assert tab.told("Element Clicked", "Rage Click", "Dead Click", after_s=0.5) == []


def test_a_click_of_a_script_is_none(tab: Tab) -> None:
    tab.show("<button>Buy</button>")
    tab.run("document.querySelector('button').click()")

    assert tab.told("Element Clicked") == []


@pytest.mark.parametrize(
    "html",
    [
        "<label>Yes, <b id=it>please</b><input type=checkbox name=yes></label>",
        "<label for=yes id=it>Yes</label><input id=yes type=checkbox name=yes>",
        "<input id=it type=checkbox name=yes>",
    ],
)
def test_a_box_that_is_ticked_is_one_click_without_a_text(tab: Tab, html: str) -> None:
    tab.show(html)
    tab.click("#it")

    [told] = tab.told("Element Clicked")
    assert (told["tag"], told["name"], "text" in told) == ("input", "yes", False)


@pytest.mark.parametrize(
    ("html", "tag"),
    [
        ("<input id=it type=submit value=Buy>", "input"),
        ("<details><summary id=it>More</summary>Words</details>", "summary"),
        ("<div role=menuitemradio><i id=it>Big</i></div>", "div"),
        ("<svg onclick='1' class='icon' width=50 height=50><circle id=it r=40 cx=25 cy=25 /></svg>", "svg"),
        ("<svg width=50 height=50><a xlink:href='#x'><circle id=it r=40 cx=25 cy=25 /></a></svg>", "a"),
    ],
)
def test_what_is_a_click_on_something(tab: Tab, html: str, tag: str) -> None:
    tab.show(html)
    tab.click("#it")

    assert [told["tag"] for told in tab.told("Element Clicked")] == [tag]


@pytest.mark.parametrize(("mode", "tag"), [("open", "button"), ("closed", "a")])
def test_a_click_within_a_component(tab: Tab, mode: str, tag: str) -> None:
    tab.show("<a><x-it id=host></x-it></a>")
    tab.run(f"void (host.attachShadow({{ mode: '{mode}' }}).innerHTML = '<button><b>Buy</b></button>')")
    tab.click("#host")

    assert [told["tag"] for told in tab.told("Element Clicked")] == [tag]


def test_an_event_of_its_own_name_needs_no_code(tab: Tab) -> None:
    tab.show("<div data-mm-event='Plan Chosen' data-mm-plan=pro><b>Pro</b></div>")
    tab.click("b")

    assert tab.told("Plan Chosen", "Element Clicked") == [{"plan": "pro"}]


def test_a_text_is_short_and_its_ignored_parts_are_not_read(tab: Tab) -> None:
    many = "<i></i>" * 20_000
    tab.show(
        f"""<style>button {{ display: block; height: 30px; overflow: hidden }}</style>
        <button id=long>{"word " * 5_000}</button><button id=many>{many}Late</button>
        <button id=part>Buy <span data-mm-ignore>secret</span><s contenteditable>mine</s></button>"""
    )
    tab.click("#long", "#many")
    tab.drive("await page.locator('#part').click({ position: { x: 2, y: 2 } })")

    texts = [told.get("text") for told in tab.told("Element Clicked")]
    assert texts == ["word " * 20, None, "Buy"]


FORM = """<form id=signup name=join action="/join?token=abc" method=post class=f>
    <input name=first><input name=mail type=email id=m><input type=password name=p><input type=hidden name=h>
    <input name=cardnumber><input name=x autocomplete=cc-number><input name=code autocomplete=one-time-code>
    <select name=size><option>S<option>L</select><textarea name=note></textarea><button>Join</button></form>"""


def test_a_form_is_told_by_its_fields_and_not_by_what_is_in_them(tab: Tab) -> None:
    tab.show(FORM, before=NO_SUBMIT)
    for name in ["first", "mail", "p", "cardnumber", "x", "code", "note"]:
        tab.drive("await page.locator(`[name=${given}]`).fill('hush@example.com')", name)
    tab.drive("await page.locator('select').selectOption('L')")
    tab.click("button")

    assert tab.told("Form Submitted") == [
        {
            "tag": "form",
            "id": "signup",
            "classes": "f",
            "name": "join",
            "selector": "form#signup",
            "action": f"{tab.site.url}/join?token=***",
            "method": "post",
            "fieldCount": 10,
        }
    ]
    assert "hush" not in "".join(tab.sent.bodies)
    changed = tab.told("Field Changed")
    assert [(field["tag"], field["name"], field["type"]) for field in changed] == [
        ("input", "first", "text"),
        ("input", "mail", "email"),
        ("textarea", "note", "textarea"),
    ]


def test_a_choice_is_told_by_its_fields_name(tab: Tab) -> None:
    tab.show("<select name=size><option>S<option>L</select>")
    tab.drive("await page.locator('select').focus(); await page.keyboard.press('ArrowDown')")

    assert [(told["name"], told["type"], told.get("text")) for told in tab.told("Field Changed")] == [
        ("size", "select-one", None)
    ]


def test_a_form_that_leaves_the_page_is_told(tab: Tab, eventually_sent: Wait) -> None:
    tab.show("<form action=/other><button>Go</button></form>")
    tab.click("button")

    assert len(eventually_sent("Form Submitted")) == len(eventually_sent("Element Clicked")) == 1


def test_fields_that_are_called_like_a_forms_own_parts_change_nothing(tab: Tab) -> None:
    names = [
        *(
            "action",
            "id",
            "tagName",
            "submit",
            "parentNode",
            "getAttribute",
            "matches",
            "attributes",
            "elements",
            "name",
        ),
        *("length", "method", "localName", "closest", "firstChild", "nextSibling", "childNodes", "getAttributeNames"),
        *("className", "nodeType", "__proto__", "constructor"),
    ]
    fields = "".join(f"<input name={name} value=hush>" for name in names)
    tab.show(
        f"""<div onclick=1><form id=real action=/there class=mine>{fields}<button id=__proto__ name=constructor
        data-mm-__proto__=a data-mm-constructor=b>Go</button><p id=p>Words</p></form></div>
        <i id=navigation></i><i id=scheduler></i><i id=location></i>""",
        before=NO_SUBMIT + NO_GLOBALS,
    )
    for selector in ("#p", "button"):  # by their places: Playwright's own scripts stumble over such a form
        box = tab.run(f"document.querySelector({selector!r}).getBoundingClientRect().toJSON()")
        tab.drive("await page.mouse.click(given.x + 3, given.y + 3)", box)

    [form] = tab.told("Form Submitted")
    assert (form["id"], form["action"], form["method"], form["fieldCount"]) == (
        "real",
        f"{tab.site.url}/there",
        "get",
        len(names) + 1,
    )
    around, button = tab.told("Element Clicked")
    assert (around["text"], button["id"], button["name"]) == ("Go Words", "__proto__", "constructor")
    assert tab.run("({}).a === undefined && ({}).constructor === Object")
    assert "hush" not in "".join(tab.sent.bodies)
    assert tab.complaints() == []


@pytest.mark.parametrize("options", ["{ clicks: false, rage: false, dead: false, forms: false }", "{ clicks: false }"])
def test_clicks_can_be_off(tab: Tab, options: str) -> None:
    tab.show("<button>Buy</button>", options=options)
    tab.click("button")

    assert tab.told("Element Clicked") == []


def test_clicks_and_forms_are_rows(tab: Tab, server: LiveServer, site: Site) -> None:
    tab.show(FORM, before=NO_SUBMIT)
    tab.drive("await page.locator('[name=first]').fill('Ann')")
    tab.click("button")
    tab.events()

    def rows() -> list[tuple[str, str]] | None:
        found = server.rows("events", ("event", "context_page_url", "properties"))
        ours = [row for row in found if (row["context_page_url"] or "").startswith(site.url) and row["event"]]
        told = [(row["event"], json.loads(row["properties"])["selector"]) for row in ours]
        return sorted(told) if len(told) >= 3 else None

    assert eventually(rows) == [
        ("Element Clicked", "form#signup > button"),
        ("Field Changed", "form#signup > input"),
        ("Form Submitted", "form#signup"),
    ]


def test_a_click_costs_the_page_little(tab: Tab) -> None:
    rows = "".join(f"<tr class='row even'><td><a href='/item/{n}' class=link>Item <b>{n}</b></a>" for n in range(2_000))
    timed = """window.spent = { click: [], walk: [] };
        const timing = (name, run) => {
            const before = performance.now();
            run();
            spent[name].push(performance.now() - before);
        };
        const walk = () => {  // what no click may do: look at each row beside its own
            let seen = 0;
            for (const row of document.querySelector("tbody").children) seen += row.matches("a,.none");
            return seen;
        };
        const add = window.addEventListener;
        window.addEventListener = (name, run, options) => add.call(window, name, (event) => {
            if (name !== "click" || !options.capture || !options.passive) return run(event);
            timing("click", () => run(event));
            timing("walk", walk);
        }, options);"""
    tab.show(f"<div><div><div><table>{rows}</table></div></div></div>", before=STAY + timed)
    tab.drive(
        """const box = await page.locator("a").first().boundingBox();
        for (let n = 0; n < 1000; n++) await page.mouse.click(box.x + 3, box.y + 3);"""
    )

    spent = tab.run("spent")
    assert len(spent["click"]) == 1_000
    assert sum(spent["click"]) < sum(spent["walk"])  # less than half of it, 2026-11-28
