"""Segments of a breakdown: the top N values, ``(none)``, and ``(other)``.

A segment's place: 0 without a breakdown, 1 to N for the values, N + 1 for ``(none)``, N + 2 for ``(other)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from manymetrics_insights.sql import text
from manymetrics_insights.sql.statement import Statement

NONE: Final = "(none)"
OTHER: Final = "(other)"


def combined(columns: list[str]) -> str:
    """Return SQL for a segment's key: the value, or a JSON array of several; null if all are."""
    if len(columns) == 1:
        return columns[0]
    members = ", ".join(f"COALESCE({column}, {text.literal(NONE)})" for column in columns)
    return (
        f"CASE WHEN {' OR '.join(f'{column} IS NOT NULL' for column in columns)}"
        f" THEN JSON_FORMAT(CAST(ARRAY[{members}] AS JSON)) END"
    )


@dataclass(slots=True)
class Segments:
    """``count``: breakdowns; 0 where there are none. Columns ``b1..`` of the ranked rows hold the values."""

    statement: Statement
    count: int
    limit: int
    name: str = "segments"

    @property
    def columns(self) -> list[str]:
        """The columns of the values in the rows to rank, and ``seg``."""
        return [f"b{place}" for place in range(1, self.count + 1)]

    def rank(self, rows: str, measure: str) -> None:
        """Add the segments, ranked by an aggregate over ``rows``, which has the columns ``b1..`` and ``seg``."""
        if not self.count:
            return
        members = ", ".join(f"MIN(COALESCE({column}, {text.literal(NONE)})) AS {column}" for column in self.columns)
        self.rank_by(f"SELECT seg, {members}, {measure} AS measure\nFROM {rows}\nGROUP BY seg")

    def rank_by(self, ranked: str) -> None:
        """Add the segments, ranked by a query with the columns ``seg``, ``b1..`` and ``measure``."""
        order = ", ".join(["measure DESC NULLS LAST", *self.columns])
        label = f"CASE WHEN seg IS NULL THEN {text.literal(self._label(NONE))} ELSE seg END"
        self.statement.add(
            f"{self.name}_ranked",
            f"SELECT seg, {label} AS label, ROW_NUMBER() OVER (PARTITION BY seg IS NULL ORDER BY {order}) AS ranked\n"
            f"FROM (\n{ranked}\n) AS measured",
        )
        none, other = self.limit + 1, self.limit + 2
        self.statement.add(
            self.name,
            f"SELECT seg, label, CASE WHEN seg IS NULL THEN {none} WHEN ranked <= {self.limit} THEN ranked"
            f" ELSE {other} END AS place\nFROM {self.name}_ranked",
        )
        self.statement.add(
            f"{self.name}_shown",
            f"SELECT place, CASE WHEN place = {other} THEN {text.literal(self._label(OTHER))} ELSE MIN(label) END"
            f" AS label\nFROM {self.name}\nGROUP BY place",
        )

    def shown(self) -> str:
        """Return a relation with the columns ``place`` and ``label`` of what the answer shows."""
        return f"{self.name}_shown" if self.count else "(SELECT 0 AS place, CAST(NULL AS VARCHAR) AS label)"

    def placed(self, rows: str, columns: str) -> str:
        """Return a query of ``columns`` of ``rows`` and the ``place`` of each row's ``seg``."""
        if not self.count:
            return f"SELECT {columns}, 0 AS place\nFROM {rows} AS r"
        place = f"CASE WHEN r.seg IS NULL THEN {self.limit + 1} ELSE COALESCE(s.place, {self.limit + 2}) END AS place"
        return f"SELECT {columns}, {place}\nFROM {rows} AS r\nLEFT JOIN {self.name} AS s ON s.seg = r.seg"

    def place_by_windows(self, rows: str, columns: str) -> str:
        """Add ``columns`` of ``rows`` with ``place`` and ``label``, ranked by how many rows a segment has.

        ``rows`` has the columns ``b1..``. Reads it once. Returns the subquery's name.
        """
        if not self.count:
            shown = "0 AS place, CAST(NULL AS VARCHAR) AS label"
            return self.statement.add(f"{rows}_placed", f"SELECT {columns}, {shown}\nFROM {rows}")
        members = ", ".join(f"COALESCE({column}, {text.literal(NONE)}) AS {column}" for column in self.columns)
        seg = combined(self.columns)
        self.statement.add(f"{rows}_keyed", f"SELECT {columns}, {members}, {seg} AS seg\nFROM {rows}")
        self.statement.add(
            f"{rows}_measured", f"SELECT q.*, COUNT(*) OVER (PARTITION BY seg) AS measure\nFROM {rows}_keyed AS q"
        )
        order = ", ".join(["measure DESC", *self.columns])
        ranked = f"DENSE_RANK() OVER (PARTITION BY seg IS NULL ORDER BY {order}) AS ranked"
        self.statement.add(f"{rows}_ranked", f"SELECT q.*, {ranked}\nFROM {rows}_measured AS q")
        none, other = self.limit + 1, self.limit + 2
        place = f"CASE WHEN seg IS NULL THEN {none} WHEN ranked <= {self.limit} THEN ranked ELSE {other} END"
        label = (
            f"CASE WHEN seg IS NULL THEN {text.literal(self._label(NONE))} WHEN ranked <= {self.limit} THEN seg"
            f" ELSE {text.literal(self._label(OTHER))} END"
        )
        return self.statement.add(
            f"{rows}_placed", f"SELECT {columns}, {place} AS place, {label} AS label\nFROM {rows}_ranked"
        )

    @property
    def none_label(self) -> str:
        """How the segment of no value is named."""
        return self._label(NONE)

    def _label(self, label: str) -> str:
        if self.count <= 1:
            return label
        return "[" + ",".join([f'"{label}"'] * self.count) + "]"
