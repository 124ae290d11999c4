"""No event of a browser is lost, whatever becomes of its page, its network and the server; none is there twice.

Letters name the cases of a bench that other SDKs were put to, too.
"""

from __future__ import annotations

import json
import time

import pytest

from tests.live_server import LiveServer, eventually
from tests.sdk.conftest import KEY, Arrived, Browser, Gate, State

pytestmark = pytest.mark.browser


@pytest.fixture
def mark(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


@pytest.fixture
def arrived(server: LiveServer, mark: str) -> Arrived:
    return Arrived(server, mark)


def track(mark: str, first: int, stop: int, *, size: int = 0) -> str:
    """JavaScript that tracks numbered events in one go."""
    filler = f', text: "x".repeat({size})' if size else ""
    return f"for (let n = {first}; n < {stop}; n++) manymetrics.track({mark!r}, {{ n{filler} }})"


def track_slowly(mark: str, count: int, every_ms: int = 200) -> str:
    return f"""(async () => {{
        for (let n = 0; n < {count}; n++) {{
            manymetrics.track({mark!r}, {{ n }});
            await new Promise((done) => setTimeout(done, {every_ms}));
        }}
    }})()"""


def test_k_a_click_that_leaves_the_page(browser: Browser, site: str, mark: str, arrived: Arrived) -> None:
    browser.open(site + "/")
    browser.run(track_slowly(mark, 19))
    browser.run(f"document.getElementById('leave').onclick = () => {{ {track(mark, 19, 20)} }}")
    browser.do("click", page="page", selector="#leave")
    browser.do("arrived", page="page", url=site + "/other")
    browser.open(site + "/")

    arrived.all_of(20)


def test_l_a_tab_that_is_closed_after_a_while(browser: Browser, site: str, mark: str, arrived: Arrived) -> None:
    browser.open(site + "/")
    browser.run(track_slowly(mark, 20))
    browser.do("close", page="page")
    browser.open(site + "/")

    arrived.all_of(20)


def test_a_a_burst_and_the_tab_closed_at_once(browser: Browser, site: str, mark: str, arrived: Arrived) -> None:
    browser.open(site + "/")
    browser.run(track(mark, 0, 20))
    browser.do("close", page="page")

    arrived.all_of(20)


def test_b_a_burst_and_away_at_once(browser: Browser, site: str, mark: str, arrived: Arrived) -> None:
    browser.open(site + "/")
    browser.run(track(mark, 0, 20) + "; location.href = '/other'")

    arrived.all_of(20)


def test_g_more_than_a_browser_takes_as_a_page_goes(browser: Browser, site: str, mark: str, arrived: Arrived) -> None:
    browser.open(site + "/")
    browser.run(track(mark, 0, 150, size=1_000) + "; location.href = '/other'")
    browser.do("arrived", page="page", url=site + "/other")
    browser.open(site + "/")

    arrived.all_of(150)


def test_j_a_burst_at_the_very_start(browser: Browser, site: str, mark: str, arrived: Arrived) -> None:
    browser.open(site + "/")
    browser.run(track(mark, 0, 20) + "; setTimeout(() => location.href = '/other', 100)")
    browser.do("arrived", page="page", url=site + "/other")
    browser.open(site + "/")

    arrived.all_of(20)


@pytest.mark.parametrize("state", ["unavailable", "refusing"])
def test_c_an_outage_of_five_seconds(
    browser: Browser, site: str, gate: Gate, mark: str, arrived: Arrived, state: State
) -> None:
    browser.open(site + "/")
    gate.state = state
    browser.run(track(mark, 0, 20))
    time.sleep(5)
    tried = len(gate.failed)
    gate.state = "open"

    arrived.all_of(20, within_s=8)
    assert 1 <= tried <= 3


def test_d_offline_for_a_while(browser: Browser, site: str, mark: str, arrived: Arrived) -> None:
    browser.open(site + "/")
    browser.do("offline", **{"is": True})
    browser.run(track(mark, 0, 20))
    time.sleep(5)
    browser.do("offline", **{"is": False})

    arrived.all_of(20, within_s=8)


def test_e_offline_and_the_tab_closed(browser: Browser, site: str, mark: str, arrived: Arrived) -> None:
    browser.open(site + "/")
    browser.do("offline", **{"is": True})
    browser.run(track(mark, 0, 20))
    browser.do("close", page="page")
    browser.do("offline", **{"is": False})
    browser.open(site + "/")

    arrived.all_of(20)


@pytest.mark.parametrize("state", ["unavailable", "refusing"])
def test_f_an_outage_and_the_tab_closed(
    browser: Browser, site: str, gate: Gate, mark: str, arrived: Arrived, state: State
) -> None:
    browser.open(site + "/")
    gate.state = state
    browser.run(track_slowly(mark, 20, 50))
    browser.do("close", page="page")
    gate.state = "open"
    browser.open(site + "/")

    arrived.all_of(20)


def test_h_an_outage_and_a_crash(browser: Browser, site: str, gate: Gate, mark: str, arrived: Arrived) -> None:
    browser.open(site + "/")
    gate.state = "unavailable"
    browser.run(track(mark, 0, 20))
    browser.do("crash", page="page")
    gate.state = "open"
    browser.open(site + "/")

    arrived.all_of(20)


def test_m_an_outage_while_events_come_and_the_tab_closed(
    browser: Browser, site: str, gate: Gate, mark: str, arrived: Arrived
) -> None:
    browser.open(site + "/")
    gate.state = "unavailable"
    browser.run(track_slowly(mark, 20))
    browser.do("close", page="page")
    gate.state = "open"
    browser.open(site + "/")

    arrived.all_of(20)


def test_i_told_to_wait(browser: Browser, site: str, gate: Gate, mark: str, arrived: Arrived) -> None:
    browser.open(site + "/")
    gate.state, gate.retry_after_s = "throttled", 6
    browser.run(track(mark, 0, 20))
    time.sleep(5.5)
    tried = len(gate.failed)
    gate.state = "open"

    arrived.all_of(20, within_s=8)
    assert tried == 1


def test_texts_that_take_more_bytes_than_characters(
    browser: Browser, site: str, gate: Gate, mark: str, arrived: Arrived
) -> None:
    browser.open(site + "/")
    browser.run(track(mark, 0, 30, size=1_000).replace('"x"', '"\u4e2d"'))

    arrived.all_of(30)
    assert sum(size for _, size in gate.passed) > 80_000
    assert max(size for _, size in gate.passed) <= 56_000  # what a browser takes as a page goes


def test_n_two_tabs(browser: Browser, site: str, gate: Gate, mark: str, arrived: Arrived) -> None:
    browser.open(site + "/", "first")
    browser.open(site + "/", "second")
    gate.state = "unavailable"
    browser.run(track(mark, 0, 10), "first")
    browser.run(track(mark, 10, 20), "second")
    time.sleep(2)
    browser.open(site + "/", "second")
    time.sleep(3)
    gate.state = "open"

    arrived.all_of(20)


@pytest.mark.parametrize("every_ms", [0, 200])
def test_twenty_events_cost_four_requests_and_no_preflight(
    browser: Browser, site: str, gate: Gate, server: LiveServer, every_ms: int
) -> None:
    browser.open(site + "/")
    browser.run(track_slowly(f"T{every_ms}", 20, every_ms))

    Arrived(server, f"T{every_ms}").all_of(20)
    posts = [size for method, size in gate.passed if method == "POST"]
    assert len(posts) == len(gate.passed) <= 4
    hints = 200 * len(posts)  # each says the browser's brands, whose number is the browser's
    assert sum(posts) - hints <= (4_000 if len(posts) == 1 else 4_500)  # with the page view


BAD_LISTS = {
    "no shared text": '{"d":0,"s":[],"q":[["{}",0,0]]}',
    "cut": '{"d":0,"s":["{}"],"q":[["{}',
    "no JSON of an event": '{"d":0,"s":["{\\"anonymousId\\":\\"a\\",\\"context\\":{}}"],"q":[["{",0,0]]}',
    "no object": '{"d":0,"s":["{\\"anonymousId\\":\\"a\\",\\"context\\":{}}"],"q":[["null",0,3]]}',
    "shared by nobody": '{"d":0,"s":["{}"],"q":[["{}",0,1]]}',
    "hostile number": '{"d":{"toString":1},"s":[],"q":[]}',
    "nothing": "null",
}


def test_a_list_of_anything_stops_no_event_and_is_told(
    browser: Browser, site: str, gate: Gate, mark: str, arrived: Arrived
) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    browser.do("open", page="page", url=site + "/bare")
    for name, text in {**BAD_LISTS, "deep": json.dumps({"s": [deep], "q": [[deep, 0, 0]]})}.items():
        browser.run(f"localStorage.setItem('mm.queue.{KEY}.' + {name!r}, {json.dumps(text)})")
    for name in ("mm.user", "mm.session", "mm_id"):
        value = json.dumps('{"id":{"a":1},"n":{"toString":1},"at":[],"properties":' + deep[:200] + "}")
        browser.run(f"localStorage.setItem({name!r}, {value})")
    good = {"messageId": f"{mark}-0", "timestamp": 0, "type": "track", "event": mark, "properties": {"n": 0}}
    shared = json.dumps({"anonymousId": "an-id-of-before", "context": {}})
    mixed = json.dumps({"d": 0, "s": [shared], "q": [[json.dumps(good), 0, 0], ["{", 0, 0], 5]})
    browser.run(f"localStorage.setItem('mm.queue.{KEY}.mixed', {json.dumps(mixed)})")

    browser.open(site + "/")
    browser.run(track(mark, 1, 5))

    arrived.all_of(5)
    eventually(
        lambda: browser.run("Object.keys(localStorage).filter((key) => /^mm.queue/.test(key)).length == 0") or None
    )
    assert browser.run("localStorage.getItem('mm.bad').length <= 10000")
    told = sum(event["context"].get("droppedEvents", 0) for event in gate.events()[:1])
    assert told >= len(BAD_LISTS) - 1  # all but the one whose number alone is wrong


def test_what_was_set_aside_goes_with_the_consent(browser: Browser, site: str) -> None:
    browser.do("open", page="page", url=site + "/bare")
    browser.run(f"localStorage.setItem('mm.queue.{KEY}.bad', '{{')")
    browser.open(site + "/")
    eventually(lambda: browser.run("localStorage.getItem('mm.bad')"))

    browser.run("manymetrics.consent('denied')")

    assert browser.run("Object.keys(localStorage)") == ["mm.consent"]


def test_attempt_is_null_for_what_came_on_the_first_try_and_2_on_the_second(
    browser: Browser, site: str, gate: Gate, mark: str, arrived: Arrived, server: LiveServer
) -> None:
    browser.open(site + "/")
    browser.run(track(mark, 0, 1))
    arrived.all_of(1)
    gate.state = "unavailable"
    browser.run(track(mark, 1, 2))
    eventually(lambda: gate.failed or None)
    gate.state = "open"
    arrived.all_of(2)

    rows = [row for row in server.rows("events", ("event", "attempt", "properties")) if row["event"] == mark]
    assert {json.loads(row["properties"])["n"]: row["attempt"] for row in rows} == {0: None, 1: len(gate.failed) + 1}
