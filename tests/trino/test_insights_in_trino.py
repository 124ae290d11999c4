"""The statements of questions on the real Trino: the rows of random worlds are those of DuckDB, byte for byte.

DuckDB's are those of the oracle (tests/insights/test_oracle.py). Numbers that are not in their shortest JSON form may
differ as texts: the worlds have none where a text is shown. ``person_events`` is held in a table, as its view takes
Trino a second to plan; the views are read by tests/trino/test_reading.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trino.dbapi import Connection

from manymetrics.tables import NAMESPACE
from manymetrics_insights.asking.answer import Answer, shape
from manymetrics_insights.questions.models import parse_question
from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.session import open_session
from manymetrics_insights.sql.render import render
from manymetrics_insights.sql.scope import Scope
from manymetrics_insights.views.athena import glue_views
from manymetrics_processor.lake.glue_catalog import glue_catalog
from tests.glue_lake import BUCKET, glue_lake
from tests.insights import lakes
from tests.insights.oracle.engine import Engine
from tests.insights.oracle.questions import make_questions
from tests.insights.oracle.worlds import World, make_world
from tests.scale import scaled
from tests.trino_server import CATALOG, Trino

pytestmark = pytest.mark.jvm

WORLDS = scaled(20, 20, 200)
QUESTIONS = scaled(1, 2, 21)  # of each world's 21


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [make_world(seed) for seed in range(5_000, 5_000 + WORLDS)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, worlds: list[World]) -> Engine:
    lake = lakes.make_lake(tmp_path_factory.mktemp("worlds") / "data")
    lake.append_events(*(row for world in worlds for row in world.rows))
    engine = Engine(open_session(Folder(lake.data_dir)))
    engine.hold()
    return engine


@pytest.fixture(scope="module")
def tables(trino: Trino, worlds: list[World]) -> Iterator[None]:
    """The same rows in Glue's tables, and the views' rows in tables."""
    with glue_lake(trino.aws):
        filled = lakes.Lake(Path(), glue_catalog(f"s3://{BUCKET}/warehouse", trino.aws.environ))
        filled.append_events(*(row for world in worlds for row in world.rows))
        for view in glue_views():
            trino.aws.client("glue").create_table(DatabaseName=NAMESPACE, TableInput=view)
        for name in ("person_events", "users"):
            location = f"s3://{BUCKET}/warehouse/held_{name}"
            trino.ask(f"CREATE TABLE held_{name} WITH (location = '{location}') AS SELECT * FROM {name}")
        yield


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("number", range(WORLDS))
def test_rows_are_those_of_duckdb(number: int, trino: Trino, engine: Engine, worlds: list[World]) -> None:
    world = worlds[number]
    questions = make_questions(world.seed, world)
    step = max(1, len(questions) // QUESTIONS)
    with closing(
        Connection("127.0.0.1", trino.port, "test", catalog=CATALOG, schema=NAMESPACE, timezone="UTC")
    ) as connection:
        for question in questions[number % step :: step]:
            by_duckdb = engine.ask(question, world.complete_through)
            rows = run(connection, by_duckdb.sql)

            parsed = parse_question(question)
            several = len(getattr(parsed, "by", ())) > 1
            by_trino = [shape(by_duckdb.columns, row, several=several) for row in rows]
            assert written(by_duckdb, by_trino) == written(by_duckdb, by_duckdb.rows), f"{world.seed}: {question}"

            rendered = render(parsed, Scope(world.project_id, world.complete_through, world.complete_through))
            if rendered.ignored is not None:
                assert run(connection, rendered.ignored)[0][0] == by_duckdb.ignored, f"{world.seed}: {question}"


def run(connection: Any, sql: str) -> list[list[object]]:  # noqa: ANN401  # of a package without types
    cursor = connection.cursor()
    cursor.execute(
        sql.replace("FROM person_events", "FROM held_person_events").replace("FROM users", "FROM held_users")
    )
    rows: list[list[object]] = cursor.fetchall()
    return rows


def written(answer: Answer, rows: list[tuple[object, ...]]) -> list[bytes]:
    """Each row as its JSON."""
    return replace(answer, rows=rows).to_json().partition(b'"rows":')[2].partition(b',"notes"')[0].split(b"],[")
