"""A statement under construction: named subqueries in the order in which they build on each other."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Statement:
    """``WITH a AS (...), b AS (...) SELECT ...``."""

    parts: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, sql: str) -> str:
        """Add a subquery and return its name."""
        if name in self.parts and self.parts[name] != sql:
            raise AssertionError(f"two subqueries are named {name}")
        self.parts[name] = sql
        return name

    def select(self, final: str) -> str:
        """Return the text of the statement."""
        if not self.parts:
            return final
        parts = ",\n".join(f"{name} AS (\n{_indented(sql)}\n)" for name, sql in self.parts.items())
        return f"WITH {parts}\n{final}"


def _indented(sql: str) -> str:
    return "\n".join(f"  {line}" for line in sql.split("\n"))


def values(columns: str, rows: list[str]) -> str:
    """Return a subquery of constant rows. ``columns``: ``n, label``; ``rows``: ``(1, 'a')``; not empty."""
    return f"SELECT * FROM (VALUES {', '.join(rows)}) AS constant_rows ({columns})"
