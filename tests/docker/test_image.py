"""The images, built by the script that users have, and run as Lambda runs them, on a stand-in for its base."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from manymetrics.tables import DEAD_LETTERS
from manymetrics_processor.glue import glue_catalog
from manymetrics_processor.handler import stream_name
from manymetrics_processor.lake import Lake
from tests.conftest import ROOT
from tests.docker.engine import BASE, Buildah, as_lambda, environ_of
from tests.integration.micro_batches import books, counts, kinesis_event, packed, rows, track
from tests.runtime_api import RuntimeApi
from tests.strict_moto import REGION, Aws, strict_moto

pytestmark = pytest.mark.image

LAMBDA_TAKES = 10_000_000_000  # bytes of an image, unpacked
BUILD_IMAGE = ROOT / "docker" / "build_image.py"
ENGINES = {"arrow": "localhost/processor:light", "spark": "localhost/processor:spark"}
ALL_DONE: dict[str, list[object]] = {"batchItemFailures": []}


@dataclass(frozen=True, slots=True)
class Image:
    """A processor's image: the engine it commits with, its configuration, and a container's root."""

    engine: str
    config: dict[str, Any]
    root: Path


@pytest.fixture(scope="module", params=ENGINES)
def image(request: pytest.FixtureRequest, buildah: Buildah) -> Iterator[Image]:
    name = ENGINES[request.param]
    words = [name, "--engine", request.param, "--build-arg", f"BASE={BASE}", "--build-arg", "REVISION=abc"]
    done = subprocess.run(
        [sys.executable, BUILD_IMAGE, *words], env=buildah.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    config = buildah.described(name)
    assert re.fullmatch(r"[0-9a-f]{64}", done.stdout.strip())
    with buildah.root_of(name) as root:
        yield Image(request.param, config, root)


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with strict_moto() as one:
        yield one


@dataclass(frozen=True, slots=True)
class Function:
    """A process of the image, a stream with a record of which it is told, and the tables."""

    runtime: RuntimeApi
    lake: Lake
    arn: str
    stream: str

    def answer(self, event: object) -> Any:  # noqa: ANN401  # what the handler returns
        done = self.runtime.invoke(event)
        assert done.error is None, (done.error, self.runtime.log)
        return done.response


@pytest.fixture
def function(image: Image, aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Function]:
    name = f"image-{uuid4().hex[:12]}"
    aws.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    kinesis = aws.client("kinesis")
    kinesis.create_stream(StreamName=name, ShardCount=1)
    arn = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
    for variable, value in aws.environ.items():
        monkeypatch.setenv(variable, value)
    lake = Lake(glue_catalog(f"s3://{name}/warehouse", aws.environ))
    with run_as_lambda(image, aws, tmp_path, MANYMETRICS_WAREHOUSE=f"s3://{name}/warehouse") as runtime:
        yield Function(runtime, lake, arn, stream_name(kinesis, arn))
    for database in aws.client("glue").get_databases()["DatabaseList"]:
        aws.client("glue").delete_database(Name=database["Name"])


def run_as_lambda(image: Image, aws: Aws, temp: Path, **environ: str) -> RuntimeApi:
    """Its own command, in its own environment and what Lambda adds."""
    python, *module = image.config["Entrypoint"]
    [handler] = image.config["Cmd"]
    assert module == ["-m", "awslambdaric"]  # as RuntimeApi calls it
    mine = {**environ_of(image.config), "LAMBDA_TASK_ROOT": "/var/task", **aws.environ, **environ}
    return RuntimeApi(
        handler, mine, cwd=temp, timeout_s=60, python=python, prefix=as_lambda(image.root, temp), init_timeout_s=120
    )


def test_an_event_of_the_stream_becomes_a_row(function: Function) -> None:
    made = function.answer({"action": "ensure_tables"})
    good, bad = track("a"), b'{"type":"dance"}'

    first = function.answer(kinesis_event(function.arn, (11, packed([good, bad]))))
    again = function.answer(kinesis_event(function.arn, (11, packed([good, bad])), (12, packed([good, track("b")]))))
    kept = function.answer({"action": "maintain"})

    assert set(made["tables"]) == {"events", "dead_letters"}
    assert first == again == ALL_DONE
    assert [row["message_id"] for row in rows(function.lake)] == ["a", "b"]
    assert [row["reason"] for row in rows(function.lake, DEAD_LETTERS)] == ["unknown_type"]
    assert counts(books(function.lake, function.stream)) == {
        "received": 4,
        "stored": 2,
        "duplicate": 1,
        "dead_lettered:unknown_type": 1,
    }
    assert [table["files_after"] for table in kept["tables"]]
    assert "Traceback" not in function.runtime.log
