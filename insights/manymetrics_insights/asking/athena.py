"""Run one SQL text on Athena: start it, poll with progress, fetch the rows as Python values, tell bytes and price.

    StartQueryExecution -> GetQueryExecution until it ends -> GetQueryResults, page by page

A query that nobody waits for any more is stopped: after Ctrl-C, the caller's cancellation or the time limit. Starting
is idempotent, so a lost answer costs no second query. Throttled calls are sent again until the time limit.
"""

from __future__ import annotations

import math
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

import boto3
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    ReadTimeoutError,
)

from manymetrics_insights.reader.aws_errors import describe_failure, describe_refusal, error_code
from manymetrics_insights.reader.iceberg import LakeError

WORKGROUP_VARIABLE: Final = "MANYMETRICS_ATHENA_WORKGROUP"
MAX_SQL_BYTES: Final = 262_144  # https://docs.aws.amazon.com/athena/latest/ug/service-limits.html
ROWS_A_PAGE: Final = 1000  # the most that GetQueryResults takes
LEAST_BILLED_BYTES: Final = 10 * 1024**2  # a query; https://athena.guide/articles/athena-basics-pricing-model
PERMISSIONS: Final = (
    "athena:StartQueryExecution, athena:GetQueryExecution, athena:GetQueryResults and athena:StopQueryExecution "
    "on the workgroup"
)
_FIRST_WAIT_S: Final = 0.2
_LONGEST_WAIT_S: Final = 2.0
TRIES: Final = 3  # of a call whose answer is lost; botocore itself has tried each several times
_THROTTLED: Final = frozenset({"TooManyRequestsException", "ThrottlingException"})
_LONGEST_REASON: Final = 300
_LONGEST_QUOTE: Final = 30  # characters of the SQL in an error: it may contain what a person typed
_CUT_OFF: Final = "bytes scanned limit"  # "Bytes scanned limit was exceeded", with the state CANCELLED
_TOO_LARGE: Final = "number of stages in the query"  # Trino's QUERY_HAS_TOO_MANY_STAGES
_BOILERPLATE: Final = re.compile(
    r"\s*(?:This query ran against the|If a data manifest file|You may need to).*", re.DOTALL
)


class AthenaError(LakeError):
    """Athena can't answer. The message names the fix, and never holds the whole SQL."""


class AthenaStoppedError(AthenaError):
    """The query was stopped: by the caller, or by the time limit."""


class Column(NamedTuple):
    """``type``: as Athena names it, such as ``bigint`` or ``timestamp(6)``."""

    name: str
    type: str


class Progress(NamedTuple):
    """How far a query is. ``state``: QUEUED, RUNNING, SUCCEEDED, FAILED or CANCELLED. ``seconds``: since the start."""

    state: str
    seconds: float
    bytes_scanned: int


@dataclass(frozen=True, slots=True)
class Limits:
    """``cancelled`` may be set by another thread. ``usd_per_tb``: the list price; a TB has 1024**4 bytes."""

    seconds: float = 1800.0  # Athena's own limit, unless raised
    rows: int = 1_000_000
    usd_per_tb: float = 5.0
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class AthenaResult:
    """Rows as Python values, in Athena's order. ``price_usd``: at the list price."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[object, ...], ...]
    query_id: str
    bytes_scanned: int
    price_usd: float


def make_client(environ: Mapping[str, str]) -> Any:  # noqa: ANN401  # boto3 ships no types
    """Make the client, with AWS's standard configuration. Raises AthenaError."""
    try:
        session = boto3.Session(region_name=environ.get("AWS_REGION") or None)
        if session.region_name is None:
            raise AthenaError("No AWS region: set AWS_REGION to that of the workgroup, or `aws configure set region`.")
        return session.client("athena")
    except BotoCoreError as error:
        raise AthenaError(describe_failure(error)) from error


def price(bytes_scanned: int, usd_per_tb: float) -> float:
    """Return the US dollars for a query: bytes are rounded up to a whole MB, and to 10 MB at least."""
    megabytes = math.ceil(bytes_scanned / 1024**2)
    return max(LEAST_BILLED_BYTES, megabytes * 1024**2) / 1024**4 * usd_per_tb


def run(
    sql: str,
    *,
    workgroup: str,
    database: str,
    client: Any,  # noqa: ANN401  # as above
    progress: Callable[[Progress], None] | None = None,
    limits: Limits | None = None,
) -> AthenaResult:
    """Run one statement in a workgroup, which sets where results go and the limit on bytes. Raises AthenaError."""
    _check(sql, workgroup)
    query = _Query(sql, workgroup, database, client, progress or _ignore, limits or Limits())
    query_id = query.start()
    try:
        ended = query.wait(query_id)
    except BaseException:
        query.stop(query_id)  # or it would run, and cost, for nobody
        raise
    query.check(ended)
    columns, rows = query.fetch(query_id, is_select=ended["StatementType"] == "DML")
    scanned = _bytes_scanned(ended)
    return AthenaResult(columns, rows, query_id, scanned, price(scanned, query.limits.usd_per_tb))


def _check(sql: str, workgroup: str) -> None:
    if not workgroup:
        raise AthenaError(f"No Athena workgroup: set {WORKGROUP_VARIABLE} (Terraform's output athena_workgroup).")
    if (size := len(sql.encode())) > MAX_SQL_BYTES:
        raise AthenaError(f"The SQL has {size:,} bytes, and Athena takes {MAX_SQL_BYTES:,}: ask with fewer parts.")


def _ignore(_progress: Progress) -> None:
    """Show no progress."""


@dataclass(slots=True)
class _Query:
    sql: str
    workgroup: str
    database: str
    client: Any
    progress: Callable[[Progress], None]
    limits: Limits
    begun: float = field(default_factory=time.monotonic)

    def start(self) -> str:
        """Return the id of the query. All tries share one token, so that Athena starts one query."""
        token = str(uuid.uuid4())
        answer = self._call(
            "StartQueryExecution",
            lambda: self.client.start_query_execution(
                QueryString=self.sql,
                ClientRequestToken=token,
                QueryExecutionContext={"Catalog": "AwsDataCatalog", "Database": self.database},
                WorkGroup=self.workgroup,
            ),
        )
        return str(answer["QueryExecutionId"])

    def wait(self, query_id: str) -> Mapping[str, Any]:
        """Poll until the query has ended, and return what GetQueryExecution says of it."""
        wait_s = _FIRST_WAIT_S
        while True:
            execution: Mapping[str, Any] = self._call(
                "GetQueryExecution", lambda: self.client.get_query_execution(QueryExecutionId=query_id)
            )["QueryExecution"]
            state = execution["Status"]["State"]
            self.progress(Progress(state, time.monotonic() - self.begun, _bytes_scanned(execution)))
            if state in {"SUCCEEDED", "FAILED", "CANCELLED"}:
                return execution
            self._pause(wait_s)
            wait_s = min(wait_s * 1.5, _LONGEST_WAIT_S)

    def check(self, execution: Mapping[str, Any]) -> None:
        """Raise AthenaError unless the query has succeeded."""
        if execution["Status"]["State"] != "SUCCEEDED":
            raise AthenaError(self._why_ended(execution))

    def fetch(self, query_id: str, *, is_select: bool) -> tuple[tuple[Column, ...], tuple[tuple[object, ...], ...]]:
        """Fetch columns and rows. A SELECT's first row holds the columns' names."""
        columns: tuple[Column, ...] = ()
        rows: list[tuple[object, ...]] = []
        for page in self._pages(query_id):
            texts = [[cell.get("VarCharValue") for cell in row["Data"]] for row in page["Rows"]]
            if not columns:
                described = page["ResultSetMetadata"]["ColumnInfo"]
                columns = tuple(Column(column["Name"], column["Type"]) for column in described)
                if is_select and texts and texts[0] == [column.name for column in columns]:
                    del texts[0]
            rows.extend(_values(columns, row) for row in texts)
            if len(rows) > self.limits.rows:
                raise AthenaError(f"The answer has over {self.limits.rows:,} rows: add a limit to the question.")
        return columns, tuple(rows)

    def stop(self, query_id: str) -> None:
        """Stop the query. One that has ended stays as it is; a failure to stop hides no other error."""
        try:
            self.client.stop_query_execution(QueryExecutionId=query_id)
        except (ClientError, BotoCoreError):
            return

    def _pages(self, query_id: str) -> Iterator[Mapping[str, Any]]:
        more: dict[str, str] = {}
        while True:
            self._pause(0)
            answer = self._call(
                "GetQueryResults",
                lambda: self.client.get_query_results(QueryExecutionId=query_id, MaxResults=ROWS_A_PAGE, **more),  # noqa: B023  # called at once
            )
            yield answer["ResultSet"]
            if not answer.get("NextToken"):
                return
            more = {"NextToken": answer["NextToken"]}

    def _call(self, name: str, call: Callable[[], Any]) -> Any:  # noqa: ANN401  # as above
        """Call AWS; again while it is throttled, and a few times if its answer is lost."""
        wait_s, tries = _FIRST_WAIT_S, TRIES
        while True:
            try:
                return call()
            except ClientError as error:
                if error_code(error) not in _THROTTLED:
                    raise AthenaError(self._describe(name, error)) from error
                why: Exception = error
            except (ConnectionClosedError, ConnectTimeoutError, ReadTimeoutError) as error:
                tries -= 1
                if not tries:
                    raise AthenaError(describe_failure(error)) from error
                why = error
            except BotoCoreError as error:
                raise AthenaError(describe_failure(error)) from error
            self._pause(wait_s, why)
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

    def _pause(self, seconds: float, why: Exception | None = None) -> None:
        """Wait. Raises AthenaStoppedError if the caller cancelled, or the time is over."""
        left = self.begun + self.limits.seconds - time.monotonic()
        if self.limits.cancelled.wait(max(0.0, min(seconds, left))):
            raise AthenaStoppedError("The query was cancelled.")
        if left <= seconds:
            because = f" The last error: {_shortened(str(why), self.sql)}" if why is not None else ""
            raise AthenaStoppedError(
                f"Athena took longer than {self.limits.seconds:g} s, so the query was stopped: ask about a shorter "
                f"range.{because}"
            )

    def _describe(self, name: str, error: ClientError) -> str:
        said = str(error.response["Error"].get("Message", ""))
        if error_code(error) == "InvalidRequestException":
            if re.search(r"work ?group", said, re.IGNORECASE):
                return (
                    f"Athena can't use the workgroup {self.workgroup!r} in {self.client.meta.region_name}: "
                    f"{_sentence(said)} Check {WORKGROUP_VARIABLE}, AWS_REGION and AWS_PROFILE."
                )
            if "output location" in said.lower():
                return (
                    f"The workgroup {self.workgroup!r} has no location for results: set one, or name another workgroup "
                    f"({WORKGROUP_VARIABLE})."
                )
            return f"Athena refused the query: {_shortened(said, self.sql)}"
        return _shortened(describe_refusal(error, f"call athena:{name}", PERMISSIONS), self.sql, longest=1000)

    def _why_ended(self, execution: Mapping[str, Any]) -> str:
        status = execution["Status"]
        failure = status.get("AthenaError") or {}
        reason = str(failure.get("ErrorMessage") or status.get("StateChangeReason") or "no reason was given")
        query_id = execution["QueryExecutionId"]
        if _CUT_OFF in reason.lower():
            scanned = _bytes_scanned(execution)
            return (
                f"Athena stopped the query after {scanned:,} bytes, the limit of the workgroup {self.workgroup!r}: ask "
                "about a shorter range, or raise the limit (Terraform's athena_scan_limit_gb)."
            )
        if status["State"] == "CANCELLED":
            return f"The query {query_id} was cancelled in Athena: {_shortened(reason, self.sql)}"
        if "access denied" in reason.lower() or "not authorized" in reason.lower():
            return (
                "No permission to read the tables: it needs glue:GetTable, glue:GetDatabase and glue:GetPartitions, "
                "s3:GetObject on the tables, s3:PutObject on the results and, if encrypted with a key, kms:Decrypt "
                f"and kms:GenerateDataKey. {_shortened(reason, self.sql)}"
            )
        if _TOO_LARGE in reason.lower():
            return "The question is too large for Athena: ask with fewer steps or breakdowns, or ask DuckDB."
        again = " Ask again." if failure.get("Retryable") else ""
        return f"The query {query_id} failed in Athena: {_shortened(reason, self.sql)}{again}"


def _bytes_scanned(execution: Mapping[str, Any]) -> int:
    return int((execution.get("Statistics") or {}).get("DataScannedInBytes") or 0)


def _shortened(text: str, sql: str, longest: int = _LONGEST_REASON) -> str:
    """Return Athena's words as one line, without long parts of the SQL and without its boilerplate."""
    line = _BOILERPLATE.sub("", " ".join(_without_quotes(text, sql).split()))
    return _sentence(line if len(line) <= longest else line[: longest - 1] + "…")


def _without_quotes(text: str, sql: str) -> str:
    """Replace each part of the text that also is a part of the SQL and has over 30 characters."""
    found, at = list[str](), 0
    while at < len(text):
        end = at + _LONGEST_QUOTE
        if text[at:end] not in sql or end >= len(text):
            found.append(text[at])
            at += 1
            continue
        while end < len(text) and text[at : end + 1] in sql:
            end += 1
        found.append("…")
        at = end
    return "".join(found)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "…", "!", "?")) else f"{text}."


def _values(columns: Sequence[Column], texts: Sequence[str | None]) -> tuple[object, ...]:
    return tuple(None if text is None else _parse(column, text) for column, text in zip(columns, texts, strict=True))


def _parse(column: Column, text: str) -> object:
    parse = _PARSERS.get(column.type.partition("(")[0].lower() if " " not in column.type else column.type)
    try:
        return text if parse is None else parse(text)
    except (LookupError, ValueError, ArithmeticError) as error:
        raise AthenaError(f"Athena's {column.type} {column.name} can't be read: {text[:60]!r}.") from error


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


_PARSERS: Final[Mapping[str, Callable[[str], object]]] = {  # other types stay text
    **dict.fromkeys(("tinyint", "smallint", "integer", "int", "bigint"), int),
    **dict.fromkeys(("double", "real", "float"), float),
    "decimal": Decimal,
    "boolean": _boolean,
    "date": date.fromisoformat,
    "timestamp": datetime.fromisoformat,  # without a time zone; UTC, as the tables' times are
}
