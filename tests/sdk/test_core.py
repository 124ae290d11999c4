"""What a page's client does beside losing nothing: consent, who and where somebody is, and what pages do to it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.live_server import LiveServer, eventually
from tests.sdk.conftest import KEY, Arrived, Browser, Gate

pytestmark = pytest.mark.browser

KEPT = "JSON.stringify([document.cookie, Object.keys(localStorage).sort()])"
FLUSH = "manymetrics.flush()"


def kept(browser: Browser, page: str = "page") -> tuple[str, list[str]]:
    """The page's cookies and the names of what it stored."""
    cookie, names = json.loads(browser.run(KEPT, page))
    return cookie, names


def sent(gate: Gate, name: str, count: int = 1) -> list[dict[str, Any]]:
    """Waits until so many events of a name went out."""
    found = eventually(
        lambda: got if len(got := [e for e in gate.events() if e.get("event") == name]) >= count else None
    )
    assert len(found) == count
    return found


# --- consent ----------------------------------------------------------------------------------------------


def test_global_privacy_control_is_a_refusal_until_the_person_agrees_here(
    browser: Browser, site: str, gate: Gate
) -> None:
    browser.do("before", code="Object.defineProperty(navigator, 'globalPrivacyControl', { value: true })")
    browser.open(site + "/")
    browser.run(f"manymetrics.track('Denied'); manymetrics.identify('u-1'); {FLUSH}")

    assert kept(browser) == ("", [])
    assert browser.run("manymetrics.anonymousId()") == ""
    browser.run("manymetrics.consent('granted')")
    browser.open(site + "/")
    browser.run(f"manymetrics.track('Agreed'); {FLUSH}")
    sent(gate, "Agreed")
    assert not [event for event in gate.events() if event.get("event") == "Denied"]


def test_a_site_may_leave_global_privacy_control_out(browser: Browser, site: str, gate: Gate) -> None:
    browser.do("before", code="Object.defineProperty(navigator, 'globalPrivacyControl', { value: true })")
    browser.start(site + "/bare", gate.url, "{ gpc: false }")
    browser.run(f"manymetrics.track('Asked Elsewhere'); {FLUSH}")

    sent(gate, "Asked Elsewhere")


def test_events_wait_in_memory_until_the_person_has_answered(browser: Browser, site: str, gate: Gate) -> None:
    browser.start(site + "/bare", gate.url, "{ consent: 'pending' }")
    before = browser.run(f"manymetrics.track('Early'); {FLUSH}; Date.now()")
    time.sleep(0.5)
    assert kept(browser) == ("", [])
    browser.run(f"history.pushState(0, 0, '/later'); manymetrics.consent('granted'); {FLUSH}")

    [early] = sent(gate, "Early")
    assert abs(early["timestamp"] - before) < 400  # not when the answer came, half a second later
    assert early["context"]["page"]["path"] == "/bare"
    assert early["anonymousId"] == browser.run("manymetrics.anonymousId()")


@pytest.mark.parametrize("choice", ["pending", "anonymous"])
def test_who_agrees_stays_who_they_are_on_the_next_page(browser: Browser, site: str, gate: Gate, choice: str) -> None:
    browser.start(site + "/bare", gate.url, f"{{ consent: {choice!r} }}")
    browser.run("manymetrics.identify('u-1'); manymetrics.track('Before')")
    browser.run(f"manymetrics.consent('granted'); manymetrics.track('Agreed'); {FLUSH}")
    known = browser.run("manymetrics.anonymousId()")
    browser.start(site + "/bare", gate.url, f"{{ consent: {choice!r} }}")
    browser.run(f"manymetrics.track('Next'); {FLUSH}")

    [agreed], [following] = sent(gate, "Agreed"), sent(gate, "Next")
    assert agreed["anonymousId"] == following["anonymousId"] == known
    assert agreed["userId"] == following["userId"] == "u-1"
    assert agreed["context"]["sessionId"] == following["context"]["sessionId"]


def test_a_campaign_that_led_here_is_known_where_the_answer_comes_on_another_page(
    browser: Browser, site: str, gate: Gate
) -> None:
    browser.start(site + "/bare?utm_source=news&utm_content=jane@example.com", gate.url, "{ consent: 'pending' }")
    browser.run("manymetrics.track('Landed'); history.pushState(0, 0, '/later')")
    browser.run(f"manymetrics.consent('granted'); {FLUSH}")

    assert sent(gate, "Landed")[0]["context"]["campaign"] == {"source": "news", "content": "***"}


@pytest.mark.parametrize("choice", ["declined", "Denied", "not granted"])
def test_a_choice_that_nobody_knows_is_a_refusal(browser: Browser, site: str, gate: Gate, choice: str) -> None:
    browser.start(site + "/bare", gate.url)
    browser.run(f"manymetrics.consent({choice!r}); manymetrics.track('After'); {FLUSH}")

    time.sleep(0.3)
    assert gate.bodies == []
    assert kept(browser) == ("", ["mm.consent"])


def test_what_a_hook_fails_on_takes_nothing_with_it(browser: Browser, site: str, gate: Gate) -> None:
    hook = "(event) => { if (event.event === 'Bad') throw new Error('no'); return event; }"
    browser.start(site + "/bare", gate.url, f"{{ consent: 'pending', before: {hook} }}")
    browser.run(f"manymetrics.track('Bad'); manymetrics.track('Good'); manymetrics.consent('granted'); {FLUSH}")

    sent(gate, "Good")
    assert browser.do("errors") == []


def test_a_page_that_was_away_hears_of_a_refusal_as_it_comes_back(browser: Browser, site: str, gate: Gate) -> None:
    away(browser, site, gate, "manymetrics.consent('denied')")

    assert browser.run("manymetrics.anonymousId()", "one") == ""
    browser.run(f"manymetrics.track('After'); {FLUSH}", "one")
    time.sleep(0.3)
    assert not [event for event in gate.events() if event.get("event") == "After"]
    assert kept(browser, "one") == ("", ["mm.consent"])


def test_a_page_that_was_away_hears_of_a_reset_as_it_comes_back(browser: Browser, site: str, gate: Gate) -> None:
    away(browser, site, gate, "manymetrics.reset()")
    browser.run(f"manymetrics.track('After'); {FLUSH}", "one")

    [after] = sent(gate, "After")
    assert after["anonymousId"] == browser.run("manymetrics.anonymousId()", "other")
    assert "userId" not in after


def test_the_view_of_a_page_that_comes_back_is_of_who_is_there_now(browser: Browser, site: str, gate: Gate) -> None:
    browser.do("before", code=DEAF)
    browser.open(site + "/", "one")
    browser.run(f"manymetrics.identify('u-1'); {FLUSH}", "one")
    browser.run("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))", "one")
    browser.start(site + "/bare", gate.url, page="other")
    browser.run("manymetrics.reset()", "other")
    browser.run("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))", "one")
    browser.run(FLUSH, "one")

    views = eventually(lambda: got if len(got := [e for e in gate.events() if e["type"] == "page"]) == 2 else None)
    assert views[1]["anonymousId"] == browser.run("manymetrics.anonymousId()", "other")
    assert "userId" not in views[1]


DEAF = "addEventListener('storage', (event) => event.stopImmediatePropagation(), true)"


def away(browser: Browser, site: str, gate: Gate, meanwhile: str) -> None:
    """A page of a known user that is in the back-forward cache, where nothing is heard, while another runs this."""
    browser.do("before", code=DEAF)
    browser.start(site + "/bare", gate.url, page="one")
    browser.run(f"manymetrics.identify('u-1'); {FLUSH}", "one")
    browser.run("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))", "one")
    browser.start(site + "/bare", gate.url, page="other")
    browser.run(meanwhile, "other")
    browser.run("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))", "one")


def test_a_refusal_forgets_what_waited_and_what_was_kept(browser: Browser, site: str, gate: Gate) -> None:
    browser.start(site + "/bare", gate.url)
    gate.state = "unavailable"
    browser.run(f"manymetrics.identify('u-1'); manymetrics.track('Kept'); {FLUSH}")
    browser.run("manymetrics.consent('denied')")
    gate.state = "open"

    assert kept(browser) == ("", ["mm.consent"])
    browser.run(f"manymetrics.track('After'); {FLUSH}")
    time.sleep(2.5)
    assert gate.bodies == []
    browser.start(site + "/bare", gate.url)
    browser.run(f"manymetrics.track('After'); {FLUSH}")
    time.sleep(0.5)
    assert gate.bodies == []
    assert kept(browser) == ("", ["mm.consent"])


def test_who_is_anonymous_sends_events_and_keeps_nothing(browser: Browser, site: str, gate: Gate) -> None:
    browser.start(site + "/bare", gate.url)
    known = browser.run("manymetrics.track('Known'), manymetrics.anonymousId()")
    browser.run(f"manymetrics.consent('anonymous'); manymetrics.track('First'); manymetrics.track('First'); {FLUSH}")
    assert kept(browser) == ("", ["mm.consent"])
    browser.start(site + "/bare", gate.url)
    browser.run(f"manymetrics.track('Second'); {FLUSH}")

    one, other = sent(gate, "First", 2)
    [second] = sent(gate, "Second")
    assert one["anonymousId"] == other["anonymousId"]
    assert one["context"]["sessionId"] == other["context"]["sessionId"]
    assert len({known, one["anonymousId"], second["anonymousId"]}) == 3
    assert kept(browser) == ("", ["mm.consent"])


def test_a_refusal_in_one_tab_holds_in_all(browser: Browser, site: str, gate: Gate) -> None:
    browser.start(site + "/bare", gate.url, page="one")
    browser.start(site + "/bare", gate.url, page="other")
    browser.run("manymetrics.consent('denied')", "one")
    eventually(lambda: browser.run("manymetrics.anonymousId()", "other") == "" or None)
    browser.run(f"manymetrics.track('After'); {FLUSH}", "other")

    time.sleep(0.3)
    assert gate.bodies == []


# --- who --------------------------------------------------------------------------------------------------


def test_the_subdomains_of_a_site_know_a_browser_by_one_small_cookie(browser: Browser, site: str, gate: Gate) -> None:
    port = site.rpartition(":")[2]
    browser.start(f"http://www.shop.test:{port}/bare", gate.url)
    cookie = browser.run("manymetrics.track('A'), document.cookie")
    browser.start(f"http://help.shop.test:{port}/bare", gate.url)
    browser.run("localStorage.setItem('mm_id', 'another-id-of-before')")
    browser.start(f"http://help.shop.test:{port}/bare", gate.url)

    assert browser.run("manymetrics.track('B'), document.cookie") == cookie
    assert "mm_id=" + browser.run("manymetrics.anonymousId()") == cookie
    assert browser.run("localStorage.getItem('mm_id')") == cookie.removeprefix("mm_id=")
    assert len(cookie) <= 100
    browser.start(f"http://shop2.test:{port}/bare", gate.url)
    assert browser.run("manymetrics.anonymousId()") not in cookie


WRITTEN = """(() => {
  const { get, set } = Object.getOwnPropertyDescriptor(Document.prototype, 'cookie');
  window.written = [];
  const keep = function (text) { written.push(text); set.call(this, text); };
  Object.defineProperty(Document.prototype, 'cookie', { get, set: keep });
})()"""


def test_a_site_without_a_subdomain_tries_no_other_cookie_first(browser: Browser, site: str, gate: Gate) -> None:
    port = site.rpartition(":")[2]
    browser.do("before", code=WRITTEN)
    browser.start(f"http://shop.test:{port}/bare", gate.url)
    assert browser.run("manymetrics.track('A'), written.length") == 1
    made = browser.run("manymetrics.anonymousId()")

    browser.start(f"http://www.shop.test:{port}/bare", gate.url)
    assert browser.run("manymetrics.anonymousId()") == made


def test_a_cookie_that_somebody_spoilt_is_made_anew(browser: Browser, site: str, gate: Gate) -> None:
    browser.do("open", page="page", url=site + "/bare")
    browser.run("document.cookie = 'mm_id=<script>; Path=/'")
    browser.start(site + "/bare", gate.url)

    made = browser.run("manymetrics.anonymousId()")
    assert len(made) == 36
    assert kept(browser)[0] == "mm_id=" + made


def test_what_is_known_of_a_user_goes_with_each_event_until_reset(browser: Browser, site: str, gate: Gate) -> None:
    browser.start(site + "/bare", gate.url)
    browser.run(
        "manymetrics.identify(42, { plan: 'pro' }); manymetrics.group('g-1'); manymetrics.register({ theme: 'dark' })"
    )
    browser.start(site + "/bare", gate.url)
    browser.run("manymetrics.track('Known', { n: 1 }); manymetrics.reset(); manymetrics.track('New'); " + FLUSH)

    [known], [new] = sent(gate, "Known"), sent(gate, "New")
    assert (known["userId"], known["context"]["groupId"]) == ("42", "g-1")
    assert known["properties"] == {"theme": "dark", "n": 1}
    assert "userId" not in new
    assert not new["context"].get("groupId")
    assert "properties" not in new
    assert new["anonymousId"] != known["anonymousId"]
    assert new["context"]["sessionId"] != known["context"]["sessionId"]


def test_a_tab_sees_that_another_was_reset(browser: Browser, site: str, gate: Gate) -> None:
    browser.start(site + "/bare", gate.url, page="one")
    browser.start(site + "/bare", gate.url, page="other")
    browser.run("manymetrics.identify('u-1')", "one")
    browser.run("manymetrics.track('A')", "other")
    browser.run("manymetrics.reset()", "one")

    new = browser.run("manymetrics.anonymousId()", "one")
    eventually(lambda: browser.run("manymetrics.anonymousId()", "other") == new or None)


# --- where ------------------------------------------------------------------------------------------------


def test_a_campaign_stays_with_its_session(browser: Browser, site: str, gate: Gate, server: LiveServer) -> None:
    browser.start(site + "/bare?utm_source=news&utm_campaign=May&utm_id=7&gclid=abc&__proto__[x]=1", gate.url)
    browser.run("manymetrics.track('Landed')")
    browser.start(site + "/bare", gate.url)
    browser.run(f"manymetrics.track('Bought'); {FLUSH}")

    [landed], [bought] = sent(gate, "Landed"), sent(gate, "Bought")
    hints = bought["context"]["userAgentData"]
    assert hints.keys() == {"brands", "mobile", "platform"}
    assert all(brand.keys() == {"brand", "version"} for brand in hints["brands"])
    campaign = {"source": "news", "name": "May", "id": "7", "clickIdName": "gclid", "clickId": "abc"}
    assert [event["context"]["campaign"] for event in (landed, bought)] == [campaign, campaign]
    row = eventually(
        lambda: next((r for r in server.rows("events", ROW) if r["message_id"] == bought["messageId"]), None)
    )
    assert (row["context_campaign_source"], row["context_campaign_name"]) == ("news", "May")
    assert row["session_sequence"] == 2
    assert row["context_user_agent"].startswith("Mozilla/5.0")
    assert row["context_library_name"] == "manymetrics-js"
    assert row["context_page_path"] == "/bare"
    assert row["anonymous_id"] == browser.run("manymetrics.anonymousId()")


ROW = (
    "message_id",
    "anonymous_id",
    "context_campaign_source",
    "context_campaign_name",
    "session_sequence",
    "context_user_agent",
    "context_library_name",
    "context_page_path",
)


def test_a_page_view_has_an_id_that_its_events_share(browser: Browser, site: str, gate: Gate) -> None:
    browser.start(site + "/bare", gate.url)
    browser.run("manymetrics.page(); manymetrics.track('On Page'); history.replaceState(0, 0, '/bare?tab=2')")
    browser.run("manymetrics.track('On Page'); manymetrics.page(); history.pushState(0, 0, '/next')")
    browser.run(f"manymetrics.page(); manymetrics.track('On Page'); {FLUSH}")

    on_page = sent(gate, "On Page", 3)
    views = [event["context"]["page"] for event in gate.events() if event["type"] == "page"]
    ids = [event["context"]["page"]["id"] for event in on_page]
    assert ids == [views[0]["id"], views[0]["id"], views[2]["id"]]
    assert len({view["id"] for view in views}) == 3
    assert views[2]["referrer"].endswith("/bare?tab=2")
    assert "referrer" not in views[0]


@pytest.mark.parametrize(
    ("call", "event"),
    [
        ("track('A', { n: 1 }, { context: { app: { name: 'x' } } })", {"event": "A", "properties": {"n": 1}}),
        ("track('A', null, { timestamp: new Date(0) })", {"event": "A", "timestamp": 0}),
        ("track('A', () => window.called = 1)", {"event": "A"}),
        ("identify('u', { plan: 'pro' })", {"userId": "u", "traits": {"plan": "pro"}}),
        ("identify({ plan: 'pro' })", {"userId": None, "traits": {"plan": "pro"}}),
        ("page()", {"name": None, "properties": None}),
        ("page('Home')", {"name": "Home", "category": None}),
        ("page('Docs', 'Home', { n: 1 })", {"name": "Home", "category": "Docs", "properties": {"n": 1}}),
        ("page(undefined, undefined, { n: 1 })", {"name": None, "properties": {"n": 1}}),
        ("screen('Home', { n: 1 })", {"type": "screen", "name": "Home", "properties": {"n": 1}}),
        ("group('g', { size: 2 })", {"groupId": "g", "traits": {"size": 2}}),
        ("alias('new', 'old')", {"previousId": "old", "userId": "new"}),
        ("alias('new', 'old', { timestamp: new Date(0) })", {"previousId": "old", "timestamp": 0, "properties": None}),
        ("track('A', undefined, { timestamp: new Date(0) })", {"event": "A", "timestamp": 0, "properties": None}),
        ("identify('u', undefined, { timestamp: new Date(0) })", {"userId": "u", "timestamp": 0, "traits": None}),
    ],
)
def test_calls_have_the_shapes_of_analytics_js(
    browser: Browser, site: str, gate: Gate, call: str, event: dict[str, Any]
) -> None:
    browser.start(site + "/bare", gate.url)
    browser.run(f"manymetrics.{call}; {FLUSH}")

    [found] = eventually(gate.events)
    assert {name: found.get(name) for name in event} == event
    assert found["type"] == event.get("type", call.partition("(")[0])
    assert browser.run("window.called") == (1 if "called" in call else None)


def test_an_alias_without_the_id_of_before_is_of_this_browser(browser: Browser, site: str, gate: Gate) -> None:
    browser.start(site + "/bare", gate.url)
    browser.run(f"manymetrics.alias('new', undefined, {{ timestamp: new Date(0) }}); {FLUSH}")

    [found] = eventually(gate.events)
    assert (found["userId"], found["timestamp"]) == ("new", 0)
    assert found["previousId"] == browser.run("manymetrics.anonymousId()")


# --- what pages do to it ----------------------------------------------------------------------------------


def test_values_that_json_cannot_say_cost_no_event(browser: Browser, site: str, gate: Gate) -> None:
    browser.start(site + "/bare", gate.url)
    browser.run(
        """const round = {}; round.round = round;
        manymetrics.track('Odd', round);
        manymetrics.track('Odd', { big: 1n, no: undefined, f() {}, nan: NaN });
        manymetrics.track('Odd', { get bad() { throw new Error('no') } });
        manymetrics.track('Odd', JSON.parse('{"__proto__": {"isAdmin": true}, "constructor": {"prototype": {}}}'));
        manymetrics.register(JSON.parse('{"__proto__": {"isAdmin": true}}'));
        manymetrics.identify('u', JSON.parse('{"__proto__": {"isAdmin": true}}'));
        manymetrics.use(() => { throw new Error('no') });
        manymetrics.flush()"""
    )

    found = sent(gate, "Odd", 4)
    assert found[1]["properties"] == {"big": "1", "nan": None}
    assert found[3]["properties"] == {"__proto__": {"isAdmin": True}, "constructor": {"prototype": {}}}
    assert browser.run("({}).isAdmin === undefined")
    assert browser.do("errors") == []


WITHOUT = {
    "storage that is denied": "Object.defineProperty(window, 'localStorage', { get() { throw new Error('denied') } })",
    "storage that is full": "Storage.prototype.setItem = () => { throw new DOMException('full') }",
    "cookies": "Object.defineProperty(Document.prototype, 'cookie', { get: () => '', set() {} })",
    "readable cookies": "Object.defineProperty(Document.prototype, 'cookie', { get() { throw new Error('no') } })",
    "locks": "Object.defineProperty(Navigator.prototype, 'locks', { value: undefined })",
    "granted locks": "LockManager.prototype.request = () => Promise.reject(new Error('no'))",
    "AbortSignal.timeout": "delete AbortSignal.timeout",
    "Temporal, and an element with such an id": "window.Temporal = document.createElement('div')",
}


@pytest.mark.parametrize("missing", WITHOUT)
def test_a_browser_without(browser: Browser, site: str, gate: Gate, missing: str) -> None:
    browser.do("before", code=WITHOUT[missing])
    browser.open(site + "/")
    browser.run("manymetrics.identify('u-1'); for (let n = 0; n < 20; n++) manymetrics.track('Still', { n })")

    found = sent(gate, "Still", 20)
    assert {event["userId"] for event in found} == {"u-1"}
    assert len({event["anonymousId"] for event in found}) == 1
    assert browser.do("errors") == []


def test_a_page_out_of_the_back_forward_cache_goes_on(
    browser: Browser, site: str, gate: Gate, server: LiveServer
) -> None:
    # A headless Chromium keeps no page in that cache, so its events are made by hand.
    held = "navigator.locks.query().then(({ held }) => held.length)"
    gate.state = "unavailable"
    browser.start(site + "/bare", gate.url, page="one")
    browser.run("for (let n = 0; n < 5; n++) manymetrics.track('Cached', { n })", "one")
    assert browser.run(held, "one") == 1
    browser.run("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))", "one")
    assert eventually(lambda: browser.run(held, "one") == 0 or None)
    browser.start(site + "/bare", gate.url, page="other")
    gate.state = "open"
    Arrived(server, "Cached").all_of(5)
    browser.do("close", page="other")
    browser.run("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))", "one")
    browser.run("for (let n = 5; n < 10; n++) manymetrics.track('Cached', { n })", "one")

    Arrived(server, "Cached").all_of(10)
    assert browser.run(held, "one") == 1


def test_what_had_no_room_is_counted_and_said(browser: Browser, site: str, gate: Gate) -> None:
    browser.start(site + "/bare", gate.url)
    gate.state = "unavailable"
    browser.run("for (let n = 0; n < 1200; n++) manymetrics.track('Many', { n })")
    browser.start(site + "/bare", gate.url)
    gate.state = "open"

    found = eventually(
        lambda: got if len(got := [e for e in gate.events() if e.get("event") == "Many"]) >= 1000 else None
    )
    assert [event["properties"]["n"] for event in found] == list(range(200, 1200))
    said = [json.loads(body)["context"].get("droppedEvents") for body in gate.bodies]
    assert said[0] == 200
    assert set(said[1:]) <= {None}


def test_the_queue_takes_no_more_than_a_million_bytes(browser: Browser, site: str, gate: Gate) -> None:
    browser.start(site + "/bare", gate.url)
    gate.state = "unavailable"
    browser.run("for (let n = 0; n < 60; n++) manymetrics.track('Large', { n, text: 'x'.repeat(30_000) })")

    kept_chars = browser.run(
        "Object.entries(localStorage).reduce((sum, [key, text]) => sum + key.length + text.length, 0)"
    )
    assert 900_000 < kept_chars < 1_050_000


# --- answers ----------------------------------------------------------------------------------------------


def test_a_redirect_is_no_delivery(browser: Browser, site: str, gate: Gate, server: LiveServer) -> None:
    browser.start(site + "/bare", gate.url)
    gate.state = "redirecting"
    browser.run(f"manymetrics.track('Redirected', {{ n: 0 }}); {FLUSH}")
    assert len(gate.failed) >= 1
    gate.state = "open"

    Arrived(server, "Redirected").all_of(1)


def test_what_is_too_large_for_something_on_the_way_goes_in_parts(
    browser: Browser, site: str, gate: Gate, server: LiveServer
) -> None:
    gate.most_bytes = 20_000
    browser.start(site + "/bare", gate.url)
    browser.run(f"for (let n = 0; n < 60; n++) manymetrics.track('Parts', {{ n, text: 'x'.repeat(900) }}); {FLUSH}")

    Arrived(server, "Parts").all_of(60)


def test_a_key_that_the_api_refuses_is_said_once_and_not_tried_for_ever(
    browser: Browser, site: str, gate: Gate
) -> None:
    gate.state = "forbidding"
    browser.start(site + "/bare", gate.url)
    browser.run("console.warn = (text) => window.warned = text")
    browser.run(f"manymetrics.track('Refused'); {FLUSH}")

    assert "401" in browser.run("window.warned")
    time.sleep(2)
    assert len(gate.failed) == 1
    gate.state = "open"
    browser.start(site + "/bare", gate.url)
    time.sleep(2)  # until it has taken over what the page before left
    browser.run(f"manymetrics.track('Fine'); {FLUSH}")
    assert sent(gate, "Fine")[0]["context"].get("droppedEvents") == 1


def test_what_was_left_under_another_key_is_not_sent_under_this_one(browser: Browser, site: str, gate: Gate) -> None:
    gate.state = "unavailable"
    browser.start(site + "/bare", gate.url, "{ key: 'wk_another' }")
    browser.run("manymetrics.track('Another')")
    browser.start(site + "/bare", gate.url)
    gate.state = "open"
    time.sleep(0.5)  # until it would have taken it over
    browser.run(f"manymetrics.track('Ours'); {FLUSH}")
    sent(gate, "Ours")
    browser.start(site + "/bare", gate.url, "{ key: 'wk_another' }")

    sent(gate, "Another")
    keys = {event["event"]: body["writeKey"] for body in map(json.loads, gate.bodies) for event in body["batch"]}
    assert keys == {"Ours": KEY, "Another": "wk_another"}


def test_an_api_that_something_blocks_is_left_alone_and_nothing_is_lost(
    browser: Browser, site: str, gate: Gate, server: LiveServer
) -> None:
    browser.do("block", url=gate.url + "/**")
    browser.start(site + "/bare", gate.url)
    browser.run("setInterval(() => fetch('/other'), 200); manymetrics.track('Blocked', { n: 0 })")
    eventually(lambda: browser.do("blocked") == 3 or None)
    time.sleep(12)

    assert browser.do("blocked") == 3
    browser.do("unblock", url=gate.url + "/**")
    browser.run("document.dispatchEvent(new Event('visibilitychange', { bubbles: true }))")
    Arrived(server, "Blocked").all_of(1, within_s=10)


def test_what_is_sent_may_be_compressed(browser: Browser, site: str, gate: Gate, server: LiveServer) -> None:
    browser.start(site + "/bare", gate.url, "{ gzip: true }")
    browser.run(f"for (let n = 0; n < 20; n++) manymetrics.track('Small', {{ n }}); {FLUSH}")

    Arrived(server, "Small").all_of(20)
    assert [method for method, _ in gate.passed] == ["POST"]
    assert gate.passed[0][1] < 2_000


def test_a_page_may_change_and_drop_events_before_they_are_kept(browser: Browser, site: str, gate: Gate) -> None:
    browser.start(
        site + "/bare", gate.url, "{ before: (event) => event.event === 'No' ? null : { ...event, event: 'Yes!' } }"
    )
    browser.run(f"manymetrics.track('No'); manymetrics.track('Yes'); {FLUSH}")

    assert sent(gate, "Yes!")[0]["context"]["page"]["path"] == "/bare"
    assert len(gate.events()) == 1


def test_nothing_is_asked_for_before_the_first_event(browser: Browser, site: str, gate: Gate) -> None:
    browser.start(site + "/bare", gate.url)
    time.sleep(1)

    asked = browser.run("performance.getEntriesByType('resource').map(({ name }) => new URL(name).pathname)")
    assert set(asked) <= {"/index.js", "/favicon.ico"} or all(
        name.startswith("/chunk") or name == "/index.js" for name in asked
    )
    assert gate.passed == []
    assert kept(browser) == ("", [])
