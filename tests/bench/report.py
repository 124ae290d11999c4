"""What a part of the bench hands back, and how it looks on screen.

Only ratios are held to a bar: an absolute figure says as much of the machine as of the product.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Cell = str | float


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure and the limit it is held to."""

    name: str
    value: float
    limit: float
    side: Literal["at most", "at least"] = "at most"
    unit: str = "x"

    @property
    def passed(self) -> bool:
        return self.value <= self.limit if self.side == "at most" else self.value >= self.limit


@dataclass(slots=True)
class Part:
    """One part's table (a row a list, its first cell the row's name), its bars, and its figures for the file."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def markdown(self) -> str:
        """The part's table, then its bars, as Markdown."""
        tables = [_table(self.columns, self.rows)]
        if self.bars:
            tables.append(_table(("bar", "measured", "limit", ""), [_row(bar) for bar in self.bars]))
        return "\n\n".join([f"## {self.title}", *tables])


def _row(bar: Bar) -> Sequence[Cell]:
    measured, limit = (f"{_text(figure)}{bar.unit}" for figure in (bar.value, bar.limit))
    return bar.name, measured, f"{bar.side} {limit}", "pass" if bar.passed else "FAIL"


def _table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    texts = [list(columns), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = [_line(text, widths) for text in texts]
    rule = "|".join(["", "-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:]), ""])
    return "\n".join([lines[0], rule, *lines[1:]])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.ljust(width) if place == 0 else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join([first, *others])} |"


def _text(cell: Cell) -> str:
    if isinstance(cell, str):
        return cell
    return f"{cell:,.2f}" if abs(cell) < 10 else f"{cell:,.0f}"
