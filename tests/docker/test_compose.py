"""compose.yaml: valid to Docker Compose itself, and an event takes its services' way to a row. No engine runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.docker.engine import need

BIN = Path(sys.executable).parent
FILE = ROOT / "docker" / "compose.yaml"


def config(file: Path) -> subprocess.CompletedProcess[str]:
    """What Docker Compose makes of it, which takes no engine."""
    words: list[str | Path] = [
        BIN / "docker-compose",
        "-f",
        file,
        "--project-directory",
        FILE.parent,
        "config",
        "--format",
        "json",
    ]
    return subprocess.run(words, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False)


def services() -> dict[str, Any]:
    return dict(json.loads(config(FILE).stdout)["services"])


def test_it_is_valid() -> None:
    done = config(FILE)

    assert (done.returncode, done.stderr) == (0, "")
    assert set(services()) == {"aws", "setup", "api", "processor"}


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("depends_on:", "depend_on:", "depend_on"),
        ("setup: {condition", "set-up: {condition", "depends on undefined service"),
        ("service_healthy", "service_well", "value must be one of 'service_started'"),
    ],
)
def test_what_is_broken_is_not(old: str, new: str, error: str, tmp_path: Path) -> None:
    text, broken = FILE.read_text(), tmp_path / "compose.yaml"
    assert old in text
    broken.write_text(text.replace(old, new))

    done = config(broken)

    assert done.returncode != 0
    assert error in done.stderr


def test_nothing_is_open_to_other_machines_and_what_is_not_ours_has_a_version() -> None:
    found = services()

    assert {port["host_ip"] for service in found.values() for port in service.get("ports", ())} == {"127.0.0.1"}
    others = {service["image"] for service in found.values() if "build" not in service}
    pins = {line.split(" ")[0] for line in (ROOT / "requirements-dev.lock").read_text().splitlines()}
    assert {image.rpartition("/")[2].replace(":", "==") for image in others} <= pins  # moto, as the tests know it
    assert {service["build"]["dockerfile"] for service in found.values() if "build" in service} == {
        "docker/local.Dockerfile"
    }


@pytest.mark.image
def test_an_event_becomes_a_row(tmp_path: Path) -> None:
    need("bwrap")
    names = list(services()) + services()["aws"]["networks"]["default"]["aliases"]
    (tmp_path / "hosts").write_text(f"127.0.0.1 localhost {' '.join(names)}\n")
    (tmp_path / "config.json").write_text(config(FILE).stdout)
    apart = ["--dev-bind", "/", "/", "--ro-bind", str(tmp_path / "hosts"), "/etc/hosts", "--proc", "/proc"]
    inside = ["bwrap", *apart, "--unshare-net", "--unshare-pid", "--die-with-parent", "--chdir", str(ROOT)]

    done = subprocess.run(
        [*inside, sys.executable, "-m", "tests.docker.composed", str(tmp_path / "config.json")],
        env={"PATH": f"{BIN}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout.splitlines()[-1])
    assert row == {"event": "Signed Up", "user_id": "u-1", "project_id": "laptop"}
