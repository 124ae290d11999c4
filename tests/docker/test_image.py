"""The images, built by the script that users have, and run as Lambda runs them, on a stand-in for its base."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest

from manymetrics.tables import DEAD_LETTERS
from manymetrics_cli.cost.stack import PROCESSOR_MB, Engine
from manymetrics_processor.enrich.geo import GEOIP_FOLDER
from manymetrics_processor.ingest.factory import stream_name
from manymetrics_processor.lake.glue_catalog import glue_catalog
from manymetrics_processor.lake.lake import Lake
from tests.bench.process import children
from tests.conftest import ROOT
from tests.docker.engine import BASE, Buildah, environ_of
from tests.integration.micro_batches import books, counts, kinesis_event, packed, rows, track
from tests.lambda_sandbox import ControlGroup, as_lambda, contained, control_group, image_root
from tests.live_server import eventually
from tests.ports import free_port
from tests.runtime_api import RuntimeApi
from tests.strict_moto import REGION, Aws, strict_moto

pytestmark = pytest.mark.image

LAMBDA_TAKES = 10_000_000_000  # bytes of an image, unpacked
BUILD_IMAGE = ROOT / "docker" / "build_image.py"
ENGINES: dict[Engine, str] = {"arrow": "localhost/processor:light", "spark": "localhost/processor:spark"}
ALL_DONE: dict[str, list[object]] = {"batchItemFailures": []}


@dataclass(frozen=True, slots=True)
class Image:
    """A processor's image: the engine it commits with, its configuration, and a container's root."""

    engine: str
    config: dict[str, Any]
    root: Path


@pytest.fixture(scope="module")
def engine(buildah: Buildah) -> Buildah:
    """With the base that the images are to stand on."""
    buildah.make_base()
    return buildah


@pytest.fixture(scope="module", params=ENGINES)
def image(request: pytest.FixtureRequest, engine: Buildah) -> Iterator[Image]:
    name = ENGINES[request.param]
    words = [name, "--engine", request.param, "--build-arg", f"BASE={BASE}", "--build-arg", "REVISION=abc"]
    done = subprocess.run(
        [sys.executable, BUILD_IMAGE, *words], env=engine.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    config = engine.described(name)
    assert re.fullmatch(r"[0-9a-f]{64}", done.stdout.strip())
    with engine.root_of(name) as root:
        deploy(root)
        yield Image(request.param, config, root)


def deploy(root: Path) -> None:
    """Leave whole seconds of the files' times, as a layer's tar may, and nothing of the files in memory."""
    for path in [*(root / "var").rglob("*"), *(root / "opt").rglob("*"), *(root / "usr").rglob("*.so*")]:
        if path.is_file() and not path.is_symlink():
            os.utime(path, (seconds := int(path.stat().st_mtime), seconds))
            with path.open("rb") as file:
                os.fsync(file)
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with strict_moto() as one:
        yield one


@dataclass(frozen=True, slots=True)
class Function:
    """A process of the image, a stream with a record of which it is told, and the tables."""

    runtime: RuntimeApi
    group: ControlGroup
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
    warehouse = {"MANYMETRICS_WAREHOUSE": f"s3://{name}/warehouse"}
    with (
        control_group(PROCESSOR_MB[cast("Engine", image.engine)]) as group,
        run_as_lambda(image, aws, tmp_path, group, **warehouse) as runtime,
    ):
        yield Function(runtime, group, lake, arn, stream_name(kinesis, arn))
    for database in aws.client("glue").get_databases()["DatabaseList"]:
        aws.client("glue").delete_database(Name=database["Name"])


def run_as_lambda(image: Image, aws: Aws, temp: Path, group: ControlGroup, **environ: str) -> RuntimeApi:
    """Its own command, in its own environment and what Lambda adds."""
    python, *module = image.config["Entrypoint"]
    [handler] = image.config["Cmd"]
    assert module == ["-m", "awslambdaric"]  # as RuntimeApi calls it
    mine = {**environ_of(image.config), "LAMBDA_TASK_ROOT": "/var/task", **aws.environ, **environ}
    prefix = as_lambda(image_root(image.root), temp)
    return RuntimeApi(handler, mine, cwd=temp, timeout_s=60, python=python, prefix=prefix, group=group)


def test_an_event_of_the_stream_becomes_a_row(
    image: Image, function: Function, record_testsuite_property: Callable[[str, object], None]
) -> None:
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
    assert (function.runtime.killed_inits, function.runtime.init_s > 0) == (0, True)
    record_testsuite_property(f"image for {image.engine}, init with cold files: s", round(function.runtime.init_s, 1))
    record_testsuite_property(f"image for {image.engine}, most memory: MB", round(function.group.memory_mb))
    assert "Traceback" not in function.runtime.log


def test_its_root_is_read_only_and_nobody_owns_it(image: Image, tmp_path: Path) -> None:
    tried = "import pathlib, sys; pathlib.Path(sys.argv[1], 'x').touch()"
    places = ["/tmp", "/var/task", "/opt", "/dev/shm", "/"]  # noqa: S108  # where Lambda has it

    written = [
        place
        for place in places
        if subprocess.run(
            [*as_lambda(image_root(image.root), tmp_path), "python3", "-c", tried, place],
            capture_output=True,
            check=False,
        ).returncode
        == 0
    ]

    assert written == places[:1]


def test_what_only_root_may_read_would_be_found(image: Image, tmp_path: Path) -> None:
    module = image.root / "var" / "task" / "manymetrics" / "tables.py"

    def is_loaded() -> bool:
        command = [*as_lambda(image_root(image.root), tmp_path), "python3", "-c", "import manymetrics.tables"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    readable = is_loaded()
    for path in (module, *module.parent.glob("__pycache__/tables.*")):
        path.chmod(0o600)
    closed = is_loaded()
    for path in (module, *module.parent.glob("__pycache__/tables.*")):
        path.chmod(0o644)

    assert (readable, closed) == (True, False)


def test_it_says_what_it_is_and_is_small_enough(
    image: Image, record_testsuite_property: Callable[[str, object], None]
) -> None:
    labels = {name.rpartition(".")[2]: value for name, value in image.config["Labels"].items()}

    assert (image.config["Entrypoint"], image.config["Cmd"]) == (
        ["python3", "-m", "awslambdaric"],
        ["manymetrics_processor.ingest.lambda_handler.handler"],
    )
    assert (labels["revision"], labels["licenses"]) == ("abc", "MIT")
    assert labels["version"] == metadata.version("manymetrics")
    assert environ_of(image.config)["MANYMETRICS_ENGINE"] == image.engine
    assert (image.root / environ_of(image.config)["MANYMETRICS_DATA_DIR"].lstrip("/") / GEOIP_FOLDER).is_dir()
    assert sum(image.config["sizes"]) < LAMBDA_TAKES
    for number, size in enumerate(image.config["sizes"]):
        record_testsuite_property(f"image for {image.engine}, layer {number}: MB", round(size / 1e6))


def test_every_source_has_bytecode_that_is_not_compared_with_it(image: Image) -> None:
    task = image.root / "var" / "task"
    tag, unchecked = ".cpython-313.pyc", (1).to_bytes(4, "little")  # Lambda's Python

    sources = {path for path in task.rglob("*.py") if "__pycache__" not in path.parts}
    compiled = {path.parent.parent / path.name.replace(tag, ".py"): path for path in task.rglob(f"*{tag}")}

    assert len(sources) > 1_000
    assert sources - set(compiled) == set()
    assert {path.read_bytes()[4:8] for path in compiled.values()} == {unchecked}


@pytest.mark.parametrize("image", ["spark"], indirect=True)
def test_its_jvm_maps_the_class_archive_and_says_where_it_does_without_as_a_jar_is_another(
    image: Image, function: Function
) -> None:
    jars = image.root / "opt" / "spark-jars"
    [jar] = jars.glob("iceberg-aws-bundle-*.jar")
    told = jar.stat()
    of_spark = [one for one in image.root.rglob("*.jar") if "java" not in one.relative_to(image.root).parts]
    assert {one.stat().st_mtime_ns for one in of_spark} == {1_577_836_800 * 10**9}

    def maps_it(number: int) -> bool:
        function.runtime.kill()
        function.answer({"action": "ensure_tables"})
        assert function.answer(kinesis_event(function.arn, (number, packed([track(f"{number}")])))) == ALL_DONE
        [java] = (pid for pid in descendants(function.runtime.pid) if b"PythonGatewayServer" in command_of(pid))
        return "/classes.jsa" in Path(f"/proc/{java}/maps").read_text()

    with_its_jars = maps_it(1)
    silent = "does not use its class archive" not in function.runtime.log
    os.utime(jar, ns=(told.st_atime_ns, told.st_mtime_ns + 500_000))  # as where a layer keeps whole seconds
    with_its_second = maps_it(2)
    os.utime(jar, (told.st_atime, told.st_mtime + 60))  # to the JVM, another one
    with_another = maps_it(3)
    os.utime(jar, ns=(told.st_atime_ns, told.st_mtime_ns))

    assert (with_its_jars, silent, with_its_second, with_another) == (True, True, True, False)
    assert "does not use its class archive" in function.runtime.log


def descendants(pid: int) -> list[int]:
    return [found for child in children(pid) for found in (child, *descendants(child))]


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


# --- everything on one machine ----------------------------------------------------------------------------


LOCAL = "localhost/manymetrics:local"


@pytest.fixture(scope="module")
def local(engine: Buildah) -> Iterator[Image]:
    file = str(ROOT / "docker" / "local.Dockerfile")
    engine.run("build", "--format", "docker", "--file", file, "--build-arg", f"BASE={BASE}", "--tag", LOCAL, str(ROOT))
    with engine.root_of(LOCAL) as root:
        yield Image("local", engine.described(LOCAL), root)


def test_the_whole_of_it_serves_and_keeps_its_events_in_the_volume(local: Image, tmp_path: Path) -> None:
    data, temp, port = tmp_path / "data", tmp_path / "temp", free_port()
    data.mkdir()
    temp.mkdir()
    user, group = map(int, local.config["User"].split(":"))
    root = [*image_root(local.root), "--dev", "/dev", "--remount-ro", "/dev"]
    places = {data: "/data", temp: "/tmp"}  # noqa: S108  # where the image has it
    inside = contained(root, user, group, local.config["WorkingDir"], places)
    here = {"MANYMETRICS_HOST": "127.0.0.1", "MANYMETRICS_PORT": str(port), "MANYMETRICS_WRITE_KEYS": "wk:shop"}
    environ = {**environ_of(local.config), **here}
    check = local.config["Healthcheck"]["Test"][1:]

    def said(*words: str) -> str | None:
        done = subprocess.run([*inside, *words], env=environ, capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else None

    before = said(*check)
    with subprocess.Popen([*inside, *local.config["Cmd"]], env=environ) as server:
        try:
            eventually(lambda: said(*check), within_s=60)
            url = f"http://127.0.0.1:{port}"
            sent = httpx.post(f"{url}/v1/track", auth=("wk", ""), json=track("a"))
            page = httpx.get(f"{url}/sdk/mm.js")
            query = ("manymetrics", "query", "select message_id from events", "-o", "csv")
            stored = eventually(lambda: "\na" in (said(*query) or "") or None, within_s=60)
        finally:
            server.kill()

    assert (before, sent.status_code, page.status_code, stored) == (None, 200, 200, True)
    assert {path.stat().st_uid for path in data.rglob("*")} == {user} != {0}
    assert list(local.config["Volumes"]) == ["/data"]
    assert environ_of(local.config)["MANYMETRICS_HOST"] == "0.0.0.0"  # noqa: S104  # a container's own addresses
    assert (environ_of(local.config)["MANYMETRICS_PORT"], list(local.config["ExposedPorts"])) == ("8000", ["8000/tcp"])
