"""The sample page in a real Chromium, on the real server: what it shows of an event is what became of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import ROOT
from tests.live_server import LiveServer, eventually
from tests.sdk.conftest import NODE, SDK, Browser

pytestmark = pytest.mark.browser

LINE = """(title) => {
    const lines = [...document.querySelectorAll("#lines details")];
    const line = lines.find((one) => one.querySelector("b").textContent === title);
    if (!line) return null;
    line.open = true;
    const [about, ...lamps] = line.querySelector("summary").children;
    const row = [...line.querySelectorAll("tr")].map((tr) => [...tr.children].map((td) => td.textContent));
    return {
        lamps: lamps.map((lamp) => lamp.dataset.state),
        about: about.querySelector("small").textContent,
        sent: line.querySelector("pre")?.textContent,
        row: Object.fromEntries(row),
    };
}"""


@pytest.fixture
def page(server: LiveServer, browser: Browser) -> Iterator[Browser]:
    browser.open(server.url + "/sample")
    yield browser
    assert browser.run("window.harm ?? null") is None


def line(page: Browser, title: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = page.run(f"({LINE})({json.dumps(title)})")
    return found


def once(page: Browser, title: str, *lamps: str) -> dict[str, Any]:
    """The line, once its lamps are such."""

    def such() -> dict[str, Any] | None:
        found = line(page, title)
        return found if found and found["lamps"] == [*lamps] else None

    return eventually(such)


def click(page: Browser, selector: str) -> None:
    page.do("click", page="page", selector=selector)


def test_a_click_is_shown_at_once_and_then_as_the_row_that_it_became(page: Browser, server: LiveServer) -> None:
    click(page, "#goods li:nth-child(2) button")
    kept = line(page, "Added to Cart")
    shown = once(page, "Added to Cart", "done", "done", "done", "done")

    assert kept is not None
    assert kept["lamps"] == ["done", "on", "off", "off"]
    assert "undefined" not in kept["about"]
    sent = json.loads(shown["sent"])
    [event] = sent["batch"]
    columns = ["message_id", "anonymous_id", "event", "properties", "session_sequence"]
    [row] = [row for row in server.rows(columns=columns) if row["message_id"] == event["messageId"]]
    assert {name: shown["row"][name] for name in columns} == {name: str(value) for name, value in row.items()}
    assert json.loads(row["properties"]) == event["properties"] == {"product": "Blue cup", "price": "12"}
    assert row["anonymous_id"] == page.run("manymetrics.anonymousId()")
    assert "wk_" not in shown["sent"].replace("wk_…", "")


def test_the_sql_that_is_shown_finds_what_is_shown(page: Browser, server: LiveServer) -> None:
    once(page, "Page view", "done", "done", "done", "done")

    command = page.run("document.getElementById('command').textContent")
    answer = page.run(
        "[...document.querySelectorAll('#rows tr')].map((tr) => [...tr.children].map((td) => td.textContent))"
    )

    asked = subprocess.run(
        ["sh", "-c", command.replace(" query ", " query -o json ")],
        cwd=ROOT,
        env={"PATH": f"{ROOT / '.venv' / 'bin'}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(server.data_dir) in command
    rows = json.loads(asked.stdout)
    assert [row["type"] for row in rows] == [type_ for _, type_, *_ in answer] == ["page"]


@pytest.mark.parametrize("name", ["<img src=x onerror='window.harm = 1'>", "</pre><script>window.harm = 1</script>"])
def test_what_an_event_holds_is_shown_as_text(page: Browser, name: str) -> None:
    page.run(f"manymetrics.track({json.dumps(name)}, {{ [{json.dumps(name)}]: {json.dumps(name)} }})")

    shown = once(page, name, "done", "done", "done", "done")

    assert shown["row"]["event"] == name
    assert page.run("document.querySelectorAll('main img, main script').length") == 0
    assert name in page.run("document.getElementById('rows').textContent")


def test_with_the_connection_cut_events_wait_and_then_arrive_once(page: Browser, server: LiveServer) -> None:
    once(page, "Page view", "done", "done", "done", "done")
    click(page, "#cut")
    click(page, "#form button")
    click(page, "#flush")
    cut = once(page, "Signed Up", "done", "done", "bad", "off")
    click(page, "#cut")
    shown = once(page, "Signed Up", "done", "done", "done", "done")

    assert cut["about"] == "no answer: kept, and tried again"
    ids = [row["message_id"] for row in server.rows()]
    assert ids.count(shown["row"]["message_id"]) == 1


def test_what_is_typed_into_the_form_never_leaves_the_page(page: Browser) -> None:
    page.run("document.querySelector('[name=name]').value = 'Secret Name'")
    page.run("document.querySelector('[name=email]').value = 'secret@example.com'")
    click(page, "#form button")

    shown = once(page, "Signed Up", "done", "done", "done", "done")

    assert "ecret" not in shown["sent"]
    assert json.loads(shown["sent"])["batch"][0]["properties"] == {"plan": "free"}


def test_another_page_of_the_shop_is_a_page_view_without_a_load(page: Browser) -> None:
    once(page, "Page view", "done", "done", "done", "done")
    click(page, "nav a:nth-child(2)")

    shown = once(page, "Page view", "done", "done", "done", "done")

    assert shown["row"]["context_page_path"] == "/sample/about"
    titles = page.run("[...document.querySelectorAll('#lines b')].map((one) => one.textContent)")
    assert titles.count("Page view") == 2
    page.open(page.run("location.href"))
    assert page.run("document.getElementById('about').hidden") is False


def test_the_page_runs_no_inline_script_and_fits_a_phone(page: Browser, tmp_path: Path) -> None:
    broken = """new Promise((done) => {
        const frame = document.createElement("script");
        frame.textContent = "window.harm = 1";
        addEventListener("securitypolicyviolation", () => done(true), { once: true });
        document.body.append(frame);
        setTimeout(() => done(false), 1000);
    })"""
    assert page.run(broken) is True

    once(page, "Page view", "done", "done", "done", "done")
    page.do("screenshot", page="page", path=str(tmp_path / "phone.png"), width=390, height=844, colorScheme="dark")
    assert page.run("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]


def test_the_scripts_of_the_page_have_no_type_errors() -> None:
    if not (SDK / "node_modules").is_dir():
        pytest.skip("no sdk-js/node_modules (make sdk)")
    options = [
        "--noEmit",
        "--allowJs",
        "--checkJs",
        "--strict",
        "--target",
        "es2022",
        "--lib",
        "es2022,dom,dom.iterable",
    ]
    files = ["sample/page/observe.js", "sample/page/sample.js"]

    done = subprocess.run(
        [NODE, SDK / "node_modules" / "typescript" / "bin" / "tsc", *options, *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout == ""


def test_the_built_sdk_is_served_for_ever_to_who_asks_for_its_head_too(server: LiveServer) -> None:
    tag = httpx.get(server.url + "/sample").text.partition("/sdk/")[2].partition('"')[0]

    head = server.client.head(f"/sdk/{tag}", headers={"Accept-Encoding": "gzip"})
    whole = server.client.get(f"/sdk/{tag}", headers={"Accept-Encoding": "gzip"})

    assert (head.status_code, head.content, whole.content) == (200, b"", (SDK / "dist" / "mm.js").read_bytes())
    assert head.headers["content-length"] == whole.headers["content-length"]
    assert "immutable" in head.headers["cache-control"]
