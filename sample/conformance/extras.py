"""Creates what probes need next to the stack, with boto3: a function URL, a function that echoes its payload, a queue.

Everything is named after the stack and removed again; if a run is killed, by the next one.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from sample.conformance.world import World

_ECHO = """\
import json


def handler(event, context):
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(event)}
"""
_GONE = {
    "ResourceNotFoundException",
    "NotFoundException",
    "NoSuchEntity",
    "QueueDoesNotExist",
    "AWS.SimpleQueueService.NonExistentQueue",
    "404",
}
LIVE = "live"


@dataclass(frozen=True, slots=True)
class Doors:
    """URLs by ingress: of the API's function, and of the function that echoes its payload."""

    api: dict[str, str]
    echo: dict[str, str]


@contextmanager
def doors(world: World, name: str, account: str, http_api: str) -> Iterator[Doors]:
    """Provide both ingresses of both functions, until the block ends. ``http_api``: the stack's URL."""
    try:
        url = _make_url(world, f"{name}-api", LIVE)
        _make_echo(world, name)
        echo = {"http_api": _make_gateway(world, name, account), "function_url": _make_url(world, f"{name}-echo", None)}
        yield Doors({"http_api": http_api, "function_url": url}, echo)
    finally:
        remove_doors(world, name)


def _make_url(world: World, function: str, qualifier: str | None) -> str:
    """Create a public function URL with both permissions that it needs, as in infra/ingest.tf."""
    compute = world.client("lambda")
    which = {"FunctionName": function, **({} if qualifier is None else {"Qualifier": qualifier})}
    url = compute.create_function_url_config(**which, AuthType="NONE")["FunctionUrl"]
    public = {**which, "Principal": "*"}
    compute.add_permission(
        **public, StatementId="conformance-url", Action="lambda:InvokeFunctionUrl", FunctionUrlAuthType="NONE"
    )
    compute.add_permission(
        **public, StatementId="conformance-invoke", Action="lambda:InvokeFunction", InvokedViaFunctionUrl=True
    )
    return str(url).rstrip("/")


def _make_echo(world: World, name: str) -> None:
    compute = world.client("lambda")
    api = compute.get_function_configuration(FunctionName=f"{name}-api")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo("echo.py"), _ECHO)
    compute.create_function(
        FunctionName=f"{name}-echo",
        Description="ManyMetrics conformance: returns its payload",
        Role=api["Role"],  # needs no permissions; a separate role would also have to be removed
        Runtime=api["Runtime"],
        Architectures=api["Architectures"],
        Handler="echo.handler",
        Code={"ZipFile": packed.getvalue()},
        Tags=_tags(name),
    )
    compute.get_waiter("function_active_v2").wait(FunctionName=f"{name}-echo")


def _make_gateway(world: World, name: str, account: str) -> str:
    """Create an HTTP API with the settings of infra/ingest.tf that affect payloads."""
    gateway, compute = world.client("apigatewayv2"), world.client("lambda")
    function = compute.get_function_configuration(FunctionName=f"{name}-echo")["FunctionArn"]
    api = gateway.create_api(Name=f"{name}-echo", ProtocolType="HTTP", IpAddressType="dualstack", Tags=_tags(name))
    integration = gateway.create_integration(
        ApiId=api["ApiId"],
        IntegrationType="AWS_PROXY",
        IntegrationMethod="POST",
        IntegrationUri=function,
        PayloadFormatVersion="2.0",
    )["IntegrationId"]
    gateway.create_route(ApiId=api["ApiId"], RouteKey="$default", Target=f"integrations/{integration}")
    gateway.create_stage(ApiId=api["ApiId"], StageName="$default", AutoDeploy=True)
    partition, region = function.split(":")[1], function.split(":")[3]
    compute.add_permission(
        FunctionName=f"{name}-echo",
        StatementId="conformance-http-api",
        Action="lambda:InvokeFunction",
        Principal="apigateway.amazonaws.com",
        SourceArn=f"arn:{partition}:execute-api:{region}:{account}:{api['ApiId']}/*",
    )
    return str(api["ApiEndpoint"])


@dataclass(frozen=True, slots=True)
class Queue:
    """Receives the messages of the alarms' topic."""

    world: World
    url: str

    def messages(self) -> list[dict[str, Any]]:
        """Return the messages since the last call, as wrapped by SNS."""
        sqs = self.world.client("sqs")
        found = sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages", [])
        for one in found:
            sqs.delete_message(QueueUrl=self.url, ReceiptHandle=one["ReceiptHandle"])
        return [json.loads(one["Body"]) for one in found]


@contextmanager
def heard(world: World, name: str, topic: str) -> Iterator[Queue]:
    """Subscribe a queue to a topic, until the block ends."""
    sqs, sns = world.client("sqs"), world.client("sns")
    url = sqs.create_queue(QueueName=f"{name}-alarms-heard", tags=_tags(name))["QueueUrl"]
    try:
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(_may_be_told(arn, topic))})
        subscription = sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, ReturnSubscriptionArn=True)
        try:
            yield Queue(world, url)
        finally:
            sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
    finally:
        remove_queue(world, name)


def _may_be_told(queue: str, topic: str) -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "sns.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": queue,
                "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
            }
        ],
    }


def remove_extras(world: World, name: str) -> None:
    """Remove what a killed run may have left next to the stack."""
    remove_doors(world, name)
    remove_queue(world, name)


def remove_queue(world: World, name: str) -> None:
    sqs = world.client("sqs")
    with _gone_already():
        sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=f"{name}-alarms-heard")["QueueUrl"])


def remove_doors(world: World, name: str) -> None:
    compute, gateway = world.client("lambda"), world.client("apigatewayv2")
    for api in gateway.get_apis(MaxResults="100")["Items"]:
        if api["Name"] == f"{name}-echo":
            gateway.delete_api(ApiId=api["ApiId"])
    steps: list[Callable[[], object]] = [
        lambda: compute.delete_function_url_config(FunctionName=f"{name}-echo"),
        lambda: compute.delete_function(FunctionName=f"{name}-echo"),
        lambda: compute.delete_function_url_config(FunctionName=f"{name}-api", Qualifier=LIVE),
    ]
    drop = partial(compute.remove_permission, FunctionName=f"{name}-api", Qualifier=LIVE)
    steps += [partial(drop, StatementId=statement) for statement in ("conformance-url", "conformance-invoke")]
    for step in steps:
        with _gone_already():
            step()


@contextmanager
def _gone_already() -> Iterator[None]:
    with suppress(_GoneError):
        try:
            yield
        except ClientError as error:
            if error.response["Error"]["Code"] not in _GONE:
                raise
            raise _GoneError from error


class _GoneError(Exception):
    pass


def _tags(name: str) -> dict[str, str]:
    return {"Application": "ManyMetrics", "Stack": name}
