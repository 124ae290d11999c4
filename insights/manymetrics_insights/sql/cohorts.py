"""Persons of a cohort, as a subquery with one column, ``person``."""

from __future__ import annotations

from manymetrics_insights.questions.models import QuestionError
from manymetrics_insights.sql.scope import Scope
from manymetrics_insights.sql.statement import Statement


def person_set(statement: Statement, scope: Scope, name: str | None) -> str:
    """Add the persons of a cohort, of the internal one for None, and return the subquery's name."""
    del statement, scope
    raise QuestionError([([], f"there is no cohort {name!r}" if name else "no internal users are defined")])
