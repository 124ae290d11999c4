"""Each probe of `make aws-conformance`: it passes on a stack that is right, and fails on one that is wrong in its way.

One stack serves all: what a test breaks, it mends.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sample.conformance import operations, tables
from sample.conformance.__main__ import PROBES, _parser, _variables
from sample.conformance.extras import doors
from sample.conformance.payloads import redacted
from sample.conformance.probe import Probe, Result, Run, look
from sample.conformance.stack import Marker, Stack
from sample.conformance.world import Answer, Request
from tests.conformance.rehearsal import Rehearsal, put_log, rehearsal
from tests.conformance.test_recorded_payloads import answered_otherwise
from tests.gateway_payloads import SENDER
from tests.jvm_home import jvm_part
from tests.strict_moto import REGION

pytestmark = [pytest.mark.apply, pytest.mark.terraform, pytest.mark.jvm, pytest.mark.scale("ci")]

NAME, ACCOUNT = "mm-conformance", "123456789012"
PROBE = {probe.name: probe for probe in PROBES}


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    jvm_part("jars")
    with rehearsal(tmp_path_factory.mktemp("conformance")) as running:
        yield running


@pytest.fixture(scope="module")
def run(emulated: Rehearsal) -> Iterator[Run]:
    arguments = _parser().parse_args(["--name", NAME, "--region", REGION])
    stack = Stack(emulated.world, Marker(NAME, REGION, ACCOUNT, 0.0, _variables(arguments)))
    outputs = stack.apply()
    with doors(emulated.world, NAME, ACCOUNT, outputs.api_instance_url) as both:
        yield Run(emulated.world, stack, outputs, both, 10)


def seen(probe: str | Probe, run: Run) -> tuple[str, str]:
    """The result of a probe, with ids of its own: its status, and what was seen."""
    given: Probe = PROBE[probe] if isinstance(probe, str) else probe
    result: Result = look(given, replace(run, id=uuid.uuid4().hex[:8]))
    return result.status, "\n".join(result.seen)


@contextmanager
def answered(emulated: Rehearsal, change: Any) -> Iterator[None]:  # noqa: ANN401  # a function of both
    before, emulated.answered = emulated.answered, change
    yield
    emulated.answered = before


def test_routes(emulated: Rehearsal, run: Run) -> None:
    status, said = seen("routes", run)
    assert status == "passed", said
    assert "126 requests through 2 ingresses" in said

    def no_doubled_slashes(request: Request, answer: Answer) -> Answer:
        return Answer(404, b"") if request.path == "//v1/page" else answer

    with answered(emulated, no_doubled_slashes):
        status, said = seen("routes", run)
    assert status == "failed"
    assert said.splitlines() == [f"{one}: POST //v1/page returned 404 instead of 200" for one in run.doors.api]


def test_an_event_that_is_answered_200_and_no_row_fails_routes(emulated: Rehearsal, run: Run) -> None:
    """A gateway that answers by itself."""
    real = emulated.send

    def send(request: Request) -> Answer:
        return Answer(200, b"{}") if request.path == "/v1/t/" else real(request)

    lossy = replace(run, world=replace(run.world, send=send))

    status, said = seen("routes", lossy)

    assert status == "failed"
    assert "100 rows instead of 102" in said


def test_encodings(emulated: Rehearsal, run: Run) -> None:
    status, said = seen("encodings", run)
    assert status == "passed", said
    assert "http_api: as text: application/json, " in said

    def not_noticed(_request: Request, answer: Answer) -> Answer:
        return Answer(200, b'{"success": true}') if answer.status == 415 else answer

    with answered(emulated, not_noticed):
        status, said = seen("encodings", run)
    assert status == "failed"
    assert "http_api, application/json: arrives as text, returned 200" in said


def test_ipv6(emulated: Rehearsal, run: Run) -> None:
    status, said = seen("ipv6", run)
    assert status == "passed", said

    emulated.sender_v6 = SENDER
    status, said = seen("ipv6", run)
    emulated.sender_v6 = "2001:db8:1::9"
    assert (status, said) == ("failed", "The gateway's sourceIp is not an IPv6 address")


def test_ipv6_is_not_run_where_there_is_none(run: Run) -> None:
    def unreachable(_request: Request) -> Answer:
        raise OSError(101, "Network is unreachable")

    status, said = seen("ipv6", replace(run, world=replace(run.world, send=unreachable)))

    assert status == "not run"
    assert "This machine has no IPv6" in said


def test_cold_starts(emulated: Rehearsal, run: Run) -> None:
    status, said = seen("cold-starts", run)
    assert status == "passed", said
    assert "responses to the first attempt: 100 x 200" in said

    def one_breaks(request: Request, answer: Answer) -> Answer:
        return Answer(500, b"") if b"-42" in request.body else answer

    with answered(emulated, one_breaks):
        status, said = seen("cold-starts", run)
    assert status == "failed"
    assert said.startswith("final responses: 99 x 200, 1 x 500")
    emulated.clients("lambda").concurrency = 10
    status, said = seen("cold-starts", run)
    emulated.clients("lambda").concurrency = 1_000
    assert (status, said.partition(":")[0]) == ("not run", "This account can run 10 functions at once")


def test_views(emulated: Rehearsal, run: Run) -> None:
    status, said = seen("views", run)
    assert status == "passed", said
    assert said.startswith("7 views and 12 saved queries")

    with other_view(emulated, "pages", "type = 'page' AND 1 = 0"), other_view(emulated, "users", None):
        status, said = seen("views", run)
    assert status == "failed"
    assert re.search(r"(?m)^view pages: 0 rows in Athena, \d+ in DuckDB$", said)
    assert "view users: values differ" in said
    assert len(said.splitlines()) == 2


@contextmanager
def other_view(emulated: Rehearsal, name: str, where: str | None) -> Iterator[None]:
    """A view of Glue's with another condition, or that counts one more."""
    glue = emulated.aws.client("glue")
    table = glue.get_table(DatabaseName="mm_conformance", Name=name)["Table"]
    taken = (
        *("Name", "TableType", "Parameters", "StorageDescriptor", "ViewOriginalText", "ViewExpandedText"),
        *("Owner", "Description"),
    )
    given = {key: table[key] for key in taken if key in table}
    told = json.loads(base64.b64decode(re.findall(r"Presto View: (\S+)", table["ViewOriginalText"])[0]))
    sql = told["originalSql"]
    changed = (
        sql.replace("type = 'page'", where) if where else sql.replace("COUNT(*) AS events", "COUNT(*) + 1 AS events")
    )
    assert changed != sql
    text = base64.b64encode(json.dumps({**told, "originalSql": changed}).encode()).decode()
    glue.update_table(
        DatabaseName="mm_conformance", TableInput={**given, "ViewOriginalText": f"/* Presto View: {text} */"}
    )
    yield
    glue.update_table(DatabaseName="mm_conformance", TableInput=given)


def test_failed_batch(emulated: Rehearsal, run: Run) -> None:
    compute = emulated.aws.client("lambda")
    before = compute.get_function_configuration(FunctionName=f"{NAME}-processor")["Environment"]

    status, said = seen("failed-batch", run)

    assert status == "passed", said
    assert said == "1 object in the failures bucket, 1 event stored by replay, none by the second"
    assert compute.get_function_configuration(FunctionName=f"{NAME}-processor")["Environment"] == before


def test_a_batch_that_is_lost_fails_failed_batch(emulated: Rehearsal, run: Run) -> None:
    emulated.keeps_failures = False
    status, said = seen("failed-batch", run)
    emulated.keeps_failures = True

    assert status == "failed"
    assert "No object in s3://" in said


def test_maintenance(emulated: Rehearsal, run: Run) -> None:
    status, said = seen("maintenance", run)
    assert status == "passed", said
    assert '"table": "events"' in said

    events = emulated.aws.client("events")
    events.disable_rule(Name=f"{NAME}-maintain-daily")
    status, said = seen("maintenance", run)
    events.enable_rule(Name=f"{NAME}-maintain-daily")
    assert (status, f"{NAME}-maintain-daily is disabled" in said) == ("failed", True)


def test_erase(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    status, said = seen("erase", run)
    assert status == "passed", said

    monkeypatch.setattr(tables, "erase", lambda *_: {"tables": [{"rows_erased": 2}], "not_reached": []})
    status, said = seen("erase", run)
    assert (status, said) == ("failed", "2 rows are left, 1 of another person; the receipt has 2")


def test_starts(emulated: Rehearsal, run: Run) -> None:
    status, said = seen("starts", run)
    assert status == "passed", said
    assert "at most 905 of 1792 MB" in said
    assert emulated.clients("lambda").logging["SystemLogLevel"] == "WARN"  # as it was

    emulated.clients("lambda").api_memory_mb = 250
    assert "api: 250 of 256 MB are used" in seen("starts", run)[1]
    emulated.clients("lambda").api_memory_mb = 118
    stopped = "INIT_REPORT Init Duration: 10010.01 ms\tPhase: init\tStatus: timeout"
    put_log(emulated.aws, f"{NAME}-processor", stopped)
    put_log(
        emulated.aws, f"{NAME}-processor", json.dumps({"message": "the JVM does without its class archive, so ..."})
    )
    status, said = seen("starts", run)
    assert status == "failed"
    assert "the JVM doesn't use its class archive" in said
    assert "a start was stopped after 10 s" in said


def test_alarms(emulated: Rehearsal, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    status, said = seen("alarms", run)
    assert status == "passed", said
    assert said.startswith("10 alarms with an action")
    assert emulated.aws.client("sqs").list_queues().get("QueueUrls", []) == []

    cloudwatch = emulated.aws.client("cloudwatch")
    monkeypatch.setattr(operations, "HEARD_WITHIN_S", 10.0)
    emulated.rings = False
    assert "the topic had no message" in seen("alarms", run)[1]
    emulated.rings = True
    [alarm] = cloudwatch.describe_alarms(AlarmNames=[f"{NAME}-iterator-age"])["MetricAlarms"]
    taken = set(cloudwatch.meta.service_model.operation_model("PutMetricAlarm").input_shape.members)
    given = {key: value for key, value in alarm.items() if key in taken}
    cloudwatch.put_metric_alarm(**{**given, "AlarmActions": []})
    status, said = seen("alarms", run)
    assert (status, said) == ("failed", f"{NAME}-iterator-age has no action on the topic, or its actions are off")
    cloudwatch.delete_alarms(AlarmNames=[f"{NAME}-iterator-age"])
    assert seen("alarms", run)[1] == f"{NAME}-iterator-age doesn't exist"
    cloudwatch.put_metric_alarm(**given)


def test_second_plan(emulated: Rehearsal, run: Run) -> None:
    """After all that the probes above did to the stack."""
    assert seen("second-plan", run) == ("passed", "no change")

    override = emulated.sample / "broken_override.tf"
    override.write_text('module "manymetrics" {\n  tags = { Applied = timestamp() }\n}\n')
    status, said = seen("second-plan", run)
    override.unlink()
    assert status == "failed"
    assert "module.manymetrics.aws_lambda_function.processor: tags" in said


def test_what_was_recorded_may_be_committed_and_is_replayed(run: Run) -> None:
    clean = [redacted(one) for one in run.payloads]

    assert len({one["name"] for one in clean}) >= 12
    assert run.outputs.write_key not in json.dumps(run.payloads)
    gzips = [one for one in clean if one["answered"] == 415]
    assert gzips
    assert answered_otherwise([one for one in clean if one["answered"] == 200][:8]) == []


def test_nothing_left(emulated: Rehearsal, run: Run) -> None:
    """The last: the stack goes."""
    status, said = seen("nothing-left", run)
    assert status == "failed"
    assert {line.partition(":")[0] for line in said.splitlines()} >= {
        *(
            "CloudFront distribution",
            "Glue database",
            "athena",
            "apigatewayv2",
            "by tag",
            "cloudwatch",
            "ecr",
            "events",
        ),
        *("iam", "kinesis", "kms", "lambda", "logs", "s3", "sns", "ssm"),
    }
    s3, bucket = emulated.aws.client("s3"), {"CreateBucketConfiguration": {"LocationConstraint": REGION}}

    run.stack.destroy()
    s3.create_bucket(Bucket=f"{NAME}-left", **bucket)
    sqs = emulated.aws.client("sqs")
    other = sqs.create_queue(QueueName="other", tags={"Stack": NAME, "Application": "ManyMetrics"})["QueueUrl"]

    status, said = seen("nothing-left", run)
    assert status == "failed"
    assert said.splitlines()[-1] == f"s3: {NAME}-left"
    assert said.splitlines()[0] == f"by tag: arn:aws:sqs:{REGION}:{ACCOUNT}:other"
    s3.delete_bucket(Bucket=f"{NAME}-left")
    sqs.delete_queue(QueueUrl=other)
    assert seen("nothing-left", run) == ("passed", "nothing by tag and nothing by name")
    assert not (Path(emulated.build) / "running.json").exists()
