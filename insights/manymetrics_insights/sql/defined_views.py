"""Defined events and cohorts as the SQL of views, over all projects."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from manymetrics_insights.questions.filters import AnyCohort, Filters, Matcher
from manymetrics_insights.questions.models import Ranged
from manymetrics_insights.sql.cohorts import add_cohort
from manymetrics_insights.sql.rows import Rows
from manymetrics_insights.sql.scope import PERSON_OF_ALL, Events, Scope
from manymetrics_insights.sql.statement import Statement

_NEVER: Final = datetime(1970, 1, 1)  # noqa: DTZ001  # a view takes the time at which it is read
_SCOPE: Final = Scope("", _NEVER, _NEVER, Events(person=PERSON_OF_ALL), is_view=True)


def render_event(matcher: Matcher, columns: Sequence[str], bot_rows: Filters = ()) -> str:
    """Return a query of the rows of ``person_events`` that match, those of bots too. ``columns``: of the view."""
    statement = Statement()
    rows = Rows(statement, _SCOPE, Ranged(bot_rows=bot_rows), "of_event", needs_person=False)
    condition = rows.matches(matcher)
    read = [f"{sql} AS {name}" for name, sql in rows.raw.items() if sql != name]
    source = f"SELECT {', '.join([*columns, f'{PERSON_OF_ALL} AS person', *read])}\nFROM person_events"
    traits = ""
    if rows.traits:
        traits = f"\nLEFT JOIN {rows.add_traits()} AS traits_of ON traits_of.trait_person = e.person"
    shown = ", ".join(f"e.{column}" for column in columns)
    return statement.select(f"SELECT {shown}\nFROM (\n{source}\n) AS e{traits}\nWHERE {condition}")


def render_cohort(cohort: AnyCohort, bot_rows: Filters = ()) -> str:
    """Return a query of project_id, person_id and person_kind of a cohort's persons. Rows of bots don't count."""
    statement = Statement()
    name, _ = add_cohort(statement, _SCOPE, Ranged(bot_rows=bot_rows), cohort)
    return statement.select(
        "SELECT DISTINCT project_id, person_id, person_kind\nFROM person_events\n"
        f"WHERE person_id IS NOT NULL AND {PERSON_OF_ALL} IN (SELECT person FROM {name})"
    )
