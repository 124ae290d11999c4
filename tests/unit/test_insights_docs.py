"""The questions in docs/insights.md are valid, and it names every option."""

from __future__ import annotations

import json
import re
from typing import get_args

import pytest

from manymetrics_insights.questions.base import Model
from manymetrics_insights.questions.models import (
    COUNTING,
    Measure,
    Persons,
    Timeline,
    parse_question,
)
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "insights.md").read_text()
QUESTIONS = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
IN_WORDS = {
    "bot_rows",
    "internal_cohort",
    "week_start",
    "internal",
    "as_of",
    "project",
    "insight",
    "rules",
    "from_",
    "return_",
    "unit",
    "nodes",
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_of_the_docs_is_valid(question: str) -> None:
    assert parse_question(json.loads(question)) is not None


def test_there_are_questions() -> None:
    assert len(QUESTIONS) >= 4


@pytest.mark.parametrize("model", [*COUNTING, Persons, Timeline])
def test_each_field_of_a_question_is_described(model: type[Model]) -> None:
    fields = set(model.model_fields) - IN_WORDS

    assert {field for field in fields if not re.search(rf"\b{field}\b", TEXT)} == set()


def test_each_measure_is_described() -> None:
    assert {measure for measure in get_args(Measure) if f"`{measure}`" not in TEXT} == set()
