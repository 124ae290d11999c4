"""Derives browser, operating system, device and bot from the user agent, client hints and the client's own fields.

The client's fields take precedence, then the hints (with details that reduced user agents lack), then uap-core's rules.
Names are uap-core's: `Chrome Mobile`, `Mac OS X`, `Windows` with `10` or `11`.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import NamedTuple

import msgspec
from ua_parser import Device, Parser, Result
from ua_parser.loaders import load_lazy_builtins
from ua_parser.regex import Resolver

from manymetrics_processor.enrich.bots import Bot, find_bot

MAX_AGENT = 400  # characters that are parsed; browsers send under 300, in-app browsers up to 400
MAX_HINTS = 4_096  # characters of JSON; browsers send under 800
MAX_VALUE = 100  # characters of a name from a user agent or hints
_CACHED = 2_048  # about 1 kB each


class Said(NamedTuple):
    """The event's own fields about its device, and its kind of key. Each may be None."""

    user_agent: str | None
    hints: str | None
    """``context.userAgentData`` as JSON text, as returned by NavigatorUAData.toJSON() or getHighEntropyValues()."""
    os_name: str | None
    os_version: str | None
    device_type: str | None
    device_brand: str | None
    device_model: str | None
    app_name: str | None
    key_kind: str | None


class Agent(NamedTuple):
    """The columns, in their order."""

    browser_name: str | None = None
    browser_version: str | None = None
    os_name: str | None = None
    os_version: str | None = None
    device_type: str | None = None
    device_brand: str | None = None
    device_model: str | None = None
    bot_name: str | None = None
    bot_kind: str | None = None


class _Brand(msgspec.Struct, gc=False):
    brand: str = ""
    version: str = ""


class _Hints(msgspec.Struct, gc=False, rename="camel"):
    brands: list[_Brand] = []
    full_version_list: list[_Brand] = []
    mobile: bool | None = None
    platform: str = ""
    platform_version: str = ""
    model: str = ""
    form_factors: list[str] = []


class _Parsed(NamedTuple):
    """The values parsed from the user agent and hints."""

    browser_name: str | None
    browser_version: str | None
    os_name: str | None
    os_version: str | None
    device_type: str | None
    device_brand: str | None
    device_model: str | None
    bot: Bot | None


_NOTHING = _Parsed(None, None, None, None, None, None, None, None)


@lru_cache(maxsize=_CACHED)
def read_agent(said: Said) -> Agent:
    """Return the columns of an event with these fields. Never raises."""
    parsed = parse_agent((said.user_agent or "")[:MAX_AGENT], (said.hints or "")[:MAX_HINTS])
    bot = parsed.bot
    if bot is not None and bot.kind == "library" and (said.app_name or said.os_name or said.key_kind == "server"):
        bot = None  # an app or server that sends its users' events, with the user agent of its HTTP library
    os_name = said.os_name or parsed.os_name
    said_os = _PLATFORMS.get(said.os_name or "", said.os_name or "")
    same_os = not said_os or said_os.lower() == (parsed.os_name or "").lower()
    brand = said.device_brand or (None if said.device_model else parsed.device_brand)
    model = said.device_model or parsed.device_model
    device_type = _said_type(said) or ("bot" if bot is not None else parsed.device_type)
    if device_type is None and bot is None:
        device_type = _TYPES_OF_OS.get((os_name or "").lower())
        names_device = parsed.browser_name or os_name or model
        if device_type is None and said.key_kind == "server" and not names_device:
            device_type = "server"
    is_browser = bot is None and not (said.app_name and parsed.browser_name in _APP_FAMILIES)
    return Agent(
        parsed.browser_name if is_browser else None,
        parsed.browser_version if is_browser else None,
        os_name,
        said.os_version or (parsed.os_version if same_os else None),
        device_type,
        brand,
        model,
        bot.name if bot is not None else None,
        bot.kind if bot is not None else None,
    )


@lru_cache(maxsize=_CACHED)  # a separate cache, since clients send different fields with the same user agent
def parse_agent(user_agent: str, hints: str) -> _Parsed:
    """Parse a user agent and hints. Never raises."""
    if not user_agent and not hints:
        return _NOTHING
    bot = find_bot(user_agent) if user_agent else None
    if bot is not None and bot.kind != "other":
        return _NOTHING._replace(bot=bot)
    result = _parser().parse(user_agent)
    device = result.device
    if bot is None and device is not None and device.family == "Spider":
        family = result.user_agent.family if result.user_agent is not None else ""
        bot = Bot(family or user_agent[:64], "other")
    if bot is not None and (not _is_phone(device) or _NAMES_PROGRAM.search(user_agent)):
        return _NOTHING._replace(bot=bot)
    own = _read_hints(hints)
    os_name, os_version = _os(result, own)
    browser_name, browser_version = _browser(result, own)
    brand = device.brand if device is not None else None
    model = own.model[:MAX_VALUE] or (device.model if device is not None else None)
    is_known = _is_device(device)
    return _Parsed(
        browser_name,
        browser_version,
        os_name,
        os_version,
        _device_type(user_agent, own, os_name, os_version, device if is_known else None),
        _cut(brand) if is_known else None,
        _cut(model) if is_known or own.model else None,
        None,
    )


def _is_device(device: Device | None) -> bool:
    """Return whether the user agent names a device, rather than `Generic Smartphone`."""
    return device is not None and device.brand is not None and device.brand not in _GENERIC_BRANDS


def _is_phone(device: Device | None) -> bool:
    """Return whether a phone or tablet is named, such as `HTC Butterfly`, whose model is also in a list of crawlers."""
    return device is not None and _is_device(device) and device.brand != "Apple"


_NAMES_PROGRAM = re.compile(r"bot|crawl|spider|https?:|@", re.IGNORECASE)
_GENERIC_BRANDS = frozenset({"Generic", "Generic_Android", "Spider"})
# User agents of apps rather than browsers: Android's and Apple's HTTP stacks, and HTTP libraries.
_APP_FAMILIES = frozenset({"Android", "CFNetwork", "okhttp", "Dart", "Apache-HttpClient", "Electron"})


def _read_hints(hints: str) -> _Hints:
    if not hints:
        return _NO_HINTS
    try:
        return _hints_decoder.decode(hints)
    except (msgspec.DecodeError, RecursionError):
        return _NO_HINTS


_NO_HINTS = _Hints()
_hints_decoder = msgspec.json.Decoder(_Hints)


def _browser(result: Result, hints: _Hints) -> tuple[str | None, str | None]:
    """Return name and version. Chromium-based browsers name themselves in the hints; some, only there."""
    agent = result.user_agent
    name = agent.family if agent is not None else None
    version = _version(agent.major, agent.minor, agent.patch, agent.patch_minor) if agent is not None else None
    for brands in (hints.full_version_list, hints.brands):
        for one in brands:
            known = _BRANDS.get(one.brand)
            if known is None:
                continue
            family = known[1] if hints.mobile else known[0]
            is_same = name in known
            if is_same and brands is hints.brands and version and version.startswith(one.version + "."):
                return name, version  # the user agent has more of the version
            return (name if is_same and not hints.mobile else family), _cut(one.version) or version
    return _cut(name), _cut(version)


# Brands of NavigatorUAData, with uap-core's names on desktops and on phones.
_BRANDS: dict[str, tuple[str, str]] = {
    "Brave": ("Brave", "Brave"),
    "DuckDuckGo": ("DuckDuckGo", "DuckDuckGo Mobile"),
    "Google Chrome": ("Chrome", "Chrome Mobile"),
    "HeadlessChrome": ("HeadlessChrome", "HeadlessChrome"),
    "Microsoft Edge": ("Edge", "Edge Mobile"),
    "Opera": ("Opera", "Opera Mobile"),
    "Opera GX": ("Opera", "Opera Mobile"),
    "Samsung Internet": ("Samsung Internet", "Samsung Internet"),
    "Vivaldi": ("Vivaldi", "Vivaldi"),
    "Yandex": ("Yandex Browser", "Yandex Browser"),
    "YaBrowser": ("Yandex Browser", "Yandex Browser"),
    "Android WebView": ("Chrome Mobile WebView", "Chrome Mobile WebView"),
}


def _os(result: Result, hints: _Hints) -> tuple[str | None, str | None]:
    system = result.os
    name = system.family if system is not None else None
    version = _version(system.major, system.minor, system.patch) if system is not None else None
    hinted = _PLATFORMS.get(hints.platform)
    if hinted is None:
        return _cut(name), _cut(version)
    if hints.platform_version:
        return hinted, _windows_version(hints.platform_version) if hinted == "Windows" else _cut(hints.platform_version)
    if hinted == "Linux":  # the user agent may name the distribution
        return _cut(name) if name is not None and name not in _PLATFORMS.values() else hinted, _cut(version)
    return hinted, _cut(version) if name == hinted else None


_PLATFORMS = {
    "Android": "Android",
    "Chrome OS": "Chrome OS",
    "Chromium OS": "Chrome OS",
    "iOS": "iOS",
    "Linux": "Linux",
    "macOS": "Mac OS X",
    "Windows": "Windows",
}


def _windows_version(platform_version: str) -> str | None:
    """Windows 11 is 13 or later: https://learn.microsoft.com/microsoft-edge/web-platform/how-to-detect-win11."""
    major = platform_version.partition(".")[0]
    if not major.isascii() or not major.isdigit():
        return None
    if int(major) >= 13:
        return "11"
    return "10" if int(major) >= 1 else {"0.1": "7", "0.2": "8", "0.3": "8.1"}.get(platform_version[:3])


def _device_type(
    user_agent: str, hints: _Hints, os_name: str | None, os_version: str | None, device: Device | None
) -> str | None:
    for factor in hints.form_factors:
        if factor in _FORM_FACTORS:
            return _FORM_FACTORS[factor]
    if _CONSOLE.search(user_agent):
        return "console"
    if _TV.search(user_agent):
        return "tv"
    if _TABLET.search(user_agent):
        return "tablet"
    if hints.mobile:
        return "mobile"
    if os_name == "Android" and user_agent:
        is_phone = "Mobile" in user_agent or not user_agent.startswith("Mozilla/")  # apps and old browsers lack Mobile
        is_old = (os_version or "3")[:2] in {"1.", "2."}  # there were hardly any tablets then
        return "mobile" if is_phone or is_old else "tablet"  # https://developer.chrome.com/docs/multidevice/user-agent
    if _MOBILE.search(user_agent) or _is_phone(device):
        return "mobile"
    return _TYPES_OF_OS.get((os_name or "").lower())


_FORM_FACTORS = {"Desktop": "desktop", "Mobile": "mobile", "Tablet": "tablet", "EInk": "tablet"}
_CONSOLE = re.compile(r"PlayStation|PLAYSTATION|\bPS[2-5]\b|Xbox|Nintendo|\bNitro\b|\bWii\b|Dreamcast|Steam ?Deck")
_TV = re.compile(
    r"S(?:mart|MART)-?TV|SmartHub|\bTV\b|Google ?TV|Apple ?TV|HbbTV|CrKey|Roku|BRAVIA|Bravia|\bAFT[A-Z0-9]{1,5}\b"
    r"|NetCast|Web0S|webOS\.TV|VIERA|Viera|DTV|NETTV|Tizen[^)]*TV|\bMiTV|MIBOX|Android ?TV|CE-HTML|OPR/[0-9.]+ OMI"
    r"|Philips.*TV|Chromecast|InettvBrowser|Kylo|POV_TV|tvOS"
)
_TABLET = re.compile(
    r"iPad|Tablet(?! PC)|\bKF[A-Z]{3,5}\b|Kindle|Silk(?!.*Mobile)|PlayBook|Nexus (?:7|9|10)\b|Xoom|\bSM-[TPX]\d|GT-P\d"
    r"|GT-N(?:51|80)|SHW-M(?:180|380|480)|\bTouchPad|hp-tablet|\bTransformer\b|\bTF\d{3}|Lenovo (?:TAB|YT)|\bIdeaTab"
    r"|MediaPad|\bMatePad|\bPadFone"
)
_MOBILE = re.compile(
    r"iPhone|iPod|Windows ?Phone|Windows CE|WinCE|IEMobile|BlackBerry|\bBB10\b|Opera M(?:ini|obi)"
    r"|Mobile(?! Safari/\S+ Edg)|\bKAIOS|Symbian|SymbOS|\bMIDP\b|\bCLDC\b|webOS/|hpwOS|PalmOS|Palm|MeeGo|Maemo|Fennec"
    r"|UP\.Browser|DoCoMo|\bNokia|SonyEricsson|SAMSUNG-|\bLG-|\bBada"
)
_DESKTOPS = (
    "windows",
    "mac os x",
    "macos",
    "mac os",
    "mac",
    "linux",
    "ubuntu",
    "fedora",
    "debian",
    "gentoo",
    "mint",
    "linux mint",
    "arch linux",
    "centos",
    "red hat",
    "suse",
    "mandriva",
    "slackware",
    "kubuntu",
    "chrome os",
    "freebsd",
    "openbsd",
    "netbsd",
    "solaris",
    "beos",
    "haiku",
    "os/2",
)
_TYPES_OF_OS = {
    **dict.fromkeys(_DESKTOPS, "desktop"),
    **dict.fromkeys(
        ("ios", "ios-device", "android", "windows phone", "blackberry os", "kaios", "symbian os"), "mobile"
    ),
    **dict.fromkeys(("ipados",), "tablet"),
    **dict.fromkeys(("tvos", "atv os x", "android tv", "roku", "webos tv"), "tv"),
}


def _said_type(said: Said) -> str | None:
    """Map the client's device type. Segment's mobile SDKs send the platform instead, so the model decides."""
    word = (said.device_type or "").strip().lower()
    if word in _PLATFORM_WORDS:
        model = (said.device_model or "")[:MAX_VALUE]
        return "tablet" if _TABLET.search(model) else "mobile"
    return _WORDS.get(word)


_PLATFORM_WORDS = frozenset({"ios", "android"})
_WORDS = {
    **{word: word for word in ("desktop", "mobile", "tablet", "tv", "console", "bot", "server")},
    **dict.fromkeys(("phone", "smartphone", "handset", "mobile phone", "iphone"), "mobile"),
    **dict.fromkeys(("pc", "laptop", "computer", "mac"), "desktop"),
    **dict.fromkeys(("ipad", "pad"), "tablet"),
    **dict.fromkeys(("smarttv", "smart tv", "smart-tv", "television"), "tv"),
}


def _version(*parts: str | None) -> str | None:
    """Join the parts before the first missing one with dots."""
    known: list[str] = []
    for part in parts:
        if not part:
            break
        known.append(part)
    return ".".join(known) or None


def _cut(text: str | None) -> str | None:
    return text[:MAX_VALUE] or None if text else None


@cache
def _parser() -> Parser:
    return Parser(Resolver(load_lazy_builtins()))
