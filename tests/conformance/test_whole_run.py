"""The command as a user runs it, with Terraform and ``sample/``, over an emulated AWS: killed, and run again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sample.conformance.leftovers import leftovers
from tests.conformance.rehearsal import Rehearsal, rehearsal
from tests.conftest import ROOT
from tests.jvm_home import jvm_part

pytestmark = [pytest.mark.apply, pytest.mark.terraform, pytest.mark.jvm, pytest.mark.scale("full")]

NAME = "mm-conformance"
ONLY = ("alarms", "second-plan", "nothing-left")


@pytest.fixture
def emulated(tmp_path: Path) -> Iterator[Rehearsal]:
    jvm_part("jars")
    with rehearsal(tmp_path, asks=False) as running:
        yield running


def start(emulated: Rehearsal, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.conformance.rehearsal_process", emulated.aws.url, str(folder), "--yes"]
    only = [word for name in ONLY for word in ("--only", name)]
    return subprocess.Popen(
        [*command, "--region", "eu-west-1", *only],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_a_run_that_is_killed_while_it_applies_is_destroyed_by_the_next_which_leaves_nothing(
    emulated: Rehearsal, tmp_path: Path
) -> None:
    killed, log = start(emulated, tmp_path), emulated.build / "terraform-apply.log"
    until = time.monotonic() + 300
    while not log.exists() or log.read_text().count("Creation complete") < 20:
        assert killed.poll() is None
        assert time.monotonic() < until
        time.sleep(0.2)
    killed.kill()
    killed.communicate()
    assert leftovers(emulated.world, NAME)

    again = start(emulated, tmp_path)
    said, _ = again.communicate(timeout=1_500)

    assert again.returncode == 0, said
    assert said.startswith(f"An earlier run left the stack {NAME} in eu-west-1. Destroying it first\n")
    report = json.loads((emulated.build.parent / "aws-conformance.json").read_text())
    assert {one["name"]: one["status"] for one in report["results"]} == dict.fromkeys(ONLY, "passed")
    assert leftovers(emulated.world, NAME) == []
    assert [path.name for path in emulated.build.glob("*") if path.suffix in {".json", ".tfstate"}] == ["payloads.json"]
