"""Insights of the tables in Glue and S3, by DuckDB and by Athena. moto is Athena: it answers with rows given to it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from manymetrics_cli.main import main
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.glue_catalog import glue_catalog
from manymetrics_processor.lake.lake import Lake
from tests.integration.micro_batches import STREAM, record, track
from tests.strict_moto import REGION, Aws

Insight = Callable[..., tuple[int, str, str]]
NO_STREAM = "the local stream was not read: complete-through is the time of the newest record in the tables"
TRENDS = ("trends", "any", "--measure", "persons", "--project", "shop", "--from", "2025-11-20", "--to", "2025-12-01")
TYPES = {"series": "varchar", "segment": "varchar", "bucket": "date", "value": "bigint", "incomplete": "boolean"}


@pytest.fixture
def lake(aws_lake: tuple[Aws, str], monkeypatch: pytest.MonkeyPatch) -> Lake:
    """Tables with the events of seven users, and a workgroup."""
    aws, warehouse = aws_lake
    monkeypatch.setenv("MANYMETRICS_WAREHOUSE", warehouse)
    monkeypatch.setenv("MANYMETRICS_ATHENA_WORKGROUP", "shop")
    with suppress(ClientError):  # of the test before
        aws.client("athena").create_work_group(Name="shop", Configuration={})
    lake = Lake(glue_catalog(warehouse, os.environ), sleep=lambda _seconds: None)
    lake.ensure_tables()
    fill(lake, 0)
    return lake


def fill(lake: Lake, batch: int) -> None:
    events = [track(f"m{batch}-{number}", userId=f"u{number % 7}") for number in range(20)]
    pipeline.run([record(batch, *events, day=3)], STREAM, lake, Window())


@pytest.fixture
def insight(lake: Lake, capfd: pytest.CaptureFixture[str]) -> Insight:  # noqa: ARG001  # its tables
    def run(*arguments: str) -> tuple[int, str, str]:
        status = main([*arguments])
        out, error = capfd.readouterr()
        return status, out, error.replace(f"note: {NO_STREAM}\n", "")  # the batches are of a local stream

    return run


def give_rows(aws: Aws, types: dict[str, str], *rows: list[str | None]) -> None:
    header: list[str | None] = [*types]
    cells = [[{} if text is None else {"VarCharValue": text} for text in row] for row in (header, *rows)]
    columns = [{"Name": name, "Type": kind} for name, kind in types.items()]
    results = [{"rows": [{"Data": row} for row in cells], "column_info": columns}]
    asked = {"region": REGION, "results": results}
    httpx.post(f"{aws.url}/moto-api/static/athena/query-results", json=asked).raise_for_status()


def as_athena_writes(row: list[Any]) -> list[str | None]:
    return [None if value is None else str(value).lower() if isinstance(value, bool) else str(value) for value in row]


def asked_of(aws: Aws) -> list[str]:
    """The SQL of each query, oldest first."""
    athena = aws.client("athena")
    ids = athena.list_query_executions(WorkGroup="shop")["QueryExecutionIds"]
    return [athena.get_query_execution(QueryExecutionId=one)["QueryExecution"]["Query"] for one in ids]


def test_athena_is_asked_the_same_sql_and_gives_the_same_answer(insight: Insight, moto_server: Aws) -> None:
    status, out, error = insight(*TRENDS, "-o", "json")
    assert (status, error) == (0, "")
    by_duckdb = json.loads(out)
    give_rows(moto_server, TYPES, *map(as_athena_writes, by_duckdb["rows"]))

    status, out, error = insight(*TRENDS, "-o", "json", "--engine", "athena")

    assert (status, error) == (0, "")
    found = json.loads(out)
    assert sum(row[3] for row in found["rows"]) == 7
    assert found["complete_through"] == "2025-11-24T13:13:20Z"
    for part in ("question", "hash", "snapshot", "complete_through", "columns", "rows", "notes"):
        assert found[part] == by_duckdb[part], part
    assert asked_of(moto_server)[-1] == found["sql"]
    assert (found["engine"], found["bytes_read"], found["price"]) == ("athena", 0, pytest.approx(10 / 1024**2 * 5))


def test_without_a_project_athena_is_asked_for_it(insight: Insight, moto_server: Aws) -> None:
    give_rows(moto_server, {"project_id": "varchar"}, ["shop"])
    give_rows(moto_server, TYPES, ["A", None, "2025-11-27", "7", "false"])
    arguments = [argument for argument in TRENDS if argument not in {"--project", "shop"}]

    status, out, _ = insight(*arguments, "-o", "json", "--engine", "athena")

    found = json.loads(out)
    assert (status, found["question"]["project"], found["rows"]) == (0, "shop", [["A", None, "2025-11-27", 7, False]])
    assert asked_of(moto_server)[-2].startswith("SELECT DISTINCT project_id")
    assert found["price"] == pytest.approx(2 * 10 / 1024**2 * 5)


def test_with_several_projects_athenas_answer_names_them(insight: Insight, moto_server: Aws) -> None:
    give_rows(moto_server, {"project_id": "varchar"}, ["blog"], ["shop"])
    arguments = [argument for argument in TRENDS if argument not in {"--project", "shop"}]

    assert insight(*arguments, "--engine", "athena") == (
        2,
        "",
        "manymetrics trends: project: there are several, name one: blog, shop\n",
    )


def test_a_move_of_the_tables_while_athena_answers_is_noted(
    insight: Insight, lake: Lake, moto_server: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    from manymetrics_insights.asking import athena

    real = athena.run

    def run(*arguments: Any, **options: Any) -> athena.AthenaResult:  # noqa: ANN401  # as the real one's
        fill(lake, 1)
        return real(*arguments, **options)

    monkeypatch.setattr(athena, "run", run)
    give_rows(moto_server, TYPES, ["A", None, "2025-11-27", "7", "false"])

    status, out, error = insight(*TRENDS, "--engine", "athena", "-o", "json")

    assert status == 0
    [_, note] = json.loads(out)["notes"]
    assert note.startswith("the events moved from snapshot ")
    assert error == f"note: {note}\n"


def test_what_athena_refuses_is_told_without_sql(insight: Insight, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYMETRICS_ATHENA_WORKGROUP", "other")

    status, out, error = insight(*TRENDS, "--engine", "athena")

    assert (status, out) == (1, "")
    assert error.startswith("manymetrics trends: Athena can't use the workgroup 'other' in eu-west-1: ")
    monkeypatch.delenv("MANYMETRICS_ATHENA_WORKGROUP")
    status, _, error = insight(*TRENDS, "--engine", "athena")
    assert (status, error.startswith("manymetrics trends: No Athena workgroup: set MANYMETRICS_ATHENA_")) == (1, True)
