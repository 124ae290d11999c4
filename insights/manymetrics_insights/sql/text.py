"""Write values as SQL: the only place where text of a question becomes text of a statement.

All SQL here is in the common subset of DuckDB (with the macros of ``reader.session``) and Trino (Athena).
"""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

NUMBER_LIMIT: Final = Decimal(10) ** 15
_PLACES: Final = Decimal("0.000000001")
_NUMBER: Final = r"'\A-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\z'"
_CONTROL: Final = re.compile(r"([\x00-\x1f\x7f-\x9f\u2028\u2029])")
_LIKE_AN_INDEX: Final = re.compile(r"[+-]?[0-9]*")


def literal(text: str) -> str:
    """Return a text as a literal, with control characters by number.

    A NUL ends a statement for some parsers, and statements are laid out by lines.
    """
    parts = [
        f"chr({ord(part)})" if _CONTROL.fullmatch(part) else f"'{part}'"
        for part in _CONTROL.split(text.replace("'", "''"))
        if part
    ]
    return parts[0] if len(parts) == 1 else f"({' || '.join(parts)})" if parts else "''"


def name(text: str) -> str:
    """Return a column's name, quoted."""
    return '"' + text.replace('"', '""') + '"'


def decimal(value: Decimal | float) -> str | None:
    """Return a number as DECIMAL(38, 9), half away from zero; None if it is 1e15 or more in size, so no number here."""
    exact = value if isinstance(value, Decimal) else Decimal(repr(value))
    if abs(exact) >= NUMBER_LIMIT:
        return None
    return f"CAST('{exact.quantize(_PLACES, ROUND_HALF_UP):f}' AS DECIMAL(38, 9))"


def timestamp(time: datetime) -> str:
    """Return a naive UTC time as a literal."""
    return f"TIMESTAMP '{time.isoformat(sep=' ', timespec='microseconds')}'"


def day(value: date) -> str:
    """Return a date as a literal."""
    return f"DATE '{value.isoformat()}'"


def seconds(count: int) -> str:
    """Return a duration as an interval."""
    return f"INTERVAL '{count}' SECOND"


def microseconds(column: str) -> str:
    """Return the microseconds since 1970 of a timestamp: exact until 2106, since a double holds 2^53."""
    return f"CAST(ROUND(TO_UNIXTIME({column}) * 1000000) AS BIGINT)"


def json_path(keys: tuple[str, ...]) -> str:
    r"""Return Trino's path of keys, as ``$["a"]["b"]``, where only ``\`` and ``"`` are escaped."""
    escaped = (key.replace("\\", "\\\\").replace('"', '\\"') for key in keys)
    return literal("$" + "".join(f'["{key}"]' for key in escaped))


def json_value(column: str, keys: tuple[str, ...]) -> str:
    """Return the text of a scalar in a column of JSON text; null for objects, arrays, null and malformed JSON.

    Trino stops reading JSON at the value, so what follows would not be checked; and it takes a key like ``0`` for a
    position of an array.
    """
    conditions = [f"TRY(JSON_PARSE({column})) IS NOT NULL"]
    for place, key in enumerate(keys):
        if _LIKE_AN_INDEX.fullmatch(key):
            parent = f"JSON_FORMAT(JSON_EXTRACT({column}, {json_path(keys[:place])}))" if place else column
            conditions.append(f"LTRIM({parent}) LIKE '{{%'")
    return f"CASE WHEN {' AND '.join(conditions)} THEN JSON_EXTRACT_SCALAR({column}, {json_path(keys)}) END"


def number(value: str) -> str:
    """Return the number that a text holds in JSON's grammar, as DECIMAL(38, 9); null if none, or 1e15 or more in size.

    Tiny ones are zero by comparison: Java would build a number of as many digits as the exponent says. The double only
    tells the size roughly; the decimal is exact.
    """
    exact = f"TRY_CAST({value} AS DECIMAL(38, 9))"
    return (
        f"CASE WHEN NOT REGEXP_LIKE({value}, {_NUMBER}) THEN NULL"
        f" WHEN ABS(CAST({value} AS DOUBLE)) < 1e-12 THEN CAST('0' AS DECIMAL(38, 9))"
        f" WHEN ABS(CAST({value} AS DOUBLE)) < 1e14 THEN {exact}"
        f" WHEN ABS(CAST({value} AS DOUBLE)) <= 1e15 AND ABS({exact}) < 1000000000000000 THEN {exact} END"
    )
