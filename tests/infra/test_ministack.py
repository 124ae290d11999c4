"""``sample/`` on an AWS that judges each call by IAM: ministack. It hands on requests and reads the stream by itself.

What test_apply shows on moto is not shown again. What ministack doesn't do stands in docs/proof.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.in_process import basic
from tests.infra.applied import VARIABLES, Sample
from tests.infra.ministack_server import PLAIN, ministack
from tests.strict_moto import REGION, Aws

pytestmark = [pytest.mark.apply, pytest.mark.terraform]

# What the provider only waits for here, for a minute, and moto's apply has: rules of lifecycles, and CloudFront.
_LEFT_OUT = """
resource "aws_s3_bucket_lifecycle_configuration" "this" {
  for_each = {}
}

resource "aws_cloudfront_distribution" "sdk" {
  wait_for_deployment = false
}
"""
_CHOSEN = (*VARIABLES, "-var=engine=arrow")
EVENT = {"type": "track", "event": "Vu à Zürich", "userId": "jane"}


@dataclass(frozen=True, slots=True)
class Applied:
    """An AWS with everything in it."""

    aws: Aws
    sample: Sample
    outputs: dict[str, Any]

    def request(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> httpx.Response:
        """Through the gateway."""
        host = {"host": self.outputs["api_instance_url"].removeprefix("http://")}
        return httpx.request(method, self.aws.url + path, headers=host | headers, content=body, timeout=30)

    def track(self, message_id: str, **headers: str) -> httpx.Response:
        """An event whose words are not ASCII, as UTF-8."""
        body = json.dumps(EVENT | {"messageId": message_id}, ensure_ascii=False).encode()
        return self.request("POST", "/v1/track", basic(f"{self.outputs['write_key']}:") | headers, body)

    def rows(self, count: int) -> list[dict[str, Any]]:
        """The events, as the command reads them, once there are so many."""
        until = time.monotonic() + 30
        found: list[dict[str, Any]] = []
        while len(found) < count and time.monotonic() < until:
            found = self._query("select event, message_id from person_events order by message_id")
        return found

    def _query(self, sql: str) -> list[dict[str, Any]]:
        where = {
            "MANYMETRICS_WAREHOUSE": self.outputs["warehouse"],
            "MANYMETRICS_DATABASE": self.outputs["glue_database_name"],
        }
        done = subprocess.run(
            [Path(sys.prefix) / "bin" / "manymetrics", "query", sql, "-o", "ndjson"],
            env={**os.environ, **self.aws.environ, **where},
            capture_output=True,
            check=True,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    def take_away(self, role: str, action: str) -> None:
        """From what a role may do."""
        iam = self.aws.client("iam")
        [name] = iam.list_role_policies(RoleName=role)["PolicyNames"]
        policy = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        denial = {"Effect": "Deny", "Action": action, "Resource": "*"}
        document = json.dumps({**policy, "Statement": [*policy["Statement"], denial]})
        iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=document)


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Applied]:
    with ministack(tmp_path_factory.mktemp("ministack")) as aws:
        sample = Sample(tmp_path_factory.mktemp("applied"), aws, _LEFT_OUT)
        sample.run("apply", "-auto-approve", "-input=false", "-parallelism=20", *_CHOSEN)
        yield Applied(aws, sample, sample.outputs())


def test_events_go_through_the_gateway_and_by_the_streams_reader_into_rows_with_no_right_too_few(
    applied: Applied,
) -> None:
    """Whatever their type is: the gateway hands on some bodies as text, and the others in base64."""
    types = ["application/json", "text/plain", "application/x-www-form-urlencoded"]

    answers = [applied.track(f"m{number}", **{"content-type": one}) for number, one in enumerate([*types, *types[:1]])]

    assert [(one.status_code, one.json()) for one in answers] == [(200, {"success": True})] * 4
    assert applied.rows(4) == [{"event": EVENT["event"], "message_id": f"m{number}"} for number in range(4)]
    assert applied.request("POST", "/v1/track", basic("wk_nobodys:"), b"{}").status_code == 401
    assert applied.request("GET", "/metrics", {}).status_code == 404


def test_a_browser_is_allowed_to_send_from_another_page(applied: Applied) -> None:
    asked = {
        "origin": "https://www.example.com",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }

    preflight = applied.request("OPTIONS", "/v1/batch", asked)
    refused = applied.request("POST", "/v1/batch", {"origin": "https://www.example.com"}, b"{}")

    assert preflight.status_code == 204
    assert "POST" in preflight.headers["access-control-allow-methods"].split(",")
    assert {"authorization", "content-type"} <= {*preflight.headers["access-control-allow-headers"].split(",")}
    assert refused.status_code == 401
    assert "access-control-allow-origin" in refused.headers


@pytest.mark.parametrize(("address", "status"), [("127.0.0.1", 200), (PLAIN, 403)])
def test_a_bucket_refuses_what_comes_without_tls(applied: Applied, address: str, status: int) -> None:
    lake = applied.outputs["warehouse"].removeprefix("s3://").partition("/")[0]
    url = _a_user_of(applied.aws).generate_presigned_url("list_objects_v2", {"Bucket": lake})

    with httpx.Client(transport=httpx.HTTPTransport(local_address=address)) as client:
        assert client.get(url).status_code == status


def _a_user_of(aws: Aws) -> Any:  # noqa: ANN401  # boto3 ships no types
    """S3 for one who may do everything there: ministack judges nothing that the account's root asks for."""
    import boto3
    from botocore.config import Config

    iam, name = aws.client("iam"), f"user-{time.monotonic_ns()}"
    iam.create_user(UserName=name)
    statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName=name, PolicyName="everything", PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return boto3.client(
        "s3",
        endpoint_url=aws.url,
        region_name=REGION,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
        config=Config(signature_version="s3v4"),
    )


def test_a_role_that_may_less_is_refused(applied: Applied) -> None:
    """Or nothing above has been judged."""
    applied.take_away("shop-processor", "glue:GetTable")
    applied.take_away("shop-api", "kinesis:PutRecords")

    done = applied.aws.client("lambda").invoke(FunctionName="shop-processor", Payload=b'{"action": "maintain"}')
    answer = applied.track("m5")

    assert done["FunctionError"]
    assert b"not authorized to perform: glue:GetTable" in done["Payload"].read()
    assert answer.status_code == 503


def test_destroy_leaves_nothing_else(applied: Applied) -> None:
    cloudfront = ("distribution", "origin_access_control")
    applied.sample.run("state", "rm", *(f"module.manymetrics.aws_cloudfront_{one}.sdk" for one in cloudfront))
    applied.sample.run("destroy", "-auto-approve", "-input=false", "-parallelism=20", *_CHOSEN)

    assert applied.aws.client("lambda").list_functions()["Functions"] == []
    assert applied.aws.client("s3").list_buckets()["Buckets"] == []
    assert applied.aws.client("iam").list_roles()["Roles"] == []
