"""Where a visit came from, against a table of our own and Google's published examples."""

from __future__ import annotations

import csv
import time
import tracemalloc
from pathlib import Path
from typing import get_args
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manymetrics_processor.enrich.source_rules import ANDROID_APPS, CLICKS, SITES, Kind
from manymetrics_processor.enrich.sources import (
    CHANNELS,
    CLICK_IDS,
    MAX_VALUE,
    QUERY_FIELDS,
    Arrival,
    Source,
    _find_name,
    _read_host,
    _read_referrer,
    read_source,
)

TABLE = Path(__file__).with_name("referrers.csv")
PAGE = "https://shop.example.com/"
NOTHING = Arrival(None, None, None, None, None, None)


def _rows() -> list[dict[str, str]]:
    lines = [line for line in TABLE.read_text("utf-8").splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


def _is_told(query: str) -> bool:
    """As the processor looks, with Arrow's regular expressions."""
    return bool(pc.match_substring_regex(pa.array([query]), QUERY_FIELDS)[0].as_py())


def _arrival(row: dict[str, str]) -> Arrival:
    page = {"": PAGE, "-": ""}.get(row["page"], row["page"])
    return Arrival(
        row["referrer"] or None,
        page.split("/", 3)[2] if page else None,
        page if _is_told(page) else None,
        *(row[name] or None for name in ("utm_source", "utm_medium", "utm_campaign")),
    )


def _name(row: dict[str, str]) -> str:
    said = ("referrer", "page", "utm_source", "utm_medium", "utm_campaign")
    return " ".join(f"{name}={row[name]}" for name in said if row[name]) or "nothing"


ROWS = _rows()


def test_the_table_has_as_many_rows_as_promised_and_every_channel() -> None:
    assert len(ROWS) >= 170
    assert {row["channel"] for row in ROWS} == {"", *CHANNELS}
    assert {row["click_id_kind"] for row in ROWS} == {"", *CLICK_IDS}


@pytest.mark.parametrize("row", ROWS, ids=map(_name, ROWS))
def test_an_arrival_comes_from(row: dict[str, str]) -> None:
    assert read_source(_arrival(row)) == Source(*(row[name] or None for name in Source._fields))


def test_a_query_field_is_found_by_arrow_in_each_place_that_is_read() -> None:
    for name in ("utm_source", "utm_medium", "utm_campaign", "utm_id", *CLICK_IDS):
        for text in (
            f"{name}=1",
            f"?{name}=1",
            f"?a=b&{name}=1",
            f"?a=b&amp;{name}=1",
            f"#{name}=1",
            f"?{name.upper()}=1",
        ):
            assert _is_told(text), text
            assert read_source(Arrival(None, "a.com", text, None, None, None)) != Source(channel="Direct"), text
        assert not _is_told(f"?x{name}=1")
        assert not _is_told(f"?{name}")


def test_a_bare_search_string_is_read_as_a_url_is() -> None:
    search = "?utm_source=x&utm_medium=email&gclid=1"

    assert read_source(Arrival(None, "a.com", search, None, None, None)) == read_source(
        Arrival(None, "a.com", "https://a.com/" + search, None, None, None)
    )


def test_each_host_and_name_of_the_tables_finds_its_own_site() -> None:
    for kind, sites in SITES.items():
        for name, written in sites.items():
            for word in (name, *written.split()):
                site = _find_name(word.removeprefix("="))
                assert site is not None, word
                assert (site.name, site.kind) == (name, kind), word
    assert set(SITES) == set(get_args(Kind))


def test_the_tables_hosts_are_hosts_below_a_public_suffix() -> None:
    for sites in SITES.values():
        for word in (word.removeprefix("=") for written in sites.values() for word in written.split()):
            if "." in word and not word.endswith(".onion"):
                found = _read_host(word)
                assert found is not None, word
                assert found.domain is not None, word


def test_each_app_has_a_host_that_can_be_linked_from() -> None:
    for package, host in ANDROID_APPS.items():
        assert package == package.lower()
        assert _read_referrer("android-app://" + package) == _read_referrer("https://" + host) is not None


def test_a_click_id_names_a_kind_and_never_shows_its_value() -> None:
    for name in CLICKS:
        source = read_source(Arrival(None, "a.com", f"?{name}=v4lue", None, None, None))

        assert source.click_id_kind == name
        assert "v4lue" not in str(source)


@pytest.mark.parametrize("medium", ["cpc", "ppc", "retargeting", "paid", "paid-anything", "CPA", "xcpx"])
@pytest.mark.parametrize(
    ("source", "channel"),
    [("amazon", "Paid Shopping"), ("baidu", "Paid Search"), ("tiktok", "Paid Social"), ("netflix", "Paid Video")],
)
def test_a_paid_medium_is_what_googles_regular_expression_finds(medium: str, source: str, channel: str) -> None:
    assert read_source(Arrival(None, "a.com", None, source, medium, None)).channel == channel


@pytest.mark.parametrize("campaign", ["shop", "e-shop", "eshop", "my shop", "shopping", "xshopping", "SHOP2", "9shop"])
def test_a_shopping_campaign_is_what_googles_regular_expression_finds(campaign: str) -> None:
    assert read_source(Arrival(None, "a.com", None, "partner", "cpc", campaign)).channel == "Paid Shopping"


@pytest.mark.parametrize("campaign", ["workshop", "bishop", "sho", "photoshop"])
def test_a_campaign_that_only_ends_in_shop_is_none(campaign: str) -> None:
    assert read_source(Arrival(None, "a.com", None, "partner", "cpc", campaign)).channel == "Paid Other"


texts = st.none() | st.text(max_size=40) | st.text(st.characters(), max_size=20)
hosts = st.sampled_from(
    ["www.google.com", "a.github.io", "10.0.0.1", "[::1]", "ünï.de", "xn--", "a..b", "com", "co.uk", ""]
)
words = st.sampled_from(
    [
        "google",
        "cpc",
        "email",
        "shop",
        "cross-network",
        "(direct)",
        "video",
        "\x00",
        "\ud800",
        "%ED%A0%80",
        "+",
        "&amp;",
    ]
)
referrers = texts | st.builds(
    "{}{}{}".format, st.sampled_from(["https://", "http:", "android-app://", "//", "about:"]), hosts, texts
)
queries = st.none() | st.lists(
    st.builds(
        "{}{}={}".format,
        st.sampled_from(["?", "&", "#", "&amp;", ";"]),
        st.sampled_from(["utm_source", "utm_medium", "utm_campaign", "utm_id", *CLICK_IDS]),
        words | st.text(max_size=20) | st.text(max_size=20).map(lambda text: quote(text, errors="replace")),
    ),
    max_size=6,
).map("".join)


def test_a_value_is_trimmed_before_it_is_cut() -> None:
    arrival = NOTHING._replace(utm_source=" \n" * 150 + "My List" + "x" * 300, utm_medium="\x00e-mail\u200b\t")

    assert read_source(arrival) == Source(None, "Email", "My List" + "x" * (MAX_VALUE - 7), "e-mail", None)


@given(st.builds(Arrival, referrers, texts | hosts, texts | queries, texts | words, texts | words, texts | words))
def test_whatever_is_said_gives_columns_that_arrow_can_hold(arrival: Arrival) -> None:
    found = read_source(arrival)

    assert found.channel is None or found.channel in CHANNELS
    assert found.click_id_kind is None or found.click_id_kind in CLICK_IDS
    assert all(value is None or 0 < len(value) <= 253 for value in found)
    assert all(len(value) <= MAX_VALUE for value in (found.source, found.medium) if value and arrival.utm_source)
    assert pa.array(list(found), pa.string()).to_pylist() == list(found)


LONG = 1_000_000
HOSTILE = {
    "dots": NOTHING._replace(referrer="https://" + "a." * LONG + "com"),
    "an IDN": NOTHING._replace(referrer="https://" + "ü" * LONG),
    "a short IDN": NOTHING._replace(referrer="https://" + "ü" * 250 + ".com"),
    "a package": NOTHING._replace(referrer="android-app://" + "a." * LONG),
    "an address": NOTHING._replace(referrer="https://[" + ":" * LONG),
    "users": NOTHING._replace(referrer="https://a.com", page_host="@" * LONG),
    "separators": NOTHING._replace(query="&" * LONG),
    "percents": NOTHING._replace(query="?utm_source=" + "%41" * LONG),
    "escapes": NOTHING._replace(query="amp;" * LONG + "utm_source=x"),
    "words": NOTHING._replace(utm_source="shop" * LONG, utm_medium="\x00" * LONG, utm_campaign="sho" * LONG),
}


@pytest.mark.parametrize("arrival", HOSTILE.values(), ids=HOSTILE)
def test_a_value_of_a_megabyte_costs_milliseconds_and_is_cut(arrival: Arrival) -> None:
    found = read_source(arrival)

    assert min(_time(arrival) for _ in range(3)) < 0.02  # seconds; the slowest takes 0.001 (2026-11-30)
    assert all(value is None or len(value) <= MAX_VALUE for value in found)


def _time(arrival: Arrival) -> float:
    started = time.process_time()
    read_source(arrival)
    return time.process_time() - started


def test_hosts_of_a_megabyte_are_not_kept() -> None:
    read_source(NOTHING._replace(referrer="https://example.net", page_host="a.com"))  # loads the list of suffixes
    tracemalloc.start()
    try:
        for number in range(10):
            junk = f"{number}" + "a" * LONG
            read_source(NOTHING._replace(referrer="https://" + junk, page_host="a.com"))
            read_source(NOTHING._replace(referrer="https://example.net", page_host=junk))
        assert tracemalloc.get_traced_memory()[0] < 4 * LONG  # `junk` is one of them
    finally:
        tracemalloc.stop()
