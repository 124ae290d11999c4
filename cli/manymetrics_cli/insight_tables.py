"""Show an answer on a terminal: a table to read, and a small chart for trends, funnels and retention.

Only for people: where standard output is no terminal, the rows are written as they are. With ``NO_COLOR`` there are no
colours, bold or dim text. Event data is untrusted: it can't control the terminal, nor be read as rich's markup.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import IO, Final, Literal

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from manymetrics_insights.reader.formats import WIDEST_CELL, escape_controls

Row = Sequence[object]
Key = tuple[object, ...]

MAX_PIVOTED: Final = 6  # series and segments that a table of trends has columns for
MAX_LINES: Final = 20  # lines of a chart
_BARS: Final = " ▁▂▃▄▅▆▇█"
_WIDEST_BAR: Final = 30
_NARROWEST: Final = 10
_SHARES: Final = frozenset({"from_previous", "from_first", "rate"})
_FLAGS: Final = frozenset({"incomplete", "mature", "engaged", "converted"})
_NOTHING: Final = "-"
_SHADES: Final = ("", "on grey15", "on dark_green", "on green4", "on green3 black")  # of a rate, in quarters


def show(insight: str, columns: Sequence[str], rows: Sequence[Row], target: IO[str], width: int | None = None) -> None:
    """Write an answer to a terminal."""
    colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    console = Console(file=target, width=width, color_system=colours, highlight=False, markup=False, emoji=False)
    for part in _parts(insight, columns, rows, console.width):
        console.print(part)


def _parts(insight: str, columns: Sequence[str], rows: Sequence[Row], width: int) -> Iterator[RenderableType]:
    named = [dict(zip(columns, row, strict=True)) for row in rows]
    if insight == "trends" and named:
        yield Group(*_trend_lines(named, width), Text())
        yield _pivoted(named) or make_table(columns, rows)
    elif insight == "funnel" and named:
        yield Group(*_funnel_bars(named, width), Text())
        yield make_table(columns, rows)
    elif insight == "retention" and named:
        yield from _retention_grids(named)
    else:
        yield make_table(columns, rows)


def make_table(columns: Sequence[str], rows: Sequence[Row]) -> Table:
    """Make a table of the rows, without the columns that are null in all of them."""
    shown = [place for place in range(len(columns)) if not rows or any(row[place] is not None for row in rows)]
    table = _empty_table()
    for place in shown:
        is_numeric = _is_numeric([row[place] for row in rows])
        table.add_column(_heading(columns[place]), justify="right" if is_numeric else "left")
    for row in rows:
        table.add_row(*(_cell(format_value(columns[place], row[place])) for place in shown))
    return table


def format_value(column: str, value: object) -> str:
    """Return a value as a person reads it: shares in per cent, seconds as hours and minutes, thousands separated."""
    match value:
        case None:
            return _NOTHING
        case bool():
            return ("yes" if value else "") if column in _FLAGS else str(value).lower()
        case int() | float() if column in _SHARES:
            return f"{value:.1%}".replace("%", " %")
        case int() | float() if column.endswith("_s"):
            return format_seconds(value)
        case int():
            return f"{value:,}"
        case Decimal():
            return _without_zeros(f"{value:,f}")
        case float():
            return _without_zeros(f"{value:,.4f}") if math.isfinite(value) else str(value)
        case list() | tuple():
            return " · ".join(format_value("", one) for one in value)
        case _:
            return escape_controls(str(value))


def format_seconds(seconds: float) -> str:
    """Return a duration in its two largest units, such as ``2h 5m``."""
    if seconds < 10:
        return f"{_without_zeros(f'{seconds:.1f}')}s"
    whole = round(seconds)
    for unit, size, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size}{unit}" + (f" {rest}{smaller}" if rest else "")
    return f"{whole}s"


def sparkline(values: Sequence[object], width: int) -> str:
    """Draw numbers as bars from 0 to the largest one; null is blank. Longer series are joined, by their largest."""
    numbers = [float(value) if isinstance(value, int | float | Decimal) else None for value in values]
    size = max(1, math.ceil(len(numbers) / max(width, 1)))
    joined = [_largest(numbers[start : start + size]) for start in range(0, len(numbers), size)]
    top = max((number for number in joined if number is not None), default=0.0)
    return "".join(_bar(number, top) for number in joined)


def _largest(numbers: Sequence[float | None]) -> float | None:
    return max((number for number in numbers if number is not None), default=None)


def _bar(number: float | None, top: float) -> str:
    if number is None:
        return " "
    if number <= 0 or top <= 0:
        return _BARS[1]
    return _BARS[max(1, math.ceil(number / top * (len(_BARS) - 1)))]


def _trend_lines(rows: Sequence[Mapping[str, object]], width: int) -> Iterator[Text]:
    lines = _grouped(rows, ("series", "segment"))
    names = {key: _name(key) for key in lines}
    name_width = min(max(len(name) for name in names.values()), WIDEST_CELL // 2)
    for number, (key, points) in enumerate(lines.items()):
        if number == MAX_LINES:
            yield Text(f"… {len(lines) - MAX_LINES} more", style="dim")
            return
        values = [point["value"] for point in points]
        known = [value for value in values if isinstance(value, int | float | Decimal)]
        line = Text(_fitted(names[key], name_width), style="bold", no_wrap=True, overflow="ellipsis")
        line.append("  ")
        line.append(sparkline(values, max(_NARROWEST, width - name_width - 40)), style="cyan not bold")
        if known:
            low, high, last = (format_value("value", value) for value in (min(known), max(known), known[-1]))
            line.append(f"  {low} to {high}, last {last}", style="dim not bold")
        yield line


def _pivoted(rows: Sequence[Mapping[str, object]]) -> Table | None:
    """Return a table with a column for each series and segment; None for too many, or if there is one anyway."""
    lines = _grouped(rows, ("series", "segment"))
    if not 1 < len(lines) <= MAX_PIVOTED:
        return None
    table = _empty_table()
    table.add_column("bucket")
    for key in lines:
        table.add_column(_cell(_name(key)), justify="right")
    table.add_column("incomplete")
    at: dict[Key, Mapping[str, object]] = {
        (row["bucket"], row["series"], _hashable(row["segment"])): row for row in rows
    }
    for bucket in dict.fromkeys(row["bucket"] for row in rows):
        found = [at.get((bucket, *key)) for key in lines]
        values = [format_value("value", row["value"]) if row else "" for row in found]
        is_open = any(row is not None and row["incomplete"] for row in found)
        table.add_row(*map(_cell, [format_value("bucket", bucket), *values, "yes" if is_open else ""]))
    return table


def _funnel_bars(rows: Sequence[Mapping[str, object]], width: int) -> Iterator[Text]:
    funnels = _grouped(rows, ("segment", "bucket"))
    label_width = min(max(len(str(row["label"])) for row in rows), WIDEST_CELL // 2)
    bar_width = min(_WIDEST_BAR, max(_NARROWEST, width - label_width - 45))
    for number, (key, steps) in enumerate(funnels.items()):
        if number == MAX_LINES:
            yield Text(f"… {len(funnels) - MAX_LINES} more", style="dim")
            return
        if _name(key):
            yield Text(_name(key), style="bold")
        top = max((_number(step["persons"]) for step in steps), default=0.0)
        for step in steps:
            filled = round(_number(step["persons"]) / top * bar_width) if top else 0
            label = _fitted(format_value("label", step["label"]), label_width)
            line = Text(f"{step['step']:>2} {label}  ", no_wrap=True, overflow="ellipsis")
            line.append("█" * filled, style="cyan")
            line.append("░" * (bar_width - filled), style="dim")
            line.append(f"  {format_value('persons', step['persons'])}")
            if step["from_first"] is not None and step["step"] != 1:
                line.append(f"  {format_value('from_first', step['from_first'])}", style="bold")
            if step["dropped"]:
                line.append(f"  {format_value('dropped', step['dropped'])} dropped", style="dim")
            yield line


def _retention_grids(rows: Sequence[Mapping[str, object]]) -> Iterator[RenderableType]:
    for key, cells in _grouped(rows, ("segment",)).items():
        if _name(key):
            yield Text(_name(key), style="bold")
        periods = sorted({_number(cell["n"]) for cell in cells})
        table = _empty_table()
        table.add_column("cohort")
        table.add_column("size", justify="right")
        for period in periods:
            table.add_column(f"{period:g}", justify="right", min_width=4)
        for (cohort,), of_cohort in _grouped(cells, ("cohort",)).items():
            at = {_number(cell["n"]): cell for cell in of_cohort}
            size = format_value("size", of_cohort[0]["size"])
            table.add_row(
                _cell(format_value("cohort", cohort)), _cell(size), *(_shade(at.get(period)) for period in periods)
            )
        yield table


def _shade(cell: Mapping[str, object] | None) -> Text:
    rate = cell["rate"] if cell is not None else None
    if not isinstance(rate, int | float):
        return Text("·", style="dim", no_wrap=True)
    style = _SHADES[min(len(_SHADES) - 1, math.ceil(rate * 4))] if rate > 0 else ""
    return Text(f"{rate:.0%}", style=style, no_wrap=True)


def _grouped(rows: Iterable[Mapping[str, object]], keys: Sequence[str]) -> dict[Key, list[Mapping[str, object]]]:
    """Group rows by some of their columns, in order."""
    groups: dict[Key, list[Mapping[str, object]]] = {}
    for row in rows:
        groups.setdefault(tuple(_hashable(row[key]) for key in keys), []).append(row)
    return groups


def _hashable(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _name(key: Key) -> str:
    return " · ".join(format_value("", part) for part in key if part is not None)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float | Decimal) else 0.0


def _is_numeric(values: Iterable[object]) -> bool:
    there = [value for value in values if value is not None]
    return bool(there) and all(isinstance(v, int | float | Decimal) and not isinstance(v, bool) for v in there)


def _empty_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)


def _heading(column: str) -> Text:
    """Return a column's name as words, so that a narrow terminal can break it. Seconds are shown with their unit."""
    return Text(escape_controls(column.removesuffix("_s").replace("_", " ")))


def _cell(text: str) -> Text:
    cell = Text(text, no_wrap=True, overflow="ellipsis")
    cell.truncate(WIDEST_CELL, overflow="ellipsis")
    return cell


def _fitted(text: str, width: int) -> str:
    fitted = Text(text)
    fitted.truncate(width, overflow="ellipsis", pad=True)
    return fitted.plain


def _without_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
