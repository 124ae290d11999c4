"""Render any question as one SQL text."""

from __future__ import annotations

from dataclasses import replace

from manymetrics_insights.questions.models import AnyQuestion, Persons, Timeline
from manymetrics_insights.sql.cohorts import changes_at
from manymetrics_insights.sql.persons import RENDERERS, render_persons, render_timeline
from manymetrics_insights.sql.rendered import Rendered
from manymetrics_insights.sql.scope import Scope


def render(question: AnyQuestion, scope: Scope) -> Rendered:
    """Render a question. Raises QuestionError for what only shows here, as an unknown definition."""
    if isinstance(question, Timeline):
        return render_timeline(question, scope)
    if isinstance(question, Persons):
        rendered, of = render_persons(question, scope), question.of
    else:
        rendered, of = RENDERERS[question.insight](question, scope).render(), question
    times = [time for time in (rendered.changes_at, changes_at(of, scope)) if time is not None]
    return replace(rendered, changes_at=min(times, default=None))
