"""Everything that the functions ask of AWS, asked once: their real code, in the environment that Terraform gave them.

All of it goes over HTTP to moto by way of a recorder, which sees what boto3, pyarrow's C++, Iceberg's Java and our own
signed calls send.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import httpx
import pytest

from manymetrics.tables import EVENTS
from manymetrics_processor.dedup.window import KEEP_EVERY_COMMITS
from manymetrics_processor.lake.glue_catalog import glue_catalog
from manymetrics_processor.lake.lake import Lake, live_files
from manymetrics_processor.lake.maintenance import MERGE_FROM_FILES, maintain, remove_orphans
from tests.aws_path import api_on_lambda, events_in
from tests.faulty_aws import FaultyAws, faulty_aws
from tests.in_process import basic
from tests.infra.recorder import Recorder
from tests.infra.stack import ACCOUNT, Stack
from tests.integration.micro_batches import Event, kinesis_event, message_ids, packed, track
from tests.jvm_home import spark_environ
from tests.runtime_api import RuntimeApi
from tests.strict_moto import REGION, Aws, strict_moto

KEY = "wk_recorded"
EVENT = {"type": "track", "event": "Bought", "userId": "u", "messageId": "m"}


@contextmanager
def applied(stack: Stack) -> Iterator[Aws]:
    """An AWS that holds what Terraform makes, and nothing that the functions do."""
    with strict_moto() as aws:
        stream = stack.one("aws_kinesis_stream.this")
        aws.client("kinesis").create_stream(StreamName=stream["name"], ShardCount=1)
        aws.client("glue").create_database(DatabaseInput={"Name": stack.one("aws_glue_catalog_database.this")["name"]})
        parameter = stack.one("aws_ssm_parameter.keys")["name"]
        keys = json.dumps([{"key": KEY, "project": "shop"}])
        aws.client("ssm").put_parameter(Name=parameter, Value=keys, Type="SecureString")
        for name in ("lake", "failures"):
            place = {"LocationConstraint": REGION}
            aws.client("s3").create_bucket(Bucket=stack.bucket(name)["bucket"], CreateBucketConfiguration=place)
        yield aws


@contextmanager
def recorded(aws: Aws, stack: Stack) -> Iterator[tuple[Recorder, FaultyAws, Aws]]:
    """A way to it on which all is written down."""
    recorder = Recorder(ACCOUNT, stack.keys)
    with faulty_aws(aws.url) as faulty:
        faulty.passed = recorder.passed
        yield recorder, faulty, Aws(faulty.url)


def run_api(stack: Stack, folder: Path) -> Recorder:
    """A cold start, events, and the questions of a load balancer."""
    with applied(stack) as aws, recorded(aws, stack) as (recorder, _, behind):
        with api_on_lambda(behind, folder, **stack.environ("api")) as url, httpx.Client(base_url=url) as client:
            sent = [
                client.post(path, json=EVENT, headers=basic(f"{KEY}:")).status_code for path in ("/v1/track", "/v1/t")
            ]
            asked = [client.get(path).status_code for path in ("/healthz", "/readyz", "/sourceConfig?writeKey=" + KEY)]
        assert (sent, asked) == ([200, 200], [200, 200, 200])
        assert events_in(aws, stack.one("aws_kinesis_stream.this")["arn"]) == 2
        return recorder


def run_processor(stack: Stack, engine: str, folder: Path) -> Recorder:
    """From an empty catalog to maintenance, with the archive on, a lost race, and an upload that fails halfway."""
    with (
        applied(stack) as aws,
        recorded(aws, stack) as (recorder, faulty, behind),
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in aws.environ.items():
            patch.setenv(name, value)
        environ = {**behind.environ, **stack.environ("processor"), "MANYMETRICS_ENGINE": engine, "TMPDIR": str(folder)}
        if engine == "spark":
            environ |= spark_environ()
        warehouse, database = environ["MANYMETRICS_WAREHOUSE"], environ["MANYMETRICS_DATABASE"]
        others = Lake(glue_catalog(warehouse, aws.environ), database=database)
        with RuntimeApi("manymetrics_processor.ingest.lambda_handler.handler", environ, folder, 120) as function:
            stored = _commit(function, faulty, others, stack.one("aws_kinesis_stream.this")["arn"], engine)
        assert message_ids(others) == sorted(stored)

        lake = Lake(glue_catalog(warehouse, behind.environ), database=database)  # by way of the recorder
        before = len(list(live_files(lake.load(EVENTS))))
        [events, _] = maintain(lake, keep_snapshots=1)
        removed = remove_orphans(lake, EVENTS, older_than_s=0)
        assert (events.snapshots_expired > 0, removed > 0, before) == (True, True, 2), (events, removed, before)
        assert message_ids(others) == sorted(stored)
        return recorder


def _commit(function: RuntimeApi, faulty: FaultyAws, others: Lake, arn: str, engine: str) -> list[str]:
    """Returns the ids that are stored then."""
    sequence = count(1)

    def answer(event: object) -> object:
        done = function.invoke(event)
        assert done.error is None, function.log
        return done.response

    def deliver(*events: Event | bytes) -> object:
        return answer(kinesis_event(arn, (next(sequence), packed([*events]))))

    assert answer({"action": "ensure_tables"})
    # So many that dedup ids are kept, and small files are merged; Spark's cost more, and old metadata goes after 6.
    small = [f"m{number}" for number in range(KEEP_EVERY_COMMITS if engine == "arrow" else MERGE_FROM_FILES)]
    for one in small:
        assert deliver(track(one), b"{}") == DONE
    if engine == "arrow":
        function.kill()  # and another process begins with the ids that are kept
    assert deliver(track(small[0])) == DONE
    _lose_a_race(others, faulty)
    assert deliver(track("raced")) == DONE
    assert faulty["UpdateTable"].count == 2

    large = [f"large-{number}" for number in range(700)]
    first = next(sequence)
    event = _large(arn, first, large)
    faulty["POST"].after = lambda _number: setattr(faulty["PUT"], "every", "unavailable")  # an upload began
    assert answer(event) == {"batchItemFailures": [{"itemIdentifier": str(first)}]}
    faulty["PUT"].reset()
    faulty["POST"].reset()
    assert answer(event) == DONE
    assert answer({"action": "maintain"})
    return [*small, "raced", *large]


DONE = {"batchItemFailures": list[object]()}


def _lose_a_race(others: Lake, faulty: FaultyAws) -> None:
    """Somebody else commits between the function's look and its commit, once."""

    def before(number: int) -> None:
        if number == 1:
            with others.load(EVENTS).transaction() as transaction:
                transaction.set_properties({"raced": "yes"})

    faulty["UpdateTable"].reset()
    faulty["UpdateTable"].before = before


def _large(arn: str, first: int, ids: list[str]) -> dict[str, object]:
    """Events that take a multipart upload."""
    chance = random.Random(1)
    events = [track(one, properties={"text": base64.b64encode(chance.randbytes(20_000)).decode()}) for one in ids]
    return kinesis_event(arn, *((first + n, packed([event])) for n, event in enumerate(events)))
