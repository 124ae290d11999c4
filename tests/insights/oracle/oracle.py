"""Answers a question over rows of the events table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from tests.insights.oracle import funnel, lifecycle, paths, persons, retention, sessions, trends
from tests.insights.oracle.ground import Ground, Question
from tests.insights.oracle.people import Row

_ANSWERS: dict[str, Callable[[Ground], list[tuple[object, ...]]]] = {
    "trends": trends.answer,
    "funnel": funnel.answer,
    "retention": retention.answer,
    "lifecycle": lifecycle.answer,
    "stickiness": lifecycle.stickiness,
    "sessions": sessions.answer,
    "paths": paths.answer,
    "persons": persons.answer,
    "timeline": persons.timeline,
}


def answer(
    question: Question,
    rows: list[Row],
    complete_through: datetime,
    definitions: Mapping[str, Any] | None = None,
    *,
    now: datetime | None = None,
) -> list[tuple[object, ...]]:
    """The rows of the answer, in its order. ``now`` is complete-through unless given."""
    return _ANSWERS[question["insight"]](Ground(question, rows, complete_through, definitions or {}, now))


def ignored(
    question: Question,
    rows: list[Row],
    complete_through: datetime,
    definitions: Mapping[str, Any] | None = None,
    *,
    now: datetime | None = None,
) -> int:
    """How many values took no part because they are no numbers."""
    if question["insight"] != "trends":
        return 0
    return trends.ignored(Ground(question, rows, complete_through, definitions or {}, now))
