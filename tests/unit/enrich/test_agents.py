"""User agents, client hints and what clients say -> browser, operating system, device and bot."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manymetrics_processor.enrich.agents import Agent, Said, read_agent

_CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0"
WINDOWS = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_CHROME} Safari/537.36"
MAC = f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_CHROME} Safari/537.36"
PHONE = f"Mozilla/5.0 (Linux; Android 10; K) {_CHROME} Mobile Safari/537.36"
TABLET = f"Mozilla/5.0 (Linux; Android 10; K) {_CHROME} Safari/537.36"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 "
    "Mobile/15E148 Safari/604.1"
)
DALVIK = "Dalvik/2.1.0 (Linux; U; Android 14; Pixel 7 Build/UQ1A.240105.004)"


def agent(user_agent: str | None = None, hints: object = None, **said: str | None) -> Agent:
    given_hints = hints if isinstance(hints, str) or hints is None else json.dumps(hints)
    none: dict[str, Any] = dict.fromkeys(Said._fields)
    return read_agent(Said(**none | {"user_agent": user_agent, "hints": given_hints, "key_kind": "browser"} | said))


@pytest.mark.parametrize(
    ("user_agent", "browser", "version", "system", "device_type"),
    [
        (WINDOWS, "Chrome", "131.0.0.0", "Windows 10", "desktop"),
        (MAC, "Chrome", "131.0.0.0", "Mac OS X 10.15.7", "desktop"),
        (PHONE, "Chrome Mobile", "131.0.0.0", "Android 10", "mobile"),
        (TABLET, "Chrome", "131.0.0.0", "Android 10", "tablet"),
        (IPHONE, "Mobile Safari", "18.1", "iOS 18.1", "mobile"),
        (IPHONE.replace("iPhone;", "iPad;"), "Mobile Safari", "18.1", "iOS 18.1", "tablet"),
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
            "Firefox",
            "144.0",
            "Linux",
            "desktop",
        ),
        (f"{WINDOWS} Edg/131.0.2903.86", "Edge", "131.0.2903.86", "Windows 10", "desktop"),
        (
            f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {_CHROME} Safari/537.36",
            "Chrome",
            "131.0.0.0",
            "Chrome OS 14541.0.0",
            "desktop",
        ),
        (
            "Mozilla/5.0 (SMART-TV; LINUX; Tizen 7.0) AppleWebKit/537.36 (KHTML, like Gecko) 94.0.4606.31/7.0 TV",
            None,
            None,
            "Tizen 7.0",
            "tv",
        ),
        (
            "Mozilla/5.0 (PlayStation; PlayStation 5/8.20) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16 Safari",
            None,
            None,
            None,
            "console",
        ),
        (
            (
                "Mozilla/5.0 (Linux; Android 9; AFTMM) AppleWebKit/537.36 (KHTML, like Gecko) Silk/108.4.6 like "
                "Chrome/108.0.5359.160 Safari/537.36"
            ),
            "Amazon Silk",
            "108.4.6",
            "Android 9",
            "tv",
        ),
        ("Mozilla/5.0 (Nintendo Switch; WebApplet) AppleWebKit/609.4", None, None, None, "console"),
        ("HTC Butterfly; 4.1.1; JRO03C; de-de", None, None, None, "mobile"),
    ],
)
def test_a_user_agent_is_read(
    user_agent: str, browser: str | None, version: str | None, system: str | None, device_type: str
) -> None:
    found = agent(user_agent)

    assert found.device_type == device_type
    assert found.bot_name is None
    if browser is not None:
        assert (found.browser_name, found.browser_version) == (browser, version)
    if system is not None:
        assert " ".join(filter(None, (found.os_name, found.os_version))) == system


HINTS = {"brands": [{"brand": "Not?A_Brand", "version": "24"}, {"brand": "Chromium", "version": "131"}]}


@pytest.mark.parametrize(
    ("user_agent", "hints", "expected"),
    [
        (WINDOWS, {"platform": "Windows", "platformVersion": "15.0.0"}, {"os_name": "Windows", "os_version": "11"}),
        (WINDOWS, {"platform": "Windows", "platformVersion": "10.0.0"}, {"os_version": "10"}),
        (WINDOWS, {"platform": "Windows", "platformVersion": "0.3.0"}, {"os_version": "8.1"}),
        (WINDOWS, {"platform": "Windows"}, {"os_version": "10"}),
        (MAC, {"platform": "macOS", "platformVersion": "15.1.0"}, {"os_name": "Mac OS X", "os_version": "15.1.0"}),
        (
            PHONE,
            {"platform": "Android", "platformVersion": "15", "model": "Pixel 8", "mobile": True},
            {"os_version": "15", "device_model": "Pixel 8", "device_type": "mobile"},
        ),
        (TABLET, {"platform": "Android", "mobile": True}, {"device_type": "mobile"}),
        (PHONE, {"formFactors": ["Tablet"], "mobile": False}, {"device_type": "tablet"}),
        (WINDOWS, {"brands": [{"brand": "Brave", "version": "131"}]}, {"browser_name": "Brave"}),
        (
            WINDOWS,
            {"brands": [{"brand": "Google Chrome", "version": "131"}]},
            {"browser_name": "Chrome", "browser_version": "131.0.0.0"},
        ),
        (
            WINDOWS,
            {"fullVersionList": [{"brand": "Google Chrome", "version": "131.0.6778.86"}]},
            {"browser_version": "131.0.6778.86"},
        ),
        (
            PHONE,
            {"brands": [{"brand": "Google Chrome", "version": "131"}], "mobile": True},
            {"browser_name": "Chrome Mobile"},
        ),
        (
            None,
            {"brands": [{"brand": "Microsoft Edge", "version": "131"}], "platform": "Windows"},
            {"browser_name": "Edge", "browser_version": "131", "os_name": "Windows", "device_type": "desktop"},
        ),
        (WINDOWS, "[1]", {"browser_name": "Chrome"}),
        (WINDOWS, '{"brands":"x"', {"browser_name": "Chrome"}),
        (WINDOWS, HINTS, {"browser_name": "Chrome"}),
        (WINDOWS, {"platform": "Windows", "platformVersion": "\u0663.0"}, {"os_version": None}),
    ],
)
def test_client_hints_come_before_the_user_agent(
    user_agent: str | None, hints: object, expected: dict[str, str | None]
) -> None:
    found = agent(user_agent, hints)._asdict()

    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("user_agent", "name", "kind"),
    [
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "Googlebot", "search"),
        (
            (
                "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like Gecko) "
                "Chrome/130.0 Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
            ),
            "Googlebot",
            "search",
        ),
        ("Mozilla/5.0 (compatible; GPTBot/1.2; +https://openai.com/gptbot)", "GPTBot", "AI crawler"),
        ("Mozilla/5.0 (compatible; ClaudeBot/1.0; +claudebot@anthropic.com)", "ClaudeBot", "AI crawler"),
        ("Mozilla/5.0; compatible; ChatGPT-User/1.0; +https://openai.com/bot", "ChatGPT-User", "AI assistant"),
        ("Mozilla/5.0 (compatible; Claude-User/1.0; +Claude-User@anthropic.com)", "Claude-User", "AI assistant"),
        ("Mozilla/5.0 (compatible; Perplexity-User/1.0)", "Perplexity-User", "AI assistant"),
        ("Mozilla/5.0 (compatible; OAI-SearchBot/1.0; +https://openai.com/searchbot)", "OAI-SearchBot", "search"),
        ("facebookexternalhit/1.1", "facebookexternalhit", "preview"),
        ("Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", "Slackbot", "preview"),
        ("Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)", "Pingdom", "monitoring"),
        ("python-requests/2.32.3", "python-requests", "library"),
        ("curl/8.9.1", "curl", "library"),
        (WINDOWS.replace("Chrome", "HeadlessChrome"), "HeadlessChrome", "library"),
        ("SomeNewCrawler/1.0", "SomeNewCrawler", "other"),
    ],
)
def test_a_bot_is_flagged_with_its_kind(user_agent: str, name: str, kind: str) -> None:
    found = agent(user_agent)

    assert (found.bot_name, found.bot_kind, found.device_type) == (name, kind, "bot")
    assert found.browser_name is found.os_name is found.device_model is None


@pytest.mark.parametrize(
    ("user_agent", "said", "expected"),
    [
        (DALVIK, {"os_name": "Android", "app_name": "Shop"}, {"browser_name": None, "device_type": "mobile"}),
        ("okhttp/4.12.0", {"os_name": "Android", "app_name": "Shop"}, {"bot_name": None, "os_name": "Android"}),
        ("okhttp/4.12.0", {}, {"bot_name": "okhttp", "bot_kind": "library"}),
        ("python-requests/2.32", {"key_kind": "server"}, {"bot_name": None, "device_type": "server"}),
        (None, {"key_kind": "server"}, {"device_type": "server", "os_name": None}),
        (None, {"key_kind": "server", "os_name": "visionOS"}, {"device_type": None}),
        (None, {}, {"device_type": None}),
        (WINDOWS, {"key_kind": "server"}, {"device_type": "desktop", "browser_name": "Chrome"}),
        (WINDOWS, {"os_name": "iOS", "os_version": "18"}, {"os_name": "iOS", "os_version": "18"}),
        (WINDOWS, {"os_name": "iOS"}, {"os_name": "iOS", "os_version": None}),
        (WINDOWS, {"os_name": "windows"}, {"os_name": "windows", "os_version": "10"}),
        (WINDOWS, {"os_name": ""}, {"os_name": "Windows", "os_version": "10"}),
        (MAC, {"os_name": "macOS"}, {"os_name": "macOS", "os_version": "10.15.7"}),
        (WINDOWS, {"device_type": "Smartphone"}, {"device_type": "mobile"}),
        (None, {"device_type": "ios", "device_model": "iPad13,1"}, {"device_type": "tablet"}),
        (None, {"device_type": "android", "device_model": "Pixel 7"}, {"device_type": "mobile"}),
        (IPHONE, {"device_model": "iPhone15,2"}, {"device_model": "iPhone15,2", "device_brand": None}),
        (IPHONE, {"device_brand": "ACME"}, {"device_brand": "ACME", "device_model": "iPhone"}),
        (IPHONE, {}, {"device_brand": "Apple", "device_model": "iPhone"}),
    ],
)
def test_what_the_client_says_wins(user_agent: str | None, said: dict[str, str], expected: dict[str, str]) -> None:
    found = agent(user_agent, **said)._asdict()

    assert {name: found[name] for name in expected} == expected


_texts = st.none() | st.text(max_size=40) | st.sampled_from([WINDOWS, PHONE, "bot", "Googlebot/", "\x00", "(" * 5_000])


@given(st.builds(Said, _texts, _texts, _texts, _texts, _texts, _texts, _texts, _texts, _texts))
def test_nothing_raises(said: Said) -> None:
    found = read_agent(said)

    assert found.device_type in {None, "desktop", "mobile", "tablet", "tv", "console", "bot", "server"}
    assert all(value is None or len(value) <= 5_000 for value in found)


def test_a_model_of_any_length_costs_no_more_than_reading_it() -> None:
    model = "Silk" * 25_000 + "Mobile" + "x" * 100_000
    start = time.process_time()

    assert agent(device_type="ios", device_model=model).device_model == model

    assert time.process_time() - start < 0.5  # 1.6 s when all of it was searched
