"""The saved queries, as the workgroup and sample/queries.sql have them, answer what they say."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from manymetrics_cli.main import main
from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.session import Session, open_session
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from tests.infra.shop import NOW_IN_SQL, shop_records
from tests.infra.write_queries import FILE, QUERIES, render
from tests.integration.micro_batches import STREAM, make_lake, record, track

ANSWERS: dict[str, list[tuple[Any, ...]]] = {
    "funnel": [(2, 2, 1)],
    "retention": [(date(2025, 11, 3), 2, 1, 1, 0, 0)],
    "sessions": [
        (date(2025, 11, 3), 1, 120.0, 1),
        (date(2025, 11, 4), 1, 60.0, 1),
        (date(2025, 11, 10), 1, 120.0, 1),
        (date(2025, 11, 23), 1, 60.0, 1),
    ],
    "web-vitals": [("/tea", 1, 100.0, None, 100.0)],
    "javascript-errors": [("TypeError", "x is null", 2, 2, datetime(2025, 11, 23, 13, 15, 20))],
    "products": [("Teapot", 2, 2, 58.0), ("Blue cup", 1, 1, 12.0)],
    "daily-active-users": [
        (date(2025, 11, 3), 1, 3),
        (date(2025, 11, 4), 1, 4),
        (date(2025, 11, 10), 1, 3),
        (date(2025, 11, 23), 1, 2),
    ],
}


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("shop") / "data"
    pipeline.run(shop_records(1), STREAM, make_lake(folder), Window())
    return open_session(Folder(folder))


def test_the_sample_has_them_as_the_module_saves_them_and_a_dozen_at_least() -> None:
    assert FILE.read_text() == render(), "python -m tests.infra.write_queries"
    assert len(QUERIES) >= 12


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.stem)
def test_each_says_what_it_asks(query: Path) -> None:
    first, *rest = query.read_text().splitlines()

    assert first.startswith("-- ")
    assert not any(line.strip().startswith("--") or line.endswith(";") for line in rest)


@pytest.mark.parametrize("name", ANSWERS)
def test_its_answer_is_what_it_says(shop: Session, name: str) -> None:
    [query] = [one for one in QUERIES if one.stem == name]

    answer = shop.connection.execute(query.read_text().replace("current_timestamp", NOW_IN_SQL)).fetchall()

    assert answer == ANSWERS[name]


def test_the_whole_file_runs(shop: Session) -> None:
    statements = shop.connection.extract_statements(FILE.read_text())

    assert len(statements) == len(QUERIES)
    for statement in statements:
        shop.connection.execute(statement)


def test_the_file_runs_by_the_command_and_counts_persons(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    events = [
        track("1", event="Look", userId=None, anonymousId="phone"),
        track("2", event="Look", userId="jane", anonymousId="phone"),
        track("3", event="Look", userId=None, anonymousId="tablet"),
        track("4", event="Look", userId="jane", anonymousId="tablet"),
        track("5", event="Look", userId=None, anonymousId="jane"),  # a device of that name, and not her
        track("6", event="Look", userId=None, anonymousId="undefined"),  # nobody
    ]
    pipeline.run([*shop_records(1), record(100, *events)], STREAM, make_lake(tmp_path / "data"), Window())
    file = tmp_path / "queries.sql"
    file.write_text(FILE.read_text().replace("current_timestamp", NOW_IN_SQL))

    status = main(["query", "--file", str(file), "-o", "ndjson", "--data-dir", str(tmp_path / "data")])
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]

    assert status == 0
    assert [row["people"] for row in rows if row.get("event") == "Look" and "events" in row] == [2]
    assert main(["query", "--file", str(FILE), "--data-dir", str(tmp_path / "data")]) == 0
    assert capfd.readouterr().err.count("row") == len(QUERIES)


def test_each_runs_on_empty_tables(tmp_path: Path) -> None:
    empty = open_session(Folder(tmp_path)).connection

    assert {len(empty.execute(query.read_text()).fetchall()) for query in QUERIES} == {0, 1}  # a funnel of nobody


def test_it_is_now_that_is_meant() -> None:
    assert datetime.fromtimestamp(1_763_990_000, UTC).isoformat(" ")[:19] in NOW_IN_SQL
