"""The jobs on a real cluster: a master, two workers, and what happens when one is lost in the middle."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from manymetrics.records import Stamp, compress, pack
from manymetrics.tables import EVENTS, TABLES
from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.decode.ids import Ids, dedup_digest, to_ids
from manymetrics_processor.decode.row import DAY_US
from manymetrics_processor.dedup.window import read_ids
from manymetrics_processor.ingest.raw_archive import Archive
from manymetrics_processor.lake.glue_catalog import glue_catalog
from manymetrics_processor.lake.lake import Lake, live_files
from manymetrics_processor.lake.object_storage import list_files
from manymetrics_processor.lake.scan import read_file
from tests.glue_lake import BUCKET, empty_bucket
from tests.integration.micro_batches import NOW, books, counts
from tests.spark.standalone import Standalone, kill_group, standalone
from tests.strict_moto import REGION, Aws, strict_moto

pytestmark = [pytest.mark.jvm, pytest.mark.xdist_group("spark")]

EVENT_COUNT = int(os.environ.get("BACKFILL_EVENTS", "120000"))  # the same test was run with 10 million
OFTEN = 3  # commits of a backfill, at least
WAREHOUSE, ARCHIVE = f"s3://{BUCKET}/warehouse", f"s3://{BUCKET}/archive"
RESENT = 100  # one event in so many is sent again in the next record


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with strict_moto() as server, pytest.MonkeyPatch.context() as environ:
        for name, value in server.environ.items():
            environ.setenv(name, value)
        place = {"LocationConstraint": REGION}
        server.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)
        yield server


@pytest.fixture(scope="module")
def archived(aws: Aws) -> Ids:
    """An archive of five days; returns the ids of its events, sorted."""
    lake = Lake(glue_catalog(WAREHOUSE, aws.environ))
    archive = Archive(ARCHIVE, lake.io)
    chance = random.Random(7)
    digests: list[bytes] = []
    records: list[StreamRecord] = []
    again: list[bytes] = []
    for start in range(0, EVENT_COUNT, 500):
        at = NOW + 5 * DAY_US * start // EVENT_COUNT
        events = [event(n, chance) for n in range(start, min(EVENT_COUNT, start + 500))]
        digests += [dedup_digest("shop", f"m{n}", "browser") for n in range(start, start + len(events))]
        [data] = pack(Stamp(at, "r", "shop", "browser", ip="203.0.113.7"), [*events, *again, b"{}"])
        records.append(StreamRecord("shard-0", len(records) + 1, compress(data), at))
        again = events[::RESENT]
    for first in range(0, len(records), 10):
        archive.put("a stream", records[first : first + 10])
    return in_order(to_ids(digests))


def event(number: int, chance: random.Random) -> bytes:
    return msgspec.json.encode(
        {
            "type": "track",
            "event": f"Event {number % 20}",
            "messageId": f"m{number}",
            "userId": f"u{number % 1000}",
            "anonymousId": f"a{number % 1000}",
            "properties": {"ref": f"{chance.getrandbits(320):x}", "price": chance.randrange(1000)},
            "context": {"page": {"url": f"https://example.com/{number % 50}"}},
        }
    )


@pytest.fixture
def lake(aws: Aws) -> Iterator[Lake]:
    """Empty tables."""
    catalog = glue_catalog(WAREHOUSE, aws.environ)
    made = Lake(catalog)
    made.ensure_tables()
    yield made
    for table in TABLES:
        catalog.drop_table(("manymetrics", table.name))
    empty_bucket(aws, "warehouse/")


@pytest.fixture(scope="module")
def cluster(aws: Aws, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """One for both tests: the second kills a worker of it."""
    home = tmp_path_factory.mktemp("cluster")
    with standalone(2, home, {**aws.environ, "MANYMETRICS_WAREHOUSE": WAREHOUSE}) as running:
        yield running


def in_order(ids: Ids) -> Ids:
    return ids[np.lexsort((ids[:, 1], ids[:, 0]))]


def ids_in(lake: Lake) -> Ids:
    iceberg = lake.load(EVENTS)
    return in_order(np.concatenate([read_ids(iceberg.io, file.file_path) for file in live_files(iceberg)]))


def backfill(cluster: Standalone, size: int) -> subprocess.Popen[bytes]:
    """``size``: of the archive, packed."""
    return cluster.submit("backfill", ARCHIVE, "--source", "test", "--commit-mb", str(size * 7 // OFTEN // 1_000_000))


def size_of(aws: Aws) -> int:
    pages = aws.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="archive/")
    return sum(file["Size"] for page in pages for file in page["Contents"])


def wait_for_progress(job: subprocess.Popen[bytes], text: bytes) -> None:
    assert job.stdout is not None
    said = b""
    for line in job.stdout:
        said += line
        if text in line:
            return
    raise AssertionError(said + b"".join(job.communicate()))


def report_of(job: subprocess.Popen[bytes]) -> dict[str, Any]:
    out, err = job.communicate()
    assert job.returncode == 0, out + err
    text = out.decode()  # spark-submit gives a job's stderr to its own stdout
    report: dict[str, Any] = json.JSONDecoder().raw_decode(text, text.index("{"))[0]
    return report


def exact() -> dict[str, int]:
    """What the books must say."""
    records = -(-EVENT_COUNT // 500)
    again = sum(len(range(0, min(500, EVENT_COUNT - start), RESENT)) for start in range(0, EVENT_COUNT, 500)[:-1])
    return {
        "received": EVENT_COUNT + again + records,
        "stored": EVENT_COUNT,
        "duplicate": again,
        "dead_lettered:unknown_type": records,
    }


def test_a_backfill_goes_on_where_it_was_killed(cluster: Standalone, archived: Ids, lake: Lake, aws: Aws) -> None:
    victim = backfill(cluster, size_of(aws))
    wait_for_progress(victim, b"2 of ")
    kill_group(victim)
    victim.communicate()  # its pipes

    report = report_of(backfill(cluster, size_of(aws)))

    assert report["pieces_passed_over"] > 0
    assert 0 < report["stored"] < EVENT_COUNT
    assert np.array_equal(ids_in(lake), archived)
    assert counts(books(lake, "backfill:test")) == exact()


def test_jobs_are_exact_though_a_worker_is_lost_in_the_middle(
    cluster: Standalone, archived: Ids, lake: Lake, aws: Aws
) -> None:
    job = backfill(cluster, size_of(aws))
    wait_for_progress(job, b"2 of ")
    kill_group(cluster.workers[0])
    report = report_of(job)

    assert (report["stored"], report["damaged"], report["files_passed_over"]) == (EVENT_COUNT, [], [])
    assert report["commits"] >= OFTEN
    assert np.array_equal(ids_in(lake), archived)
    assert counts(books(lake, "backfill:test")) == exact()

    events, _ = report_of(cluster.submit("compact"))["tables"]  # by the worker that is left

    assert events["files_after"] < events["files_before"]
    assert events["duplicates_dropped"] == events["merges_lost"] == 0
    assert np.array_equal(ids_in(lake), archived)

    enriched = report_of(cluster.submit("enrich"))  # nothing to do: the job above has the same rules
    assert (enriched["files_done_before"], enriched["files_rewritten"]) == (events["files_after"], 0)

    receipt = report_of(cluster.submit("erase", "--user-id", "u7", "--archive", ARCHIVE, "--yes"))

    theirs = range(7, EVENT_COUNT, 1000)
    in_archive = len(theirs) + sum(n % 500 % RESENT == 0 for n in theirs)
    assert receipt["anonymous_ids"] == ["a7"]
    assert [one["rows_erased"] for one in receipt["tables"]] == [len(theirs), 0]
    assert [one["events_erased"] for one in receipt["objects"]] == [in_archive, 0]
    assert any("Kinesis" in one for one in receipt["not_reached"])
    others = [dedup_digest("shop", f"m{n}", "browser") for n in range(EVENT_COUNT) if n not in theirs]
    assert np.array_equal(ids_in(lake), in_order(to_ids(others)))
    data_files = [one for one, _ in list_files(lake.io, f"{WAREHOUSE}/manymetrics/events/data")]
    assert data_files
    assert not [
        one for one in data_files if "u7" in read_file(EVENTS, lake.io, one, ["user_id"])["user_id"].to_pylist()
    ]
