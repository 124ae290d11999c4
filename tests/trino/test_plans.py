"""How Trino plans persons and insights: it refuses a statement of more than 150 stages, and Athena bills each scan.

Joins are planned as for large tables, PARTITIONED, which takes more stages than sending a small table to all nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from trino.dbapi import Connection

from manymetrics.tables import NAMESPACE
from manymetrics_insights.asking.ask import Context, settle
from manymetrics_insights.questions.models import INSIGHTS, parse_question
from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.session import open_session
from manymetrics_insights.views.athena import glue_views
from manymetrics_processor.lake.glue_catalog import glue_catalog
from tests.glue_lake import BUCKET, glue_lake
from tests.insights import lakes
from tests.insights.test_person import random_aliases, random_events
from tests.trino_server import CATALOG, Trino

pytestmark = pytest.mark.jvm

MAX_STAGES: Final = 150  # Trino's default of query.max-stage-count, and Athena's
PERSONS: Final = "SELECT project_id, message_id, person_id, person_kind FROM person_events"
NOW: Final = datetime(2026, 3, 20)

PROPERTY: Final = {"by": [{"property": ["plan"]}]}
COLUMN: Final = {"by": [{"column": "geo_country"}]}
TREND: Final = {"insight": "trends", "series": [{"event": "Bought"}]}
PERSONS_TREND: Final = {"insight": "trends", "series": [{"event": "Bought", "measure": "persons"}]}
FUNNEL: Final = {"insight": "funnel", "steps": [{"event": "Viewed"}, {"event": "Added"}, {"event": "Bought"}]}
COHORT: Final = {"where": [{"cohort": {"did": {"event": "Bought"}, "at_least": 2, "last": "30d"}}]}
QUESTIONS: Final[dict[str, dict[str, Any]]] = {
    "trends": TREND,
    "trends by property": TREND | PROPERTY,
    "trends by column": TREND | COLUMN,
    "trends of persons by property": PERSONS_TREND | PROPERTY,
    "funnel": FUNNEL,
    "funnel by property": FUNNEL | PROPERTY,
    "funnel by column": FUNNEL | COLUMN,
    "retention": {"insight": "retention"},
    "retention by property": {"insight": "retention"} | PROPERTY,
    "retention by column": {"insight": "retention"} | COLUMN,
    "lifecycle": {"insight": "lifecycle"},
    "stickiness": {"insight": "stickiness"},
    "sessions": {"insight": "sessions"},
    "sessions by source": {"insight": "sessions", "by": ["source"]},
    "paths": {"insight": "paths"},
    "paths of persons": {"insight": "paths", "unit": "person"},
    "persons of trends by property": {"insight": "persons", "of": PERSONS_TREND | PROPERTY},
    "persons of a funnel": {"insight": "persons", "of": FUNNEL, "cell": {"step": 2}, "figure": "dropped"},
    "persons of a funnel by property": {"insight": "persons", "of": FUNNEL | PROPERTY, "cell": {"step": 2}},
    "persons of retention": {"insight": "persons", "of": {"insight": "retention"}, "cell": {"n": 1}},
    "timeline": {"insight": "timeline", "person_id": "u1"},
    "trends of a cohort": PERSONS_TREND | COHORT,
    "funnel of a cohort": FUNNEL | COHORT,
    "funnel of a cohort by property": FUNNEL | COHORT | PROPERTY,
    "retention of a cohort": {"insight": "retention"} | COHORT,
    "lifecycle of a cohort": {"insight": "lifecycle"} | COHORT,
    "sessions of a cohort": {"insight": "sessions"} | COHORT,
    "paths of a cohort": {"insight": "paths"} | COHORT,
}


class Plan(NamedTuple):
    """``scans``: of tables."""

    stages: int
    scans: int
    text: str


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = lakes.make_lake(tmp_path_factory.mktemp("worlds") / "data")
    lake.append_events(*random_events(), *random_aliases())
    return lake.data_dir


@pytest.fixture(scope="module")
def filled(trino: Trino) -> Iterator[Trino]:
    with glue_lake(trino.aws):
        lake = lakes.Lake(Path(), glue_catalog(f"s3://{BUCKET}/warehouse", trino.aws.environ))
        lake.append_events(*random_events(), *random_aliases())
        for view in glue_views():
            trino.aws.client("glue").create_table(DatabaseName=NAMESPACE, TableInput=view)
        yield trino


def test_persons_of_random_worlds_are_those_of_duckdb(filled: Trino, data_dir: Path) -> None:
    expected = open_session(Folder(data_dir)).connection.execute(PERSONS).fetchall()

    found = filled.ask(PERSONS)

    assert sorted((tuple(row.values()) for row in found), key=str) == sorted(expected, key=str)


def test_persons_take_three_scans_and_nine_stages(filled: Trino) -> None:
    plan = explain(filled, "SELECT COUNT(DISTINCT person_id) FROM person_events")

    assert (plan.scans, plan.stages) == (3, 9), plan.text


@pytest.mark.parametrize("condition", ["", " WHERE project_id = 'world1'"])
def test_only_the_map_of_aliases_is_made_in_one_task_a_project(filled: Trino, condition: str) -> None:
    plan = explain(filled, PERSONS + condition)

    keys = [found.split(", ") for found in re.findall(r"Output partitioning: HASH \[(.*?)\]", plan.text)]
    assert sorted(len(columns) for columns in keys) == [1, 2, 2, 2, 2, 2], plan.text


def test_each_scan_of_persons_is_of_the_project(filled: Trino) -> None:
    plan = explain(filled, f"{PERSONS} WHERE project_id = 'world1'")

    assert plan.text.count("= varchar 'world1'") == plan.scans == 3, plan.text


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_is_planned(name: str, filled: Trino) -> None:
    sql = settle(parse_question(QUESTIONS[name]), "world1", Context(NOW, NOW)).rendered.sql

    plan = explain(filled, sql, query_max_stage_count="10000")

    assert plan.stages <= MAX_STAGES, f"{plan.stages} stages, {plan.scans} scans"


def test_all_insights_are_planned() -> None:
    assert {question["insight"] for question in QUESTIONS.values()} == set(INSIGHTS)


def explain(trino: Trino, sql: str, **properties: str) -> Plan:
    with closing(
        Connection(
            "127.0.0.1",
            trino.port,
            "test",
            catalog=CATALOG,
            schema=NAMESPACE,
            session_properties={"join_distribution_type": "PARTITIONED", **properties},
        )
    ) as connection:
        cursor = connection.cursor()
        cursor.execute(f"EXPLAIN (TYPE DISTRIBUTED) {sql}")
        text = str(cursor.fetchall()[0][0])
    return Plan(len(re.findall(r"^Fragment \d+ ", text, re.MULTILINE)), text.count("[table = "), text)
