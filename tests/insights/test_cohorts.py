"""Cohorts against a plain program, over small random worlds, and by hand at their borders."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import pytest

from manymetrics_insights.asking.ask import Context, answer
from manymetrics_insights.questions.filters import InCohort
from manymetrics_insights.questions.models import QuestionError, parse_question
from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.session import Session, open_session
from manymetrics_insights.sql.cohorts import add_cohort
from manymetrics_insights.sql.render import render
from manymetrics_insights.sql.scope import Scope
from manymetrics_insights.sql.statement import Statement
from tests.insights.lakes import Lake, Row, make_lake
from tests.insights.oracle.cohorts import World, make_condition, make_world, members
from tests.scale import scaled

WORLDS = scaled(20, 60, 1_000)
CONDITIONS = 5
NOW = datetime(2026, 3, 10, 12)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[World], Session]:
    """Each world is a project; persons are found once."""
    made = [make_world(seed) for seed in range(WORLDS)]
    lake = make_lake(tmp_path_factory.mktemp("worlds") / "data")
    lake.append_events(*(row for world in made for row in world.rows))
    session = open_session(Folder(lake.data_dir))
    [view] = [view for view in session.views if view.name == "person_events"]
    session.connection.execute(f"CREATE TEMP TABLE person_events AS {view.sql}")
    return made, session


def cohort_sql(world: World, condition: dict[str, Any], options: dict[str, Any]) -> str:
    """The cohort as it stands in a question of this population."""
    where = [{"cohort": condition}]
    question = parse_question({"insight": "stickiness", "zone": world.zone, "where": where, **options})
    [cohort] = question.where  # type: ignore[union-attr]
    assert isinstance(cohort, InCohort)
    statement = Statement()
    scope = Scope(world.project, world.complete_through, now=world.complete_through + timedelta(days=3))
    name, _ = add_cohort(statement, scope, question, cohort)  # type: ignore[arg-type]
    return statement.select(f"SELECT person FROM {name} ORDER BY 1")


def make_options(chance: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {"bots": chance.choice(("exclude", "exclude", "include", "only"))}
    if chance.random() < 0.3:
        options["bot_rows"] = [{"property": ["p"], "is": "y"}]
    return options


def test_the_persons_of_cohorts_are_those_of_a_plain_program(worlds: tuple[list[World], Session]) -> None:
    made, session = worlds
    sizes = []
    for world in made:
        chance = random.Random(world.project)
        for _ in range(CONDITIONS):
            condition, options = make_condition(chance), make_options(chance)
            sql = cohort_sql(world, condition, options)

            found = [row[0] for row in session.connection.execute(sql).fetchall()]

            expected = members(world, condition, **options)
            assert found == sorted(expected), f"{world}\n{condition}\n{options}\n{sql}"
            sizes.append(len(found))
    assert len(set(sizes)) >= 4  # they tell persons apart


def ask(lake: Lake, question: dict[str, Any], through: datetime = NOW) -> list[Any]:
    session = open_session(Folder(lake.data_dir))
    asked = {"from": "2026-03-01", "to": "2026-03-11", "project": "shop"} | question
    return answer(parse_question(asked), session, Context(through, through)).rows


def persons_of(lake: Lake, through: datetime = NOW, **question: Any) -> list[str]:  # noqa: ANN401  # of a question
    of = {
        "insight": "trends",
        "series": [{"any": True, "measure": "persons"}],
        "from": "2026-03-01",
        "to": "2026-03-11",
    }
    return [row[0] for row in ask_persons(lake, of | question, through)]


def ask_persons(lake: Lake, of: dict[str, Any], through: datetime) -> list[Any]:
    session = open_session(Folder(lake.data_dir))
    question = parse_question({"insight": "persons", "of": of, "figure": "persons"})
    return answer(question, session, Context(through, through)).rows


def track(user: str | None, at: datetime, event: str = "A", **more: object) -> Row:
    return {"user_id": user, "event": event, "event_time": at, "received_at": at, **more}


@pytest.mark.parametrize(
    ("at", "is_in"),
    [
        (datetime(2026, 3, 8, 18, 15), True),  # midnight of the 9th in Kathmandu, the first of two days
        (datetime(2026, 3, 8, 18, 14, 59, 999_999), False),
        (datetime(2026, 3, 10, 18, 14, 59, 999_999), True),  # the last microsecond of the 10th
        (datetime(2026, 3, 10, 18, 15), False),
    ],
)
def test_the_last_days_are_whole_local_days_up_to_that_of_complete_through(
    lake: Lake, at: datetime, is_in: bool
) -> None:
    lake.append_events(track("u", at))

    found = persons_of(lake, zone="Asia/Kathmandu", where=[{"cohort": {"did": {"event": "A"}, "last": "2d"}}])

    assert found == (["u"] if is_in else [])


def test_a_first_time_outside_of_the_last_days_is_no_first_time_in_them(lake: Lake) -> None:
    lake.append_events(
        track("old", datetime(2025, 1, 1)), track("old", datetime(2026, 3, 9)), track("new", datetime(2026, 3, 9))
    )

    assert persons_of(lake, where=[{"cohort": {"first_did": {"event": "A"}, "last": "7d"}}]) == ["new"]
    assert persons_of(lake, where=[{"cohort": {"did": {"event": "A"}, "last": "7d"}}]) == ["new", "old"]


def test_a_cohort_looks_outside_of_the_range_and_past_the_filters_of_a_question(lake: Lake) -> None:
    lake.append_events(track("u", datetime(2025, 1, 1), "Paid"), track("u", datetime(2026, 3, 9)))
    where = [{"cohort": {"did": {"event": "Paid"}}}, {"column": "event", "is": "A"}]

    assert persons_of(lake, where=where) == ["u"]


def test_events_of_nobody_are_in_no_cohort_and_not_internal(lake: Lake) -> None:
    lake.append_events(track(None, datetime(2026, 3, 9)), track("u", datetime(2026, 3, 9)))
    everybody: dict[str, Any] = {"all": []}

    def events(**question: object) -> int:
        of = {"insight": "trends", "series": [{"any": True}], "interval": "quarter"}
        [[*_, count, _incomplete]] = ask(lake, of | question)
        return int(count)

    assert events() == 2
    assert events(where=[{"cohort": everybody}]) == 1
    assert events(where=[{"not": {"cohort": everybody}}]) == 1
    assert events(internal="exclude", internal_cohort=everybody) == 1
    assert events(internal="only", internal_cohort=everybody) == 1


def test_internal_persons_are_found_among_all_though_they_are_left_out(lake: Lake) -> None:
    lake.append_events(track("in", datetime(2026, 3, 9)), track("out", datetime(2026, 3, 9)))
    internal = {"column": "person_id", "is": "in"}

    assert persons_of(lake, internal="exclude", internal_cohort=internal) == ["out"]
    assert persons_of(lake, internal="only", internal_cohort=internal) == ["in"]
    assert persons_of(lake, internal="include", internal_cohort=internal) == ["in", "out"]
    where = [{"cohort": internal}]
    assert persons_of(lake, internal="exclude", internal_cohort=internal, where=where) == []


def test_bots_are_told_by_the_rules_too(lake: Lake) -> None:
    at = datetime(2026, 3, 9)
    lake.append_events(
        track("known", at, bot_kind="search"),
        track("told", at, properties='{"agent": "crawler/1"}'),
        track("person", at, properties='{"agent": "Firefox"}'),
        track("bare", at),
    )
    rules = [{"property": ["agent"], "contains": "crawler"}]

    assert persons_of(lake, bot_rows=rules) == ["bare", "person"]
    assert persons_of(lake, bot_rows=rules, bots="only") == ["known", "told"]
    assert persons_of(lake, bots="only") == ["known"]
    assert persons_of(lake, bot_rows=rules, bots="include") == ["bare", "known", "person", "told"]


def test_equal_cohorts_are_one_subquery_and_others_are_not(lake: Lake) -> None:
    lake.append_events(track("u", datetime(2026, 3, 9)), track("u", datetime(2026, 3, 9), "B"))
    cohort = {"cohort": {"did": {"event": "A"}}}
    other = {"cohort": {"did": {"event": "B"}}}
    session = open_session(Folder(lake.data_dir))
    question = {"insight": "trends", "series": [{"any": True, "where": [cohort, other]}], "where": [cohort]}

    found = answer(parse_question(question | {"compare": "previous"}), session, Context(NOW, NOW))

    assert found.sql.count("_rows AS (") == 2


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"where": [{"cohort": "buyers"}]}, "where[0].cohort: there is no cohort 'buyers'"),
        ({"internal": "only"}, "internal: no internal users are defined"),
        ({"series": [{"definition": "x"}]}, "series[0].definition: there is no definition of an event 'x'"),
    ],
)
def test_a_name_without_definitions_is_refused(lake: Lake, question: dict[str, Any], message: str) -> None:
    with pytest.raises(QuestionError, match="no") as refused:
        ask(lake, {"insight": "trends", "series": [{"any": True}]} | question)

    assert str(refused.value) == message


def test_days_are_counted_in_full(lake: Lake) -> None:
    for days in range(5):
        lake.append_events(track("u", NOW - timedelta(days=days)))

    assert persons_of(lake, where=[{"cohort": {"did": {"event": "A"}, "at_least": 3, "last": "3d"}}]) == ["u"]
    assert persons_of(lake, where=[{"cohort": {"did": {"event": "A"}, "at_least": 4, "last": "3d"}}]) == []
    assert persons_of(lake, where=[{"cohort": {"did": {"event": "A"}, "at_least": 5}}]) == ["u"]


@pytest.mark.parametrize(
    ("condition", "time"),
    [
        ({"did": {"event": "A"}, "last": "2d"}, datetime(2026, 3, 10, 18, 15)),  # midnight in Kathmandu
        ({"not": {"did_not": {"event": "A"}, "last": "2d"}}, datetime(2026, 3, 10, 18, 15)),
        ({"did": {"event": "A"}}, None),
    ],
)
def test_an_answer_with_the_last_days_of_a_cohort_is_kept_until_midnight(
    condition: dict[str, Any], time: datetime | None
) -> None:
    past = {"from": "2025-01-01", "to": "2025-01-02", "zone": "Asia/Kathmandu", "where": [{"cohort": condition}]}
    question = {"insight": "trends", "series": [{"any": True}], **past}
    scope = Scope("shop", NOW, NOW)

    assert render(parse_question(question), scope).changes_at == time
    assert render(parse_question({"insight": "persons", "of": question}), scope).changes_at == time


def test_the_longest_days_of_a_condition_are_read(lake: Lake) -> None:
    lake.append_events(track("u", NOW - timedelta(days=5)), track("v", NOW))
    short, long = ({"did": {"event": "A"}, "last": last} for last in ("2d", "7d"))

    assert persons_of(lake, where=[{"cohort": {"any": [short, long]}}]) == ["u", "v"]
    assert persons_of(lake, where=[{"cohort": {"all": [long, {"not": short}]}}]) == ["u"]
    assert persons_of(lake, where=[{"cohort": {"any": []}}]) == []
