"""What an answer looks like on a terminal."""

from __future__ import annotations

import io
import re
from decimal import Decimal

import pytest

from manymetrics_cli.insight_tables import format_seconds, format_value, show, sparkline

TRENDS = ("series", "segment", "bucket", "value", "incomplete")
FUNNEL = (
    *("segment", "bucket", "step", "label", "persons", "from_previous", "from_first", "dropped"),
    *("median_s", "p90_s", "average_s", "immature"),
)
RETENTION = ("segment", "cohort", "size", "n", "returned", "rate", "mature")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def shown(insight: str, columns: tuple[str, ...], *rows: tuple[object, ...], width: int = 100) -> list[str]:
    target = io.StringIO()
    show(insight, columns, rows, target, width)
    return [line.rstrip() for line in target.getvalue().splitlines()]


def test_trends_have_a_line_for_each_series_and_segment_and_a_column_for_each() -> None:
    values = {"DE": (1, 2, 4), "(other)": (0, None, Decimal("8.500000000"))}
    rows = [
        ("Orders", segment, f"2026-03-0{day}", value, day == 3)
        for segment, found in values.items()
        for day, value in enumerate(found, 1)
    ]

    assert shown("trends", TRENDS, *rows) == [
        "Orders · DE       ▂▄█  1 to 4, last 4",
        "Orders · (other)  ▁ █  0 to 8.5, last 8.5",
        "",
        "bucket      Orders · DE  Orders · (other)  incomplete",
        "─────────────────────────────────────────────────────",
        "2026-03-01            1                 0",
        "2026-03-02            2                 -",
        "2026-03-03            4               8.5  yes",
    ]


def test_one_series_is_a_table_of_its_rows_without_columns_of_nothing() -> None:
    assert shown("trends", TRENDS, ("Orders", None, "2026-03-01", 1_234_567, True)) == [
        "Orders  █  1,234,567 to 1,234,567, last 1,234,567",
        "",
        "series  bucket          value  incomplete",
        "─────────────────────────────────────────",
        "Orders  2026-03-01  1,234,567  yes",
    ]


@pytest.mark.parametrize(("segments", "columns"), [(6, 8), (7, 5)])
def test_up_to_six_segments_have_a_column_each(segments: int, columns: int) -> None:
    rows = [("Orders", f"s{number}", "2026-03-01", number, True) for number in range(segments)]

    heading = shown("trends", TRENDS, *rows, width=200)[segments + 1]

    assert len(re.split(r"  +", heading)) == columns


def test_a_long_series_fits_a_narrow_terminal() -> None:
    rows = [("Orders", None, f"day {number:03}", number, False) for number in range(365)]

    line = shown("trends", TRENDS, *rows, width=60)[0]

    assert 10 <= len(re.findall("[▁▂▃▄▅▆▇█]", line)) <= 14
    assert line.endswith("  0 to 364, last 364")
    assert len(line) <= 60


def test_many_segments_stay_rows_and_the_chart_ends() -> None:
    rows = [("Orders", f"s{number:02}", "2026-03-01", number, False) for number in range(25)]

    lines = shown("trends", TRENDS, *rows)

    assert lines[19:22] == ["Orders · s19  █  19 to 19, last 19", "… 5 more", ""]
    assert lines[22] == "series  segment  bucket      value  incomplete"
    assert lines[-1] == "Orders  s24      2026-03-01     24"


def test_funnels_have_a_bar_for_each_step_and_people_read_per_cent_and_hours() -> None:
    first = (None, None, 1, "Viewed", 1234, None, 1.0, 0, 0.0, 0.0, 0.0, 7)
    second = (None, None, 2, "Completed", 617, 0.5, 0.5, 617, 3905.5, 86400.0, 0.25, 7)

    assert shown("funnel", FUNNEL, first, second, width=110) == [
        " 1 Viewed     ██████████████████████████████  1,234",
        " 2 Completed  ███████████████░░░░░░░░░░░░░░░  617  50.0 %  617 dropped",
        "",
        "step  label      persons  from previous  from first  dropped  median  p90  average  immature",
        "────────────────────────────────────────────────────────────────────────────────────────────",
        "   1  Viewed       1,234              -     100.0 %        0      0s   0s       0s         7",
        "   2  Completed      617         50.0 %      50.0 %      617   1h 5m   1d     0.2s         7",
    ]


def test_a_narrow_terminal_breaks_headings_not_bars() -> None:
    row = (None, None, 1, "Product Viewed", 1234, None, 1.0, 0, 0.0, 0.0, 0.0, 7)

    lines = shown("funnel", FUNNEL, row, width=70)

    assert lines[0] == " 1 Product Viewed  ███████████  1,234"
    assert max(map(len, lines)) <= 70
    assert ["from"] in [line.split() for line in lines]


def test_funnels_where_nobody_came_have_empty_bars() -> None:
    rows = [("DE", None, step, "A", 0, None, None, 0, None, None, None, 0) for step in (1, 2)]

    assert shown("funnel", FUNNEL, *rows)[:3] == [
        "DE",
        f" 1 A  {'░' * 30}  0",
        f" 2 A  {'░' * 30}  0",
    ]


def test_retention_is_a_triangle_of_rates_and_cells_that_are_not_over_are_dots() -> None:
    rows = [
        (None, "2026-03-01", 1200, 0, 1200, 1.0, True),
        (None, "2026-03-01", 1200, 1, 300, 0.25, True),
        (None, "2026-03-02", 8, 0, 8, 1.0, True),
        (None, "2026-03-02", 8, 1, None, None, False),
    ]

    assert shown("retention", RETENTION, *rows) == [
        "cohort       size     0     1",
        "─────────────────────────────",
        "2026-03-01  1,200  100%   25%",
        "2026-03-02      8  100%     ·",
    ]


def test_other_answers_are_tables() -> None:
    assert shown("stickiness", ("days", "persons"), (1, 1000), (2, 7)) == [
        "days  persons",
        "─────────────",
        "   1    1,000",
        "   2        7",
    ]


def test_an_answer_without_rows_has_its_columns() -> None:
    for insight, columns in (("trends", TRENDS), ("funnel", FUNNEL), ("retention", RETENTION)):
        assert shown(insight, columns, width=200)[0].split()[-1] in {"incomplete", "immature", "mature"}


HOSTILE = "\x1b[31mred\x1b]0;title\x07 [bold]b[/bold] :smile: \u202eevil"


@pytest.mark.parametrize(
    ("insight", "columns", "row"),
    [
        ("trends", TRENDS, (HOSTILE, HOSTILE, "2026-03-01", 1, False)),
        ("funnel", FUNNEL, (HOSTILE, HOSTILE, 1, HOSTILE, 1, None, 1.0, 0, 0.0, 0.0, 0.0, 0)),
        ("retention", RETENTION, (HOSTILE, HOSTILE, 1, 0, 1, 1.0, True)),
        ("stickiness", (HOSTILE, "persons"), (HOSTILE, 1)),
        ("trends", TRENDS, (HOSTILE, ["a", HOSTILE], "2026-03-01", 1, False)),
    ],
    ids=["trends", "funnel", "retention", "table", "several breakdowns"],
)
def test_event_data_neither_controls_the_terminal_nor_is_markup(
    insight: str, columns: tuple[str, ...], row: tuple[object, ...]
) -> None:
    text = "\n".join(shown(insight, columns, row, width=400))

    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "[bold]b" in text


def test_the_higher_a_rate_the_stronger_its_colour() -> None:
    target = Terminal()
    rates = (0, 0.01, 0.26, 0.51, 0.76, 1)

    show(
        "retention", RETENTION, [(None, "2026-03-01", 4, n, 0, rate, True) for n, rate in enumerate(rates)], target, 80
    )

    last = target.getvalue().splitlines()[-1]
    codes = [re.findall(r"(\x1b\[[0-9;]+m)?\s*" + f"{rate:.0%}", last)[0] for rate in rates]
    assert codes[0] == ""
    assert len(set(codes)) == 5  # the last two are alike
    assert codes[4] == codes[5]


def test_there_are_colours_on_a_terminal_and_none_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    row = (None, "2026-03-01", 4, 0, 4, 1.0, True)
    coloured, plain = Terminal(), Terminal()

    show("retention", RETENTION, [row], coloured, 80)
    monkeypatch.setenv("NO_COLOR", "1")
    show("retention", RETENTION, [row], plain, 80)

    assert "\x1b[38;" in coloured.getvalue() or "\x1b[30;" in coloured.getvalue()
    assert "\x1b" not in plain.getvalue()
    assert "100%" in plain.getvalue()


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("value", None, "-"),
        ("value", 1234567, "1,234,567"),
        ("value", Decimal("1234.500000000"), "1,234.5"),
        ("value", Decimal("1200.000000000"), "1,200"),
        ("value", 3.14159265359, "3.1416"),
        ("value", 1200.0, "1,200"),
        ("rate", 0.123456, "12.3 %"),
        ("from_first", 1, "100.0 %"),
        ("median_s", 3_600, "1h"),
        ("incomplete", True, "yes"),
        ("incomplete", False, ""),
        ("bucket", "2026-03-01", "2026-03-01"),
        ("segment", ["DE", None, "pro"], "DE · - · pro"),
    ],
)
def test_values(column: str, value: object, text: str) -> None:
    assert format_value(column, value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.26, "0.3s"),
        (9.96, "10s"),
        (10, "10s"),
        (59.4, "59s"),
        (59.6, "1m"),
        (61, "1m 1s"),
        (3_600, "1h"),
        (3_905.5, "1h 5m"),
        (90_000, "1d 1h"),
        (86_400 * 9, "9d"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("values", "width", "bars"),
    [
        ([1, 2, 4, 8], 10, "▁▂▄█"),
        ([0, 0], 10, "▁▁"),
        ([None, 1], 10, " █"),
        ([1, 5, None, None, 9, 10], 3, "▄ █"),
        ([], 3, ""),
        ([-5, 5], 3, "▁█"),
    ],
)
def test_sparklines(values: list[object], width: int, bars: str) -> None:
    assert sparkline(values, width) == bars
