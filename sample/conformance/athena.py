"""Runs SQL in Athena, in the stack's workgroup."""

from __future__ import annotations

from typing import Any

from sample.conformance.probe import ProbeFailedError, Run

Row = dict[str, str | None]
POLL_S = 1.0
ASK_EVERY_S = 10.0
SPARE_S = 300.0  # beyond the batch window: a cold start, the commit, a retried batch


def ask(run: Run, sql: str) -> list[Row]:
    """Return the rows, with values as formatted by Athena. Raises ProbeFailedError with Athena's reason."""
    athena = run.world.client("athena")
    asked = athena.start_query_execution(
        QueryString=sql,
        QueryExecutionContext={"Database": run.outputs.glue_database_name},
        WorkGroup=run.outputs.athena_workgroup,
    )["QueryExecutionId"]
    while True:
        status = athena.get_query_execution(QueryExecutionId=asked)["QueryExecution"]["Status"]
        if status["State"] in {"FAILED", "CANCELLED"}:
            raise ProbeFailedError(f"Athena rejected {sql!r}: {status.get('StateChangeReason', status['State'])}")
        if status["State"] == "SUCCEEDED":
            return _results(athena, asked)
        run.world.sleep(POLL_S)


def _results(athena: Any, asked: str) -> list[Row]:  # noqa: ANN401  # boto3 ships no types
    rows: list[list[str | None]] = []
    names: list[str] = []
    more: dict[str, str] = {}
    while True:
        page = athena.get_query_results(QueryExecutionId=asked, **more)
        names = [column["Name"] for column in page["ResultSet"]["ResultSetMetadata"]["ColumnInfo"]]
        rows += [[cell.get("VarCharValue") for cell in row["Data"]] for row in page["ResultSet"]["Rows"]]
        if "NextToken" not in page:
            return [dict(zip(names, row, strict=True)) for row in rows[1:]]  # the first row has the names
        more = {"NextToken": page["NextToken"]}


def wait_for_count(run: Run, sql: str, wanted: int) -> None:
    """Wait until the first value of the result is ``wanted``. Raises ProbeFailedError if it isn't in time.

    A larger value fails immediately: waiting doesn't remove rows.
    """
    until = run.world.clock() + run.window_s + SPARE_S
    while True:
        [row] = ask(run, sql)
        found = int(next(iter(row.values())) or 0)
        if found == wanted:
            return
        if found > wanted or run.world.clock() > until:
            raise ProbeFailedError(f"{found} rows instead of {wanted}: {sql}")
        run.world.sleep(ASK_EVERY_S)
