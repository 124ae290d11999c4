"""The tables in Glue and S3: moto's, with Glue's lock enforced."""

from __future__ import annotations

import os
import random
import threading

import pytest

from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.glue_catalog import DELETED_AT_ONCE, S3FileIO, glue_catalog
from manymetrics_processor.lake.lake import CommitContentionError, Lake
from manymetrics_processor.lake.object_storage import delete_files
from tests.integration.micro_batches import STREAM, books, counts, message_ids, record, track
from tests.strict_moto import REGION, Aws


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


def test_the_environment_that_it_is_given_says_where_glue_is_and_an_empty_word_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def glue_of(**environ: str) -> str:
        url: str = glue_catalog("s3://lake/tables", {"AWS_REGION": REGION, **environ}).glue.meta.endpoint_url
        return url

    on_aws = f"https://glue.{REGION}.amazonaws.com"
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert glue_of() == glue_of(AWS_ENDPOINT_URL="", AWS_ENDPOINT_URL_GLUE="") == on_aws
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert glue_of(AWS_ENDPOINT_URL="http://127.0.0.1:2") == "http://127.0.0.1:2"
    assert glue_of(AWS_ENDPOINT_URL="http://127.0.0.1:2", AWS_ENDPOINT_URL_GLUE="http://127.0.0.1:3") == (
        "http://127.0.0.1:3"
    )


def test_tables_outlive_their_catalog(aws_lake: tuple[Aws, str], lake: Lake) -> None:
    aws, warehouse = aws_lake
    pipeline.run([record(1, track("a"))], STREAM, lake, Window())
    aws.client("glue").delete_database(Name="manymetrics")

    again = make_lake(warehouse)

    assert message_ids(again) == ["a"]
    pipeline.run([record(1, track("a"))], STREAM, again, Window())
    assert message_ids(again) == ["a"]


def test_files_are_deleted_a_thousand_at_once_and_one_that_is_gone_is_no_error(
    aws_lake: tuple[Aws, str], lake: Lake
) -> None:
    aws, warehouse = aws_lake
    bucket = warehouse.removeprefix("s3://").partition("/")[0]
    s3 = aws.client("s3")
    kept, *gone = [f"many/{number}" for number in range(DELETED_AT_ONCE + 2)]
    for key in (kept, *gone[::50], gone[-1]):
        s3.put_object(Bucket=bucket, Key=key)

    delete_files(lake.io, [f"s3://{bucket}/{key}" for key in gone])

    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket, Prefix="many/")["Contents"]] == [kept]


def test_a_file_that_s3_does_not_delete_is_an_error(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def delete_objects(self, **_: object) -> dict[str, object]:
            return {"Errors": [{"Key": "a", "Code": "AccessDenied"}]}

    monkeypatch.setattr(S3FileIO, "_s3", lambda _self: Refusing())

    with pytest.raises(OSError, match="did not delete 1 of 1 files: AccessDenied"):
        delete_files(lake.io, ["s3://bucket/a"])
