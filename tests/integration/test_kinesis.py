"""The Kinesis sink over real HTTP: against moto's Kinesis, and against a stub that fails as Kinesis may."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from manymetrics.records import MAX_RECORD_BYTES, Stamp, compress, pack, unpack
from manymetrics.settings import SettingsError
from manymetrics_api.aws import signed_calls
from manymetrics_api.aws.app import create_aws_app
from manymetrics_api.aws.signed_calls import Place
from manymetrics_api.sinks import SinkResult, kinesis
from manymetrics_api.sinks.kinesis import KinesisSink
from tests.in_process import EVENT, ask, aws_app, basic
from tests.kinesis_stub import KinesisStub, kinesis_stub
from tests.ports import free_port

STORED, THROTTLED, UNAVAILABLE = SinkResult.STORED, SinkResult.THROTTLED, SinkResult.UNAVAILABLE
REGION = "eu-west-1"
SHARD = "shardId-000000000000"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")


@pytest.fixture
def stub() -> Iterator[KinesisStub]:
    with kinesis_stub() as one:
        yield one


def record(number: int, size: int = 20) -> bytes:
    [packed] = pack(Stamp(1, f"r-{number}", "p", "server"), [b'{"n":%d,"a":"%s"}' % (number, b"x" * size)])
    return packed


def with_sink(
    url: str, use: Callable[[KinesisSink], Awaitable[Any]], stream: str = "events", linger_s: float = 0
) -> Any:  # noqa: ANN401  # what `use` returns
    async def run() -> Any:  # noqa: ANN401
        sink = KinesisSink(stream, Place(REGION, url), linger_s=linger_s)
        try:
            return await use(sink)
        finally:
            await sink.close()

    return asyncio.run(run())


def put(url: str, *records: bytes) -> list[SinkResult]:
    result: list[SinkResult] = with_sink(url, lambda sink: sink.put(records))
    return result


# --- against a Kinesis ------------------------------------------------------------------------------------


@pytest.fixture
def stream(kinesis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(kinesis, "PUT_TIMEOUT_S", 60.0)  # a stand-in may be slow, on a busy machine
    monkeypatch.setattr(kinesis, "CALL_TIMEOUT_S", 20.0)
    client = boto3.client("kinesis", endpoint_url=kinesis_url, region_name=REGION)
    client.create_stream(StreamName="events", ShardCount=1)
    client.get_waiter("stream_exists").wait(StreamName="events", WaiterConfig={"Delay": 0.05, "MaxAttempts": 400})
    yield client
    client.delete_stream(StreamName="events")
    client.get_waiter("stream_not_exists").wait(StreamName="events", WaiterConfig={"Delay": 0.05, "MaxAttempts": 400})


def records_of(client: Any) -> list[bytes]:  # noqa: ANN401  # boto3 has no types
    iterator = client.get_shard_iterator(StreamName="events", ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")
    return [one["Data"] for one in client.get_records(ShardIterator=iterator["ShardIterator"])["Records"]]


def test_records_are_in_the_stream_as_they_were_put_once_it_says_stored(stream: Any, kinesis_url: str) -> None:  # noqa: ANN401
    records = [record(number, size=number * 400) for number in range(10)]

    assert put(kinesis_url, *records) == [STORED] * 10
    assert [unpack(data) for data in records_of(stream)] == [unpack(one) for one in records]


def test_a_stream_that_is_there_is_ready_and_another_is_not(stream: Any, kinesis_url: str) -> None:  # noqa: ANN401, ARG001
    assert with_sink(kinesis_url, lambda sink: sink.ready()) is True
    assert with_sink(kinesis_url, lambda sink: sink.ready(), stream="nothing") is False


def test_records_of_the_largest_size_and_of_any_number_land_once_each_in_order(stream: Any, kinesis_url: str) -> None:  # noqa: ANN401
    largest = random.Random(1).randbytes(MAX_RECORD_BYTES - 1)
    small = [record(number) for number in range(kinesis.MAX_RECORDS_A_CALL + 1)]

    assert put(kinesis_url, largest) == [STORED]
    assert put(kinesis_url, *small) == [STORED] * len(small)

    found = all_of(stream)
    assert Counter(one["Data"] for one in found) == Counter(map(compress, [largest, *small]))
    sequences = [int(one["SequenceNumber"]) for one in found]
    assert sequences == sorted(set(sequences))


def all_of(client: Any) -> list[dict[str, Any]]:  # noqa: ANN401  # boto3 has no types
    """A call of GetRecords answers a part of them."""
    iterator = client.get_shard_iterator(StreamName="events", ShardId=SHARD, ShardIteratorType="TRIM_HORIZON")
    found, at = list[dict[str, Any]](), iterator["ShardIterator"]
    while True:
        answer = client.get_records(ShardIterator=at)
        if not answer["Records"]:
            return found
        found += answer["Records"]
        at = answer["NextShardIterator"]


def test_the_api_answers_200_once_the_event_is_in_the_stream(stream: Any, kinesis_url: str) -> None:  # noqa: ANN401
    app = aws_app(
        {
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL_KINESIS": kinesis_url,
            "MANYMETRICS_STREAM": "events",
            "MANYMETRICS_WRITE_KEYS": "wk_shop:shop",
        }
    )

    reply = ask(app, "POST", "/v1/track", basic("wk_shop:"), EVENT)

    assert reply.status == 200
    assert [event for data in records_of(stream) for event in unpack(data).events] == [EVENT]


# --- faults -----------------------------------------------------------------------------------------------


def test_only_what_did_not_land_is_sent_again(stub: KinesisStub) -> None:
    stub.script.extend(["third", "third", "third"])
    records = [record(number) for number in range(9)]

    assert put(stub.url, *records) == [STORED] * 9
    assert Counter(stub.landed) == Counter(map(compress, records))
    assert [len(content["Records"]) for _, _, content in stub.calls] == [9, 3, 1]


@pytest.mark.parametrize("fault", ["throttled", "reset", "broken"])
def test_a_fault_that_passes_costs_nothing_but_time(stub: KinesisStub, fault: str) -> None:
    stub.script.extend([fault] * 3)

    assert put(stub.url, record(1)) == [STORED]
    assert stub.landed == [compress(record(1))]


@pytest.mark.parametrize("fault", ["lost", "short"])
def test_where_nobody_knows_whether_a_record_landed_it_is_sent_again(stub: KinesisStub, fault: str) -> None:
    stub.script.append(fault)

    assert put(stub.url, record(1)) == [STORED]
    assert stub.landed == [compress(record(1))] * 2


@pytest.mark.parametrize(
    ("fault", "result"), [("throttled", THROTTLED), ("reset", UNAVAILABLE), ("broken", UNAVAILABLE)]
)
def test_a_fault_that_lasts_is_told_in_time(
    stub: KinesisStub, monkeypatch: pytest.MonkeyPatch, fault: str, result: SinkResult
) -> None:
    monkeypatch.setattr(kinesis, "PUT_TIMEOUT_S", 0.5)
    stub.script.extend([fault] * 100)  # and then all would be well

    assert put(stub.url, record(1)) == [result]
    assert stub.landed == []
    assert 1 < len(stub.calls) < 100


def test_nobody_there_is_told_in_time_and_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinesis, "PUT_TIMEOUT_S", 0.5)
    port = free_port()

    assert put(f"http://127.0.0.1:{port}", record(1)) == [UNAVAILABLE]
    assert with_sink(f"http://127.0.0.1:{port}", lambda sink: sink.ready()) is False


def test_a_call_that_is_never_answered_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinesis, "PUT_TIMEOUT_S", 0.6)
    monkeypatch.setattr(kinesis, "CALL_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert put(f"http://127.0.0.1:{silent.getsockname()[1]}", record(1)) == [UNAVAILABLE]


@pytest.mark.parametrize(
    ("fault", "status", "code"), [("throttled", 429, "throttled"), ("reset", 503, "stream_unavailable")]
)
def test_the_api_says_when_to_come_again(
    stub: KinesisStub, monkeypatch: pytest.MonkeyPatch, fault: str, status: int, code: str
) -> None:
    monkeypatch.setattr(kinesis, "PUT_TIMEOUT_S", 0.3)
    stub.script.extend([fault] * 100)
    app = aws_app(
        {
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": stub.url,
            "MANYMETRICS_STREAM": "events",
            "MANYMETRICS_WRITE_KEYS": "wk_shop",
        }
    )

    reply = ask(app, "POST", "/v1/track", basic("wk_shop:"), EVENT)

    assert (reply.status, reply.json()["code"], reply.headers["retry-after"]) == (status, code, "1")


def test_a_connection_that_was_closed_meanwhile_is_not_used_again(stub: KinesisStub) -> None:
    stub.script.append("last")

    async def twice(sink: KinesisSink) -> list[SinkResult]:
        first = await sink.put([record(1)])
        await asyncio.sleep(0.2)
        return first + await sink.put([record(2)])

    assert with_sink(stub.url, twice) == [STORED, STORED]
    assert stub.landed == [compress(record(1)), compress(record(2))]
    assert stub.connections == 2


# --- calls ------------------------------------------------------------------------------------------------


def test_what_comes_within_the_linger_shares_a_call_and_a_connection(stub: KinesisStub) -> None:
    async def together(sink: KinesisSink) -> list[list[SinkResult]]:
        first = await asyncio.gather(*(sink.put([record(number)]) for number in range(20)))
        return first + await asyncio.gather(*(sink.put([record(number)]) for number in range(20)))

    assert with_sink(stub.url, together, linger_s=0.02) == [[STORED]] * 40
    assert [len(content["Records"]) for _, _, content in stub.calls] == [20, 20]
    assert stub.connections == 1


def test_a_call_holds_no_more_than_kinesis_takes(stub: KinesisStub, monkeypatch: pytest.MonkeyPatch) -> None:
    small = [record(number) for number in range(kinesis.MAX_RECORDS_A_CALL)]

    with monkeypatch.context() as patched:
        patched.setattr(kinesis, "MAX_BYTES_A_CALL", 2_000)
        assert put(stub.url, *small[:100]) == [STORED] * 100
    assert len(stub.calls) > 1
    assert (
        max(sum(len(record["Data"]) * 3 // 4 for record in content["Records"]) for *_, content in stub.calls) <= 2_100
    )

    stub.calls.clear()
    assert put(stub.url, *small, record(1)) == [STORED] * (kinesis.MAX_RECORDS_A_CALL + 1)
    assert sorted(len(content["Records"]) for *_, content in stub.calls) == [1, kinesis.MAX_RECORDS_A_CALL]


def test_what_is_under_way_is_stored_before_the_sink_is_closed(stub: KinesisStub) -> None:
    async def leave(sink: KinesisSink) -> asyncio.Task[list[SinkResult]]:
        task = asyncio.create_task(sink.put([record(1)]))
        await asyncio.sleep(0)
        return task

    assert with_sink(stub.url, leave, linger_s=10).result() == [STORED]


@pytest.mark.parametrize("token", [None, "session/+=token"])
def test_the_signature_is_the_one_that_botocore_makes(
    stub: KinesisStub, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    if token is not None:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)

    put(stub.url, record(1))

    assert_signed_as_botocore_signs(stub, token)


def test_credentials_are_found_where_every_aws_tool_finds_them(
    stub: KinesisStub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    names = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "not-a-secret", "aws_session_token": "t"}
    (tmp_path / "credentials").write_text("[default]\n" + "".join(f"{name} = {to}\n" for name, to in names.items()))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    signed_calls._chain.cache_clear()

    assert put(stub.url, record(1)) == [STORED]

    assert_signed_as_botocore_signs(stub, "t")


def assert_signed_as_botocore_signs(stub: KinesisStub, token: str | None) -> None:
    [(headers, body, _)] = stub.calls
    _, _, rest = headers["authorization"].partition(" ")
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    signed = {name: headers[name] for name in parts["SignedHeaders"].split(";")}
    request = AWSRequest("POST", stub.url, signed, body)
    request.context["timestamp"] = headers["x-amz-date"]
    signer = SigV4Auth(Credentials("AKIDEXAMPLE", "not-a-secret", token), "kinesis", REGION)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    assert parts["Signature"] == signer.signature(text, request)
    assert parts["Credential"].endswith(f"/{REGION}/kinesis/aws4_request")
    assert {"host", "x-amz-date", "x-amz-target"} <= signed.keys()
    assert signed.get("x-amz-security-token") == token


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "named"),
    [({"AWS_REGION": REGION}, "MANYMETRICS_STREAM"), ({"MANYMETRICS_STREAM": "events"}, "AWS_REGION")],
)
def test_what_is_missing_is_named(environ: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        create_aws_app(environ)
