"""The command around the probes: consent, marker, destroy in every case, report. Terraform is a stand-in here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from sample.conformance.__main__ import PROBES, main
from tests.conftest import ROOT
from tests.strict_moto import Aws, strict_moto

# Writes down each command; makes a bucket at apply, and removes it at destroy.
TERRAFORM = """\
#!{python} -S
import os, pathlib, sys, time
from urllib.request import Request, urlopen

home = pathlib.Path({home!r})
command = sys.argv[2]
bucket = os.environ["AWS_ENDPOINT_URL"] + "/mm-conformance-lake"
with (home / "calls").open("a") as calls:
    calls.write(command + "\\n")
if command == "apply":
    place = b"<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>"
    urlopen(Request(bucket, place, method="PUT"))
    while (home / "hangs").exists():
        time.sleep(0.05)
    if (home / "fails").exists():
        sys.exit("no such thing as a role")
elif command == "destroy" and not (home / "destroys-nothing").exists():
    urlopen(Request(bucket, method="DELETE"))
elif command == "output":
    print((home / "outputs").read_text())
"""
OUTPUTS = {
    "api_instance_url": "http://127.0.0.1:9",
    "write_key": "wk_secret",
    "glue_database_name": "mm_conformance",
    "athena_workgroup": "mm-conformance",
    "warehouse": "s3://mm-conformance-lake/tables",
    "failures_location": "s3://mm-conformance-failures/aws/lambda",
}
RUN = ("--yes", "--region", "eu-west-1", "--only", "nothing-left")


@dataclass(frozen=True, slots=True)
class Machine:
    """A folder with that Terraform, and an AWS."""

    home: Path
    aws: Aws

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environ = {**os.environ, **self.aws.environ, "PATH": f"{self.home}/bin:{os.environ['PATH']}"}
        command = [sys.executable, "-m", "tests.conformance.command_process", str(self.home), *arguments]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environ,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        out, _ = process.communicate(timeout=120)
        return process.returncode, out

    def calls(self) -> list[str]:
        path = self.home / "calls"
        return [one for one in path.read_text().split() if one in {"apply", "destroy"}] if path.exists() else []

    def wait_until_applying(self) -> None:
        until = time.monotonic() + 60
        while "apply" not in self.calls() or not self.buckets():
            assert time.monotonic() < until
            time.sleep(0.05)

    def buckets(self) -> list[str]:
        return [one["Name"] for one in self.aws.client("s3").list_buckets()["Buckets"]]

    def report(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.home / "build" / "aws-conformance.json").read_text())
        return told

    @property
    def marker(self) -> Path:
        return self.home / "build" / "aws-conformance" / "running.json"


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with strict_moto() as running:
        yield running


@pytest.fixture
def machine(aws: Aws, tmp_path: Path) -> Machine:
    httpx.post(f"{aws.url}/moto-api/reset")
    (tmp_path / "bin").mkdir()
    (tmp_path / "sample").mkdir()
    program = tmp_path / "bin" / "terraform"
    program.write_text(TERRAFORM.format(python=sys.executable, home=str(tmp_path)))
    program.chmod(0o755)
    (tmp_path / "outputs").write_text(json.dumps({name: {"value": value} for name, value in OUTPUTS.items()}))
    return Machine(tmp_path, aws)


def test_a_stack_is_applied_looked_at_destroyed_and_reported(machine: Machine) -> None:
    status, said = machine.run(*RUN)

    assert status == 0, said
    assert machine.calls() == ["apply", "destroy"]
    assert (machine.buckets(), machine.marker.exists()) == ([], False)
    [result] = machine.report()["results"]
    assert (result["name"], result["status"]) == ("nothing-left", "passed")
    page = (machine.home / "build" / "aws-conformance.md").read_text()
    assert "1 passed, 0 failed, 0 not run" in page


def test_what_destroy_leaves_fails_the_run(machine: Machine) -> None:
    (machine.home / "destroys-nothing").touch()

    status, said = machine.run(*RUN)

    assert status == 1, said
    [result] = machine.report()["results"]
    assert (result["status"], result["seen"]) == ("failed", ["s3: mm-conformance-lake"])


def test_an_apply_that_fails_is_destroyed_and_told(machine: Machine) -> None:
    (machine.home / "fails").touch()

    status, said = machine.run(*RUN)

    assert status == 1
    assert machine.calls() == ["apply", "destroy"]
    assert "no such thing as a role" in said
    assert machine.buckets() == []


def test_where_aws_lets_nobody_make_a_public_url_the_other_probes_still_run(machine: Machine) -> None:
    """Here it has no function to make one of."""
    status, said = machine.run("--yes", "--region", "eu-west-1", "--only", "encodings", "--only", "nothing-left")

    assert status == 1, said
    [problem] = machine.report()["problems"]
    assert problem.startswith("No function URL and no echo function: ")
    results = {one["name"]: one["status"] for one in machine.report()["results"]}
    assert results == {"encodings": "failed", "nothing-left": "passed"}
    assert machine.calls() == ["apply", "destroy"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_destroys_its_stack(machine: Machine, how: signal.Signals) -> None:
    (machine.home / "hangs").touch()
    process = machine.start(*RUN)
    machine.wait_until_applying()

    process.send_signal(how)
    said, _ = process.communicate(timeout=60)

    assert process.returncode == 130, said
    assert machine.calls() == ["apply", "destroy"]
    assert (machine.buckets(), machine.marker.exists()) == ([], False)
    assert machine.report()["problems"] == ["interrupted"]


def test_what_a_killed_run_left_is_destroyed_before_anything_is_made(machine: Machine) -> None:
    (machine.home / "hangs").touch()
    process = machine.start(*RUN)
    machine.wait_until_applying()
    process.kill()
    process.communicate()
    (machine.home / "hangs").unlink()
    assert machine.marker.exists()

    status, said = machine.run(*RUN)

    assert status == 0, said
    assert machine.calls() == ["apply", "destroy", "apply", "destroy"]
    assert said.startswith("An earlier run left the stack mm-conformance in eu-west-1. Destroying it first\n")
    assert machine.buckets() == []


def test_destroy_alone_takes_down_what_was_left_and_makes_nothing(machine: Machine) -> None:
    (machine.home / "hangs").touch()
    process = machine.start(*RUN)
    machine.wait_until_applying()
    process.kill()
    process.communicate()
    (machine.home / "hangs").unlink()

    assert machine.run("--destroy")[0] == 0
    assert machine.calls() == ["apply", "destroy"]
    assert machine.run("--destroy")[1] == "Nothing is left.\n"


def test_a_stack_left_in_another_account_is_not_given_up(machine: Machine) -> None:
    machine.marker.parent.mkdir(parents=True)
    left = {"name": "mm-conformance", "region": "eu-west-1", "account": "1", "started_at": 0, "variables": {}}
    machine.marker.write_text(json.dumps(left))

    status, said = machine.run(*RUN)

    assert (status, machine.calls()) == (2, [])
    assert "in another account" in said
    assert machine.marker.exists()


def test_nothing_is_made_without_consent(machine: Machine) -> None:
    status, said = machine.run("--region", "eu-west-1")

    assert (status, machine.calls()) == (2, [])
    assert "under $1" in said
    assert said.endswith("No terminal to ask for confirmation: pass --yes to accept the price.\n")


def test_a_kept_stack_is_neither_replaced_nor_destroyed_unasked(machine: Machine) -> None:
    assert machine.run(*RUN, "--keep-for-a-day")[0] == 0
    assert machine.calls() == ["apply"]

    status, said = machine.run(*RUN)
    assert (status, machine.calls()) == (2, ["apply"])
    assert "--measure" in said
    status, said = machine.run("--measure", "--region", "eu-west-1")
    assert (status, machine.calls()) == (2, ["apply"])
    assert "run this when it is a day old" in said
    assert machine.run("--destroy")[0] == 0
    assert machine.buckets() == []


def test_no_key_and_no_account_number_is_in_a_report(machine: Machine) -> None:
    (machine.home / "fails").write_text("")
    text = machine.home / "bin" / "terraform"
    text.write_text(text.read_text().replace("no such thing as a role", "arn:aws:iam::123456789012:role/x"))

    machine.run(*RUN)

    assert "role/x" in json.dumps(machine.report())
    for path in (machine.home / "build").glob("aws-conformance*.*"):
        assert "123456789012" not in path.read_text()


@pytest.mark.parametrize(
    ("broken", "cure"),
    [("terraform", "install Terraform 1.10"), ("backend", "move the file out"), ("credentials", "Set AWS_PROFILE")],
)
def test_what_is_missing_is_told_with_its_cure(machine: Machine, broken: str, cure: str, tmp_path: Path) -> None:
    environ = {**os.environ, **machine.aws.environ, "PATH": f"{tmp_path}/bin"}
    if broken == "terraform":
        (tmp_path / "bin" / "terraform").unlink()
    elif broken == "backend":
        (tmp_path / "sample" / "backend.tf").write_text('terraform {\n  backend "s3" {}\n}\n')
    else:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            del environ[name]
        environ |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull, "HOME": str(tmp_path)}
        environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    command = [sys.executable, "-m", "tests.conformance.command_process", str(tmp_path), *RUN]

    done = subprocess.run(command, cwd=ROOT, env=environ, text=True, capture_output=True, check=False)

    assert done.returncode in {1, 2}
    assert cure in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_make_clean_leaves_the_state_of_a_stack_that_is_there(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    state = tmp_path / "build" / "aws-conformance" / "running.json"
    state.parent.mkdir(parents=True)
    state.touch()

    refused = subprocess.run(["make", "clean"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert refused.returncode == 2
    assert "ARGS=--destroy" in refused.stdout
    state.unlink()
    subprocess.run(["make", "clean"], cwd=tmp_path, capture_output=True, check=True)
    assert not state.parent.exists()


@pytest.mark.parametrize("wrong", [["--region", "Ireland"], ["--name", "My Stack"], ["--only", "nothing"]])
def test_a_wrong_argument_is_told(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)

    assert ended.value.code == 2
    assert wrong[1].split()[0] in capsys.readouterr().err


def test_a_region_that_is_none_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--region", "eu-wset-1", "--yes"]) == 2

    assert capsys.readouterr().err == "AWS has no region eu-wset-1: did you mean --region eu-west-1?\n"


def test_the_list_names_each_probe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0

    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [probe.name for probe in PROBES]


def test_the_page_about_it_names_each_probe_and_no_other() -> None:
    rows = [line.split("`")[1] for line in (ROOT / "docs" / "conformance.md").read_text().splitlines() if "| `" in line]

    assert [name for name in rows if name in {probe.name for probe in PROBES}] == [probe.name for probe in PROBES]
    assert rows == [probe.name for probe in PROBES]
