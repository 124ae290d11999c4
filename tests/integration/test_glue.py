"""The tables in Glue and S3: moto's, with Glue's lock enforced."""

from __future__ import annotations

import os
import random
import threading

import pytest

from manymetrics_processor import pipeline
from manymetrics_processor.decode import StreamRecord
from manymetrics_processor.glue import glue_catalog
from manymetrics_processor.lake import CommitContentionError, Lake
from manymetrics_processor.window import Window
from tests.faulty_s3 import faulty_s3
from tests.integration.micro_batches import STREAM, books, counts, message_ids, record, track
from tests.spark.faulty_glue import Fault, FaultyGlue, faulty_glue
from tests.strict_moto import Aws


@pytest.fixture
def lake(aws_lake: tuple[Aws, str]) -> Lake:
    return make_lake(aws_lake[1])


def make_lake(warehouse: str) -> Lake:
    lake = Lake(glue_catalog(warehouse, os.environ), sleep=lambda _seconds: None)
    lake.ensure_tables()
    return lake


def test_processors_that_race_store_each_event_once(aws_lake: tuple[Aws, str], lake: Lake) -> None:
    batches = [[record(10 * n + i, track(f"m{n}-{i}"), track(f"again-{i}")) for i in range(3)] for n in range(4)]
    shards = {"shard-0": batches[:2], "shard-1": [[one._replace(shard="shard-1") for one in b] for b in batches[2:]]}

    def deliver(seed: int) -> None:
        chance, own, window = random.Random(seed), make_lake(aws_lake[1]), Window()
        for number in range(2):
            for shard in chance.sample(sorted(shards), 2):
                while True:
                    try:
                        pipeline.run(shards[shard][number], STREAM, own, window)
                        break
                    except CommitContentionError:
                        continue

    threads = [threading.Thread(target=deliver, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert message_ids(lake) == sorted(
        [*(f"m{n}-{i}" for n in range(4) for i in range(3)), *(f"again-{i}" for i in range(3))]
    )
    assert counts(books(lake)) == {"received": 24, "stored": 15, "duplicate": 9}


def test_tables_outlive_their_catalogue(aws_lake: tuple[Aws, str], lake: Lake) -> None:
    aws, warehouse = aws_lake
    pipeline.run([record(1, track("a"))], STREAM, lake, Window())
    aws.client("glue").delete_database(Name="manymetrics")

    again = make_lake(warehouse)

    assert message_ids(again) == ["a"]
    pipeline.run([record(1, track("a"))], STREAM, again, Window())
    assert message_ids(again) == ["a"]


# --- faults on the wire -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["lost", "error after", "unavailable", "throttled"])
@pytest.mark.parametrize("times", [1, 99])
def test_whatever_becomes_of_glues_answer_the_table_is_readable_and_exact(
    aws_lake: tuple[Aws, str], monkeypatch: pytest.MonkeyPatch, fault: Fault, times: int
) -> None:
    aws, warehouse = aws_lake
    with faulty_glue(aws.url) as glue:
        monkeypatch.setenv("AWS_ENDPOINT_URL_GLUE", glue.url)
        lake = make_lake(warehouse)
        batches = [[record(n, track(f"m{n}"), track("again"), b"{}")] for n in range(4)]
        pipeline.run(batches[0], STREAM, lake, Window())
        for batch in batches[1:]:
            glue.faults = [fault] * times
            _deliver_until_committed(batch, lake, glue)

    monkeypatch.delenv("AWS_ENDPOINT_URL_GLUE")
    sound = make_lake(warehouse)
    assert message_ids(sound) == ["again", *(f"m{n}" for n in range(4))]
    assert counts(books(sound)) == {"received": 12, "stored": 5, "duplicate": 3, "dead_lettered:unknown_type": 4}


def _deliver_until_committed(batch: list[StreamRecord], lake: Lake, glue: FaultyGlue) -> None:
    try:
        pipeline.run(batch, STREAM, lake, Window())
    except CommitContentionError:  # the outage lasts longer than a commit: the batch comes again
        glue.faults = []
        pipeline.run(batch, STREAM, lake, Window())


@pytest.mark.parametrize("lands", [True, False])
@pytest.mark.parametrize("outage", [True, False])
def test_a_reset_in_any_put_of_a_commit_costs_nothing(
    aws_lake: tuple[Aws, str], monkeypatch: pytest.MonkeyPatch, *, outage: bool, lands: bool
) -> None:
    aws, warehouse = aws_lake
    with faulty_s3(aws.url) as s3:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.url)
        lake = make_lake(warehouse)
        s3.puts, s3.lands = 0, lands
        pipeline.run([record(0, track("m0"), b"{}")], STREAM, lake, Window())
        a_commit = s3.puts
        assert a_commit >= 8  # a data file, a manifest, their list and the metadata, for each table
        for number in range(1, a_commit + 1):
            s3.puts, s3.failing = 0, range(number, 10_000 if outage else number + 1)
            batch = [record(number, track(f"m{number}"), track("m0"), b"{}")]
            try:
                pipeline.run(batch, STREAM, lake, Window())
            except OSError:
                s3.failing = range(0)
                pipeline.run(batch, STREAM, lake, Window())

    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    sound = make_lake(warehouse)
    assert message_ids(sound) == sorted(f"m{n}" for n in range(a_commit + 1))
    assert counts(books(sound)) == {
        "received": 2 + 3 * a_commit,
        "stored": 1 + a_commit,
        "duplicate": a_commit,
        "dead_lettered:unknown_type": 1 + a_commit,
    }
