"""The processor as a container Lambda runs it: AWS's own runtime client, a stand-in for its Runtime API, moto's AWS.

One process for each engine, for as long as nothing ends it, as on Lambda; each test has a stream of its own.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from manymetrics.tables import DEAD_LETTERS
from manymetrics_cli.cost.stack import PROCESSOR_MB
from manymetrics_processor.ingest.factory import stream_name
from manymetrics_processor.ingest.processor import RESERVE_S
from manymetrics_processor.lake.glue_catalog import glue_catalog
from manymetrics_processor.lake.lake import Lake
from tests.faulty_aws import FaultyAws, faulty_aws
from tests.integration.micro_batches import books, counts, kinesis_event, packed, rows, track
from tests.jvm_home import spark_environ
from tests.lambda_sandbox import ControlGroup, control_group
from tests.live_server import eventually
from tests.runtime_api import Invocation, RuntimeApi
from tests.strict_moto import REGION, Aws

SPARK = pytest.param("spark", marks=[pytest.mark.jvm, pytest.mark.xdist_group("spark")])
HELD_S = 3.0  # what a slow S3 takes from an invocation
BUSY_S = 120.0  # for a start of Spark on a machine that has more to do; on Lambda it has 900
HALF_A_COMMIT = 10_001  # events; a commit takes 20,000


class Function:
    """The function, the stream behind it, and the tables."""

    def __init__(
        self, engine: str, runtime: RuntimeApi, group: ControlGroup, aws: Aws, faulty: FaultyAws, lake: Lake
    ) -> None:
        self.engine, self.runtime, self.group, self.faulty, self.lake = engine, runtime, group, faulty, lake
        self._kinesis = aws.client("kinesis")
        self.prefix = ""
        self.arn = ""

    def new_stream(self) -> None:
        self.prefix = name = uuid4().hex[:8]
        self._kinesis.create_stream(StreamName=name, ShardCount=1)
        self.arn = self._kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]

    def ids(self, first: int, count: int) -> list[str]:
        """Message ids that no other test has."""
        return [f"{self.prefix}-{number:06}" for number in range(first, first + count)]

    def event(self, *records: list[str]) -> dict[str, Any]:
        """A record for each list of message ids, with 11, 12 and so on as sequence numbers."""
        packs = [packed([track(one) for one in ids]) for ids in records]
        return kinesis_event(self.arn, *enumerate(packs, 11))

    def answer(self, event: object) -> Any:  # noqa: ANN401  # what the handler returns
        done = self.runtime.invoke(event)
        assert done.error is None, self.runtime.log
        return done.response

    def stored(self) -> list[str]:
        """The message ids of the stream's rows."""
        name = stream_name(self._kinesis, self.arn)
        return sorted(row["message_id"] for row in rows(self.lake) if row["_stream"] == name)

    def books(self) -> Mapping[str, int]:
        return counts(books(self.lake, stream_name(self._kinesis, self.arn)))

    def java(self) -> list[int]:
        """The JVMs that run, also one whose process ended."""
        return [pid for pid in self.group.pids if b"PythonGatewayServer" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.fixture(scope="module", params=["arrow", SPARK])
def deployed(
    request: pytest.FixtureRequest, moto_server: Aws, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Function]:
    bucket, task, temp = f"lake-{uuid4().hex[:12]}", tmp_path_factory.mktemp("task"), tmp_path_factory.mktemp("temp")
    moto_server.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    warehouse = f"s3://{bucket}/warehouse"
    with pytest.MonkeyPatch.context() as patch, faulty_aws(moto_server.url) as faulty:
        for name, value in moto_server.environ.items():
            patch.setenv(name, value)
        environ = {
            **moto_server.environ,
            "AWS_ENDPOINT_URL": faulty.url,
            "MANYMETRICS_WAREHOUSE": warehouse,
            "MANYMETRICS_ENGINE": request.param,
            "TMPDIR": str(temp),
        }
        if request.param == "spark":
            environ |= spark_environ()
        lake = Lake(glue_catalog(warehouse, moto_server.environ))
        handler = "manymetrics_processor.ingest.lambda_handler.handler"
        with control_group(PROCESSOR_MB[request.param]) as group:
            with RuntimeApi(handler, environ, task, group=group) as runtime:
                yield Function(request.param, runtime, group, moto_server, faulty, lake)
            eventually(lambda: not group.pids or None)  # a JVM ends with its process
        moto_server.client("glue").delete_database(Name="manymetrics")


@pytest.fixture
def function(deployed: Function) -> Function:
    """It has tables, a process, and a stream that nobody knows yet."""
    deployed.new_stream()
    deployed.runtime.timeout_s = BUSY_S
    deployed.answer({"action": "ensure_tables"})
    return deployed


def test_a_process_starts_its_engine_with_its_first_batch_and_uses_it_for_all(deployed: Function) -> None:
    deployed.new_stream()
    deployed.runtime.timeout_s = BUSY_S
    deployed.runtime.kill()
    deployed.runtime.provision()
    process = deployed.runtime.pid

    made = deployed.answer({"action": "ensure_tables"})
    deployed.answer({"action": "maintain"})
    assert deployed.java() == []  # neither needs one, and Lambda ends an init after 10 s
    assert deployed.answer(deployed.event(deployed.ids(0, 20))) == ALL_DONE
    java = deployed.java()
    for number in range(3):
        assert deployed.answer(deployed.event(deployed.ids(0, 20), deployed.ids(10, 20 + number))) == ALL_DONE

    home = deployed.lake.home(DEAD_LETTERS).rpartition("/")[0]
    assert made == {"tables": {name: f"{home}/{name}" for name in ("events", "dead_letters")}}
    assert len(java) == (deployed.engine == "spark")
    assert (deployed.runtime.pid, deployed.java()) == (process, java)
    assert deployed.stored() == deployed.ids(0, 30)
    assert deployed.books() == {"received": 40, "stored": 30, "duplicate": 10}
    assert deployed.runtime.log.count('"stored": 10, "duplicate": 10') == 1


ALL_DONE: dict[str, list[object]] = {"batchItemFailures": []}


def test_maintenance_leaves_one_file_and_every_row(function: Function) -> None:
    for number in range(9):
        event = kinesis_event(function.arn, (number, packed([track(one) for one in function.ids(number, 1)])))
        assert function.answer(event) == ALL_DONE

    [events, letters] = function.answer({"action": "maintain"})["tables"]

    assert events["files_before"] >= 9
    assert (events["files_after"], letters["files_after"]) == (1, 0)
    assert function.stored() == function.ids(0, 9)


def test_where_time_runs_out_what_is_committed_stays_and_the_rest_comes_again_from_its_first_record(
    function: Function,
) -> None:
    ids = [function.ids(number * HALF_A_COMMIT, HALF_A_COMMIT) for number in range(3)]
    event = function.event(*ids)
    held = list[float]()

    def hold_once(_number: int) -> None:
        if not held:
            held.append(HELD_S)
            time.sleep(HELD_S)

    function.faulty["PUT"].before = hold_once
    function.runtime.timeout_s = RESERVE_S + HELD_S
    first = function.answer(event)
    function.runtime.timeout_s = RESERVE_S - 1
    none = function.answer({"Records": event["Records"][1:]})
    after_none = function.stored()
    function.runtime.timeout_s = 60
    again = function.answer({"Records": event["Records"][1:]})

    assert first == none == {"batchItemFailures": [{"itemIdentifier": "12"}]}
    assert after_none == ids[0]
    assert again == function.answer(event) == ALL_DONE
    assert function.stored() == [one for of_record in ids for one in of_record]
    assert function.books() == {"received": 3 * HALF_A_COMMIT, "stored": 3 * HALF_A_COMMIT}


def test_it_goes_on_after_hours_in_which_its_connections_died(function: Function) -> None:
    assert function.answer(function.event(function.ids(0, 3))) == ALL_DONE
    pid = function.runtime.pid

    dropped = function.faulty.drop_connections()
    after = function.answer(function.event(function.ids(0, 3), function.ids(2, 3)))

    assert (after, dropped > 0, function.runtime.pid) == (ALL_DONE, True, pid)
    assert function.stored() == function.ids(0, 5)


def test_an_action_that_it_does_not_know_is_an_error_and_the_process_goes_on(function: Function) -> None:
    pid = function.runtime.pid

    refused = function.runtime.invoke({"action": "dance"})
    after = function.answer(function.event(function.ids(0, 1)))

    assert (refused.response, _kind(refused)) == (None, "ValueError")
    assert (after, function.runtime.pid) == (ALL_DONE, pid)
    assert function.stored() == function.ids(0, 1)


def _kind(done: Invocation) -> object:
    return done.error and done.error["errorType"]


@pytest.mark.parametrize("deployed", [SPARK], indirect=True)
def test_a_jvm_that_is_killed_ends_the_process_and_a_new_one_goes_on_exactly(function: Function) -> None:
    first, second = function.event(function.ids(0, 5)), function.event(function.ids(0, 5), function.ids(3, 5))
    assert function.answer(first) == ALL_DONE
    [java] = function.java()

    os.kill(java, signal.SIGKILL)
    ended = function.runtime.invoke(second)
    function.runtime.provision()
    again = function.runtime.invoke(second)
    [another] = function.java()

    assert ended.error == {
        "errorType": "Runtime.ExitError",
        "errorMessage": "Runtime exited with error: exit status 1",
    }
    assert another != java
    assert (again.cold, again.error, again.response) == (False, None, ALL_DONE)
    assert function.stored() == function.ids(0, 8)
    assert function.books() == {"received": 10, "stored": 8, "duplicate": 2}


@pytest.mark.parametrize("deployed", [SPARK], indirect=True)
def test_a_jvm_that_was_starting_as_its_process_was_killed_makes_way_for_another(function: Function) -> None:
    function.runtime.kill()
    function.runtime.provision()
    event = function.event(function.ids(0, 5))

    def kill_as_java_starts() -> None:
        eventually(lambda: function.java() or None)
        function.runtime.kill()

    killer = threading.Thread(target=kill_as_java_starts)
    killer.start()
    ended = function.runtime.invoke(event)
    killer.join()
    left = function.java()
    again = function.runtime.invoke(event)

    assert (_kind(ended), len(left)) == ("Runtime.ExitError", 1)
    assert (again.cold, again.error, again.response) == (True, None, ALL_DONE)
    eventually(lambda: left[0] not in function.java() or None)
    assert len(function.java()) == 1
    assert function.stored() == function.ids(0, 5)
