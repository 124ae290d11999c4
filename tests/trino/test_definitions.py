"""Cohorts and the views of definitions, by Athena's engine: the rows that DuckDB has."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from manymetrics.tables import EVENTS, NAMESPACE
from manymetrics_insights.asking.answer import shape
from manymetrics_insights.definitions import glue
from manymetrics_insights.definitions.models import Definitions
from manymetrics_insights.definitions.read import merge
from manymetrics_insights.definitions.views import make_views
from manymetrics_insights.questions.models import parse_question
from manymetrics_insights.reader.s3 import glue_source
from manymetrics_insights.reader.session import open_session
from manymetrics_insights.sql.render import render
from manymetrics_insights.sql.scope import Scope
from manymetrics_insights.views.athena import glue_views
from manymetrics_processor.lake.lake import Lake
from tests.aws_path import WAREHOUSE
from tests.conftest import ROOT
from tests.glue_lake import glue_lake
from tests.insights.oracle.cohorts import make_condition, make_world, members
from tests.insights.test_cohorts import cohort_sql, make_options
from tests.scale import scaled
from tests.trino_server import Trino

pytestmark = pytest.mark.jvm

WORLDS = scaled(4, 12, 100)
TODAY = datetime.now().astimezone().replace(tzinfo=None)


def documented() -> Definitions:
    """Those of docs/definitions.md."""
    texts = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "definitions.md").read_text("utf-8"), re.DOTALL)
    return merge({f"{number}.yaml": text.encode() for number, text in enumerate(texts)}).definitions


@pytest.fixture(scope="module")
def filled(trino: Trino) -> Iterator[Lake]:
    """The worlds' events, and some for the docs' definitions."""
    with glue_lake(trino.aws) as lake:
        rows = [row for seed in range(WORLDS) for row in make_world(seed).rows]
        for number in range(40):
            chance = random.Random(number)
            row = chance.choice(rows[:200])
            rows.append(
                row
                | {
                    "message_id": f"d{number}",
                    "project_id": chance.choice(("1", "11")),
                    "event_time": TODAY - timedelta(days=chance.choice((0, 1, 29, 30, 31, 100))),
                    "event": chance.choice(("Order Completed", "Element Clicked")) if row["type"] == "track" else None,
                    "properties": chance.choice(
                        ('{"total": 120}', '{"total": "99.5"}', '{"selector": "a > button.demo"}', "{", None)
                    ),
                    "context_page_path": "/pricing",
                }
            )
        lineage = {"_stream": "test", "_shard": "0", "_sequence": "1", "_position": 0}
        table = lake.load(EVENTS)
        whole = [
            dict.fromkeys(EVENTS.column_names) | lineage | {"received_at": row["event_time"]} | row for row in rows
        ]
        table.append(pa.Table.from_pylist(whole, schema=table.schema().as_arrow()))
        for view in glue_views():
            trino.aws.client("glue").create_table(DatabaseName=NAMESPACE, TableInput=view)
        yield lake


@pytest.mark.usefixtures("filled")
def test_the_persons_of_cohorts_are_those_of_a_plain_program(trino: Trino) -> None:
    sizes = set()
    for seed in range(WORLDS):
        world = make_world(seed)
        chance = random.Random(world.project)
        condition, options = make_condition(chance), make_options(chance)

        found = [row["person"] for row in trino.ask(cohort_sql(world, condition, options))]

        assert found == sorted(members(world, condition, **options)), f"{world}\n{condition}\n{options}"
        sizes.add(len(found))
    assert len(sizes) >= 3


@pytest.mark.usefixtures("filled")
def test_the_views_of_definitions_are_read_from_glue_as_here(trino: Trino) -> None:
    definitions = documented()
    client = trino.aws.client("glue")
    glue.apply(client, NAMESPACE, glue.plan(client, NAMESPACE, definitions))
    source = glue_source(WAREHOUSE, NAMESPACE, trino.aws.environ)
    session = open_session(source, more=make_views(definitions))

    for view in make_views(definitions):
        columns = [name for name in view.columns if not name.startswith("_")]
        theirs = trino.ask(f"SELECT {', '.join(columns)} FROM {view.name}")
        ours = session.connection.execute(f"SELECT {', '.join(columns)} FROM {view.name}").fetchall()

        assert sorted(map(repr, ours)) == sorted(repr(tuple(row.values())) for row in theirs)
        assert view.name == "event_asked_for_a_demo" or ours, f"{view.name} counts nothing"
    assert glue.plan(client, NAMESPACE, definitions) == []


POPULATION = {
    "project": "1",
    "last": "120d",
    "where": [{"cohort": {"all": [{"did": {"event": "A"}, "last": "400d"}, {"not": {"did": {"event": "B"}}}]}}],
    "bot_rows": [{"property": ["total"], "is": "99.5"}],
}


@pytest.mark.parametrize(
    "question",
    [
        {"insight": "trends", "series": [{"any": True, "measure": "persons"}]},
        {"insight": "sessions", "interval": "month"},
    ],
    ids=lambda question: str(question["insight"]),
)
@pytest.mark.usefixtures("filled")
def test_questions_take_a_cohort_and_rules_for_bots(trino: Trino, question: dict[str, Any]) -> None:
    session = open_session(glue_source(WAREHOUSE, NAMESPACE, trino.aws.environ))
    rendered = render(parse_question(POPULATION | question), Scope("1", TODAY, TODAY))

    ours = session.connection.execute(rendered.sql).fetchall()
    theirs = [tuple(row.values()) for row in trino.ask(rendered.sql)]

    def shown(rows: list[Any]) -> list[str]:
        return [repr(shape(rendered.columns, row, several=False)) for row in rows]

    assert ours
    assert shown(theirs) == shown(ours)
