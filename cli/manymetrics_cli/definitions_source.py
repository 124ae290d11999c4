"""Find the definitions that ``MANYMETRICS_DEFINITIONS`` names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from manymetrics_cli.packages import missing_module
from manymetrics_cli.rows_output import CommandError

if TYPE_CHECKING:
    from manymetrics_insights.definitions.models import Definitions
    from manymetrics_insights.definitions.read import Loaded
    from manymetrics_insights.views import View

VARIABLE: Final = "MANYMETRICS_DEFINITIONS"


def load_definitions() -> Loaded | None:
    """Return the definitions; None if the variable is not set. Raises CommandError, DefinitionsError."""
    location = os.environ.get(VARIABLE)
    if not location:
        return None
    from manymetrics_insights.definitions.read import load

    try:
        return load(location, os.environ)
    except ModuleNotFoundError as error:
        raise CommandError(missing_module(error) or str(error)) from error


def known_definitions() -> Definitions | None:
    """Return the definitions for a question; None if the variable is not set. Raises as above."""
    loaded = load_definitions()
    return None if loaded is None else loaded.definitions


def named_views(text: str | None = None) -> list[View]:
    """Return the views of defined events and cohorts, or those that an SQL text names. Raises as above."""
    definitions = known_definitions()
    if definitions is None:
        return []
    from manymetrics_insights.definitions.views import make_view, view_names

    names = view_names(definitions)
    return [make_view(definitions, *names[name]) for name in sorted(names) if text is None or name in text.lower()]
