"""Questions: what is refused, where and in which words; the normal form; patterns; formulas."""

from __future__ import annotations

import json
from typing import Any

import pytest

from manymetrics_insights.questions.formulas import parse_formula
from manymetrics_insights.questions.models import (
    QuestionError,
    normal_form,
    parse_question,
    question_hash,
    question_schema,
    show_path,
)
from manymetrics_insights.questions.patterns import parse_pattern

FUNNEL: dict[str, Any] = {
    "insight": "funnel",
    "from": "2026-09-05",
    "to": "2026-10-05",
    "steps": [{"event": "A"}, {"event": "B", "where": [{"property": ["plan"], "is": "pro"}]}],
}
TRENDS: dict[str, Any] = {"insight": "trends", "series": [{"any": True}]}


@pytest.mark.parametrize(
    ("question", "path", "message"),
    [
        ([], "", "a question is a JSON object"),
        ({}, "insight", "missing: one of trends"),
        ({"insight": "funel"}, "insight", "there is no 'funel': did you mean 'funnel'?"),
        (FUNNEL | {"step": []}, "step", "unknown field"),
        (FUNNEL | {"steps": [{"event": "A"}, {"event": 1}]}, "steps[1].event", "must be a text"),
        (FUNNEL | {"steps": [{"event": "A"}]}, "steps", "takes at least 2, got 1"),
        (FUNNEL | {"steps": [{"event": "A"}, {"evnt": "B"}]}, "steps[1].evnt", "unknown field"),
        (FUNNEL | {"steps": [{"event": "A"}, {"event": "B", "page": "/"}]}, "steps[1]", "takes exactly one of event"),
        (FUNNEL | {"window": "7 days"}, "window", "write a number and a unit, such as 90s"),
        (FUNNEL | {"window": "99999d"}, "window", "longer than ten years"),
        (FUNNEL | {"zone": "Mars/Base"}, "zone", "write an IANA name"),
        (FUNNEL | {"from": "2026-9-5"}, "from", "as in 2026-09-05"),
        (FUNNEL | {"to": "2026-09-05"}, "", "must be after from"),
        (FUNNEL | {"last": "7d"}, "", "not both"),
        (FUNNEL | {"exclude": [{"event": "X", "after": 2, "before": 2}]}, "", "exclude[0]: after (2)"),
        (FUNNEL | {"attribution": {"step": 3}}, "", "there is no step 3"),
        (TRENDS | {"series": []}, "series", "takes at least 1"),
        (TRENDS | {"series": [{"any": True, "measure": "sum"}]}, "series[0]", "sum needs a property"),
        (TRENDS | {"series": [{"any": True, "property": ["a"]}]}, "series[0]", "events takes no property"),
        (TRENDS | {"series": [{"any": True, "measure": "active"}]}, "series[0]", "active needs trailing"),
        (TRENDS | {"formulas": ["A / B"]}, "", "there is no series B"),
        (TRENDS | {"formulas": ["A /"]}, "", "is incomplete at its end"),
        (TRENDS | {"where": [{"property": [], "is": 1}]}, "where[0].property", "takes at least 1"),
        (TRENDS | {"where": [{"property": [""], "is": 1}]}, "where[0].property[0]", "must not be empty"),
        (TRENDS | {"where": [{"property": ["a"]}]}, "where[0]", "takes exactly one operator"),
        (TRENDS | {"where": [{"property": ["a"], "is": 1, "in": [1]}]}, "where[0]", "takes exactly one operator"),
        (TRENDS | {"where": [{"property": ["a"], "is": None}]}, "where[0]", 'write "is_set": false'),
        (
            TRENDS | {"where": [{"property": ["a"], "is": [1]}]},
            "where[0].is",
            "must be a text, a number, true or false",
        ),
        (TRENDS | {"where": [{"property": ["a"], "<": True}]}, "where[0]", "< takes numbers, or texts"),
        (TRENDS | {"where": [{"column": "evnt", "is": "x"}]}, "where[0]", "did you mean 'event'?"),
        (TRENDS | {"where": [{"column": "properties", "is": "x"}]}, "where[0]", "holds JSON"),
        (TRENDS | {"where": [{"column": "event_time", "is": "x"}]}, "where[0]", "is a time"),
        (TRENDS | {"where": [{"not": {"any": [{"x": 1}]}}]}, "where[0].not.any[0].x", "unknown field"),
        (TRENDS | {"where": [{"property": ["a"], "matches": "("}]}, "where[0]", "not a regular expression"),
        (TRENDS | {"by": [{"column": "event_time"}]}, "by[0]", "group by it with `interval`"),
        (TRENDS | {"by": [{"property": ["a"]}] * 4}, "by", "takes at most 3"),
        ({"insight": "lifecycle", "by": []}, "by", "unknown field"),
        ({"insight": "sessions", "by": ["town"]}, "by[0]", "'town' is not one of"),
        ({"insight": "paths", "start": {"any": True}, "end": {"any": True}}, "", "start or end"),
        ({"insight": "retention", "brackets": [[2, 1]]}, "", "must not be after the last"),
        ({"insight": "persons", "of": {"insight": "timeline"}}, "of", "takes a question of 'trends'"),
        ({"insight": "persons", "of": {"insight": "trends", "series": [{}]}}, "of.series[0]", "takes exactly one of"),
    ],
)
def test_what_is_wrong_is_refused_with_its_path(question: object, path: str, message: str) -> None:
    with pytest.raises(QuestionError) as refused:
        parse_question(question)

    [(found, said)] = refused.value.errors
    assert show_path(found) == path
    assert message in said


def test_several_errors_come_at_once() -> None:
    with pytest.raises(QuestionError) as refused:
        parse_question(TRENDS | {"zone": "X", "from": "soon"})

    assert [path for path, _ in refused.value.errors] == [["from"], ["zone"]]


def test_a_question_nested_too_deep_is_refused() -> None:
    deep: dict[str, Any] = {"property": ["a"], "is": 1}
    for _ in range(2_000):
        deep = {"not": deep}

    with pytest.raises(QuestionError):
        parse_question(TRENDS | {"where": [deep]})


def test_the_normal_form_is_a_question_with_the_same_hash() -> None:
    question = parse_question(FUNNEL)
    form = normal_form(question)

    assert form["window"] == "7d"
    assert form["steps"][1]["where"] == [{"property": ["plan"], "is": "pro"}]
    assert parse_question(json.loads(json.dumps(form))) == question
    assert question_hash(question) == question_hash(parse_question(FUNNEL | {"order": "loose"}))
    assert question_hash(question) != question_hash(parse_question(FUNNEL | {"order": "any"}))


def test_the_schema_knows_each_insight() -> None:
    schema = json.dumps(question_schema())

    assert all(f'"{field}"' in schema for field in ("steps", "born", "cut_at_midnight", "brackets", "starts_with"))


@pytest.mark.parametrize(
    ("pattern", "both"),
    [
        (r"^a.b$", r"\Aa[^\n]b\z"),
        (r"\d+\W", r"[0-9]+[^0-9A-Za-z_]"),
        (r"[\d_a-f-]*?", r"[0-9_a-f\-]*"),
        (r"[^\]/]{2,3}", r"[^\]/]{2,3}"),
        (r"(a|b)(?:c)", r"(?:a|b)(?:c)"),
        (r"a{,b}", r"a\{,b\}"),
    ],
)
def test_a_pattern_is_written_as_both_engines_read_it(pattern: str, both: str) -> None:
    assert parse_pattern(pattern) == both


@pytest.mark.parametrize("pattern", ["(", "a++", "(?i)a", r"\bx", r"(a)\1", "(?=a)", "[[:alpha:]]", "a{999}", "*"])
def test_a_pattern_that_engines_read_differently_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"can't be used|not a regular expression|more than"):
        parse_pattern(pattern)


@pytest.mark.parametrize("text", ["", "A B", "A +", "(A", "A)", "1e5", "A ** 2", "a", "C", "(" * 60 + "A" + ")" * 60])
def test_a_formula_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="formula"):
        parse_formula(text, "AB")
