"""Defined events and cohorts as views: ``event_<name>`` and ``cohort_<name>``, with names as SQL takes them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Final

from manymetrics_insights.definitions.inline import Inliner
from manymetrics_insights.definitions.models import Definitions
from manymetrics_insights.sql.defined_views import render_cohort, render_event
from manymetrics_insights.views import View, read_views

_MAX_SLUG: Final = 60
_COHORT_COLUMNS: Final = {
    "project_id": "The project.",
    "person_id": "The person, as in person_events.",
    "person_kind": "user or anonymous.",
}


def view_name(kind: str, name: str) -> str:
    """Return the name of the view of an ``event`` or ``cohort``: lower case, _ for what is no letter or digit."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:_MAX_SLUG].rstrip("_")
    return f"{kind}_{slug or hashlib.sha256(name.encode()).hexdigest()[:10]}"


def view_names(definitions: Definitions) -> dict[str, tuple[str, str]]:
    """Return kind and name of each definition that has a view, by the view's name."""
    return {
        view_name(kind, name): (kind, name)
        for kind, names in (("event", definitions.events), ("cohort", definitions.cohorts))
        for name in names
    }


def make_view(definitions: Definitions, kind: str, name: str) -> View:
    """Return the view of a defined event or cohort; the definitions are valid."""
    inliner = Inliner(definitions)
    if kind == "event":
        columns = next(view.columns for view in read_views() if view.name == "person_events")
        matcher = inliner.part(definitions.events[name], ())
        doc = definitions.descriptions.get(name) or f"Events defined as {name}."
        sql = render_event(matcher, list(columns), definitions.bots)
        return View(view_name(kind, name), doc, columns, None, sql, sql)
    cohort = inliner.part(definitions.cohorts[name], ())
    doc = f"One row is a person of the cohort {name}."
    sql = render_cohort(cohort, definitions.bots)
    return View(view_name(kind, name), doc, _COHORT_COLUMNS, None, sql, sql)


def make_views(definitions: Definitions) -> list[View]:
    """Return all views, by name."""
    return [make_view(definitions, kind, name) for _, (kind, name) in sorted(view_names(definitions).items())]
