"""The conformance run against an emulated AWS: moto, with what it lacks done as AWS documents it.

``sample/`` is applied by the run itself. HTTP goes through a gateway's payload to the functions' real code. While the
run sleeps, time moves: Lambda's reader delivers the stream, and alarms that were set off tell their topic. Athena's SQL
is run by Trino. What Lambda writes into logs is written here, in the form that AWS documents, with made-up figures.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from sample.conformance.world import Answer, Request, World
from tests.gateway_payloads import SENDER, http_api_by_type
from tests.infra.applied import NOT_TOLD_BY_MOTO, Sample, emulated_aws
from tests.infra.terraform import provider_mirror
from tests.integration.micro_batches import kinesis_event
from tests.strict_moto import REGION, Aws
from tests.trino_server import Trino, trino_server

SENDER_V6 = "2001:db8:1::9"
REPORT = (
    "REPORT RequestId: {id}\tDuration: {ms:.2f} ms\tBilled Duration: {ms:.0f} ms\tMemory Size: 1792 MB\t"
    "Max Memory Used: 905 MB\tInit Duration: 2613.28 ms\t"
)
Json = dict[str, Any]


class Clients:
    """boto3's clients of the emulation; those of services that it lacks a part of are wrapped."""

    def __init__(self, aws: Aws, trino: Trino | None) -> None:
        self.aws = aws
        self._wrapped: dict[str, Any] = {
            "lambda": Lambda(aws),
            **({} if trino is None else {"athena": Athena(aws, trino)}),
        }

    def __call__(self, service: str) -> Any:  # noqa: ANN401  # boto3 ships no types
        return self._wrapped.get(service) or self.aws.client(service)


class Lambda:
    """Writes what Lambda does into the logs after an invocation."""

    def __init__(self, aws: Aws) -> None:
        self._aws, self._real = aws, aws.client("lambda")
        self.api_memory_mb = 118
        self._starts: set[str] = set()
        self._retries: dict[str, int] = {}
        self.concurrency = 1_000
        self.logging: Json = {"LogFormat": "JSON", "SystemLogLevel": "WARN"}  # of the API: moto keeps none

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # boto3's
        return getattr(self._real, name)

    def get_account_settings(self) -> Json:
        return {"AccountLimit": {"ConcurrentExecutions": self.concurrency}}

    def get_function_configuration(self, **given: Any) -> Json:  # noqa: ANN401  # boto3's
        told = dict(self._real.get_function_configuration(**given))
        return {**told, "LoggingConfig": dict(self.logging)} if given["FunctionName"].endswith("-api") else told

    def update_function_configuration(self, **given: Any) -> Json:  # noqa: ANN401  # boto3's
        self.logging = given.pop("LoggingConfig", self.logging)
        self._starts.clear()  # another configuration is another environment
        return dict(self._real.update_function_configuration(**given))

    def update_event_source_mapping(self, **given: Any) -> Json:  # noqa: ANN401  # boto3's
        """Moto forgets a change of the retries."""
        self._retries[given["UUID"]] = given["MaximumRetryAttempts"]
        return dict(self._real.update_event_source_mapping(**given))

    def list_event_source_mappings(self, **given: Any) -> Json:  # noqa: ANN401  # boto3's
        if "FunctionName" in given:  # moto knows it by its ARN alone
            given["FunctionName"] = self._real.get_function(**given)["Configuration"]["FunctionArn"]
        told = self._real.list_event_source_mappings(**given)
        for one in told["EventSourceMappings"]:
            one["MaximumRetryAttempts"] = self._retries.get(one["UUID"], one.get("MaximumRetryAttempts", -1))
        return dict(told)

    def invoke(self, **given: Any) -> Json:  # noqa: ANN401  # boto3's
        began = time.perf_counter()
        done = dict(self._real.invoke(**given))
        ms = (time.perf_counter() - began) * 1e3
        name = given["FunctionName"].split(":function:")[-1].partition(":")[0]
        request = done["ResponseMetadata"].setdefault("RequestId", str(uuid.uuid4()))
        if name.endswith("-processor"):
            put_log(self._aws, name, REPORT.format(id=request, ms=ms))
        elif name.endswith("-api") and self.logging["SystemLogLevel"] == "INFO":
            metrics = {"durationMs": ms, "memorySizeMB": 256, "maxMemoryUsedMB": self.api_memory_mb}
            if given["FunctionName"] not in self._starts:
                self._starts.add(given["FunctionName"])
                metrics["initDurationMs"] = 412.7
            told = {"type": "platform.report", "record": {"requestId": request, "metrics": metrics}}
            put_log(self._aws, name, json.dumps(told))
        return done


def put_log(aws: Aws, function: str, message: str) -> None:
    """A line of a function's log."""
    logs, stream = aws.client("logs"), uuid.uuid4().hex
    logs.create_log_stream(logGroupName=f"/aws/lambda/{function}", logStreamName=stream)
    event = {"timestamp": int(time.time() * 1_000), "message": message}
    logs.put_log_events(logGroupName=f"/aws/lambda/{function}", logStreamName=stream, logEvents=[event])


class Athena:
    """Trino answers, in Athena's form: each value as text."""

    def __init__(self, aws: Aws, trino: Trino) -> None:
        self._real, self._trino = aws.client("athena"), trino
        self._asked: dict[str, Json] = {}

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # boto3's
        return getattr(self._real, name)

    def start_query_execution(
        self,
        *,
        QueryString: str,  # noqa: N803  # boto3's, as the next
        QueryExecutionContext: Mapping[str, str],  # noqa: N803
        WorkGroup: str,  # noqa: N803
    ) -> Json:
        self._real.get_work_group(WorkGroup=WorkGroup)  # it must be there
        asked = uuid.uuid4().hex
        self._asked[asked] = self._answer(QueryString, QueryExecutionContext["Database"])
        return {"QueryExecutionId": asked}

    def _answer(self, sql: str, database: str) -> Json:
        from trino.exceptions import TrinoQueryError

        try:
            names, rows = ask(self._trino, sql, database)
        except TrinoQueryError as error:
            return {"State": "FAILED", "StateChangeReason": error.message}
        told = [[{"VarCharValue": name} for name in names], *([_cell(one) for one in row] for row in rows)]
        metadata = {"ColumnInfo": [{"Name": name} for name in names]}
        return {
            "State": "SUCCEEDED",
            "ResultSet": {"Rows": [{"Data": row} for row in told], "ResultSetMetadata": metadata},
        }

    def get_query_execution(self, *, QueryExecutionId: str) -> Json:  # noqa: N803  # boto3's
        answer = self._asked[QueryExecutionId]
        return {"QueryExecution": {"Status": {name: answer[name] for name in answer if name != "ResultSet"}}}

    def get_query_results(self, *, QueryExecutionId: str) -> Json:  # noqa: N803  # boto3's
        return {"ResultSet": self._asked[QueryExecutionId]["ResultSet"]}


def ask(trino: Trino, sql: str, schema: str) -> tuple[list[str], list[list[Any]]]:
    """Names and rows, also where there is no row."""
    from contextlib import closing

    from trino.dbapi import Connection

    from tests.trino_server import CATALOG

    with closing(
        Connection("127.0.0.1", trino.port, "test", catalog=CATALOG, schema=schema, timezone="UTC")
    ) as connection:
        cursor = connection.cursor()
        cursor.execute(sql)
        rows = cursor.fetchall()
        return [column.name for column in cursor.description or ()], rows


def _cell(value: object) -> Json:
    """As Athena writes it: https://docs.aws.amazon.com/athena/latest/APIReference/API_Datum.html has it as text."""
    match value:
        case None:
            return {}
        case bool():
            return {"VarCharValue": str(value).lower()}
        case datetime():
            return {"VarCharValue": value.strftime("%Y-%m-%d %H:%M:%S.%f")}
        case date() | int() | float() | Decimal() | str():
            return {"VarCharValue": str(value)}
    raise AssertionError(f"a type that no view has: {value!r}")


class Rehearsal:
    """An emulated AWS and its time."""

    def __init__(self, aws: Aws, sample: Path, build: Path, trino: Trino | None) -> None:
        self.aws, self.clients, self.build, self.sample = aws, Clients(aws, trino), build, sample
        self._slept, self._lock = 0.0, threading.Lock()
        self._positions: dict[str, str] = {}
        self._told: set[str] = set()
        # What a test breaks.
        self.answered: Callable[[Request, Answer], Answer] = lambda _request, answer: answer
        self.sender_v6 = SENDER_V6
        self.keeps_failures = self.rings = True

    @property
    def world(self) -> World:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TF_"))}
        environ |= {"TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1", "GOGC": "400"}  # as in infra/terraform
        return World(
            self.clients,
            self.send,
            {**environ, **self.aws.environ},
            self.sample,
            self.build,
            (f"-plugin-dir={provider_mirror()}",),
            {address: frozenset(names) for address, names in NOT_TOLD_BY_MOTO.items()},
            clock=lambda: time.monotonic() + self._slept,
            sleep=self.sleep,
        )

    # --- HTTP ---

    def send(self, request: Request) -> Answer:
        """Through the gateway or the function URL that has this host."""
        function = self._function_of(request.url)
        payload = http_api_by_type(request.method, request.path, dict(request.headers), request.body)
        if request.family.name == "AF_INET6":
            payload = json.loads(json.dumps(payload).replace(SENDER, self.sender_v6))
        done = self.clients("lambda").invoke(FunctionName=function, Payload=json.dumps(payload))
        answer = json.loads(done["Payload"].read())
        if "FunctionError" in done:
            return self.answered(request, Answer(502, json.dumps(answer).encode()))
        return self.answered(request, Answer(answer["statusCode"], (answer.get("body") or "").encode()))

    def _function_of(self, url: str) -> str:
        gateway, compute = self.aws.client("apigatewayv2"), self.aws.client("lambda")
        for api in gateway.get_apis()["Items"]:
            if api["ApiEndpoint"] == url:
                [route] = gateway.get_routes(ApiId=api["ApiId"])["Items"]
                integration = route["Target"].removeprefix("integrations/")
                uri = gateway.get_integration(ApiId=api["ApiId"], IntegrationId=integration)["IntegrationUri"]
                return str(uri.partition("functions/")[2].removesuffix("/invocations") or uri)
        for function in compute.list_functions()["Functions"]:
            try:
                config = compute.get_function_url_config(FunctionName=function["FunctionName"])
            except compute.exceptions.ResourceNotFoundException:
                continue
            if config["FunctionUrl"].rstrip("/") == url:
                return str(function["FunctionArn"])
        raise OSError(f"no host {url}")

    # --- time ---

    def sleep(self, seconds: float) -> None:
        """Time moves, and with it what AWS does by itself."""
        with self._lock:
            self._slept += seconds
            self.deliver()
            self._ring()

    def deliver(self) -> None:
        """What Lambda's reader does; without retries it keeps what fails in S3."""
        compute, kinesis = self.clients("lambda"), self.aws.client("kinesis")
        for mapping in compute.list_event_source_mappings()["EventSourceMappings"]:
            arn = mapping["EventSourceArn"]
            for shard in (one["ShardId"] for one in kinesis.list_shards(StreamARN=arn)["Shards"]):
                at = self._positions.get(arn + shard)
                start = (
                    {"ShardIteratorType": "TRIM_HORIZON"}
                    if at is None
                    else {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": at}
                )
                iterator = kinesis.get_shard_iterator(StreamARN=arn, ShardId=shard, **start)["ShardIterator"]
                records = kinesis.get_records(StreamARN=arn, ShardIterator=iterator)["Records"]
                if records:
                    delivered = [(int(one["SequenceNumber"]), one["Data"]) for one in records]
                    if self._is_taken(mapping, kinesis_event(arn, *delivered, shard=shard)):
                        self._positions[arn + shard] = records[-1]["SequenceNumber"]

    def _is_taken(self, mapping: Json, event: Json) -> bool:
        done = self.clients("lambda").invoke(FunctionName=mapping["FunctionArn"], Payload=json.dumps(event))
        answer = json.loads(done["Payload"].read())
        if "FunctionError" not in done and answer == {"batchItemFailures": []}:
            return True
        if mapping["MaximumRetryAttempts"] != 0:
            return False
        if not self.keeps_failures:
            return True
        bucket = mapping["DestinationConfig"]["OnFailure"]["Destination"].rpartition(":")[2]
        info = {"streamArn": mapping["EventSourceArn"]}
        body = {"KinesisBatchInfo": info, "payload": json.dumps(event)}
        key = f"aws/lambda/{mapping['UUID']}/shardId-000000000000/{datetime.now(UTC):%Y/%m/%d}/{uuid.uuid4()}"
        self.aws.client("s3").put_object(Bucket=bucket, Key=key, Body=json.dumps(body).encode())
        return True

    def _ring(self) -> None:
        """Alarms that are in ALARM tell their topics, once."""
        for alarm in self.aws.client("cloudwatch").describe_alarms(StateValue="ALARM")["MetricAlarms"]:
            if self.rings and alarm["ActionsEnabled"] and alarm["AlarmName"] not in self._told:
                self._told.add(alarm["AlarmName"])
                for topic in alarm["AlarmActions"]:
                    subject = f'ALARM: "{alarm["AlarmName"]}" in {REGION}'
                    self.aws.client("sns").publish(TopicArn=topic, Subject=subject, Message="{}")


@contextmanager
def rehearsal(folder: Path, *, asks: bool = True) -> Iterator[Rehearsal]:
    """Ready for a run. ``asks``: whether Trino answers for Athena."""
    with ExitStack() as stack:
        for name in ("aws", "sample", "trino"):
            (folder / name).mkdir()
        aws = stack.enter_context(emulated_aws(folder / "aws"))
        trino = stack.enter_context(trino_server(aws, folder / "trino")) if asks else None
        yield Rehearsal(aws, Sample(folder / "sample", aws).folder, folder / "build" / "aws-conformance", trino)
