"""`--measure`: a day's usage as CloudWatch tells it, next to the model, and the figures for `manymetrics cost`."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from manymetrics_cli.cost.prices import read_prices
from manymetrics_cli.main import main as manymetrics
from sample.conformance import bill
from sample.conformance.bill import Usage, as_markdown, compare, read_usage, write_measured
from sample.conformance.functions import Report, read_report
from sample.conformance.probe import ProbeFailedError
from sample.conformance.stack import Marker, Stack
from sample.conformance.world import World, make_world
from tests.conformance.rehearsal import REPORT
from tests.strict_moto import Aws, strict_moto

NAME = "mm-conformance"
VARIABLES = {"engine": "spark", "batch_window_s": 10, "processor": {"architecture": "x86_64"}}
# A day of 5,000 events, 20 a request.
DAY = Usage(
    hours=24,
    requests=250,
    api_calls=250,
    api_gb_s=250 * 0.03 * 0.25,
    processor_calls=274,
    processor_gb_s=250 * 2.5 * 1.75,
    records=250,
    log_bytes=250 * 900,
    stored_bytes=20e6,
    scanned_bytes=0,
    events=5_000,
    alarms=10,
)
Stated = tuple[str, str, dict[str, str], float]
METRICS: tuple[Stated, ...] = (
    ("AWS/ApiGateway", "Count", {"ApiId": "api"}, 250),
    ("AWS/Lambda", "Invocations", {"FunctionName": f"{NAME}-api"}, 250),
    ("AWS/Lambda", "Invocations", {"FunctionName": f"{NAME}-processor"}, 274),
    ("AWS/Lambda", "Duration", {"FunctionName": f"{NAME}-api"}, 7_500),
    ("AWS/Lambda", "Duration", {"FunctionName": f"{NAME}-processor"}, 625_000),
    ("AWS/Kinesis", "IncomingRecords", {"StreamName": NAME}, 250),
    ("AWS/Logs", "IncomingBytes", {"LogGroupName": f"/aws/lambda/{NAME}-processor"}, 225_000),
    ("AWS/S3", "BucketSizeBytes", {"BucketName": f"{NAME}-lake-1", "StorageType": "StandardStorage"}, 20e6),
    ("ManyMetrics", "stored", {"Database": "mm_conformance"}, 5_000),
)


class OneStack(Stack):
    """Its state, without Terraform."""

    def resources(self) -> list[dict[str, Any]]:
        found = [{"type": "aws_apigatewayv2_api", "values": {"id": "api"}}]
        found += [{"type": "aws_s3_bucket", "values": {"bucket": f"{NAME}-lake-1"}}]
        return found + 10 * [{"type": "aws_cloudwatch_metric_alarm", "values": {}}]


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with strict_moto() as running:
        make_functions(running)
        cloudwatch, at = running.client("cloudwatch"), datetime.now(UTC) - timedelta(hours=5)
        for namespace, metric, dimensions, value in METRICS:
            named = [{"Name": name, "Value": one} for name, one in dimensions.items()]
            parts = [value / 2, value / 2] if metric != "BucketSizeBytes" else [value]
            data = [{"MetricName": metric, "Dimensions": named, "Value": one, "Timestamp": at} for one in parts]
            cloudwatch.put_metric_data(Namespace=namespace, MetricData=data)
        yield running


def make_functions(aws: Aws) -> None:
    iam, code = aws.client("iam"), io.BytesIO()
    role = iam.create_role(RoleName="r", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("h.py", "")
    for kind, memory in (("api", 256), ("processor", 1_792)):
        aws.client("lambda").create_function(
            FunctionName=f"{NAME}-{kind}",
            Role=role,
            Runtime="python3.13",
            Handler="h.h",
            MemorySize=memory,
            Code={"ZipFile": code.getvalue()},
        )


@pytest.fixture
def world(aws: Aws, tmp_path: Path) -> World:
    return replace(make_world("eu-west-1"), client=aws.client, build=tmp_path / "build" / "aws-conformance")


def test_usage_is_what_cloudwatch_tells_of_the_stack(world: World) -> None:
    marker = Marker(NAME, "eu-west-1", "1", 0.0, VARIABLES)

    usage = read_usage(world, OneStack(world, marker), 24)

    assert usage == DAY


def test_a_day_that_is_as_the_model_says_has_no_line_above_it() -> None:
    lines = compare(DAY, VARIABLES, read_prices())

    assert [line.component for line in lines if line.is_above] == []
    assert {line.component for line in lines if line.measured is None} == {
        *("data out to the internet", "S3 requests", "Glue catalog", "CloudWatch metrics", "CloudWatch dashboard"),
        *("KMS", "ECR"),
    }
    by_name = {line.component: line for line in lines}
    assert by_name["Kinesis"].model == pytest.approx(by_name["Kinesis"].measured, rel=0.01)
    assert by_name["CloudWatch alarms"].measured == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "value", "above"),
    [
        ("processor_gb_s", 3 * DAY.processor_gb_s, ["processor function"]),
        ("log_bytes", 1e9, ["CloudWatch logs"]),
        ("stored_bytes", 1e12, ["S3 storage"]),
        ("requests", 1e6, ["HTTP API"]),
    ],
)
def test_a_line_above_the_model_is_named(name: str, value: float, above: list[str]) -> None:
    lines = compare(Usage(**{**asdict(DAY), name: value}), VARIABLES, read_prices())

    assert [line.component for line in lines if line.is_above] == above
    marked = [row for row in as_markdown(lines, 24).splitlines() if row.endswith("above the model |")]
    assert [row.split(" | ")[0] for row in marked] == [f"| {name}" for name in above]


def test_measured_json_makes_the_cost_command_bill_what_lambda_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_size = {size: [Report(ms, 256, 118, None)] for size, ms in ((1, 60.0), (20, 110.0), (100, 300.0))}
    path = write_measured(tmp_path / "measured.json", by_size, [Report(60.0, 256, 118, 400.0)])

    status = manymetrics(["cost", "--events", "1M", "--events-a-request", "20", "--measured", str(path), "-o", "json"])

    told = json.loads(capsys.readouterr().out)
    assert status == 0
    assert "110 ms billed at 256 MB" in json.dumps(told)


def test_a_stack_is_measured_after_half_a_day(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And measured.json is left out, with the reason, where the function can't be asked."""
    began = datetime.now(UTC) - timedelta(hours=24)
    stack = OneStack(world, Marker(NAME, "eu-west-1", "1", began.timestamp(), VARIABLES, is_kept=True))
    monkeypatch.setattr(OneStack, "outputs", lambda _self: None)

    def broken(_run: object) -> None:
        raise ProbeFailedError("no")

    monkeypatch.setattr(bill, "api_reports", broken)
    world.build.mkdir(parents=True)

    assert bill.measure(world, stack) == 0
    assert "| Kinesis | " in (world.build.parent / "aws-conformance-bill.md").read_text()


def test_lambdas_line_of_a_start_is_read() -> None:
    [report] = read_report(REPORT.format(id="8f5a", ms=1234.5))

    assert report == Report(1234.5, 1_792, 905, 2613.28)
    assert [*read_report("START RequestId: 8f5a Version: 3")] == []
