"""Files of definitions: what is read, what is refused and where, and what names stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from manymetrics_insights.definitions.inline import inline
from manymetrics_insights.definitions.models import definitions_schema
from manymetrics_insights.definitions.read import DefinitionsError, Loaded, load, merge
from manymetrics_insights.definitions.views import view_name
from manymetrics_insights.definitions.yaml_nodes import MAX_BYTES, YamlError, read_yaml
from manymetrics_insights.questions.models import QuestionError, normal_form, parse_question, question_hash

SHOP = """
events:
  Bought: {event: Order Completed, description: An order was paid.}
  Big:
    definition: Bought
    where: [{property: [total], ">=": 100}]
  Buy clicked:
    clicked: {selector: button.buy, text: Buy, path: /pricing}
    where: [{column: geo_country, is: DE}]
  Either: {any_of: [{definition: Big}, {definition: Buy clicked}]}
cohorts:
  buyers: {did: {definition: Bought}, at_least: 2, last: 30d}
  pro: {trait: [plan], is: pro}
  both: {all: [{cohort: buyers}, {not: {cohort: pro}}]}
internal: {trait: [email], ends_with: "@acme.example"}
bots:
  - {property: [agent], contains: crawler}
paths:
  - {pattern: ^/product/, name: Product}
insights:
  orders: {insight: trends, series: [{definition: Bought, measure: persons}], last: 30d}
boards:
  main: {title: Main, insights: [orders, {text: "More to come."}]}
"""


def read(*texts: str) -> Loaded:
    return merge({f"{letter}.yaml": text.encode() for letter, text in zip("abcdef", texts, strict=False)})


def errors(*texts: str) -> list[str]:
    with pytest.raises(DefinitionsError) as refused:
        read(*texts)
    return str(refused.value).split("\n")


def inlined(question: dict[str, Any], *texts: str) -> dict[str, Any]:
    return normal_form(inline(parse_question(question), read(*texts).definitions))


def trends(**fields: object) -> dict[str, Any]:
    return {"insight": "trends", "series": [{"any": True}], **fields}


# YAML


def test_plain_words_are_text_but_for_null_true_false_and_numbers() -> None:
    data = read_yaml(b"[no, on, 2026-09-05, 12:30, 0x1, ~, true, 1, -1.5, .5, 1e3, '1', \"true\", null]").data

    assert data == ["no", "on", "2026-09-05", "12:30", "0x1", None, True, 1, -1.5, 0.5, 1000.0, "1", "true", None]


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xef\xbb\xbf"])
def test_an_empty_file_defines_nothing(content: bytes) -> None:
    assert read_yaml(content).data is None
    assert merge({"a.yaml": content}).definitions.events == {}


@pytest.mark.parametrize(
    ("content", "position", "message"),
    [
        (b"a: 1\nb: 2\na: 3\n", (3, 1), "'a' is there twice, first in line 1"),
        (b"a:\n  - b: 1\n    b: 2\n", (3, 5), "'b' is there twice, first in line 2"),
        (b"a:\n\tb: 1\n", (2, 1), "is indented by a tab"),
        (b"a: &x [1]\n", (1, 4), "anchors and aliases"),
        (b"a: [1]\nb: *x\n", (2, 4), "anchors and aliases"),
        (b"&x a: 1\n", (1, 1), "anchors and aliases"),
        (b"<<: {a: 1}\n", (1, 1), "merge keys"),
        (b"a: !!python/object/apply:os.system [x]\n", (1, 4), "tags are not read"),
        (b"a: 1\n---\nb: 2\n", (2, 1), "a second document begins"),
        (b"? [1]\n: 2\n", (1, 3), "a key is a plain text"),
        (b"a: b\nc: \xff\n", (2, 4), "is not UTF-8"),
        ("a: ü\nb: ".encode("latin1"), (1, 4), "is not UTF-8"),
        (b"a: x\x00y\n", (1, 5), "a character that YAML does not allow"),
        (b"a: [1,\n", (2, 1), "is not YAML"),
        (b"a: b: c\n", (1, 5), "is not YAML"),
        (b"[" * 60, (1, 52), "is nested more than 50 deep"),
        (b"a" * (MAX_BYTES + 1), (1, 1), "the file has 1,000,001 bytes, and 1,000,000 are allowed"),
        (b"a: 1\n" * 2_000_000, (1, 1), "the file has 10,000,000 bytes"),
    ],
)
def test_what_is_no_plain_yaml_is_refused_with_its_place(
    content: bytes, position: tuple[int, int], message: str
) -> None:
    with pytest.raises(YamlError) as refused:
        read_yaml(content)

    assert (refused.value.position, message in str(refused.value)) == (position, True), refused.value


def test_a_bomb_of_aliases_is_refused_at_its_first_anchor() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]

    assert errors("\n".join(lines))[0].startswith("a.yaml:1:5: anchors and aliases")


# Files


def test_a_folder_is_read_whole_and_nothing_else_of_it(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("events: {A: {event: a}}")
    (tmp_path / "two.yml").write_text("events: {B: {event: b}}\nbots: [{property: [x], is: 1}]")
    (tmp_path / "three.yaml").write_text("bots: [{property: [y], is: 1}]")
    (tmp_path / "notes.txt").write_text("events: [")
    (tmp_path / "sub.yaml").mkdir()

    found = load(str(tmp_path), {}).definitions

    assert sorted(found.events) == ["A", "B"]
    assert [rule.property for rule in found.bots] == [("y",), ("x",)]  # type: ignore[union-attr]  # by file name


def test_a_folder_that_is_not_there_or_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    for location, what in ((tmp_path / "none", "is not there"), (tmp_path / "file", "is a file: name its folder")):
        with pytest.raises(DefinitionsError, match=f"MANYMETRICS_DEFINITIONS: {location} {what}"):
            load(str(location), {})


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("evnts: {}", "a.yaml:1:1: evnts: unknown field: did you mean 'events'?"),
        ("- 1", "a.yaml:1:1: takes a mapping of events, cohorts"),
        ("events:\n  A: {evnt: x}", "a.yaml:2:7: events.A.evnt: unknown field"),
        ("events:\n  A: {event: x, page: /}", "a.yaml:2:3: events.A: takes exactly one of event"),
        ("events:\n  A:\n    event: 3", "a.yaml:3:5: events.A.event: must be a text"),
        ("events:\n  A: {}", "a.yaml:2:3: events.A: takes exactly one of event"),
        ("events:\n  A: {clicked: {}}", "a.yaml:2:7: events.A.clicked: takes at least one of selector, text and path"),
        ("events:\n  A: {clicked: {text: x}, event: y}", "a.yaml:2:27: events.A.event: unknown field"),
        ("events:\n  A: {event: x, where: [{property: [p]}]}", "a.yaml:2:25: events.A.where[0]: takes exactly one"),
        ("cohorts:\n  c: {did: {event: A}, at_leest: 2}", "a.yaml:2:24: cohorts.c.at_leest: unknown field"),
        ("cohorts:\n  c: {did: {event: A}, last: 30}", "a.yaml:2:24: cohorts.c.last: must be a text"),
        ("cohorts:\n  c: {did: {event: A}, last: 30h}", "a.yaml:2:24: cohorts.c.last: '30h' is not a number of days"),
        ("cohorts:\n  c: {property: [p], is: 1}", "a.yaml:2:3: cohorts.c: a cohort is made of persons"),
        ("cohorts:\n  c: {all: [{not: {did: 1}}]}", "a.yaml:2:20: cohorts.c.all[0].not.did: must be an object"),
        ("bots: [{trait: [p], is: 1}]", "a.yaml:1:1: bots: rule 1: a bot is told by its row"),
        ("bots: [{not: {cohort: x}}]", "a.yaml:1:1: bots: rule 1: a bot is told by its row"),
        ("paths: [{pattern: '(', name: x}]", "a.yaml:1:10: paths[0].pattern: '(' is not a regular expression"),
        ("insights:\n  i: {insight: tends}", "a.yaml:2:3: insights.i: takes a question of 'trends'"),
        ("insights:\n  i: {insight: funnel, steps: [{event: a}]}", "a.yaml:2:24: insights.i.steps: takes at least 2"),
        ("boards:\n  b: {title: B}", "a.yaml:2:3: boards.b.insights: missing"),
        ("boards:\n  b: {title: B, insights: [x]}", "a.yaml:2:28: boards.b.insights[0]: there is no insight 'x'"),
        ("events:\n  A: {definition: B}", "a.yaml:2:7: events.A.definition: there is no definition of an event 'B'"),
        ("events:\n  A: {definition: A}", "a.yaml:2:7: events.A.definition: stands for itself: A -> A"),
        ("cohorts:\n  c: {not: {cohort: c}}", "a.yaml:2:13: cohorts.c.not.cohort: stands for itself: c -> c"),
        (
            "cohorts:\n  c: {did: {event: A, where: [{cohort: c}]}}",
            "a.yaml:2:32: cohorts.c.did.where[0].cohort: stands for itself: c -> c",
        ),
        ("internal: {cohort: staff}", "a.yaml:1:12: internal.cohort: there is no cohort 'staff'"),
        (
            "insights:\n  i: {insight: lifecycle, internal: only}",
            "a.yaml:2:27: insights.i.internal: no internal users are defined",
        ),
        (
            "events:\n  a b: {event: x}\n  A-B: {event: y}",
            "a.yaml:3:3: events.A-B: its view event_a_b is that of 'a b'",
        ),
        ("events:\n  Catalog: {event: x}", "a.yaml:2:3: events.Catalog: its view event_catalog is that of a table"),
    ],
)
def test_what_is_wrong_is_named_by_file_line_and_column(text: str, error: str) -> None:
    assert errors(text)[0].startswith(error)


def test_the_nearest_known_name_is_named() -> None:
    events = "events:\n  Bought: {event: x}\n  Big: {definition: Bougth}\n"

    assert errors(f"{events}cohorts:\n  Buyers: {{cohort: Byers}}\n  Bo: {{all: []}}") == [
        "a.yaml:3:9: events.Big.definition: there is no definition of an event 'Bougth': did you mean 'Bought'?",
        "a.yaml:5:12: cohorts.Buyers.cohort: there is no cohort 'Byers': did you mean 'Buyers'?",
    ]


def test_all_errors_come_at_once_in_order() -> None:
    found = errors("events: {A: {event: 1}, B: {page: 2}}", "cohorts: {c: {did: 3}}", "events: [\n")

    assert [line.split(" ")[0] for line in found] == ["a.yaml:1:14:", "a.yaml:1:29:", "b.yaml:1:15:", "c.yaml:2:1:"]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("events.A", "events: {A: {event: x}}"),
        ("cohorts.A", "cohorts: {A: {all: []}}"),
        ("internal", "internal: {all: []}"),
        ("insights.A", "insights: {A: {insight: lifecycle}}"),
        ("boards.A", "boards: {A: {title: x, insights: [{text: y}]}}"),
    ],
)
def test_a_name_of_two_files_is_refused_with_both_places(kind: str, text: str) -> None:
    [found] = errors(text, "\n" + text)

    assert found.startswith("b.yaml:2:")
    assert f": {kind}: is defined in a.yaml:1:" in found


def test_rules_of_all_files_are_one_list() -> None:
    rule = "paths: [{pattern: %s, name: x}]"

    assert [one.pattern for one in read(rule % "a", rule % "b").definitions.paths] == ["a", "b"]


def test_names_of_names_that_double_are_refused_soon() -> None:
    lines = ["events:", "  e0: {event: x}"]
    lines += [f"  e{n}: {{any_of: [{{definition: e{n - 1}}}, {{definition: e{n - 1}}}]}}" for n in range(1, 15)]

    assert any("stands for more than 5,000 parts" in error for error in errors("\n".join(lines)))


def test_a_long_chain_of_names_is_refused() -> None:
    lines = ["cohorts:", "  c0: {all: []}", *(f"  c{n}: {{cohort: c{n - 1}}}" for n in range(1, 30))]

    assert all("more than 20 deep" in error for error in errors("\n".join(lines)))


# Names in questions


def test_a_defined_event_is_replaced_by_what_it_stands_for() -> None:
    question = trends(series=[{"definition": "Big", "where": [{"property": ["a"], "is": 1}], "measure": "persons"}])

    [series] = inlined(question, SHOP)["series"]

    assert series == {
        "event": "Order Completed",
        "where": [{"property": ["total"], ">=": 100}, {"property": ["a"], "is": 1}],
        "measure": "persons",
    }


def test_a_click_is_an_autocaptured_event_of_that_element() -> None:
    [series] = inlined(trends(series=[{"definition": "Buy clicked"}]), SHOP)["series"]

    selector: Any = [
        {"property": ["selector"], "is": "button.buy"},
        {"property": ["selector"], "ends_with": " > button.buy"},
    ]
    assert series["event"] == "Element Clicked"
    assert series["where"] == [
        {"any": selector},
        {"property": ["text"], "is": "Buy"},
        {"column": "context_page_path", "is": "/pricing"},
        {"column": "geo_country", "is": "DE"},
    ]


def test_a_step_keeps_the_name_that_it_had() -> None:
    steps = [
        {"definition": "Bought"},
        {"any_of": [{"definition": "Big"}, {"event": "x"}]},
        {"definition": "Big", "label": "mine"},
        {"event": "y"},
    ]

    found = inlined({"insight": "funnel", "steps": steps}, SHOP)["steps"]

    assert [step.get("label") for step in found] == ["Bought", "Big or x", "mine", None]


def test_a_cohort_is_replaced_by_its_condition_all_the_way() -> None:
    question = trends(where=[{"not": {"cohort": "both"}}], series=[{"any": True, "where": [{"cohort": "pro"}]}])

    found = inlined(question, SHOP)

    pro = {"trait": ["plan"], "is": "pro"}
    buyers = {"did": {"event": "Order Completed", "where": []}, "at_least": 2, "last": "30d"}
    assert found["where"] == [{"not": {"cohort": {"all": [{"cohort": buyers}, {"not": {"cohort": pro}}]}}}]
    assert found["series"][0]["where"] == [{"cohort": pro}]


def test_the_rules_for_internal_users_bots_and_paths_come_with_a_question_that_needs_them() -> None:
    found = inlined({"insight": "paths", "internal": "exclude"}, SHOP)
    plain = inlined({"insight": "paths", "bots": "include"}, SHOP)

    assert found["internal_cohort"] == {"trait": ["email"], "ends_with": "@acme.example"}
    assert found["bot_rows"] == [{"property": ["agent"], "contains": "crawler"}]
    assert found["rules"] == [{"pattern": "^/product/", "name": "Product"}]
    assert not {"internal_cohort", "bot_rows"} & plain.keys()


def test_what_a_question_says_itself_goes_before_the_definitions() -> None:
    own = {"internal": "only", "internal_cohort": {"all": []}, "bot_rows": [], "rules": []}

    found = inlined({"insight": "paths", **own}, SHOP)

    assert {name: found[name] for name in own} == own


def test_the_question_within_a_question_about_persons_is_inlined_too() -> None:
    of = trends(series=[{"definition": "Bought"}], where=[{"cohort": "pro"}])

    found = inlined({"insight": "persons", "of": of}, SHOP)["of"]

    assert (found["series"][0]["event"], found["bot_rows"][0]["property"]) == ("Order Completed", ["agent"])
    assert found["where"] == [{"cohort": {"trait": ["plan"], "is": "pro"}}]


@pytest.mark.parametrize("name", ["orders"])
def test_an_inlined_question_stands_alone(name: str) -> None:
    known = read(SHOP).definitions
    other = read(SHOP.replace("Order Completed", "Order Paid").replace("crawler", "spider")).definitions

    found = inline(known.insights[name], known)

    assert parse_question(json.loads(json.dumps(normal_form(found)))) == found
    assert inline(found) == inline(found, other) == found
    assert question_hash(found) != question_hash(inline(known.insights[name], other))


def test_unknown_names_are_refused_with_their_paths() -> None:
    question = trends(series=[{"any_of": [{"definition": "Bouht"}]}], where=[{"any": [{"cohort": "buyer"}]}])

    with pytest.raises(QuestionError) as refused:
        inline(parse_question(question), read(SHOP).definitions)

    assert str(refused.value).split("\n") == [
        "where[0].any[0].cohort: there is no cohort 'buyer': did you mean 'buyers'?",
        "series[0].any_of[0].definition: there is no definition of an event 'Bouht': did you mean 'Bought'?",
    ]


def test_filters_of_a_definition_and_its_use_may_be_more_than_one_list_takes() -> None:
    where = [{"property": [f"p{number}"], "is": number} for number in range(60)]
    text = json.dumps({"events": {"A": {"event": "a", "where": where}}})  # JSON is YAML

    found = inlined(trends(series=[{"definition": "A", "where": where}]), text)

    assert [len(one["all"]) for one in found["series"][0]["where"]] == [60, 60]
    assert normal_form(parse_question(found)) == found


# Views and schema


@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("Order Completed", "event_order_completed"),
        ("  Crème -- 2 ", "event_creme_2"),
        ("a" * 100, "event_" + "a" * 60),
        ("'; DROP TABLE events; --", "event_drop_table_events"),
    ],
)
def test_a_view_is_named_in_lower_case_and_plain_letters(name: str, view: str) -> None:
    assert view_name("event", name) == view


def test_a_name_without_plain_letters_still_has_a_view_of_its_own() -> None:
    assert view_name("cohort", "注文") != view_name("cohort", "顧客")
    assert view_name("cohort", "注文").startswith("cohort_")


def test_the_schema_knows_each_kind() -> None:
    schema = definitions_schema()

    assert list(schema["properties"]) == ["events", "cohorts", "internal", "bots", "paths", "insights", "boards"]
    assert all(f'"{word}"' in json.dumps(schema) for word in ("first_did", "clicked", "steps", "title", "at_least"))
