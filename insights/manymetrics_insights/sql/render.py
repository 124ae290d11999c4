"""Render any question as one SQL text."""

from __future__ import annotations

from manymetrics_insights.questions.models import AnyQuestion, Persons, Timeline
from manymetrics_insights.sql.persons import RENDERERS, render_persons, render_timeline
from manymetrics_insights.sql.rendered import Rendered
from manymetrics_insights.sql.scope import Scope


def render(question: AnyQuestion, scope: Scope) -> Rendered:
    """Render a question. Raises QuestionError for what only shows here, as an unknown definition."""
    if isinstance(question, Persons):
        return render_persons(question, scope)
    if isinstance(question, Timeline):
        return render_timeline(question, scope)
    rendered: Rendered = RENDERERS[question.insight](question, scope).render()
    return rendered
