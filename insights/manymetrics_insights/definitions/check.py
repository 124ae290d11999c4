"""Compare definitions with the events that there are: names that were never seen, definitions that count nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import duckdb

from manymetrics_insights.definitions.read import Loaded, Problem
from manymetrics_insights.definitions.views import make_view, view_names
from manymetrics_insights.definitions.yaml_nodes import Keys
from manymetrics_insights.questions.base import Model, nearest
from manymetrics_insights.questions.filters import Matcher, Subject
from manymetrics_insights.questions.models import Series, show_path
from manymetrics_insights.sql import text

_SAMPLE: Final = 100_000  # newest events whose keys are compared with one that was never seen
_KINDS: Final = ("events", "cohorts", "insights")


def warnings(loaded: Loaded, connection: duckdb.DuckDBPyConnection) -> Iterator[Problem]:
    """Yield what is likely wrong, in order of definitions. ``connection``: a session's."""
    names, keys = list(_names(loaded)), list(_keys(loaded))
    seen = _seen_names(connection)
    for path, name in names:
        if name not in seen:
            yield _problem(loaded, path, f"event {name!r} was never seen{nearest(name, seen)}")
    unseen = _unseen_keys(connection, {key for _, key in keys})
    for path, key in keys:
        if key in unseen:
            column, of_value = key
            what = f"{'property' if column == 'properties' else 'trait'} {'.'.join(map(str, of_value))!r}"
            yield _problem(loaded, path, f"{what} was never seen{unseen[key]}")
    for kind, name in view_names(loaded.definitions).values():
        view = make_view(loaded.definitions, kind, name)
        found = connection.execute(f"SELECT 1 FROM (\n{view.sql}\n) AS defined LIMIT 1").fetchone()  # noqa: S608
        if found is None:
            yield _problem(loaded, (f"{kind}s", name), "counts nothing" if kind == "event" else "has no persons")


def _parts(loaded: Loaded) -> Iterator[tuple[Keys, Model]]:
    """Yield all models within definitions, with their paths."""
    definitions = loaded.definitions
    for kind in _KINDS:
        for name, part in getattr(definitions, kind).items():
            yield from _within(part, (kind, name))
    if definitions.internal is not None:
        yield from _within(definitions.internal, ("internal",))
    yield from _within(definitions.bots, ("bots",))


def _within(part: object, path: Keys) -> Iterator[tuple[Keys, Model]]:
    if isinstance(part, tuple):
        for place, one in enumerate(part):
            yield from _within(one, (*path, place))
    elif isinstance(part, Model):
        yield path, part
        for name, field in type(part).model_fields.items():
            yield from _within(getattr(part, name), (*path, field.alias or name))


def _names(loaded: Loaded) -> Iterator[tuple[Keys, str]]:
    for path, part in _parts(loaded):
        if isinstance(part, Matcher) and part.event is not None:
            yield (*path, "event"), part.event


def _keys(loaded: Loaded) -> Iterator[tuple[Keys, tuple[str, Keys]]]:
    """Yield each property and trait: its path, and its column with the keys."""
    for path, part in _parts(loaded):
        if isinstance(part, Subject | Series) and part.property is not None:
            yield (*path, "property"), ("properties", part.property)
        if isinstance(part, Subject) and part.trait is not None:
            yield (*path, "trait"), ("traits", part.trait)


def _seen_names(connection: duckdb.DuckDBPyConnection) -> set[str]:
    found = connection.execute("SELECT DISTINCT event FROM events WHERE type = 'track' AND event IS NOT NULL")
    return {row[0] for row in found.fetchall()}


def _unseen_keys(
    connection: duckdb.DuckDBPyConnection, wanted: set[tuple[str, Keys]]
) -> Mapping[tuple[str, Keys], str]:
    """Return those that no event has, each with the nearest that there is."""
    if not wanted:
        return {}
    in_order: list[Any] = sorted(wanted)
    counts = ", ".join(f"COUNT({text.json_value(column, keys)})" for column, keys in in_order)
    row = connection.execute(f"SELECT {counts} FROM events").fetchone() or ()  # noqa: S608  # escaped
    unseen = [key for key, count in zip(in_order, row, strict=True) if not count]
    known = {column: _known_keys(connection, column) for column in {column for column, _ in unseen}}
    return {(column, keys): nearest(str(keys[0]), known[column]) for column, keys in unseen}


def _known_keys(connection: duckdb.DuckDBPyConnection, column: str) -> set[str]:
    recent = f"SELECT {column} AS json FROM events ORDER BY received_at DESC LIMIT {_SAMPLE}"  # noqa: S608
    found = connection.execute(
        "SELECT DISTINCT unnest(json_keys(json)) FROM (SELECT CASE WHEN json_valid(json) THEN json END AS json"  # noqa: S608
        f" FROM ({recent}) AS recent) AS valid WHERE json_type(json) = 'OBJECT'"
    )
    return {row[0] for row in found.fetchall()}


def _problem(loaded: Loaded, path: Keys, message: str) -> Problem:
    file, position = loaded.where(path)
    return Problem(file, position, show_path(list(path)), message)
