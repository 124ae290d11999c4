"""Derives the source of a visit: the referrer's domain, source and medium, click id, and GA4's default channel group.

UTM parameters take precedence, then an ad's click id, then the referrer, then other click ids. The channel is derived
from source, medium and campaign by Google's rules, in their order: https://support.google.com/analytics/answer/9756891
(read 2026-11-30), with an additional channel for AI assistants, which Google counts as referrals.
"""

from __future__ import annotations

import ipaddress
import re
from functools import cache, lru_cache
from typing import NamedTuple
from urllib.parse import unquote_plus

from publicsuffixlist import PublicSuffixList

from manymetrics_processor.enrich.source_rules import (
    ANDROID_APPS,
    CLICKS,
    COUNTRY_DOMAINS,
    COUNTRY_HOSTS,
    SITES,
    Click,
    Kind,
    Site,
)

MAX_VALUE = 200  # characters of a source or medium
MAX_QUERY = 8_192  # characters of a query that are parsed; servers commonly accept no more in a request line
_MAX_RAW = 1_000  # characters of a value before surrounding blanks are removed
_MAX_ORIGIN = 512
_MAX_HOST = 253  # https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4, as text
_CACHED = 8_192  # hosts; about 0.5 kB each


class Arrival(NamedTuple):
    """An event's fields on how its page was reached. Each may be None.

    ``referrer``: scheme and host, ``https://www.google.com``; ``query``: the page's, only if it matches QUERY_FIELDS.
    """

    referrer: str | None
    page_host: str | None
    query: str | None
    utm_source: str | None
    utm_medium: str | None
    utm_campaign: str | None


class Source(NamedTuple):
    """The columns, in their order."""

    referrer_domain: str | None = None
    channel: str | None = None
    source: str | None = None
    medium: str | None = None
    click_id_kind: str | None = None


CHANNELS = (
    "Direct",
    "Cross-network",
    "Paid Shopping",
    "Paid Search",
    "Paid Social",
    "Paid Video",
    "Display",
    "Paid Other",
    "AI assistants",
    "Organic Shopping",
    "Organic Social",
    "Organic Video",
    "Organic Search",
    "Referral",
    "Email",
    "Affiliates",
    "Audio",
    "SMS",
    "Mobile Push Notifications",
    "Unassigned",
)
CLICK_IDS = tuple(CLICKS)
_UTM = ("utm_source", "utm_medium", "utm_campaign", "utm_id")
QUERY_FIELDS = r"(?i)(?:^|[?&#]|amp;)(?:" + "|".join((*_UTM, *CLICK_IDS)) + ")="
_FIELDS = {name.lower(): name for name in (*_UTM, *CLICK_IDS)}


class _Host(NamedTuple):
    """A public or local host. ``name``: in lower case, IDNs in ASCII."""

    name: str
    domain: str | None
    site: Site | None


def read_source(arrival: Arrival) -> Source:
    """Return the columns of an event with these fields. Never raises."""
    query = _read_query(arrival.query) if arrival.query else {}
    source = _clean(arrival.utm_source) or query.get("utm_source")
    medium = _clean(arrival.utm_medium) or query.get("utm_medium")
    campaign = _clean(arrival.utm_campaign) or query.get("utm_campaign") or query.get("utm_id")
    click_kind = next((name for name in CLICK_IDS if name in query), None) if query else None
    click = CLICKS[click_kind] if click_kind is not None else None
    is_tagged = bool(source or medium or campaign or click)

    referrer = _referring_host(arrival.referrer)
    if referrer is not None and _is_same_site(referrer, arrival.page_host):
        if not is_tagged:
            return Source()
        referrer = None
    if referrer is not None and referrer.domain is None:
        referrer = None  # `localhost`, `wiki.local`, `10.0.0.7`: not a public site
    if not is_tagged and referrer is None:
        return Source(channel="Direct") if arrival.page_host else Source()

    kind: Kind | None
    if source:
        site = _find_name(source.lower())
        kind = site.kind if site is not None else None
        if not medium and click is not None and click.is_sure:
            medium = click.medium
    else:
        source, found_medium, kind = _find_source(click, referrer)
        medium = medium or found_medium
    return Source(
        referrer.domain if referrer is not None else None,
        _find_channel((source or "").lower(), (medium or "").lower(), (campaign or "").lower(), kind),
        source,
        medium,
        click_kind,
    )


_MEDIUMS: dict[Kind, str] = {
    "search": "organic",
    "social": "social",
    "video": "video",
    "shopping": "shopping",
    "mail": "email",
    "AI": "ai",
}


def _find_source(click: Click | None, referrer: _Host | None) -> tuple[str | None, str | None, Kind | None]:
    """Return source, medium and the site's kind, from click id and referrer."""
    site = referrer.site if referrer is not None else None
    if click is not None and (click.is_sure or referrer is None):
        is_shared = site is not None and site.name == click.shared_with
        source = click.shared_with if is_shared else click.source
        named = _find_name(source)
        return source, click.medium, named.kind if named is not None else None
    if site is not None:
        return site.name, _MEDIUMS[site.kind], site.kind
    if referrer is None:
        return None, None, None
    return _referral_name(referrer), "referral", None


def _referral_name(referrer: _Host) -> str:
    """Return the domain, or the host if the domain is a known site's: `docs.google.com` is not `google`."""
    host = referrer.name.removeprefix("www.")
    return host if referrer.domain is None or _find_site(referrer.domain) is not None else referrer.domain


_DISPLAY = frozenset({"display", "banner", "expandable", "interstitial", "cpm"})
_SOCIAL = frozenset({"social", "social-network", "social-media", "sm", "social network", "social media"})
_EMAIL = frozenset({"email", "e-mail", "e_mail", "e mail"})
_REFERRAL = frozenset({"referral", "app", "link"})
_SHOP = re.compile(r"(?:[^a-df-z]|^)shop|shopping")  # Google's regular expression: also `e-shop`, not `workshop`
_PAID_CHANNELS: dict[Kind, str] = {
    "shopping": "Paid Shopping",
    "search": "Paid Search",
    "social": "Paid Social",
    "video": "Paid Video",
}


def _find_channel(source: str, medium: str, campaign: str, kind: Kind | None) -> str:
    """Apply Google's rules in order to lower-case values, with ours for assistants before the unpaid channels."""
    if source == "(direct)" and medium in {"", "(none)", "(not set)"}:
        return "Direct"
    if "cross-network" in campaign:
        return "Cross-network"
    is_shop = kind == "shopping" or _SHOP.search(campaign) is not None
    is_paid = "cp" in medium or medium in {"ppc", "retargeting"} or medium.startswith("paid")
    if is_paid and (is_shop or kind in _PAID_CHANNELS):
        return "Paid Shopping" if is_shop or kind is None else _PAID_CHANNELS[kind]
    if medium in _DISPLAY:
        return "Display"
    if is_paid:
        return "Paid Other"
    if kind == "AI":
        return "AI assistants"
    if is_shop:
        return "Organic Shopping"
    if kind == "social" or medium in _SOCIAL:
        return "Organic Social"
    if kind == "video" or "video" in medium:
        return "Organic Video"
    if kind == "search" or medium == "organic":
        return "Organic Search"
    if medium in _REFERRAL:
        return "Referral"
    if kind == "mail" or medium in _EMAIL or source in _EMAIL:
        return "Email"
    if medium == "affiliate":
        return "Affiliates"
    if medium == "audio":
        return "Audio"
    if "sms" in {medium, source}:
        return "SMS"
    if medium.endswith("push") or "mobile" in medium or "notification" in medium or source == "firebase":
        return "Mobile Push Notifications"
    return "Unassigned"


_SEPARATORS = re.compile("[?&#]")


def _read_query(query: str) -> dict[str, str]:
    """Return UTM values and click ids of a query or URL: the first non-empty one of each."""
    found: dict[str, str] = {}
    for pair in _SEPARATORS.split(query[:MAX_QUERY]):
        key, _, raw = pair.partition("=")
        name = _FIELDS.get(key.rpartition(";")[2].lower())  # `&amp;utm_source`, from a doubly escaped link
        if name is None or not raw or name in found:
            continue
        value = _clean(unquote_plus(raw, errors="replace")) if name in _UTM else "1"
        if value:
            found[name] = value
    return found


def _clean(value: str | None) -> str | None:
    """Return a valid column value, without control characters; None if nothing is left."""
    if not value:
        return None
    value = value[:_MAX_RAW]
    if not value.isprintable():  # also lone surrogates, which are invalid in columns
        value = "".join(character if character.isprintable() else " " for character in value)
    return value.strip()[:MAX_VALUE].rstrip() or None


def _referring_host(referrer: str | None) -> _Host | None:
    return _read_referrer(referrer[:_MAX_ORIGIN]) if referrer else None


@lru_cache(maxsize=_CACHED)
def _read_referrer(referrer: str) -> _Host | None:
    """Return the host of an http, https or android-app referrer; None for other schemes and invalid hosts."""
    scheme, _, rest = referrer.partition(":")
    scheme = scheme.strip().lower()
    if scheme == "android-app":
        return _read_app(rest.strip("/").partition("/")[0].strip().lower())
    return _read_host(rest) if scheme in {"http", "https"} else None


def _read_app(package: str) -> _Host | None:
    """Return an Android app's host: a known one, or its package name reversed, by convention a domain."""
    host = ANDROID_APPS.get(package) or ".".join(reversed(package.split(".")))
    found = _read_host(host)
    return found if found is not None and found.domain is not None else None


def _is_same_site(referrer: _Host, page_host: str | None) -> bool:
    """Return whether domains are equal or one host is a subdomain of the other, like a blog platform's own pages."""
    page = _read_page_host(page_host[:_MAX_ORIGIN]) if page_host else None
    if page is None:
        return False
    if referrer.domain is not None and referrer.domain == page.domain:
        return True
    first, second = referrer.name.removeprefix("www."), page.name.removeprefix("www.")
    return first == second or first.endswith("." + second) or second.endswith("." + first)


_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")


@lru_cache(maxsize=_CACHED)
def _read_page_host(host: str) -> _Host | None:
    return _read_host(host)


def _read_host(text: str) -> _Host | None:
    """Parse the host from the part between scheme and path, without user, port and final dot."""
    authority = re.split(r"[/?#\\]", text.lstrip("/\\"), maxsplit=1)[0].rpartition("@")[2].strip()
    if authority.startswith("["):
        name = authority[1:].partition("]")[0].lower()
    else:
        name = _to_ascii(authority.partition(":")[0].rstrip("."))
    if not name or len(name) > _MAX_HOST:
        return None
    if authority.startswith("[") or name.rpartition(".")[2].isdigit():
        return _read_address(name)
    if _HOST.fullmatch(name) is None:
        return None
    return _Host(name, _find_domain(name), _find_site(name))


def _to_ascii(host: str) -> str:
    if host.isascii():
        return host.lower()
    try:
        return host[:_MAX_HOST].encode("idna").decode("ascii").lower()
    except UnicodeError:
        return ""


def _read_address(text: str) -> _Host | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return _Host(str(address), str(address) if address.is_global else None, None)


def _find_domain(host: str) -> str | None:
    """Return the registrable domain, as `myshop.github.io`; None without a public suffix: `localhost`, `shop.local`."""
    domain = _suffixes().privatesuffix(host, accept_unknown=False)
    if domain is None and "." in host and _suffixes().publicsuffix(host, accept_unknown=False) == host:
        return host  # a platform's own site, such as github.io
    return domain


@cache
def _suffixes() -> PublicSuffixList:
    """Load the list with its private section. Takes 30 ms and 3 MB (measured 2026-11-30)."""
    return PublicSuffixList()


class _Names(NamedTuple):
    domains: dict[str, Site]
    hosts: dict[str, Site]
    words: dict[str, Site]


@cache
def _names() -> _Names:
    names = _Names({}, {}, {})
    for kind, sites in SITES.items():
        for name, written in sites.items():
            site = Site(name, kind)
            names.words[name] = site
            for word in written.split():
                if word.startswith("="):
                    names.hosts[word[1:]] = site
                else:
                    (names.domains if "." in word else names.words)[word] = site
    return names


@lru_cache(maxsize=_CACHED)
def _find_name(source: str) -> Site | None:
    """Find the site of a lower-case source: a name, alternative name or host."""
    return _names().words.get(source) or (_find_site(source) if "." in source else None)


def _find_site(host: str) -> Site | None:
    """Find the known site of a host, by the most specific entry."""
    names = _names()
    site = names.hosts.get(host.removeprefix("www.").removeprefix("m."))
    part = host
    while site is None and part:
        site = names.domains.get(part)
        part = part.partition(".")[2]
    return site or _find_country_site(host)


def _find_country_site(host: str) -> Site | None:
    match = COUNTRY_DOMAINS.fullmatch(host)
    if match is None:
        return None
    hosts = COUNTRY_HOSTS.get(match[2])
    if hosts is not None and hosts.fullmatch(match[1] or "") is None:
        return None
    return _names().words.get(match[2])
