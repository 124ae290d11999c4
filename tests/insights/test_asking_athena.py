"""A question's SQL on Athena: the protocol over HTTP with moto, which runs no SQL; what moto lacks with a stub."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.stub import Stubber

import manymetrics_insights.asking.athena
from manymetrics_insights.asking.athena import (
    AthenaError,
    AthenaResult,
    AthenaStoppedError,
    Column,
    Limits,
    Progress,
    make_client,
    price,
    run,
)
from tests.faulty_aws import FaultyAws, faulty_aws
from tests.strict_moto import CREDENTIALS, REGION, Aws, strict_moto

SQL = "SELECT COUNT(*) AS events FROM events WHERE event = 'a secret that a person typed into a form'"
TYPES = {
    "text": "varchar",
    "events": "bigint",
    "step": "integer",
    "rate": "double",
    "revenue": "decimal",
    "incomplete": "boolean",
    "bucket": "date",
    "at": "timestamp(6)",
    "started": "timestamp",
}


@pytest.fixture(scope="module")
def moto() -> Iterator[Aws]:
    with strict_moto() as aws:
        aws.client("athena").create_work_group(Name="shop", Configuration={})
        yield aws


@pytest.fixture
def aws(moto: Aws) -> Iterator[FaultyAws]:
    """A way to it on which calls fail. Queries are over at the second look."""
    set_transition(moto, {"progression": "manual", "times": 1})
    with faulty_aws(moto.url) as faulty:
        yield faulty


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manymetrics_insights.asking.athena, "_FIRST_WAIT_S", 0.01)


def set_transition(moto: Aws, transition: dict[str, object]) -> None:
    asked = {"model_name": "athena::execution", "transition": transition}
    httpx.post(f"{moto.url}/moto-api/state-manager/set-transition", json=asked).raise_for_status()


def queue(moto: Aws, types: dict[str, str], *rows: tuple[str | None, ...]) -> None:
    """Make it the answer to the next query, as Athena writes one: the names first, null as a cell without text."""
    cells = [[{"VarCharValue": text} if text is not None else {} for text in row] for row in (tuple(types), *rows)]
    asked = {
        "region": REGION,
        "results": [
            {
                "rows": [{"Data": row} for row in cells],
                "column_info": [{"Name": name, "Type": kind} for name, kind in types.items()],
            }
        ],
    }
    httpx.post(f"{moto.url}/moto-api/static/athena/query-results", json=asked).raise_for_status()


def client_of(url: str) -> Any:  # noqa: ANN401  # boto3 ships no types
    config = Config(retries={"total_max_attempts": 1}, read_timeout=5)
    keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "not-a-secret"}
    return boto3.client("athena", endpoint_url=url, region_name=REGION, config=config, **keys)


def ask(
    aws: FaultyAws,
    workgroup: str = "shop",
    progress: Callable[[Progress], None] | None = None,
    limits: Limits | None = None,
) -> AthenaResult:
    client = client_of(aws.url)
    return run(SQL, workgroup=workgroup, database="shop", client=client, progress=progress, limits=limits)


def state_of(moto: Aws) -> str:
    """The state of the newest query."""
    athena = moto.client("athena")
    *_, newest = athena.list_query_executions()["QueryExecutionIds"]
    return str(athena.get_query_execution(QueryExecutionId=newest)["QueryExecution"]["Status"]["State"])


def queries_of(moto: Aws) -> int:
    return len(moto.client("athena").list_query_executions()["QueryExecutionIds"])


def test_each_type_is_a_value_of_python_and_null_is_no_empty_text(moto: Aws, aws: FaultyAws) -> None:
    queue(
        moto,
        TYPES,
        ("", "9007199254740993", "2", "1.5E-4", "12345678901234567890.120000000", "true", "2026-03-29", None, None),
        (None, None, None, None, None, None, None, "2026-03-29 01:00:00.000001", "2026-03-29 01:00:00.120"),
    )

    found = ask(aws)

    assert found.columns == tuple(Column(name, kind) for name, kind in TYPES.items())
    revenue = Decimal("12345678901234567890.120000000")
    assert found.rows == (
        ("", 9007199254740993, 2, 0.00015, revenue, True, date(2026, 3, 29), None, None),
        (*[None] * 7, datetime(2026, 3, 29, 1, 0, 0, 1), datetime(2026, 3, 29, 1, 0, 0, 120_000)),
    )
    assert [type(value) for value in found.rows[0][:7]] == [str, int, int, float, Decimal, bool, date]


def test_types_that_no_answer_has_stay_text(moto: Aws, aws: FaultyAws) -> None:
    queue(moto, {"a": "array", "b": "timestamp(3) with time zone"}, ("[1, 2]", "2026-03-29 01:00:00.000 UTC"))

    assert ask(aws).rows == (("[1, 2]", "2026-03-29 01:00:00.000 UTC"),)


def test_a_value_that_is_not_of_its_type_is_an_error(moto: Aws, aws: FaultyAws) -> None:
    queue(moto, {"n": "bigint"}, ("many",))

    with pytest.raises(AthenaError, match=r"^Athena's bigint n can't be read: 'many'\.$"):
        ask(aws)


def test_pages_are_put_together_and_the_names_are_no_row(moto: Aws, aws: FaultyAws) -> None:
    queue(moto, {"n": "bigint"}, *[(str(number),) for number in range(2_500)])

    assert ask(aws).rows == tuple((number,) for number in range(2_500))
    assert aws["GetQueryResults"].count == 3


def test_a_row_that_equals_the_names_stays_on_each_page(moto: Aws, aws: FaultyAws) -> None:
    queue(moto, {"text": "varchar"}, *[("text",)] * 1_500)

    assert ask(aws).rows == (("text",),) * 1_500


def test_an_answer_without_rows_has_columns(moto: Aws, aws: FaultyAws) -> None:
    queue(moto, {"text": "varchar"})

    found = ask(aws)

    assert (found.columns, found.rows) == ((Column("text", "varchar"),), ())


def test_progress_is_told_at_each_look(moto: Aws, aws: FaultyAws) -> None:
    set_transition(moto, {"progression": "manual", "times": 2})
    seen: list[Progress] = []

    ask(aws, progress=seen.append)

    assert [state for state, _, _ in seen] == ["QUEUED", "RUNNING", "RUNNING", "SUCCEEDED"]
    assert sorted(seconds for _, seconds, _ in seen) == [seconds for _, seconds, _ in seen]


def test_a_lost_answer_starts_no_second_query(moto: Aws, aws: FaultyAws) -> None:
    before = queries_of(moto)
    aws["StartQueryExecution"].faults = ["reset", "lost"]

    ask(aws)

    assert (aws["StartQueryExecution"].count, queries_of(moto) - before) == (3, 1)


def test_throttled_calls_are_sent_again(aws: FaultyAws) -> None:
    for name in ("StartQueryExecution", "GetQueryExecution", "GetQueryResults"):
        aws[name].faults = ["throttled"] * 4

    assert ask(aws).rows == ()


def test_an_athena_that_never_answers_is_given_up(aws: FaultyAws) -> None:
    aws["StartQueryExecution"].every = "reset"

    with pytest.raises(AthenaError, match=r"^AWS can't be reached: "):
        ask(aws)


def test_athena_that_throttles_for_ever_ends_at_the_time_limit(aws: FaultyAws) -> None:
    aws["StartQueryExecution"].every = "throttled"

    with pytest.raises(AthenaStoppedError, match=r"longer than 0.3 s.* The last error: .*ThrottlingException"):
        ask(aws, limits=Limits(seconds=0.3))


def never_ending(moto: Aws) -> None:
    set_transition(moto, {"progression": "manual", "times": 1_000_000})


def test_a_query_is_stopped_at_the_time_limit(moto: Aws, aws: FaultyAws) -> None:
    never_ending(moto)

    with pytest.raises(AthenaStoppedError, match=r"^Athena took longer than 0.2 s, so the query was stopped: ask"):
        ask(aws, limits=Limits(seconds=0.2))

    assert state_of(moto) == "CANCELLED"


def test_a_query_is_stopped_when_another_thread_cancels_it(moto: Aws, aws: FaultyAws) -> None:
    never_ending(moto)
    cancelled = threading.Event()
    aws["GetQueryExecution"].after = lambda number: cancelled.set() if number == 3 else None

    with pytest.raises(AthenaStoppedError, match=r"^The query was cancelled\.$"):
        ask(aws, limits=Limits(cancelled=cancelled))

    assert state_of(moto) == "CANCELLED"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_a_query_is_stopped_on_ctrl_c_and_on_a_bug(moto: Aws, aws: FaultyAws, error: type[BaseException]) -> None:
    never_ending(moto)

    def interrupt(_progress: Progress) -> None:
        raise error

    with pytest.raises(error):
        ask(aws, progress=interrupt)

    assert state_of(moto) == "CANCELLED"


def test_a_query_that_cannot_be_watched_is_stopped(moto: Aws, aws: FaultyAws) -> None:
    never_ending(moto)
    aws["GetQueryExecution"].every = "reset"

    with pytest.raises(AthenaError, match=r"^AWS can't be reached: "):
        ask(aws)

    assert state_of(moto) == "CANCELLED"


def test_a_failure_to_stop_hides_no_other_error(moto: Aws, aws: FaultyAws) -> None:
    never_ending(moto)
    aws["StopQueryExecution"].every = "unavailable"

    with pytest.raises(AthenaStoppedError, match="longer than"):
        ask(aws, limits=Limits(seconds=0.1))


def test_too_many_rows_are_refused(moto: Aws, aws: FaultyAws) -> None:
    queue(moto, {"n": "bigint"}, ("1",), ("2",), ("3",))
    queue(moto, {"n": "bigint"}, ("1",), ("2",))

    with pytest.raises(AthenaError, match=r"^The answer has over 2 rows: add a limit to the question\.$"):
        ask(aws, limits=Limits(rows=2))
    assert len(ask(aws, limits=Limits(rows=2)).rows) == 2


def test_without_a_workgroup_the_setting_is_named(aws: FaultyAws) -> None:
    with pytest.raises(AthenaError, match=r"^No Athena workgroup: set MANYMETRICS_ATHENA_WORKGROUP"):
        ask(aws, workgroup="")

    assert aws["StartQueryExecution"].count == 0


def test_a_workgroup_that_is_not_there_is_named(aws: FaultyAws) -> None:
    with pytest.raises(AthenaError) as refused:
        ask(aws, workgroup="shops")

    assert str(refused.value) == (
        "Athena can't use the workgroup 'shops' in eu-west-1: WorkGroup does not exist. "
        "Check MANYMETRICS_ATHENA_WORKGROUP, AWS_REGION and AWS_PROFILE."
    )


def test_sql_that_athena_refuses_for_its_length_is_not_sent(aws: FaultyAws) -> None:
    longest = "é" * (manymetrics_insights.asking.athena.MAX_SQL_BYTES // 2)

    with pytest.raises(AthenaError, match=r"^The SQL has 262,145 bytes, and Athena takes 262,144: "):
        run(f"{longest} ", workgroup="shop", database="shop", client=client_of(aws.url))

    assert aws["StartQueryExecution"].count == 0
    assert run(longest, workgroup="shop", database="shop", client=client_of(aws.url)).rows == ()


@pytest.mark.parametrize(
    ("scanned", "usd"),
    [
        (0, 10 / 1024**2 * 5),
        (10 * 1024**2, 10 / 1024**2 * 5),
        (10 * 1024**2 + 1, 11 / 1024**2 * 5),
        (1024**4, 5.0),
    ],
)
def test_the_price_is_of_whole_megabytes_and_at_least_ten(scanned: int, usd: float) -> None:
    assert price(scanned, 5.0) == pytest.approx(usd)


class Stubbed:
    """Athena as botocore's stub: the answers are checked against the service's model."""

    def __init__(self) -> None:
        self.client = client_of("http://127.0.0.1:1")
        self.stub = Stubber(self.client)

    def starts(self) -> Stubbed:
        self.stub.add_response("start_query_execution", {"QueryExecutionId": "q-1"})
        return self

    def is_at(self, state: str, reason: str = "", scanned: int = 0, **error: object) -> Stubbed:
        status = {"State": state, "StateChangeReason": reason, **({"AthenaError": error} if error else {})}
        execution = {
            "QueryExecutionId": "q-1",
            "StatementType": "DML",
            "Status": status,
            "Statistics": {"DataScannedInBytes": scanned},
        }
        self.stub.add_response("get_query_execution", {"QueryExecution": execution})
        return self

    def answers(self, types: dict[str, str], *rows: tuple[str, ...]) -> Stubbed:
        columns = [{"Name": name, "Type": kind} for name, kind in types.items()]
        data = [{"Data": [{"VarCharValue": text} for text in row]} for row in rows]
        result = {"Rows": data, "ResultSetMetadata": {"ColumnInfo": columns}}
        self.stub.add_response("get_query_results", {"ResultSet": result})
        return self

    def refuses(self, operation: str, code: str, message: str) -> Stubbed:
        self.stub.add_client_error(operation, code, message)
        return self

    def denies(self, operation: str) -> Stubbed:
        return self.refuses(operation, "AccessDeniedException", "You are not authorized")

    def run(self, progress: Callable[[Progress], None] | None = None, limits: Limits | None = None) -> AthenaResult:
        with self.stub:
            found = run(SQL, workgroup="shop", database="shop", client=self.client, progress=progress, limits=limits)
            self.stub.assert_no_pending_responses()
            return found

    def message(self) -> str:
        with pytest.raises(AthenaError) as refused:
            self.run()
        self.stub.assert_no_pending_responses()
        return str(refused.value)


def test_bytes_and_price_are_told_while_it_runs_and_after() -> None:
    seen: list[Progress] = []
    athena = Stubbed().starts().is_at("RUNNING", scanned=2**30).is_at("SUCCEEDED", scanned=2**40)

    found = athena.answers({"n": "bigint"}, ("n",), ("1",)).run(progress=seen.append, limits=Limits(usd_per_tb=6.0))

    assert [(state, scanned) for state, _, scanned in seen] == [("RUNNING", 2**30), ("SUCCEEDED", 2**40)]
    assert (found.rows, found.query_id, found.bytes_scanned, found.price_usd) == (((1,),), "q-1", 2**40, 6.0)


def test_the_workgroups_limit_on_bytes_is_named() -> None:
    athena = Stubbed().starts().is_at("CANCELLED", "Bytes scanned limit was exceeded", 5_000_000_000)

    assert athena.message() == (
        "Athena stopped the query after 5,000,000,000 bytes, the limit of the workgroup 'shop': ask about a shorter "
        "range, or raise the limit (Terraform's athena_scan_limit_gb)."
    )


def test_a_query_that_somebody_cancelled_says_so() -> None:
    athena = Stubbed().starts().is_at("CANCELLED", "Query cancelled!")

    assert athena.message() == "The query q-1 was cancelled in Athena: Query cancelled!"


@pytest.mark.parametrize(
    ("permission", "refused"),
    [
        ("StartQueryExecution", lambda athena: athena.denies("start_query_execution")),
        (
            "GetQueryExecution",
            lambda athena: athena.starts().denies("get_query_execution").denies("stop_query_execution"),
        ),
        ("GetQueryResults", lambda athena: athena.starts().is_at("SUCCEEDED").denies("get_query_results")),
    ],
)
def test_access_denied_names_the_permission(permission: str, refused: Callable[[Stubbed], Stubbed]) -> None:
    said = refused(Stubbed()).message()

    assert said.startswith(f"No permission to call athena:{permission}: it needs athena:StartQueryExecution, athena:")


def test_an_expired_token_asks_to_log_in() -> None:
    athena = Stubbed().refuses("start_query_execution", "ExpiredTokenException", "expired")

    assert athena.message().startswith("AWS rejected the credentials (ExpiredTokenException): log in again")


def test_tables_that_may_not_be_read_name_the_permissions() -> None:
    athena = Stubbed().starts().is_at("FAILED", "Access Denied (Service: Amazon S3; Status Code: 403)")

    said = athena.message()

    assert said.startswith("No permission to read the tables: it needs glue:GetTable, glue:GetDatabase and ")
    assert said.endswith("Access Denied (Service: Amazon S3; Status Code: 403).")


def test_a_workgroup_without_a_location_for_results_says_so() -> None:
    athena = Stubbed().refuses("start_query_execution", "InvalidRequestException", "No output location provided.")

    assert athena.message() == (
        "The workgroup 'shop' has no location for results: set one, or name another workgroup "
        "(MANYMETRICS_ATHENA_WORKGROUP)."
    )


def test_a_failed_query_says_why_without_its_sql() -> None:
    reason = (
        f"SYNTAX_ERROR: line 1:8: Column 'evnt' cannot be resolved in {SQL}\n This query ran against the "
        '"shop" database, unless qualified by the query. Please post the error message on our forum'
    )
    athena = Stubbed().starts().is_at("FAILED", reason)

    assert athena.message() == (
        "The query q-1 failed in Athena: SYNTAX_ERROR: line 1:8: Column 'evnt' cannot be resolved in …"
    )


def test_a_question_that_athena_cannot_plan_says_what_else_can() -> None:
    reason = "QUERY_HAS_TOO_MANY_STAGES: Number of stages in the query (227) exceeds the allowed maximum (150). If the"
    athena = Stubbed().starts().is_at("FAILED", reason)

    assert athena.message() == (
        "The question is too large for Athena: ask with fewer steps or breakdowns, or ask DuckDB."
    )


def test_a_long_reason_is_cut() -> None:
    athena = Stubbed().starts().is_at("FAILED", "no " * 1_000)

    assert len(athena.message()) < 400


def test_a_failure_that_may_pass_says_so() -> None:
    athena = Stubbed().starts().is_at("FAILED", ErrorMessage="INTERNAL_ERROR", Retryable=True, ErrorCategory=1)

    assert athena.message() == "The query q-1 failed in Athena: INTERNAL_ERROR. Ask again."


def test_sql_that_athena_refuses_is_not_repeated() -> None:
    said = f"line 1:1: mismatched input {SQL}"
    athena = Stubbed().refuses("start_query_execution", "InvalidRequestException", said)

    assert athena.message() == "Athena refused the query: line 1:1: mismatched input …"


def test_without_a_region_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")

    with pytest.raises(AthenaError, match=r"^No AWS region: set AWS_REGION"):
        make_client({})


def test_the_client_is_of_the_region_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)

    assert make_client(CREDENTIALS).meta.region_name == REGION


def test_without_credentials_the_cure_is_named(monkeypatch: pytest.MonkeyPatch, aws: FaultyAws) -> None:
    for name in (*CREDENTIALS, "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)

    with pytest.raises(AthenaError, match=r"^No AWS credentials"):
        run(SQL, workgroup="shop", database="shop", client=make_client({"AWS_REGION": REGION}))
