from __future__ import annotations

from pathlib import Path

from manymetrics_insights.views.readme import render


def test_the_readme_says_what_the_tables_and_views_say_of_themselves() -> None:
    readme = Path(__file__).parents[2] / "insights" / "README.md"

    assert readme.read_text("utf-8") == render(), "python -m manymetrics_insights.views.readme > insights/README.md"
