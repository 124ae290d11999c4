"""Answers: rows with their receipt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question, and how it came about.

    ``question``: its normal form. ``snapshot``: the id of the events table's snapshot. ``complete_through``: naive UTC,
    None if unknown. ``ms``: how long it took. ``price``: US dollars, of Athena. ``ignored``: values that were to be
    numbers and are not. ``rows``: plain values, as JSON has them; sums are Decimal.
    """

    question: dict[str, Any]
    hash: str
    engine: str
    snapshot: int | None
    complete_through: datetime | None
    sql: str
    ms: float
    bytes_read: int | None
    price: float | None
    ignored: int
    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]
    notes: tuple[str, ...]

    def to_json(self) -> bytes:
        """Return the answer as JSON."""
        return _ENCODER.encode(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the fields in the order in which JSON shows them. Ids are texts: JSON's numbers end at 2^53."""
        return {
            "question": self.question,
            "hash": self.hash,
            "engine": self.engine,
            "snapshot": None if self.snapshot is None else str(self.snapshot),
            "complete_through": None if self.complete_through is None else show_time(self.complete_through),
            "sql": self.sql,
            "ms": round(self.ms, 1),
            "bytes_read": self.bytes_read,
            "price": self.price,
            "ignored": self.ignored,
            "columns": self.columns,
            "rows": self.rows,
            "notes": self.notes,
        }


def shape(columns: Sequence[str], row: Sequence[object], *, several: bool) -> tuple[object, ...]:
    """Return a row of an engine as an answer has it. ``several``: the segment is a JSON array.

    A value after the columns is the exact one of ``value``, unless it is null.
    """
    shaped = [_shape(value) for value in row[: len(columns)]]
    if len(row) > len(columns) and row[-1] is not None:
        shaped[columns.index("value")] = _shape(row[-1])
    if several and "segment" in columns:
        place = columns.index("segment")
        segment = shaped[place]
        shaped[place] = msgspec.json.decode(segment) if isinstance(segment, str) else segment
    return tuple(shaped)


def _shape(value: object) -> object:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, datetime):
        return show_time(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float):
        return _shorten(value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else value.normalize()
    return value


def _shorten(value: float) -> float | int:
    """Round to 12 significant digits; a whole number is an int, so that no engine's ``3.0`` differs from ``3``."""
    rounded = float(f"{value:.12g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 2**53 else rounded


def show_time(time: datetime) -> str:
    """Return a naive UTC time in ISO 8601, with microseconds only where there are any."""
    return time.replace(tzinfo=UTC).isoformat().replace("+00:00", "Z")
