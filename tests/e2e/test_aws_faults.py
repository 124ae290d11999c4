"""The whole way on AWS, with either engine, as Kinesis, the runner or Glue fails: all acknowledged is there once.

HTTP -> the API's function -> Kinesis -> the runner -> Glue and S3. All tests of an engine share one runner and its
tables; each makes the stream anew, and has message ids of its own.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from manymetrics.books import StreamBooks
from manymetrics.tables import DEAD_LETTERS, EVENTS
from manymetrics_processor.ingest.factory import stream_name
from manymetrics_processor.lake.lake import Lake, current_books
from manymetrics_processor.lake.object_storage import list_files
from manymetrics_processor.operations.replay_objects import SOURCE
from tests.aws_path import STREAM, WAREHOUSE, Runner, api_on_lambda, events_in, make_stream
from tests.faulty_aws import FaultyAws, faulty_aws
from tests.glue_lake import BUCKET, glue_lake
from tests.integration.micro_batches import counts, rows
from tests.live_server import MANYMETRICS, eventually
from tests.strict_moto import REGION, Aws, strict_moto

MAX_RECORD_AGE_S = 3
FAILURES = f"{WAREHOUSE}/failures"
ALL_OF_GLUE = ("GetDatabase", "CreateDatabase", "GetTable", "CreateTable", "UpdateTable")


@dataclass
class Way:
    """All of it, running. ``arn`` is the stream's; ``sent`` are the ids that were acknowledged of what it took."""

    aws: Aws
    faulty: FaultyAws
    lake: Lake
    runner: Runner
    client: httpx.Client
    arn: str
    sent: Counter[str] = field(default_factory=Counter)
    refused: list[int] = field(default_factory=list)

    def make_stream(self, shards: int = 2) -> None:
        self.arn = make_stream(self.aws, shards)
        self.sent.clear()
        self.refused.clear()

    @property
    def stream(self) -> str:
        return stream_name(self.aws.client("kinesis"), self.arn)

    @property
    def books(self) -> StreamBooks:
        return current_books(self.lake.load(EVENTS), self.stream)

    def post(self, ids: Sequence[str]) -> int:
        """One request, with an event beside these that is a dead letter. Returns the status."""
        events = [{"type": "track", "event": "E", "userId": "u", "messageId": one} for one in ids]
        answer = self.client.post("/v1/batch", content=json.dumps({"batch": [*events, {"type": "nonsense"}]}))
        if answer.status_code == 200:
            self.sent.update(ids)
        else:
            assert answer.status_code in {429, 503}
            assert int(answer.headers["Retry-After"]) > 0
            self.refused.append(answer.status_code)
        return answer.status_code

    def send(self, ids: Sequence[str]) -> None:
        """As a client does: until it is acknowledged."""
        while self.post(ids) != 200:
            pass

    def settle(self) -> None:
        """Wait until all that the stream holds is committed."""
        total = events_in(self.aws, self.arn)
        eventually(lambda: self.books.received == total or None, within_s=120, every_s=0.3)

    def stored(self, prefix: str) -> Counter[str]:
        """How often each id with this prefix is in the table."""
        return Counter(row["message_id"] for row in rows(self.lake) if row["message_id"].startswith(prefix))

    def check_books(self) -> None:
        """They balance, and say of the stream what the tables hold of it."""
        books, name = self.books, self.stream
        of_stream = [row["dead_letter_id"] for row in rows(self.lake, DEAD_LETTERS) if row["_stream"] == name]
        assert books.balanced
        assert books.stored == sum(row["_stream"] == name for row in rows(self.lake))
        assert sum(books.dead_lettered.values()) == len(of_stream) == len(set(of_stream))


@pytest.fixture(scope="module", params=["arrow", pytest.param("spark", marks=pytest.mark.jvm)])
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    with ExitStack() as stack:
        aws = stack.enter_context(strict_moto())
        aws.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        faulty = stack.enter_context(faulty_aws(aws.url))
        lake = stack.enter_context(glue_lake(aws))
        arn = make_stream(aws)
        runner = Runner(Aws(faulty.url), request.param, "--max-record-age-s", str(MAX_RECORD_AGE_S))
        runner.start()
        stack.callback(runner.kill)
        folder = tmp_path_factory.mktemp("api")
        url = stack.enter_context(api_on_lambda(Aws(faulty.url), folder, MANYMETRICS_WRITE_KEYS="wk_shop:shop"))
        client = stack.enter_context(httpx.Client(base_url=url, auth=("wk_shop", ""), timeout=30))
        yield Way(aws, faulty, lake, runner, client, arn)
        assert runner.stop() == 0


@pytest.fixture(autouse=True)
def _no_fault_outlives_its_test(way: Way) -> Iterator[None]:
    yield
    way.faulty.reset()


def test_a_shard_is_split_and_the_runner_killed_under_load(way: Way) -> None:
    way.make_stream(shards=1)

    for number in range(40):
        way.send([f"split-{number}-{i}" for i in range(5)] + [f"split-again-{number % 7}"])
        if number == 12:
            key = {"ShardToSplit": "shardId-000000000000", "NewStartingHashKey": str(2**127)}
            way.aws.client("kinesis").split_shard(StreamName=STREAM, **key)
        if number == 20:
            way.runner.kill()
            way.runner.start()
    way.settle()

    assert way.stored("split-") == dict.fromkeys(way.sent, 1)
    stream = way.stream
    assert {row["_shard"] for row in rows(way.lake) if row["_stream"] == stream} > {"shardId-000000000000"}
    way.check_books()


def test_kinesis_takes_two_records_of_three_then_none_then_throttles_and_loses_answers(way: Way) -> None:
    way.make_stream()
    puts = way.faulty["PutRecords"]

    puts.every = "third"
    for number in range(12):
        assert way.post([f"put-third-{number}", "put-again"]) == 200
    assert puts.count > 12  # some were sent again
    puts.every = "refused"
    assert way.post(["put-refused"]) == 503
    puts.every = "throttled"
    assert [way.post(["put-throttled"]) for _ in range(2)] == [429, 429]  # 5 s each
    puts.every, puts.faults = None, ["lost", "reset", "unavailable"]
    way.send(["put-refused", "put-throttled", "put-lost"])
    way.settle()

    assert way.refused == [503, 429, 429]
    assert way.stored("put-") == dict.fromkeys(way.sent, 1)
    assert len(way.sent) == 12 + 4
    way.check_books()


def test_a_stream_that_is_made_again_is_committed_from_its_first_record_beside_the_old_rows(way: Way) -> None:
    way.make_stream(shards=1)
    way.send([f"old-{n}" for n in range(20)])
    way.settle()
    before = way.stream
    old = [row for row in rows(way.lake) if row["_stream"] == before]

    way.make_stream(shards=1)  # the old one's reader may still be there, and be past its first record
    for number in range(5):
        way.send([f"new-{number}", f"old-{number}"])
    way.settle()

    assert way.stream != before
    assert [row for row in rows(way.lake) if row["_stream"] == before] == old
    assert way.stored("old-") == {f"old-{n}": 1 for n in range(20)}
    assert way.stored("new-") == {f"new-{n}": 1 for n in range(5)}
    assert counts(way.books) == {"received": 15, "stored": 5, "duplicate": 5, "dead_lettered:unknown_type": 5}


def test_an_outage_of_glue_past_the_record_age_costs_nothing_as_replay_brings_all_back_once(way: Way) -> None:
    way.make_stream(shards=1)
    way.send(["outage-before"])
    way.settle()
    for call in ALL_OF_GLUE:
        way.faulty[call].every = "unavailable"
    for number in range(4):
        way.send([f"outage-{number}", f"outage-again-{number % 2}"])
    kept = eventually(lambda: list(list_files(way.lake.io, FAILURES)) or None, within_s=60)
    way.faulty.reset()
    way.send(["outage-0", "outage-after"])
    eventually(lambda: way.stored("outage-after") or None, within_s=60)

    reports = [replay(way.aws) for _ in range(2)]

    assert way.stored("outage-") == dict.fromkeys(way.sent, 1)
    by_replay = counts(current_books(way.lake.load(EVENTS), SOURCE))
    assert len(kept) == reports[0]["objects"] == reports[1]["objects"]
    assert {name: reports[0][name] for name in ("stored", "duplicate", "dead_lettered")} == {
        "stored": by_replay["stored"],
        "duplicate": by_replay["duplicate"],
        "dead_lettered": by_replay["dead_lettered:unknown_type"],
    }
    assert by_replay["received"] + way.books.received == events_in(way.aws, way.arn)
    assert (reports[1]["stored"], reports[1]["duplicate"], reports[1]["dead_lettered"]) == (0, 0, 0)
    assert reports[1]["records_passed_over"] > 0
    stream = way.stream
    letters = [row["dead_letter_id"] for row in rows(way.lake, DEAD_LETTERS) if row["_stream"] == stream]
    assert len(letters) == len(set(letters)) == 6


def replay(aws: Aws) -> dict[str, Any]:
    """The report of ``manymetrics replay`` of what was given up."""
    done = subprocess.run(
        [str(MANYMETRICS), "replay", FAILURES],
        env={"PATH": "/usr/bin:/bin", **aws.environ, "MANYMETRICS_WAREHOUSE": WAREHOUSE},
        stdout=subprocess.PIPE,
        check=True,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report
