"""``manymetrics definitions``, and definitions in ``insight`` and ``query``, over a real folder; the docs' examples."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import manymetrics_insights.asking.ask
from manymetrics_cli.main import main
from tests.conftest import ROOT
from tests.insights.lakes import Lake, Row

Run = Callable[..., tuple[int, str, str]]

DAY = datetime(2026, 3, 1, 12)
NOW = datetime(2026, 3, 10, 12)
SHOP = """\
events:
  Sold: {event: Bought, description: Somebody paid.}
  Dear: {definition: Sold, where: [{property: [total], ">=": 12}]}
cohorts:
  Buyers: {did: {definition: Sold}}
  Lookers: {did_not: {definition: Sold}}
internal: {column: person_id, is: u1}
insights:
  sales:
    insight: trends
    series: [{definition: Sold, measure: persons}]
    where: [{cohort: Buyers}]
    from: 2026-03-01
    to: 2026-03-11
    interval: month
    internal: exclude
"""
DOCS = (ROOT / "docs" / "definitions.md").read_text("utf-8")


@pytest.fixture
def shop(lake: Lake) -> Lake:
    """Six persons who viewed on one day each; every second one bought an hour later, for 10 and more."""
    events: list[Row] = []
    for number in range(6):
        at = DAY + timedelta(days=number)
        person: Row = {"user_id": f"u{number}", "received_at": at, "properties": json.dumps({"total": 10 + number})}
        events.append({"event": "Viewed", "event_time": at, **person})
        if number % 2:
            events.append({"event": "Bought", "event_time": at + timedelta(hours=1), **person})
    lake.append_events(*events)
    return lake


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Definitions, named by the setting."""
    made = tmp_path / "definitions"
    made.mkdir()
    (made / "shop.yaml").write_text(SHOP)
    monkeypatch.setenv("MANYMETRICS_DEFINITIONS", str(made))
    return made


@pytest.fixture
def run(lake: Lake, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line: exit status, standard output and standard error."""
    monkeypatch.setattr(manymetrics_insights.asking.ask, "now_utc", lambda: NOW)
    monkeypatch.setenv("MANYMETRICS_DATA_DIR", str(lake.data_dir))

    def command(*arguments: str) -> tuple[int, str, str]:
        status = main([*arguments])
        return status, *capfd.readouterr()

    return command


def answer_of(run: Run, *arguments: str) -> dict[str, Any]:
    status, out, error = run(*arguments, "-o", "json")
    assert status == 0, error
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.usefixtures("shop", "folder")
def test_a_saved_insight_is_asked_by_its_name(run: Run) -> None:
    found = answer_of(run, "insight", "sales")

    assert [row[3] for row in found["rows"]] == [2]  # u3 and u5: u1 is internal
    assert found["question"]["series"] == [{"event": "Bought", "where": [], "measure": "persons"}]
    assert found["question"]["internal_cohort"] == {"column": "person_id", "is": "u1"}


@pytest.mark.usefixtures("shop", "folder")
def test_a_file_goes_before_a_saved_insight(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sales").write_text('{"insight": "stickiness", "last": "7d"}')

    assert answer_of(run, "insight", "sales")["question"]["insight"] == "stickiness"


@pytest.mark.usefixtures("shop")
def test_the_receipt_of_an_old_answer_holds_the_old_definition(folder: Path, run: Run, tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text(json.dumps(answer_of(run, "insight", "sales")))
    (folder / "shop.yaml").write_text(SHOP.replace("{event: Bought,", "{event: Viewed,").replace("is: u1", "is: u0"))
    new = tmp_path / "new.json"
    new.write_text(json.dumps(answer_of(run, "insight", "sales")))

    same = run("insight", "--verify", str(old))
    status, out, error = run("insight", "--diff", str(old), str(new), "-o", "csv")

    assert (same[0], same[2].startswith("the same")) == (0, True), same
    assert json.loads(old.read_text())["question"]["series"][0]["event"] == "Bought"
    assert (status, error) == (1, "note: the questions differ in internal_cohort, series, where\n")
    assert out.splitlines()[1].endswith("value,2,5")


@pytest.mark.usefixtures("shop", "folder")
def test_short_forms_take_definitions(run: Run) -> None:
    arguments = ("funnel", "Viewed", "definition:Dear", "--from", "2026-03-01", "--to", "2026-03-11")

    found = answer_of(run, *arguments, "--where", "cohort:Buyers", "--internal", "exclude")

    assert [row[3:5] for row in found["rows"]] == [["Viewed", 2], ["Dear", 2]]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("insight", "sails"), "there is neither a file nor a saved insight 'sails': did you mean 'sales'?"),
        (
            ("trends", "definition:Sald"),
            "series[0].definition: there is no definition of an event 'Sald': did you mean",
        ),
        (
            ("trends", "any", "--where", "cohort:Byers"),
            "where[0].cohort: there is no cohort 'Byers': did you mean 'Buyers'?",
        ),
    ],
)
@pytest.mark.usefixtures("shop", "folder")
def test_an_unknown_name_is_refused_with_the_nearest(run: Run, arguments: tuple[str, ...], error: str) -> None:
    status, out, found = run(*arguments)

    assert (status, out) == (2, "")
    assert found.startswith(f"manymetrics {arguments[0]}: {error}")


@pytest.mark.usefixtures("shop")
def test_a_question_is_refused_while_definitions_are_wrong(folder: Path, run: Run) -> None:
    (folder / "more.yaml").write_text("bots:\n  - {propperty: [x], is: 1}\n")

    status, _, error = run("trends", "any")

    assert (status, error) == (2, f"manymetrics trends: {folder}/more.yaml:2:6: bots[0].propperty: unknown field\n")


@pytest.mark.usefixtures("shop")
def test_check_names_what_is_wrong_and_exits_with_1(folder: Path, run: Run) -> None:
    (folder / "more.yaml").write_text("events:\n  A: {evnt: x}\n  B: {definition: Sold, were: []}\n")

    more = f"{folder}/more.yaml"

    assert run("definitions", "check") == (
        1,
        "",
        f"{more}:2:7: events.A.evnt: unknown field\n{more}:3:25: events.B.were: unknown field\n",
    )


@pytest.mark.usefixtures("shop")
def test_check_compares_with_the_events_that_there_are(folder: Path, run: Run) -> None:
    (folder / "more.yaml").write_text("""\
events:
  Typo: {event: Boght}
  Wrong key: {event: Bought, where: [{property: [totl], is_set: true}]}
cohorts:
  Nobody: {did: {event: Bought}, at_least: 99}
  Traits: {not: {trait: [plan], is: pro}}
""")

    status, out, error = run("definitions", "check")

    more = f"{folder}/more.yaml"
    assert (status, error) == (0, "")
    assert out.splitlines() == [
        f"{more}:2:10: events.Typo.event: event 'Boght' was never seen: did you mean 'Bought'?",
        f"{more}:3:39: events.Wrong key.where[0].property: property 'totl' was never seen: did you mean 'total'?",
        f"{more}:6:18: cohorts.Traits.not.trait: trait 'plan' was never seen",
        f"{more}:2:3: events.Typo: counts nothing",
        f"{more}:3:3: events.Wrong key: counts nothing",
        f"{more}:5:3: cohorts.Nobody: has no persons",
        "10 definitions: no errors, 6 warnings",
    ]


@pytest.mark.usefixtures("folder")
def test_check_needs_no_tables(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYMETRICS_DATA_DIR", str(tmp_path / "none"))

    status, out, _ = run("definitions", "check")

    assert (status, out.startswith("6 definitions: no errors. They were not compared")) == (0, True)


def test_list_shows_each_with_its_place(folder: Path, run: Run) -> None:
    status, out, _ = run("definitions", "list")

    lines = [line.split() for line in out.splitlines()[2:]]
    assert status == 0
    assert [line[:2] for line in lines][:2] == [["event", "Sold"], ["event", "Dear"]]
    assert f"{folder}/shop.yaml:2" in lines[0]
    assert "event_sold" in out


@pytest.mark.usefixtures("shop", "folder")
def test_the_sql_of_events_and_cohorts_is_that_of_their_views(run: Run) -> None:
    for name, count in (("Sold", 3), ("Dear", 2), ("Lookers", 3), ("cohort:Buyers", 3)):
        status, sql, _ = run("definitions", "sql", name)
        assert status == 0
        assert run("query", f"SELECT COUNT(*) AS n FROM (\n{sql}\n) AS defined", "-o", "csv")[1] == f"n\r\n{count}\r\n"


@pytest.mark.usefixtures("shop", "folder")
def test_the_sql_of_an_insight_is_what_asking_it_runs(run: Run) -> None:
    assert run("definitions", "sql", "sales")[1] == answer_of(run, "insight", "sales")["sql"] + "\n"


def test_sql_takes_kind_and_name_where_a_name_is_of_several(folder: Path, run: Run) -> None:
    (folder / "more.yaml").write_text("cohorts: {Sold: {all: []}}")

    assert run("definitions", "sql", "Sold")[2] == (
        "manymetrics definitions: There are several 'Sold': write event:Sold or cohort:Sold.\n"
    )
    assert run("definitions", "sql", "Sld")[2].endswith(
        "There is no event, cohort or insight 'Sld': did you mean 'Sold'?\n"
    )
    assert run("definitions", "sql", "cohort:Sold")[0] == 0


@pytest.mark.usefixtures("shop", "folder")
def test_defined_events_and_cohorts_are_views_of_query(run: Run) -> None:
    joined = "event_dear AS e JOIN cohort_buyers AS c USING (project_id, person_id)"
    sql = f"SELECT e.user_id, c.person_kind FROM {joined} ORDER BY 1"

    assert run("query", sql, "-o", "csv")[1].split() == ["user_id,person_kind", "u3,user", "u5,user"]
    assert "Somebody paid." in run("query", "--tables")[1]
    assert "person_kind" in run("query", "--describe", "cohort_buyers")[1]
    assert "Did you mean event_sold?" in run("query", "SELECT * FROM event_sod")[2]


@pytest.mark.usefixtures("folder")
def test_cohort_views_tell_projects_apart(lake: Lake, run: Run) -> None:
    at = {"event_time": DAY, "received_at": DAY, "user_id": "u"}
    lake.append_events(
        {"project_id": "1", "event": "Bought", **at},
        {"project_id": "11", "event": "Viewed", **at},
        {"project_id": "2", "event": "Viewed", **at, "bot_kind": "search"},
    )

    assert run("query", "SELECT * FROM cohort_buyers", "-o", "csv")[1].split()[1:] == ["1,u,user"]
    assert run("query", "SELECT * FROM cohort_lookers", "-o", "csv")[1].split()[1:] == ["11,u,user"]


def test_the_days_of_a_view_count_back_from_when_it_is_read(lake: Lake, folder: Path, run: Run) -> None:
    today = datetime.now().astimezone().astimezone(tz=None).replace(tzinfo=None)
    for days in (0, 1, 2):
        at = today - timedelta(days=days)
        lake.append_events({"event": "A", "user_id": f"u{days}", "event_time": at, "received_at": at})
    (folder / "shop.yaml").write_text("cohorts: {Recent: {did: {event: A}, last: 2d}}")

    assert run("query", "SELECT person_id FROM cohort_recent ORDER BY 1", "-o", "csv")[1].split() == [
        "person_id",
        "u0",
        "u1",
    ]


@pytest.mark.usefixtures("shop")
def test_wrong_definitions_leave_no_query_half_answered(folder: Path, run: Run) -> None:
    (folder / "shop.yaml").write_text("events: [")

    status, out, error = run("query", "SELECT 1")

    assert (status, out) == (1, "")
    assert error.startswith(f"manymetrics query: {folder}/shop.yaml:")


@pytest.mark.usefixtures("shop")
def test_without_the_setting_there_are_no_definitions(run: Run) -> None:
    status, _, error = run("definitions", "check")

    assert status == 2
    assert error.startswith(
        "manymetrics: there are no definitions: set MANYMETRICS_DEFINITIONS to their folder, or to s3:"
    )
    assert run("definitions", "push")[0] == run("definitions")[0] == 2


def test_control_characters_of_a_file_reach_no_terminal(folder: Path, run: Run) -> None:
    (folder / "shop.yaml").write_text('events: {"\\e[31mA": {evnt: x}}')

    assert "\x1b" not in run("definitions", "check")[2]


# The docs


def examples() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)


def commands() -> list[str]:
    found = re.findall(r"^ {4}(manymetrics .*)$", DOCS, re.MULTILINE)
    return [line for line in dict.fromkeys(found) if " push" not in line]


@pytest.fixture
def example_folder(folder: Path) -> Path:
    (folder / "shop.yaml").unlink()
    for number, text in enumerate(examples()):
        (folder / f"{number}.yaml").write_text(text)
    return folder


@pytest.fixture
def documented(lake: Lake) -> Lake:
    """Events that each of the docs' definitions counts."""
    now = datetime.now().astimezone().replace(tzinfo=None)
    old = now - timedelta(days=60)
    order = {"event": "Order Completed", "properties": '{"total": 120, "agent": "x"}'}
    click = {"event": "Element Clicked", "context_page_path": "/pricing"}
    rows: list[Row] = [
        *({"user_id": "gone", "event_time": old, **order} for _ in range(2)),
        {"user_id": "new", "event_time": now, **click, "properties": '{"selector": "main > button.demo"}'},
        {"user_id": "new", "type": "identify", "event_time": now, "traits": '{"plan": "pro", "staff": false}'},
    ]
    lake.append_events(*({"received_at": row["event_time"], **row} for row in rows))
    return lake


@pytest.mark.usefixtures("example_folder", "documented")
def test_the_docs_examples_are_valid_and_count_something(run: Run) -> None:
    status, out, error = run("definitions", "check")

    assert (status, out.splitlines()[-1].endswith("no errors, 0 warnings")) == (0, True), out + error


@pytest.mark.parametrize("command", commands())
@pytest.mark.usefixtures("example_folder", "documented")
def test_each_command_of_the_docs_runs(run: Run, command: str) -> None:
    status, out, error = run(*shlex.split(command)[1:])

    assert (status, bool(out)) == (0, True), error


def test_the_schema_accepts_the_docs_examples_and_refuses_others(run: Run) -> None:
    schema = json.loads(run("definitions", "--schema")[1])

    for text in examples():
        jsonschema.validate(yaml.safe_load(text), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"events": {"A": {"evnt": "x"}}}, schema)


def test_the_docs_name_each_kind_of_definition_and_condition() -> None:
    words = ("events", "cohorts", "internal", "bots", "paths", "insights", "boards", "did_not", "first_did", "at_least")

    assert [word for word in words if word not in DOCS] == []
