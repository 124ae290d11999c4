"""Compare two answers to the same question, cell by cell.

Answers are read from their JSON, with each number as it is written, so that equal means equal byte for byte.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from manymetrics_insights.sql.persons import KEYS as CELL_KEYS

KEYS: Final[Mapping[str, tuple[str, ...]]] = CELL_KEYS | {
    "persons": ("person_id", "person_kind"),
    "timeline": ("event_time", "message_id"),
}
"""The columns that name a row of an answer."""
_SESSION_DETAIL: Final = ("person_id", "person_kind", "start")
_PARTS: Final = ("question", "sql", "columns", "rows")

Row = dict[str, Any]
Key = tuple[str, ...]


class AnswerError(ValueError):
    """A text is no answer. The message says why."""


class Change(NamedTuple):
    """A cell that differs. ``key``: the row's names; ``column``: None for a row that only one answer has."""

    key: Mapping[str, object]
    column: str | None
    before: object
    after: object


def read_answer(text: bytes | str) -> dict[str, Any]:
    """Read an answer's JSON. Raises AnswerError."""
    try:
        answer = json.loads(text, parse_float=Decimal)
    except ValueError as error:
        raise AnswerError(f"it is not JSON: {error}") from error
    if not (
        isinstance(answer, dict)
        and all(part in answer for part in _PARTS)
        and isinstance(answer["question"], dict)
        and answer["question"].get("insight") in KEYS
    ):
        raise AnswerError("it is not an answer: make one with `manymetrics insight QUESTION.json -o json`")
    return answer


def receipt_of(answer: Mapping[str, Any]) -> tuple[int | None, datetime | None]:
    """Return the snapshot and complete-through (naive UTC) of an answer, None where unknown. Raises AnswerError."""
    snapshot, through = answer.get("snapshot"), answer.get("complete_through")
    try:
        time = None if through is None else datetime.fromisoformat(through)
        at = time if time is None or time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)
        return None if snapshot is None else int(snapshot), at
    except (AttributeError, TypeError, ValueError) as error:
        raise AnswerError("its snapshot or complete_through can't be read") from error


def is_same(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Return whether SQL, columns and rows are equal, byte for byte."""
    return all(_written(before[part]) == _written(after[part]) for part in ("sql", "columns", "rows"))


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    """Yield what differs, in the order of the earlier answer; rows that are new come last."""
    names = _key_columns(before)
    earlier, later = _by_key(before, names), _by_key(after, names)
    for key, row in earlier.items():
        named = {name: row[name] for name in names if name in row}
        if key not in later:
            yield Change(named, None, row, None)
            continue
        for column in dict.fromkeys([*row, *later[key]]):
            if _written(row.get(column)) != _written(later[key].get(column)):
                yield Change(named, column, row.get(column), later[key].get(column))
    for key, row in later.items():
        if key not in earlier:
            yield Change({name: row[name] for name in names if name in row}, None, None, row)


def _key_columns(answer: Mapping[str, Any]) -> tuple[str, ...]:
    question = answer["question"]
    if question["insight"] == "sessions" and question.get("detail"):
        return _SESSION_DETAIL
    return KEYS[question["insight"]]


def _by_key(answer: Mapping[str, Any], names: tuple[str, ...]) -> dict[Key, Row]:
    """Return the rows by what names them. Equal names are counted: the second of two is another row."""
    seen: Counter[Key] = Counter()
    rows: dict[Key, Row] = {}
    for values in answer["rows"]:
        row = dict(zip(answer["columns"], values, strict=True))
        key = tuple(_written(row.get(name)) for name in names)
        rows[*key, str(seen[key])] = row
        seen[key] += 1
    return rows


def _written(value: object) -> str:
    return json.dumps(value, default=lambda number: ["number", str(number)], ensure_ascii=False)
