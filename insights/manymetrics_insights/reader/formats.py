"""Write rows as text: an aligned table, CSV, a JSON array, or one JSON object per line.

Each writer takes the column names and the rows, and yields text in pieces, so that memory stays constant. Times are ISO
8601 with all six digits of the microseconds; naive ones are UTC, as all times in the tables are. Event data is
untrusted: it can neither control a terminal nor become a spreadsheet formula.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import chain, islice
from typing import Final

import msgspec

Rows = Iterable[Sequence[object]]
Writer = Callable[[Sequence[str], Rows], Iterator[str]]

ROWS_MEASURED: Final = 1000  # rows that determine the column widths; a wider cell further down only shifts its own line
CHARACTERS_MEASURED: Final = 4_000_000  # or fewer rows: they are held in memory
WIDEST_CELL: Final = 60  # terminal columns; longer text is cut with an ellipsis

_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")
_QUOTED_IN_CSV: Final = re.compile(r'[",\r\n]|^\s|\s$|^$')
_NOT_PLAIN_IN_CSV: Final = re.compile(_QUOTED_IN_CSV.pattern + r"|^[=+\-@\t\r]")
# Unicode's Cc, Cf, Cs, Zl and Zp: C0, DEL, C1, surrogates, bidirectional controls and invisible characters.
# Except U+200C and U+200D of Cf: emoji and Persian need them, and they are harmless.
_CONTROLS: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
_JSON: Final = msgspec.json.Encoder(decimal_format="number")


def write_csv(columns: Sequence[str], rows: Rows) -> Iterator[str]:
    """Write RFC 4180 with a header. Null is empty, empty text ``""``; what a spreadsheet would run starts with '."""
    for row in chain([columns], rows):
        yield ",".join(map(_csv_cell, row)) + "\r\n"


def write_json(columns: Sequence[str], rows: Rows) -> Iterator[str]:
    """Write one array of objects, one per line."""
    separator = "[\n"
    for line in write_ndjson(columns, rows):
        yield separator + line.rstrip("\n")
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def write_ndjson(columns: Sequence[str], rows: Rows) -> Iterator[str]:
    """Write one object per line. Duplicate column names get a number."""
    names = _distinct(columns)
    for row in rows:
        yield escape_json(_JSON.encode(dict(zip(names, map(_plain, row), strict=True))).decode()) + "\n"


def write_table(columns: Sequence[str], rows: Rows, *, widest: int | None = None) -> Iterator[str]:
    """Write an aligned table: numbers to the right, null as NULL. ``widest`` cuts cells."""
    waiting = iter(rows)
    measured = _first_rows(waiting)
    names = [_table_cell(name, widest) for name in columns]
    cells = [[_table_cell(value, widest) for value in row] for row in measured]
    widths = [max(map(display_width, column)) for column in zip(names, *cells, strict=True)]
    right = [_is_numeric(column) for column in zip(*measured, strict=True)] if measured else [False] * len(names)
    yield _line(names, widths, right)
    yield "  ".join("-" * width for width in widths) + "\n"
    for row in chain(cells, ([_table_cell(value, widest) for value in row] for row in waiting)):
        yield _line(row, widths, right)


def escape_controls(text: str, *, keep: str = "") -> str:
    """Escape control characters, line ends and bidirectional controls, except for those in ``keep``."""
    if text.isascii() and text.isprintable():
        return text
    return _CONTROLS.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


def escape_json(text: str) -> str:
    """Escape the same characters in JSON text, as JSON escapes: the values stay the same, and can't control a terminal.

    Line ends between values stay; within values there are none.
    """
    if text.isascii() and "\x7f" not in text:
        return text
    return _CONTROLS.sub(lambda match: match[0] if match[0] in "\n\r\t" else json.dumps(match[0])[1:-1], text)


def display_width(text: str) -> int:
    """Estimate the terminal columns of ``text``: 2 for wide characters, 0 for combining ones."""
    return len(text) if text.isascii() else sum(map(_character_width, text))


def _first_rows(rows: Iterator[Sequence[object]]) -> list[Sequence[object]]:
    """Take the rows that determine the column widths."""
    first: list[Sequence[object]] = []
    size = 0
    for row in islice(rows, ROWS_MEASURED):
        first.append(row)
        size += sum(len(value) for value in row if isinstance(value, str))
        if size > CHARACTERS_MEASURED:
            break
    return first


def _csv_cell(value: object) -> str:
    if value is None:
        return ""
    text = _text(value)
    if not _NOT_PLAIN_IN_CSV.search(text):
        return text
    if isinstance(value, str) and text.startswith(_FORMULA_STARTS) and not _NUMBER.fullmatch(text):
        text = "'" + text
    return '"' + text.replace('"', '""') + '"' if _QUOTED_IN_CSV.search(text) else text


def _plain(value: object) -> object:
    return _text(value) if isinstance(value, datetime) else value


def _text(value: object) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.isoformat(timespec="microseconds")
        case int():
            return str(value)
        case Decimal():
            return format(value, "f")
        case bytes():
            return value.hex()
        case list() | dict() | tuple():
            return _JSON.encode(value).decode()
        case _:
            return str(value)


def _table_cell(value: object, widest: int | None) -> str:
    text = "NULL" if value is None else escape_controls(_text(value))
    return text if widest is None or display_width(text) <= widest else _cut(text, widest - 1) + "…"


def _cut(text: str, width: int) -> str:
    end = 0
    for character in text:
        width -= _character_width(character)
        if width < 0:
            break
        end += 1
    return text[:end]


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = []
    for cell, width, to_right in zip(cells, widths, right, strict=True):
        space = " " * (width - display_width(cell))
        padded.append(space + cell if to_right else cell + space)
    return "  ".join(padded).rstrip(" ") + "\n"


def _is_numeric(values: Sequence[object]) -> bool:
    there = [value for value in values if value is not None]
    return bool(there) and all(isinstance(v, int | float | Decimal) and not isinstance(v, bool) for v in there)


def _escape(character: str) -> str:
    code = ord(character)
    known = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    return known or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def _character_width(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _distinct(columns: Sequence[str]) -> list[str]:
    names: list[str] = []
    for column in columns:
        name, again = column, 0
        while name in names:
            again += 1
            name = f"{column}_{again}"
        names.append(name)
    return names
