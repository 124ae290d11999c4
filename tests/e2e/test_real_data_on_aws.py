"""Real input, the whole way on AWS, with either engine: ``manymetrics query`` finds its truth in S3, to the unit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from manymetrics.tables import EVENTS
from manymetrics_processor.ingest.factory import stream_name
from manymetrics_processor.lake.lake import Lake, current_books
from tests.aws_path import STREAM, Runner, api_on_lambda, make_stream, query
from tests.glue_lake import BUCKET, glue_lake
from tests.live_server import eventually
from tests.real_data import PROJECTS, figures, read_events, true_figures
from tests.strict_moto import REGION, Aws, strict_moto

A_REQUEST = 100
KEYS = {"retail-orders": "wk_shop", "wiki-edits": "wk_wiki"}


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with strict_moto() as running:
        place = {"LocationConstraint": REGION}
        running.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)
        yield running


@pytest.fixture
def lake(aws: Aws) -> Iterator[Lake]:
    """Empty tables."""
    with glue_lake(aws) as made:
        yield made


@pytest.fixture
def stream(aws: Aws, lake: Lake) -> Iterator[str]:  # noqa: ARG001  # the tables' fixture names the AWS to ask
    """The name of an empty stream."""
    yield stream_name(aws.client("kinesis"), make_stream(aws))
    aws.client("kinesis").delete_stream(StreamName=STREAM)


@pytest.mark.parametrize("engine", ["arrow", pytest.param("spark", marks=pytest.mark.jvm)])
def test_the_figures_of_real_data_are_exact_though_half_of_it_came_again(
    aws: Aws, lake: Lake, stream: str, tmp_path: Path, shared_data: Path, engine: str
) -> None:
    truth = {name: true_figures(shared_data, name) for name in PROJECTS}
    keys = ",".join(f"{key}:{PROJECTS[name]}" for name, key in KEYS.items())
    runner = Runner(aws, engine)
    try:
        with api_on_lambda(aws, tmp_path, MANYMETRICS_WRITE_KEYS=keys) as url:
            sent = _send(url, shared_data, "retail-orders") + _send(url, shared_data, "wiki-edits")
            runner.start()
            again = _send(url, shared_data, "retail-orders")
        eventually(lambda: current_books(lake.load(EVENTS), stream).received == sent + again or None, within_s=120)
        assert runner.stop() == 0
    finally:
        runner.kill()

    books = current_books(lake.load(EVENTS), stream)
    assert sent == sum(figures["events"] for figures in truth.values())
    assert (books.stored, books.duplicate) == (sent, again)
    assert {name: figures(partial(query, aws), project) for name, project in PROJECTS.items()} == truth
    assert query(aws, "select count(*) as n from dead_letters") == [{"n": 0}]


def _send(url: str, folder: Path, name: str) -> int:
    lines = read_events(folder, name)
    with httpx.Client(base_url=url, auth=(KEYS[name], ""), timeout=30) as client:
        for start in range(0, len(lines), A_REQUEST):
            body = b'{"batch":[%s]}' % b",".join(lines[start : start + A_REQUEST])
            assert client.post("/v1/batch", content=body).json() == {"success": True}
    return len(lines)
