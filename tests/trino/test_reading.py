"""What Athena's engine reads of the tables and views: the very rows that were written, and DuckDB's answers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from manymetrics.tables import EVENTS, NAMESPACE, TABLES, Table
from manymetrics_api.sinks import MemorySink
from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.session import open_session
from manymetrics_insights.views import VIEW_NAMES, read_views
from manymetrics_insights.views.athena import glue_views
from manymetrics_insights.views.portable import PATTERNS
from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.lake import Lake, local_catalog
from tests.events_corpus import read_cases, request_of
from tests.glue_lake import glue_lake
from tests.in_process import ask, make_app
from tests.infra.shop import NOW_IN_SQL, shop_records
from tests.infra.write_queries import QUERIES
from tests.insights.portable_events import portable_records
from tests.insights.test_portable import VITALS
from tests.integration.micro_batches import NOW, SHARD, STREAM, Event, append_as_older_processor, make_lake, packed
from tests.trino_server import Row, Trino

pytestmark = pytest.mark.jvm

HOUR_US = 3_600_000_000


LEFT = '{"device":{"brand":"Acme"},"groupId":"g-1"}'  # of an older processor, for the views to read


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that holds the same batches."""
    folder = tmp_path_factory.mktemp("local") / "data"
    lake, window = make_lake(folder), Window()
    for batch in batches():
        pipeline.run(batch, STREAM, lake, window)
    append_as_older_processor(lake, 99_999, "older", LEFT)
    return folder


@pytest.fixture(scope="module")
def filled(trino: Trino) -> Iterator[Lake]:
    with glue_lake(trino.aws) as lake:
        window = Window()
        for batch in batches():
            pipeline.run(batch, STREAM, lake, window)
        append_as_older_processor(lake, 99_999, "older", LEFT)
        glue = trino.aws.client("glue")
        for view in glue_views():
            glue.create_table(DatabaseName=NAMESPACE, TableInput=view)
        yield lake


@cache  # a request has an id that is made anew
def batches() -> list[list[StreamRecord]]:
    """The corpus, then days of random events with resends and bad ones, and a shop for the saved queries."""
    sink = MemorySink()
    app = make_app(sink)
    for case in read_cases().values():
        ask(app, *request_of(case))
    chance = random.Random(5)
    bodies = [*sink.records]
    for number in range(40):
        events = [random_event(chance) for _ in range(chance.randint(1, 30))]
        bodies.append(
            packed(
                events,
                received_at=NOW + number * HOUR_US,
                project_id=chance.choice(["shop", "blog"]),
                request_id=f"r{number}",
            )
        )
    records = [StreamRecord(SHARD, number, body, NOW) for number, body in enumerate(bodies, 1)]
    records += shop_records(len(records) + 1)
    records += portable_records(len(records) + 1)
    return [records[start : start + 15] for start in range(0, len(records), 15)]


def random_event(chance: random.Random) -> Event | bytes:
    if chance.random() < 0.05:
        return chance.choice([b'{"type":"trick","userId":"u"}', b'{"type":"track"}', b"[]"])
    kind = chance.choice(["track", "track", "page", "screen", "identify", "alias", "group"])
    happened = NOW + chance.randrange(-100 * HOUR_US, 40 * HOUR_US)
    event: dict[str, Any] = {
        "type": kind,
        "messageId": f"m{chance.randrange(700)}",
        "event": chance.choice(["Order", "Größe 📦", "x"]) if kind == "track" else None,
        "userId": chance.choice([None, "ann", "bob", "eve", "Zoë"]),
        "anonymousId": f"d{chance.randrange(9)}",
        "originalTimestamp": iso(happened),
        "traits": chance.choice([None, {}, {"plan": "pro", "é": [1, None, 2.5]}, {"plan": None, "a.b": "📦", "": {}}]),
        "properties": {"revenue": chance.randrange(10_000) / 100, "名": "値", "deep": {"a": ["\u0000", "\"'"]}},
        "context": {"page": {"url": "https://shop.example/?q=ö"}, "screen": {"width": chance.randrange(5_000)}},
    }
    if kind == "alias":
        event |= {"userId": chance.choice(["ann", "bob"]), "previousId": f"d{chance.randrange(12)}"}
    return {name: value for name, value in event.items() if value is not None}


def iso(microseconds: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat()


def of_duckdb(data_dir: Path, sql: str) -> list[Row]:
    connection = open_session(Folder(data_dir)).connection
    connection.execute(sql)
    names = [column[0] for column in connection.description or ()]
    return [dict(zip(names, row, strict=True)) for row in connection.fetchall()]


def in_order(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=repr)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_select_of_all_returns_what_was_written_row_for_row(
    trino: Trino, filled: Lake, local: Path, table: Table
) -> None:
    written = local_catalog(local).load_table((NAMESPACE, table.name)).scan().to_arrow().to_pylist()

    found = trino.ask(f"SELECT * FROM {table.name}")

    assert len(found) > (200 if table is EVENTS else 20)
    assert in_order(found) == in_order(written)
    assert in_order(filled.load(table).scan().to_arrow().to_pylist()) == in_order(written)


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("view", VIEW_NAMES)
def test_a_view_answers_in_athenas_engine_as_on_one_machine(trino: Trino, local: Path, view: str) -> None:
    found = trino.ask(f"SELECT * FROM {view}")

    assert found
    assert in_order(found) == in_order(of_duckdb(local, f"SELECT * FROM {view}"))


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.stem)
def test_a_saved_query_answers_in_athenas_engine_as_on_one_machine(trino: Trino, local: Path, query: Path) -> None:
    sql = query.read_text().replace("current_timestamp", NOW_IN_SQL)

    found = trino.ask(sql)

    assert found
    assert in_order(found) == in_order(of_duckdb(local, sql))


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("sql", [*PATTERNS.values(), *VITALS])
def test_sql_of_the_docs_answers_in_athenas_engine_as_on_one_machine(trino: Trino, local: Path, sql: str) -> None:
    found = trino.ask(sql)

    assert found
    assert in_order(found) == in_order(of_duckdb(local, sql))


@pytest.mark.usefixtures("filled")
def test_the_catalog_tells_every_column_of_tables_and_views(trino: Trino) -> None:
    told = trino.ask(
        f"SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = '{NAMESPACE}'"
    )

    assert {(row["table_name"], row["column_name"]) for row in told} == {
        *((table.name, name) for table in TABLES for name in table.column_names),
        *((view.name, name) for view in read_views() for name in view.columns),
    }
