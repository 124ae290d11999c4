"""Kinesis and SSM over TLS: who is trusted, and that nothing is sent to who is not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from botocore.exceptions import BotoCoreError

from manymetrics.records import unpack
from manymetrics_api.aws import signed_calls
from manymetrics_api.aws.keys_parameter import KeysParameter
from manymetrics_api.aws.signed_calls import Place
from manymetrics_api.keys import KeysUnavailableError, WriteKey
from manymetrics_api.sinks import SinkResult, kinesis
from manymetrics_api.sinks.kinesis import KinesisSink
from tests.certificates import Authority, server_side
from tests.in_process import EVENT, ask, aws_app, basic
from tests.kinesis_stub import KinesisStub, kinesis_stub
from tests.ports import free_port
from tests.strict_moto import REGION

HERE = "127.0.0.1"
KEY = WriteKey(key="wk_shop", project="shop")

pytestmark = pytest.mark.usefixtures("credentials", "threads")


@pytest.fixture(autouse=True)
def contexts() -> Iterator[None]:
    """A bundle's name stands for other certificates in the next test."""
    yield
    signed_calls._make_tls.cache_clear()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def put(stub: KinesisStub, bundle: Path | None) -> list[SinkResult]:
    async def run() -> list[SinkResult]:
        sink = KinesisSink("events", Place(REGION, stub.url, str(bundle) if bundle else None), linger_s=0)
        try:
            return await sink.put([b"one"]) + await sink.put([b"two"])
        finally:
            await sink.close()

    return asyncio.run(run())


def test_a_server_of_the_bundle_s_authority_is_trusted_and_its_connection_kept(authority: Authority) -> None:
    with kinesis_stub(server_side(authority.certify(HERE))) as stub:
        assert put(stub, authority.bundle) == [SinkResult.STORED] * 2

    assert (len(stub.landed), stub.connections) == (2, 1)


@pytest.mark.parametrize(
    ("address", "lasts", "bundle"),
    [
        pytest.param(HERE, 1, "other.pem", id="of another authority"),
        pytest.param(HERE, 1, None, id="of none that the system trusts"),
        pytest.param("127.0.0.2", 1, "authority.pem", id="of another address"),
        pytest.param(HERE, -1, "authority.pem", id="that is over"),
    ],
)
def test_a_server_with_a_certificate_that_is_wrong_is_sent_nothing(
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    lasts: int,
    bundle: str | None,
) -> None:
    monkeypatch.setattr(kinesis, "PUT_TIMEOUT_S", 0.5)
    Authority(tmp_path, "other")
    trusted = tmp_path / bundle if bundle is not None else None

    with kinesis_stub(server_side(authority.certify(address, lasts=timedelta(hours=lasts)))) as stub:
        assert put(stub, trusted) == [SinkResult.UNAVAILABLE] * 2
        with pytest.raises(KeysUnavailableError, match="SSLCertVerificationError"):
            KeysParameter("/keys", Place(REGION, stub.url, str(trusted) if trusted else None)).read()

    assert stub.calls == []


@pytest.fixture
def moto(authority: Authority) -> Iterator[str]:
    port, (certificate, key) = str(free_port()), authority.certify(HERE)
    command = [
        sys.executable,
        "-m",
        "moto.server",
        "-H",
        HERE,
        "-p",
        port,
        "-s",
        "-c",
        str(certificate),
        "-k",
        str(key),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"https://{HERE}:{port}"
    finally:
        process.kill()
        process.wait()


def test_the_api_takes_its_keys_and_puts_its_events_over_tls(authority: Authority, moto: str) -> None:
    bundle = str(authority.bundle)
    ssm, stream = (
        boto3.client(name, endpoint_url=moto, region_name=REGION, verify=bundle) for name in ("ssm", "kinesis")
    )
    _once_up(lambda: stream.create_stream(StreamName="events", ShardCount=1))
    ssm.put_parameter(Name="/keys", Value=msgspec.json.encode([KEY]).decode(), Type="SecureString")
    settings = {"MANYMETRICS_STREAM": "events", "MANYMETRICS_KEYS_PARAMETER": "/keys"}
    app = aws_app({"AWS_REGION": REGION, "AWS_ENDPOINT_URL": moto, "AWS_CA_BUNDLE": bundle, **settings})

    assert ask(app, "POST", "/v1/track", basic("wk_shop:"), EVENT).status == 200
    assert ask(app, "POST", "/v1/track", basic("wk_other:"), EVENT).status == 401

    shard = stream.describe_stream(StreamName="events")["StreamDescription"]["Shards"][0]["ShardId"]
    start = stream.get_shard_iterator(StreamName="events", ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    records = stream.get_records(ShardIterator=start["ShardIterator"])["Records"]
    assert [event for one in records for event in unpack(one["Data"]).events] == [EVENT]


def _once_up(call: Any) -> None:  # noqa: ANN401  # boto3 has no types
    until = time.monotonic() + 60
    while True:
        try:
            call()
        except BotoCoreError:
            assert time.monotonic() < until
            time.sleep(0.1)
        else:
            return
