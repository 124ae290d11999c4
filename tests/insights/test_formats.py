from __future__ import annotations

import csv
import io
import json
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manymetrics_insights.reader.formats import (
    ROWS_MEASURED,
    display_width,
    escape_controls,
    escape_json,
    write_csv,
    write_json,
    write_ndjson,
    write_table,
)


def text_of(pieces: Iterator[str]) -> str:
    return "".join(pieces)


def test_csv_is_rfc_4180_and_tells_null_from_empty() -> None:
    rows = [(None, "", "a,b", 'say "hi"', "two\nlines", " x", 1, 1.5, True, Decimal("0.10"))]

    text = text_of(write_csv(["null", "empty", "c", "q", "l", "s", "i", "f", "b", "d"], rows))

    assert text == ('null,empty,c,q,l,s,i,f,b,d\r\n,"","a,b","say ""hi""","two\nlines"," x",1,1.5,true,0.10\r\n')


@pytest.mark.parametrize("hostile", ["=1+1", "+cmd", "-cmd", "@SUM(A1)", "\tx", "\rx", '=HYPERLINK("x")', "-5-5", "=5"])
def test_csv_text_that_a_spreadsheet_would_run_starts_with_a_quote(hostile: str) -> None:
    header, row = csv.reader(io.StringIO(text_of(write_csv([hostile], [(hostile,)])), newline=""))

    assert (header, row) == (["'" + hostile], ["'" + hostile])


@pytest.mark.parametrize("number", ["-5", "+5", "-5.25", "+1e3", "-.5"])
def test_csv_text_that_is_a_number_stays_a_number(number: str) -> None:
    assert text_of(write_csv(["n"], [(number,), (float(number),)])).split("\r\n")[1] == number


def test_times_are_iso_8601_with_all_microseconds_in_every_format() -> None:
    rows = [(datetime(2026, 3, 14), datetime(2026, 3, 14, 1, 2, 3, 4, UTC), date(2026, 3, 14))]

    expected = ["2026-03-14T00:00:00.000000", "2026-03-14T01:02:03.000004+00:00", "2026-03-14"]

    assert text_of(write_csv("abc", rows)).splitlines()[1].split(",") == expected
    assert list(json.loads(text_of(write_ndjson("abc", rows))).values()) == expected
    assert text_of(write_table("abc", rows)).splitlines()[2].split() == expected


def test_json_is_one_array_and_ndjson_one_object_a_line() -> None:
    rows = [(1, "a\x1b"), (2, None)]

    assert json.loads(text_of(write_json(["n", "t"], rows))) == [{"n": 1, "t": "a\x1b"}, {"n": 2, "t": None}]
    assert text_of(write_ndjson(["n", "t"], rows)) == '{"n":1,"t":"a\\u001b"}\n{"n":2,"t":null}\n'
    assert json.loads(text_of(write_json(["n"], []))) == []
    assert text_of(write_ndjson(["n"], [])) == ""


def test_json_keeps_large_numbers_nested_values_and_columns_of_the_same_name() -> None:
    row = (2**100, -(2**70), Decimal("0.10"), float("nan"), {"x": [1, None]}, "second")

    text = text_of(write_ndjson(["n", "m", "d", "f", "s", "n"], [row]))

    assert text == f'{{"n":{2**100},"m":{-(2**70)},"d":0.10,"f":null,"s":{{"x":[1,null]}},"n_1":"second"}}\n'


def test_a_table_aligns_wide_characters_and_numbers() -> None:
    rows = [("日本", 7), ("e\u0301", 1000), ("👩\u200d👩", None)]

    assert text_of(write_table(["name", "count"], rows)) == (
        "name  count\n----  -----\n日本      7\ne\u0301      1000\n👩\u200d👩   NULL\n"
    )


def test_a_table_escapes_what_could_drive_the_terminal() -> None:
    hostile = "\x1b[2J\r\nx\x9b\u202e\u2028\x00\x7f"

    assert text_of(write_table(["a\n"], [(hostile,)])).splitlines()[::2] == [
        "a\\n",
        "\\x1b[2J\\r\\nx\\x9b\\u202e\\u2028\\x00\\x7f",
    ]


def test_a_table_cuts_cells_only_where_it_is_told_how_wide_they_may_be() -> None:
    rows = [("x" * 30, "日" * 10)]

    assert text_of(write_table(["a", "b"], rows)).splitlines()[2] == "x" * 30 + "  " + "日" * 10
    assert text_of(write_table(["a", "b"], rows, widest=8)).splitlines()[2] == "xxxxxxx…  日日日…"


def test_a_table_measures_some_rows_and_streams_the_others() -> None:
    taken = 0

    def rows() -> Iterator[Sequence[object]]:
        nonlocal taken
        while True:
            taken += 1
            yield ("x",)

    pieces = write_table(["a"], rows())
    next(pieces)

    assert taken == ROWS_MEASURED


def test_values_of_other_kinds_are_text_that_can_be_read() -> None:
    row = (b"\x00\xff", timedelta(seconds=1), [1, "a"], False)

    assert text_of(write_csv("abcd", [row])).splitlines()[1] == '00ff,0:00:01,"[1,""a""]",false'


def test_controls_that_are_kept_stay() -> None:
    assert escape_controls("a\n\x07", keep="\n") == "a\n\\x07"


def test_all_that_unicode_calls_a_control_or_a_format_is_escaped_and_nothing_that_is_seen() -> None:
    every = [chr(code) for code in range(sys.maxunicode + 1)]
    controls = {c for c in every if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}} - {"\u200c", "\u200d"}

    escaped = {c for c in every if escape_controls(c) != c}

    assert controls <= escaped
    assert {unicodedata.category(c) for c in escaped - controls} <= {"Cn", "Mn"}  # not assigned, or by newer versions


@given(st.recursive(st.text() | st.none() | st.floats(allow_nan=False), lambda inner: st.lists(inner, max_size=3)))
def test_json_on_a_terminal_says_the_same_and_drives_nothing(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False)

    shown = escape_json(text)

    assert json.loads(shown) == json.loads(text)
    assert escape_controls(shown) == shown


def test_json_rows_are_escaped_and_say_the_same() -> None:
    hostile = "\x1b[2J\r\nx\x9b\u202e\u2066\u200f\u061c\u2028\x00\x7f\U000e0001\u00e9\u65e5\U0001f469\u200d"

    for text in (text_of(write_ndjson("a", [(hostile,)])), text_of(write_json("a", [(hostile,)]))):
        assert escape_controls(text, keep="\n") == text
        assert "\u00e9\u65e5\U0001f469\u200d" in text
        assert hostile in str(json.loads(text)["a"] if text.startswith("{") else json.loads(text)[0]["a"])


def test_width_counts_columns_of_a_terminal() -> None:
    assert [display_width(text) for text in ("abc", "日本", "e\u0301", "👍", "\uff46", "")] == [3, 4, 1, 2, 2, 0]
