"""The zips for Lambda: what is in them, and that the one for this machine's processor works as Lambda would run it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from build_lambda import MAX_ZIP_BYTES, PLATFORMS, build, find_python
from manymetrics.records import unpack
from manymetrics_api.keys import WriteKey
from manymetrics_cli.cost.stack import Stack
from tests.bench.payloads import event
from tests.docker.engine import need
from tests.faulty_aws import FaultyAws, faulty_aws
from tests.gateway_payloads import http_api
from tests.in_process import basic
from tests.lambda_sandbox import as_lambda, control_group, zip_root
from tests.runtime_api import UNPRIVILEGED, Invocation, RuntimeApi, install_client
from tests.strict_moto import Aws, strict_moto

HANDLER = "manymetrics_api.lambda_handler.handler"
KEY = WriteKey(key="wk_packaged", project="shop")
MACHINES = {"arm64": 183, "x86_64": 62}  # e_machine of an ELF file
TIMEOUT_S = 15  # Terraform's default for the API
MEMORY_MB = Stack().api_memory_mb
DEPLOYED_AT = 1_577_836_800  # 2020-01-01, UTC
HERE = "arm64" if platform.machine() == "aarch64" else "x86_64"


@dataclass(frozen=True, slots=True)
class Package:
    """The zips, and the Python they are for: Lambda's, else the one that runs the tests."""

    version: str
    python: Path
    zips: dict[str, Path]

    def files(self, architecture: str) -> dict[str, bytes]:
        with zipfile.ZipFile(self.zips[architecture]) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    version = "3.13"
    try:
        python = find_python(version)
    except SystemExit:  # this machine has none, and no way to one
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        python = find_python(version)
    zips = {architecture: tmp_path_factory.mktemp("zip") / f"{architecture}.zip" for architecture in PLATFORMS}
    for architecture, path in zips.items():
        build(path, architecture, version, python)
    return Package(version, python, zips)


# --- what is in them --------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", PLATFORMS)
def test_a_zip_is_small_and_holds_what_answers_and_nothing_else(package: Package, architecture: str) -> None:
    names = package.files(architecture)

    assert package.zips[architecture].stat().st_size < MAX_ZIP_BYTES
    tops = {name.partition("/")[0].partition(".")[0] for name in names}
    assert {"awscrt", "_awscrt", "fastapi", "mangum", "manymetrics", "msgspec", "pydantic", "zstandard"} <= tops
    assert not {"uvicorn", "uvloop", "boto3", "botocore", "pytest", "bin", "manymetrics_processor"} & tops
    assert not [name for name in names if "/tests/" in name or name.endswith(".pyi")]


@pytest.mark.parametrize("architecture", PLATFORMS)
def test_each_library_is_for_its_processor(package: Package, architecture: str) -> None:
    libraries = {name: body for name, body in package.files(architecture).items() if name.endswith(".so")}

    assert len(libraries) == 4
    assert {struct.unpack_from("<H", body, 18)[0] for body in libraries.values()} == {MACHINES[architecture]}
    tag = f"cpython-{package.version.replace('.', '')}-"
    assert [name for name in libraries if tag not in name and ".abi3." not in name] == []


def test_both_zips_hold_the_same_but_for_the_processor(package: Package) -> None:
    def differing(files: dict[str, bytes]) -> dict[str, bytes]:
        return {re.sub("aarch64|x86_64", "", name): body for name, body in files.items() if not name.endswith(".so")}

    arm, intel = (package.files(architecture) for architecture in ("arm64", "x86_64"))

    assert {re.sub("aarch64|x86_64", "", name) for name in arm} == {
        re.sub("aarch64|x86_64", "", name) for name in intel
    }
    assert [name for name, body in differing(arm).items() if body != differing(intel)[name]] == []


@pytest.mark.parametrize("architecture", PLATFORMS)
def test_every_source_has_bytecode_that_its_python_takes_unchecked(package: Package, architecture: str) -> None:
    files = package.files(architecture)
    tell = "import importlib.util, sys; sys.stdout.buffer.write(importlib.util.MAGIC_NUMBER)"
    magic = subprocess.run([package.python, "-c", tell], capture_output=True, check=True).stdout

    sources = {name for name in files if name.endswith(".py")}
    compiled = {name: body for name, body in files.items() if name.endswith(".pyc")}
    assert {body[:8] for body in compiled.values()} == {magic + struct.pack("<I", 1)}  # 1: by hash, unchecked
    tag = f".cpython-{package.version.replace('.', '')}.pyc"
    assert {name.replace("__pycache__/", "").replace(tag, ".py") for name in compiled} == sources


@pytest.mark.parametrize("architecture", PLATFORMS)
def test_a_zip_that_is_built_again_is_the_same_to_the_byte(package: Package, architecture: str, tmp_path: Path) -> None:
    again = tmp_path / "again.zip"

    build(again, architecture, package.version, package.python)

    assert _digest(again) == _digest(package.zips[architecture])


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- as Lambda runs it ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def task(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The zip, unpacked and read-only, as /var/task is; its files' times are the deployment's."""
    folder = tmp_path_factory.mktemp("task")
    with zipfile.ZipFile(package.zips[HERE]) as archive:
        archive.extractall(folder)
    for path in folder.rglob("*"):
        os.utime(path, (DEPLOYED_AT, DEPLOYED_AT))
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    yield folder
    for path in folders:
        path.chmod(0o755)


@pytest.fixture(scope="module")
def runtime(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runtime")
    install_client(package.python, folder)
    folder.chmod(0o755)  # for whom the function is
    return folder


@pytest.fixture(scope="module")
def faulty() -> Iterator[FaultyAws]:
    with strict_moto() as moto, faulty_aws(moto.url) as one:
        yield one


@pytest.fixture(scope="module")
def aws(faulty: FaultyAws) -> Aws:
    one = Aws(faulty.url)
    one.client("kinesis").create_stream(StreamName="events", ShardCount=1)
    value = msgspec.json.encode([KEY]).decode()
    one.client("ssm").put_parameter(Name="/keys", Value=value, Type="SecureString")
    return one


@pytest.fixture
def environ(aws: Aws, runtime: Path) -> dict[str, str]:
    settings = {"MANYMETRICS_STREAM": "events", "MANYMETRICS_KEYS_PARAMETER": "/keys"}
    return {**aws.environ, "PYTHONPATH": str(runtime), **settings}


@pytest.fixture
def function(package: Package, task: Path, environ: dict[str, str]) -> Iterator[RuntimeApi]:
    with RuntimeApi(HANDLER, environ, task, python=str(package.python), prefix=UNPRIVILEGED) as one:
        yield one


@pytest.fixture
def sandboxed(
    package: Package, task: Path, runtime: Path, environ: dict[str, str], tmp_path: Path
) -> Iterator[RuntimeApi]:
    """As the function, and with nothing but what Lambda has: its share of a CPU, its memory, its file system."""
    need("bwrap")
    prefix = as_lambda(zip_root(package.python, task, runtime), tmp_path)
    places = {"PYTHONPATH": "/var/runtime", "LAMBDA_TASK_ROOT": "/var/task", "LD_LIBRARY_PATH": "/var/lang/lib"}
    whole = {**environ, **places}
    options: dict[str, Any] = {"python": f"/var/lang/bin/python{package.version}", "prefix": prefix}
    with (
        control_group(MEMORY_MB) as group,
        RuntimeApi(HANDLER, whole, task, TIMEOUT_S, **options, group=group) as one,
    ):
        yield one


def batch(first: int, events: int = 3) -> tuple[dict[str, Any], list[str]]:
    """A payload, and the ids of its events."""
    sent = [event(first + number) for number in range(events)]
    body = json.dumps({"batch": sent}).encode()
    return http_api("POST", "/v1/batch", basic(f"{KEY.key}:"), body), [str(one["messageId"]) for one in sent]


def stored(aws: Aws) -> list[str]:
    """The ids of all events in the stream."""
    kinesis = aws.client("kinesis")
    iterator = kinesis.get_shard_iterator(
        StreamName="events", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    records = kinesis.get_records(ShardIterator=iterator)["Records"]
    return [json.loads(one)["messageId"] for record in records for one in unpack(record["Data"]).events]


def answered(done: Invocation) -> tuple[Any, int | None, str | None]:
    return done.error, done.response and done.response["statusCode"], done.response and done.response["body"]


def test_it_starts_and_stores_what_it_answers_200(
    function: RuntimeApi,
    aws: Aws,
    task: Path,
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    before = {path: path.stat().st_mtime_ns for path in task.rglob("*")}
    sent = [batch(100 * number) for number in range(30)]

    cold, *warm = [function.invoke(payload) for payload, _ in sent]

    assert [answered(done) for done in (cold, *warm)] == [(None, 200, '{"success": true}')] * 30
    assert [done.cold for done in (cold, *warm)] == [True] + [False] * 29
    assert set(stored(aws)) >= {one for _, ids in sent for one in ids}
    assert {path: path.stat().st_mtime_ns for path in task.rglob("*")} == before
    assert KEY.key not in function.log
    assert "203.0.113.7" not in function.log
    for name, done in (("cold", cold), ("warm", sorted(warm, key=lambda one: one.cpu_s)[len(warm) // 2])):
        record_testsuite_property(f"Lambda, {name}: wall ms", round(done.wall_s * 1e3, 1))
        record_testsuite_property(f"Lambda, {name}: CPU ms", round(done.cpu_s * 1e3, 2))


def test_on_lambda_it_starts_in_time_and_goes_on_after_hours_in_which_its_connections_died(
    sandboxed: RuntimeApi, faulty: FaultyAws, aws: Aws, record_testsuite_property: Callable[[str, object], None]
) -> None:
    sent = [batch(40_000 + 100 * number) for number in range(3)]

    first = sandboxed.invoke(sent[0][0])
    dropped = faulty.drop_connections()
    after = [sandboxed.invoke(payload) for payload, _ in sent[1:]]

    assert [answered(done) for done in (first, *after)] == [(None, 200, '{"success": true}')] * 3, sandboxed.log
    assert (dropped > 0, sandboxed.killed_inits, [done.cold for done in after]) == (True, 0, [False, False])
    assert sorted(stored(aws)[-9:]) == sorted(one for _, ids in sent for one in ids)
    record_testsuite_property(f"Lambda, {MEMORY_MB} MB: init s", round(sandboxed.init_s, 2))


def test_it_goes_on_after_it_was_killed(function: RuntimeApi, aws: Aws) -> None:
    (first, first_ids), (second, second_ids) = batch(10_000), batch(10_100)

    function.invoke(first)
    function.kill()
    done = function.invoke(second)

    assert (answered(done), done.cold) == ((None, 200, '{"success": true}'), True)
    assert set(stored(aws)) >= {*first_ids, *second_ids}


def test_its_docs_need_nothing_from_elsewhere(function: RuntimeApi) -> None:
    page = function.invoke(http_api("GET", "/docs", {})).response
    assert page["statusCode"] == 200
    linked = re.findall(r'(?:src|href)="(/[^"]+)"', page["body"])
    files = {path: function.invoke(http_api("GET", path, {})) for path in linked}

    assert len(linked) >= 2
    assert "://" not in " ".join(re.findall(r'(?:src|href)="([^"]+)"', page["body"]))
    assert {path: answered(done)[:2] for path, done in files.items()} == dict.fromkeys(linked, (None, 200))
    assert any("swagger" in path and len(done.response["body"]) > 1_000_000 for path, done in files.items())
    openapi = json.loads(function.invoke(http_api("GET", "/openapi.json", {})).response["body"])
    assert "/v1/batch" in openapi["paths"]


@pytest.mark.parametrize("missing", ["MANYMETRICS_STREAM", "MANYMETRICS_KEYS_PARAMETER"])
def test_a_setting_that_is_missing_is_told_before_any_event(
    package: Package, task: Path, environ: dict[str, str], missing: str
) -> None:
    del environ[missing]

    with RuntimeApi(HANDLER, environ, task, python=str(package.python), prefix=UNPRIVILEGED) as function:
        done = function.invoke(batch(0)[0])

    assert done.error is not None
    assert done.error["errorType"] == "SettingsError"
    assert f"{missing} is missing" in done.error["errorMessage"]


def test_what_is_no_request_is_an_error_and_the_next_is_answered(function: RuntimeApi) -> None:
    wrong, right = function.invoke({"Records": []}), function.invoke(batch(20_000)[0])

    assert wrong.error is not None
    assert answered(right) == (None, 200, '{"success": true}')


def test_aws_out_of_reach_is_503_in_time(package: Package, task: Path, environ: dict[str, str]) -> None:
    for endpoint, code in (("SSM", "keys_unavailable"), ("KINESIS", "stream_unavailable")):
        gone = {**environ, f"AWS_ENDPOINT_URL_{endpoint}": "http://127.0.0.1:9"}
        with RuntimeApi(HANDLER, gone, task, python=str(package.python), timeout_s=TIMEOUT_S) as function:
            done = function.invoke(batch(30_000)[0])

        assert (done.error, done.response["statusCode"], done.response["headers"]["retry-after"]) == (None, 503, "1")
        assert json.loads(done.response["body"])["code"] == code
