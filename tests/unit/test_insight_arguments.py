"""The short forms of the command line: each argument is a field of the question."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from manymetrics_cli.insight_arguments import (
    SHORT_FORMS,
    add_question_arguments,
    make_question,
    parse_brackets,
    parse_cell,
    parse_filter,
    parse_matcher,
    parse_property,
    parse_subject,
)
from manymetrics_insights.questions.models import COUNTING as COUNTING_MODELS
from manymetrics_insights.questions.models import Persons, QuestionError, Timeline, parse_question

FUNNEL = {"insight": "funnel", "steps": [{"event": "A"}, {"event": "B"}]}
RANGE = [
    *("--from", "2026-09-05", "--to", "2026-10-05", "--zone", "Europe/London", "--week-start", "sunday"),
    *("--project", "live", "--where", "geo_country=DE", "--where", "not cohort:staff"),
    *("--internal", "only", "--bots", "include", "--as-of", "2026-10-05T00:00:00Z"),
]
RANGE_FIELDS = {
    "from": "2026-09-05",
    "to": "2026-10-05",
    "zone": "Europe/London",
    "week_start": "sunday",
    "project": "live",
    "where": [{"column": "geo_country", "is": "DE"}, {"not": {"cohort": "staff"}}],
    "internal": "only",
    "bots": "include",
    "as_of": "2026-10-05T00:00:00Z",
}
# Arguments, and the question but for `insight`. Together they hold each field of each question.
QUESTIONS: dict[str, list[tuple[list[str], dict[str, Any]]]] = {
    "trends": [
        ([], {"series": [{"any": True}]}),
        (
            [
                "Order Completed",
                "--measure",
                "persons",
                "--by",
                "properties.country",
                "--last",
                "30d",
                "--interval",
                "day",
            ],
            {
                "series": [{"event": "Order Completed", "measure": "persons"}],
                "by": [{"property": ["country"]}],
                "last": "30d",
                "interval": "day",
            },
        ),
        (
            ["A", "page:/b", "--measure", "sum:properties.total", "--measure", "active:28", "--label", "one"],
            {
                "series": [
                    {"event": "A", "measure": "sum", "property": ["total"], "label": "one"},
                    {"page": "/b", "measure": "active", "trailing": 28},
                ]
            },
        ),
        (
            ["A", "A", "--measure", "sum", "--measure", "persons", "--property", "total", "--formula", "A / B"],
            {
                "series": [
                    {"event": "A", "measure": "sum", "property": ["total"]},
                    {"event": "A", "measure": "persons"},
                ],
                "formulas": ["A / B"],
            },
        ),
        (
            ["any", "--measure", "active", "--trailing", "7"],
            {"series": [{"any": True, "measure": "active", "trailing": 7}]},
        ),
        (
            ["A", "--property", "total"],  # which the question refuses: events takes no property
            {"series": [{"event": "A", "property": ["total"]}]},
        ),
        (
            ["A", "B", "--series-where", "2", "properties.plan=pro", "--series-where", "2", "geo_country=DE"],
            {
                "series": [
                    {"event": "A"},
                    {
                        "event": "B",
                        "where": [{"property": ["plan"], "is": "pro"}, {"column": "geo_country", "is": "DE"}],
                    },
                ]
            },
        ),
        (
            ["A", "B", "--label", "a", "--label", "b"],
            {"series": [{"event": "A", "label": "a"}, {"event": "B", "label": "b"}]},
        ),
        (["A", "--compare", "year", "--moving", "7"], {"series": [{"event": "A"}], "compare": "year", "moving": 7}),
        (["A", "--cumulative", "--limit", "3"], {"series": [{"event": "A"}], "cumulative": True, "limit": 3}),
        (RANGE, {"series": [{"any": True}], **RANGE_FIELDS}),
    ],
    "funnel": [
        (
            ["A", "B", "--within", "1d", "--order", "any", "--count", "sessions", "--reentry", "first"],
            {**FUNNEL, "window": "1d", "order": "any", "count": "sessions", "reentry": "first"},
        ),
        (
            ["A", "B", "--exclude", "C", "--exclude", '{"event": "D", "after": 1, "before": 2}', "--exclusion", "drop"],
            {**FUNNEL, "exclude": [{"event": "C"}, {"event": "D", "after": 1, "before": 2}], "exclusion": "drop"},
        ),
        (
            ["A", "B", "--hold", 'properties."order id"', "--attribution", "last"],
            {**FUNNEL, "hold": {"property": ["order id"]}, "attribution": "last"},
        ),
        (
            ["A", "B", "--attribution", "2", "--by", "traits.plan", "--by", "geo_country", "--by-time", "week"],
            {
                **FUNNEL,
                "attribution": {"step": 2},
                "by": [{"trait": ["plan"]}, {"column": "geo_country"}],
                "by_time": "week",
            },
        ),
        (
            ["A", "B", "--step-where", "2", "properties.plan=pro", "--limit", "3"],
            {
                "steps": [{"event": "A"}, {"event": "B", "where": [{"property": ["plan"], "is": "pro"}]}],
                "limit": 3,
            },
        ),
        (["A", "B", *RANGE], {**FUNNEL, **RANGE_FIELDS}),
        (["A", "B", "--last", "7d"], {**FUNNEL, "last": "7d"}),
    ],
    "retention": [
        (
            ["--born", "Signed Up", "--return", "any", "--interval", "week"],
            {"born": {"event": "Signed Up"}, "return": {"any": True}, "interval": "week"},
        ),
        (
            ["--born-is", "ever", "--periods", "6", "--period", "rolling", "--when", "on_or_after"],
            {"born_is": "ever", "periods": 6, "period": "rolling", "when": "on_or_after"},
        ),
        (
            ["--brackets", "0,1-3", "--min-times", "2", "--mean", "weighted", "--by", "geo_country", "--limit", "2"],
            {
                "brackets": [[0, 0], [1, 3]],
                "min_times": 2,
                "mean": "weighted",
                "by": [{"column": "geo_country"}],
                "limit": 2,
            },
        ),
        (
            ["--born", "A", "--born-where", "geo_country=DE", "--return-where", "geo_country=FR"],
            {
                "born": {"event": "A", "where": [{"column": "geo_country", "is": "DE"}]},
                "return": {"any": True, "where": [{"column": "geo_country", "is": "FR"}]},
            },
        ),
        (RANGE, RANGE_FIELDS),
        (["--last", "7d"], {"last": "7d"}),
    ],
    "lifecycle": [
        (
            ["A", "--interval", "month", "--new", "created", "--last", "90d"],
            {"event": {"event": "A"}, "interval": "month", "new": "created", "last": "90d"},
        ),
        (RANGE, RANGE_FIELDS),
    ],
    "stickiness": [(["type:page", "--last", "90d"], {"event": {"type": "page"}, "last": "90d"}), (RANGE, RANGE_FIELDS)],
    "sessions": [
        (
            ["--source", "sdk", "--gap", "1h", "--cut-at-midnight", "--converted", "A", "--interval", "week"],
            {"source": "sdk", "gap": "1h", "cut_at_midnight": True, "converted": {"event": "A"}, "interval": "week"},
        ),
        (
            ["--by", "entry_page", "--by", "country", "--limit", "5"],
            {"by": ["entry_page", "country"], "limit": 5},
        ),
        (["--detail"], {"detail": True}),
        (RANGE, RANGE_FIELDS),
        (["--last", "7d"], {"last": "7d"}),
    ],
    "paths": [
        (
            [
                "--unit",
                "person",
                "--within",
                "1d",
                "--nodes",
                "pages",
                "--start",
                "page:/",
                "--depth",
                "3",
                "--limit",
                "5",
            ],
            {"unit": "person", "window": "1d", "nodes": "pages", "start": {"page": "/"}, "depth": 3, "limit": 5},
        ),
        (
            ["--end", "A", "--json", '{"rules": [{"pattern": "^/p/", "name": "product"}]}'],
            {"end": {"event": "A"}, "rules": [{"pattern": "^/p/", "name": "product"}]},
        ),
        (RANGE, RANGE_FIELDS),
        (["--last", "7d"], {"last": "7d"}),
    ],
    "persons": [
        (
            ["q.json", "--cell", "step=2", "--cell", "segment=DE=AT", "--figure", "dropped", "--limit", "9"],
            {"of": FUNNEL, "cell": {"step": 2, "segment": "DE=AT"}, "figure": "dropped", "limit": 9},
        ),
        (
            ["q.json", "--order-by", "sum:properties.total", "--project", "live"],
            {"of": FUNNEL, "order_by": {"measure": "sum", "property": ["total"]}, "project": "live"},
        ),
    ],
    "timeline": [
        (
            ["42", "--kind", "anonymous", "--before", "2026-10-05T00:00:00Z", "--limit", "9"],
            {"person_id": "42", "person_kind": "anonymous", "before": "2026-10-05T00:00:00Z", "limit": 9},
        ),
        (
            ["42", "--zone", "Asia/Kathmandu", "--project", "live"],
            {"person_id": "42", "zone": "Asia/Kathmandu", "project": "live"},
        ),
    ],
}
EVERY = [
    pytest.param(insight, arguments, fields, id=f"{insight} {' '.join(arguments)}")
    for insight, cases in QUESTIONS.items()
    for arguments, fields in cases
]


def question(insight: str, *arguments: str, files: object = FUNNEL) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_question_arguments(parser, insight)
    return make_question(insight, parser.parse_args(arguments), lambda _name: files)


@pytest.mark.parametrize(("insight", "arguments", "fields"), EVERY)
def test_arguments_are_fields_of_the_question(insight: str, arguments: list[str], fields: dict[str, Any]) -> None:
    assert question(insight, *arguments) == fields | {"insight": insight}


def test_each_short_form_is_tried() -> None:
    assert set(QUESTIONS) == set(SHORT_FORMS)


@pytest.mark.parametrize("model", [*COUNTING_MODELS, Persons, Timeline], ids=lambda model: model.__name__)
def test_each_field_of_a_question_is_reached(model: type[BaseModel]) -> None:
    insight = str(model.model_fields["insight"].default)
    by_definitions = {"internal_cohort", "bot_rows"}  # what a question that stands alone has in place of their names
    named = {field.alias or name for name, field in model.model_fields.items()} - by_definitions

    reached = {name for arguments, _ in QUESTIONS[insight] for name in question(insight, *arguments)}

    assert reached == named


@pytest.mark.parametrize(("insight", "arguments", "fields"), EVERY)
def test_each_is_a_question_that_is_accepted(insight: str, arguments: list[str], fields: dict[str, Any]) -> None:
    if arguments == ["A", "--property", "total"]:
        with pytest.raises(QuestionError, match="events takes no property"):
            parse_question({"insight": insight, **fields})
    else:
        assert parse_question({"insight": insight, **fields}).insight == insight


@pytest.mark.parametrize(
    ("text", "filtered"),
    [
        ("properties.plan=pro", {"property": ["plan"], "is": "pro"}),
        ("properties.plan = pro plus ", {"property": ["plan"], "is": "pro plus"}),
        ("  properties.plan=pro", {"property": ["plan"], "is": "pro"}),
        ("properties.plan=", {"property": ["plan"], "is": ""}),
        ("properties.version=1.10", {"property": ["version"], "is": "1.10"}),
        ("properties.plan==3", {"property": ["plan"], "is": 3}),
        ("properties.plan==true", {"property": ["plan"], "is": True}),
        ('properties.plan=="3"', {"property": ["plan"], "is": "3"}),
        ("properties.plan==pro", {"property": ["plan"], "is": "pro"}),
        ("properties.plan!=pro", {"property": ["plan"], "is_not": "pro"}),
        ("properties.a=b=c", {"property": ["a"], "is": "b=c"}),
        ("properties.a=x<y", {"property": ["a"], "is": "x<y"}),
        ("properties.plan*=ro", {"property": ["plan"], "contains": "ro"}),
        ("properties.plan^=pr", {"property": ["plan"], "starts_with": "pr"}),
        ("properties.plan$=ro", {"property": ["plan"], "ends_with": "ro"}),
        ("properties.plan=~^p.o$", {"property": ["plan"], "matches": "^p.o$"}),
        ("properties.total<20", {"property": ["total"], "<": 20}),
        ("properties.total<=20.5", {"property": ["total"], "<=": 20.5}),
        ("properties.total > -2", {"property": ["total"], ">": -2}),
        ("event_time>=2026-09-05", {"column": "event_time", ">=": "2026-09-05"}),
        ("properties.plan in pro, free", {"property": ["plan"], "in": ["pro", "free"]}),
        ("properties.plan IN 1,2", {"property": ["plan"], "in": ["1", "2"]}),
        ("properties.total between 10 and 20", {"property": ["total"], "between": [10, 20]}),
        ("properties.name between A and D and E", {"property": ["name"], "between": ["A", "D and E"]}),
        ("properties.coupon is set", {"property": ["coupon"], "is_set": True}),
        ("properties.coupon is not set", {"property": ["coupon"], "is_set": False}),
        ("traits.plan=pro", {"trait": ["plan"], "is": "pro"}),
        ("geo_country=DE", {"column": "geo_country", "is": "DE"}),
        ("properties.a.b=1", {"property": ["a", "b"], "is": "1"}),
        ('properties."a.b".c=1', {"property": ["a.b", "c"], "is": "1"}),
        (r'properties."say \"hi\" = ok"=1', {"property": ['say "hi" = ok'], "is": "1"}),
        ("properties.$el=1", {"property": ["$el"], "is": "1"}),
        ("properties.utm$ in a", {"property": ["utm$"], "in": ["a"]}),
        ("properties.größe=L", {"property": ["größe"], "is": "L"}),
        ("cohort:big spenders", {"cohort": "big spenders"}),
        ("not cohort:staff", {"not": {"cohort": "staff"}}),
        ("NOT not properties.a is set", {"not": {"not": {"property": ["a"], "is_set": True}}}),
        ('{"any": [{"cohort": "a"}]}', {"any": [{"cohort": "a"}]}),
    ],
)
def test_filters(text: str, filtered: dict[str, Any]) -> None:
    assert parse_filter(text) == filtered


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("properties.plan", "has no operator"),
        ("properties.plan in", "has no operator"),
        ("=pro", "names nothing"),
        ("", "names nothing"),
        ("context.page.path=/", "write properties.KEY, traits.KEY or a column"),
        ("properties.total between 10", "between takes two values"),
        ('{"any": ', "is not JSON"),
        ("{}x", "is not JSON"),
    ],
)
def test_a_filter_that_cannot_be_read_says_how_to_write_one(text: str, said: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=said):
        parse_filter(text)


@pytest.mark.parametrize(
    ("text", "matcher"),
    [
        ("Order Completed", {"event": "Order Completed"}),
        ("any", {"any": True}),
        ("event:any", {"event": "any"}),
        ("page:/a:b", {"page": "/a:b"}),
        ("type:identify", {"type": "identify"}),
        ("definition:bought", {"definition": "bought"}),
        ("Step: one", {"event": "Step: one"}),
        ('{"any_of": [{"event": "A"}]}', {"any_of": [{"event": "A"}]}),
        ("<img onerror=alert(1)>", {"event": "<img onerror=alert(1)>"}),
    ],
)
def test_events(text: str, matcher: dict[str, Any]) -> None:
    assert parse_matcher(text) == matcher


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        (" geo_country ", {"column": "geo_country"}),
        ("properties.country", {"property": ["country"]}),
        ("properties.properties", {"property": ["properties"]}),
        ("traits.address.city", {"trait": ["address", "city"]}),
        ('{"property": [" "]}', {"property": [" "]}),
    ],
)
def test_breakdowns(text: str, subject: dict[str, Any]) -> None:
    assert parse_subject(text) == subject


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (" total ", ["total"]),
        ("properties.total", ["total"]),
        ("properties", ["properties"]),
        ('properties."order id"', ["order id"]),
        ('a."b.c"', ["a", "b.c"]),
    ],
)
def test_properties(text: str, path: list[str]) -> None:
    assert parse_property(text) == path


def test_the_rest_of_a_path_is_not_ignored() -> None:
    for parse in (parse_subject, parse_property):
        with pytest.raises(argparse.ArgumentTypeError):
            parse("properties.a=b")
        with pytest.raises(argparse.ArgumentTypeError):
            parse("")


def test_brackets_and_cells_that_cannot_be_read_are_refused() -> None:
    assert (parse_brackets("0,1-3,4-7"), parse_cell("bucket=2026-09-05")) == (
        [[0, 0], [1, 3], [4, 7]],
        ("bucket", "2026-09-05"),
    )
    for parse, text in (
        (parse_brackets, "0,x"),
        (parse_brackets, ""),
        (parse_cell, "step"),
        (parse_cell, "=2"),
        (parse_cell, "step=x"),
    ):
        with pytest.raises(argparse.ArgumentTypeError):
            parse(text)


@pytest.mark.parametrize(
    ("insight", "arguments", "said"),
    [
        ("trends", ["A", "B", "C", "--measure", "events", "--measure", "persons"], "for each of the 3 events"),
        ("trends", ["A", "--label", "a", "--label", "b"], "--label: there are 2, but 1"),
        ("trends", ["A", "--series-where", "2", "geo_country=DE"], "'2' is not a number from 1 to 1"),
        ("funnel", ["A", "B", "--step-where", "0", "geo_country=DE"], "'0' is not a number from 1 to 2"),
        ("funnel", ["A", "B", "--step-where", "1", "country"], "has no operator"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(insight: str, arguments: list[str], said: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=said):
        question(insight, *arguments)


def test_persons_are_asked_of_a_question_or_of_its_answer() -> None:
    answer = {"question": FUNNEL, "columns": [], "rows": []}

    assert question("persons", "-", files=answer) == question("persons", "-")


@pytest.mark.parametrize(
    ("text", "day", "file"),
    [
        ("2026-10-05", "2026-10-05", None),
        ("2026-10-32", "2026-10-32", None),
        ("tomorrow", "tomorrow", None),
        ("ROWS.CSV", None, "ROWS.CSV"),
        ("rows.jsonl", None, "rows.jsonl"),
        ("./2026-10-05", None, "2026-10-05"),
        ("out/rows", None, "out/rows"),
    ],
)
def test_to_is_a_day_unless_it_can_only_be_a_file(text: str, day: str | None, file: str | None) -> None:
    parser = argparse.ArgumentParser()
    add_question_arguments(parser, "stickiness")

    args = parser.parse_args(["--to", text])

    assert (args.of_to, args.to) == (day, None if file is None else Path(file))


def test_json_adds_fields_and_wins() -> None:
    asked = question("funnel", "A", "B", "--within", "1d", "--json", json.dumps({"window": "2d", "limit": 3}))

    assert asked == {**FUNNEL, "window": "2d", "limit": 3}
