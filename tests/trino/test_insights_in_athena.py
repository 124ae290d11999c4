"""``--engine athena`` with Athena's engine behind the API: Trino's rows, as Athena writes them, are DuckDB's answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import manymetrics_insights.asking.athena
from manymetrics.tables import NAMESPACE
from manymetrics_cli.main import main
from manymetrics_insights.views.athena import glue_views
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from tests.glue_lake import BUCKET, glue_lake
from tests.infra.shop import shop_records
from tests.integration.micro_batches import STREAM
from tests.trino_server import CATALOG, Trino

pytestmark = pytest.mark.jvm

Insight = Callable[..., tuple[int, str, str]]
RANGE = ("--from", "2025-11-01", "--to", "2025-11-25", "--zone", "Asia/Kathmandu")
QUESTIONS: dict[str, tuple[str, ...]] = {
    "trends": ("Added to Cart", "--measure", "sum:price", "--interval", "week", *RANGE),
    "funnel": ("Added to Cart", "Order Completed", *RANGE),
    "retention": ("--born", "type:page", "--return", "any", "--interval", "week", *RANGE),
    "lifecycle": RANGE,
    "stickiness": ("any", *RANGE),
    "sessions": ("--converted", "Order Completed", *RANGE),
    "sessions in detail": ("--detail", *RANGE),
    "paths": ("--start", "type:page", *RANGE),
    "persons": ("-", "--cell", "bucket=2025-11-03"),
    "timeline": ("ann", "--kind", "anonymous", "--limit", "5"),
}


class AthenaOverTrino:
    """Athena's client, of a workgroup whose queries Trino runs at once."""

    meta = SimpleNamespace(region_name="eu-west-1")

    def __init__(self, trino: Trino) -> None:
        self._trino = trino
        self._results: dict[str, tuple[list[dict[str, str]], list[list[str | None]]]] = {}

    def start_query_execution(self, **asked: Any) -> dict[str, str]:  # noqa: ANN401  # as boto3's
        assert (asked["WorkGroup"], asked["QueryExecutionContext"]["Database"]) == ("shop", NAMESPACE)
        columns, rows = self._run(asked["QueryString"])
        header: list[str | None] = [column["name"] for column in columns]
        described = [{"Name": column["name"], "Type": athena_type(column["type"])} for column in columns]
        self._results[asked["ClientRequestToken"]] = (
            described,
            [header, *([as_text(cell) for cell in row] for row in rows)],
        )
        return {"QueryExecutionId": asked["ClientRequestToken"]}

    def get_query_execution(self, **asked: str) -> dict[str, Any]:
        execution = {
            "QueryExecutionId": asked["QueryExecutionId"],
            "StatementType": "DML",
            "Status": {"State": "SUCCEEDED"},
            "Statistics": {"DataScannedInBytes": 12_345},
        }
        return {"QueryExecution": execution}

    def get_query_results(self, **asked: Any) -> dict[str, Any]:  # noqa: ANN401  # as boto3's
        columns, rows = self._results[asked["QueryExecutionId"]]
        first, size = int(asked.get("NextToken", 0)), asked["MaxResults"]
        page = [
            {"Data": [{} if text is None else {"VarCharValue": text} for text in row]} for row in rows[first:][:size]
        ]
        more = {"NextToken": str(first + size)} if first + size < len(rows) else {}
        return {"ResultSet": {"Rows": page, "ResultSetMetadata": {"ColumnInfo": columns}}, **more}

    def _run(self, sql: str) -> tuple[list[dict[str, str]], list[list[object]]]:
        """Run a statement by Trino's own protocol, whose values are texts as Athena's, but for JSON's own types."""
        headers = {"X-Trino-User": "test", "X-Trino-Catalog": CATALOG, "X-Trino-Schema": NAMESPACE}
        rows: list[list[object]] = []
        with httpx.Client(headers=headers | {"X-Trino-Time-Zone": "UTC"}, timeout=120) as http:
            found = http.post(f"http://127.0.0.1:{self._trino.port}/v1/statement", content=sql.encode()).json()
            columns: list[dict[str, str]] = []
            while "nextUri" in found:
                found = http.get(found["nextUri"]).json()
                columns = found.get("columns", columns)
                rows += found.get("data", [])
        assert "error" not in found, found["error"]["message"]
        return columns, rows


def athena_type(name: str) -> str:
    return name if name.startswith("timestamp") else name.partition("(")[0]


def as_text(value: object) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None else str(value)


@pytest.fixture(scope="module")
def shop(trino: Trino) -> Iterator[None]:
    """The small shop's three weeks, in tables and views."""
    with glue_lake(trino.aws) as lake:
        pipeline.run(shop_records(1), STREAM, lake, Window())
        for view in glue_views():
            trino.aws.client("glue").create_table(DatabaseName=NAMESPACE, TableInput=view)
        yield


@pytest.fixture
def insight(
    trino: Trino,
    shop: None,  # noqa: ARG001  # the tables
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Insight:
    athena = AthenaOverTrino(trino)
    monkeypatch.setattr(manymetrics_insights.asking.athena, "make_client", lambda _environ: athena)
    for name, value in trino.aws.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MANYMETRICS_WAREHOUSE", f"s3://{BUCKET}/warehouse")
    monkeypatch.setenv("MANYMETRICS_ATHENA_WORKGROUP", "shop")

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main([*arguments])
        return status, *capfd.readouterr()

    return run


@pytest.mark.parametrize("name", QUESTIONS)
def test_athena_and_duckdb_give_the_same_rows(name: str, insight: Insight, tmp_path: Path) -> None:
    arguments = [name.partition(" ")[0], *QUESTIONS[name], "-o", "json"]
    if name == "persons":
        of = tmp_path / "of.json"
        of.write_text(insight("trends", "any", "--measure", "persons", *RANGE, "-o", "json")[1])
        arguments[1] = str(of)
    answers = []
    for engine in ("duckdb", "athena"):
        status, out, error = insight(*arguments, "--engine", engine)
        assert status == 0, error
        answers.append(json.loads(out, parse_float=str, parse_int=str))

    by_duckdb, by_athena = answers
    assert by_athena["rows"]
    for part in ("columns", "rows", "snapshot", "ignored"):
        assert by_athena[part] == by_duckdb[part], part
    assert int(by_athena["bytes_read"]) >= 12_345
