"""Four processors on one table, each of a stream of two shards, and maintenance beside them: exact, and none gives up.

How long they are under load is MANYMETRICS_TEST_LOAD_S, else of TEST_SCALE.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from manymetrics.books import StreamBooks
from manymetrics.tables import DEAD_LETTERS, EVENTS
from manymetrics_processor.ingest.factory import stream_name
from manymetrics_processor.lake.lake import Lake, current_books
from manymetrics_processor.lake.maintenance import maintain
from manymetrics_processor.lake.object_storage import list_files
from tests.aws_path import WAREHOUSE, Runner, events_in, make_stream
from tests.glue_lake import BUCKET, another_handle, glue_lake
from tests.integration.micro_batches import counts, packed, rows, track
from tests.live_server import eventually
from tests.scale import scaled
from tests.strict_moto import REGION, Aws, strict_moto

LOAD_S = float(os.environ.get("MANYMETRICS_TEST_LOAD_S") or scaled(3, 10, 10))
STREAMS = [f"events-{n}" for n in range(4)]


@pytest.mark.parametrize(
    "engines",
    [
        ["arrow"] * 4,
        pytest.param(["spark", "spark", "arrow", "arrow"], marks=pytest.mark.jvm),
        *([pytest.param(["spark"] * 4, marks=pytest.mark.jvm)] if LOAD_S > 30 else []),  # four JVMs
    ],
    ids="-".join,
)
def test_four_processors_and_maintenance_on_one_table_store_each_event_once(engines: list[str]) -> None:
    with ExitStack() as stack:
        aws = stack.enter_context(strict_moto())
        aws.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        lake = stack.enter_context(glue_lake(aws))
        arns = [make_stream(aws, name=name) for name in STREAMS]
        runners = [
            Runner(aws, engine, "--window-s", "1", stream=name) for engine, name in zip(engines, STREAMS, strict=True)
        ]
        for runner in runners:
            stack.callback(runner.kill)
            runner.start()
        with maintained(aws) as rounds:
            sent = send_to_all(aws, lambda: all(received(aws, lake, arns)))
            totals = [events_in(aws, arn) for arn in arns]
            eventually(lambda: received(aws, lake, arns) == totals or None, within_s=300, every_s=1)
        assert [runner.stop() for runner in runners] == [0, 0, 0, 0]

        stored, letters = rows(lake), rows(lake, DEAD_LETTERS)
        assert Counter(row["message_id"] for row in stored) == dict.fromkeys(sent, 1)
        assert len({row["dead_letter_id"] for row in letters}) == len(letters)
        by_stream, letters_of = (Counter(row["_stream"] for row in some) for some in (stored, letters))
        for arn in arns:
            name, outcomes = stream_name(aws.client("kinesis"), arn), counts(books_of(aws, lake, arn))
            assert (outcomes["stored"], outcomes["dead_lettered:unknown_type"]) == (by_stream[name], letters_of[name])
        assert rounds[0] > 3
        assert list(list_files(lake.io, f"{WAREHOUSE}/failures")) == []


def books_of(aws: Aws, lake: Lake, arn: str) -> StreamBooks:
    return current_books(lake.load(EVENTS), stream_name(aws.client("kinesis"), arn))


def received(aws: Aws, lake: Lake, arns: list[str]) -> list[int]:
    return [books_of(aws, lake, arn).received for arn in arns]


def send_to_all(aws: Aws, all_are_at_work: Callable[[], bool]) -> set[str]:
    """Records into each stream, of which a quarter's events are in all of them; for LOAD_S once all are at work."""
    kinesis, sent, number, until = aws.client("kinesis"), set[str](), 0, float("inf")
    while time.monotonic() < until:
        for name in STREAMS:
            ids = [f"{name}-{number}-{i}" for i in range(15)] + [f"all-{number}-{i}" for i in range(5)]
            sent.update(ids)
            data = packed([*map(track, ids), b"{}"])
            kinesis.put_record(StreamName=name, Data=data, PartitionKey=str(number % 7))
        number += 1
        time.sleep(0.2)
        if number % 5 == 0 and until == float("inf") and all_are_at_work():
            until = time.monotonic() + LOAD_S
    return sent


@contextmanager
def maintained(aws: Aws) -> Iterator[list[int]]:
    """Maintenance in a loop until the block ends; how many rounds it has made."""
    lake, rounds, over = another_handle(aws), [0], threading.Event()

    def work() -> None:
        while not over.wait(1):
            maintain(lake, keep_snapshots=50)
            rounds[0] += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield rounds
    finally:
        over.set()
        thread.join()
