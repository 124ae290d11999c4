"""The locks are what `make lock` makes of pyproject.toml, and Lambda gets nothing that only one machine needs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT

_RECIPE = subprocess.run(
    ["make", "--dry-run", "--no-print-directory", "lock"], cwd=ROOT, check=True, capture_output=True, text=True
).stdout
COMMANDS = {
    command[command.index("-o") + 1]: command for command in map(shlex.split, _RECIPE.splitlines()) if "-o" in command
}


def locked(lock: str) -> set[str]:
    """The packages that a lock names."""
    return set(re.findall(r"^([a-z0-9-]+)==", (ROOT / lock).read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", COMMANDS)
def test_a_lock_is_what_make_lock_writes(lock: str, tmp_path: Path) -> None:
    copy = tmp_path / Path(lock).name
    shutil.copy(ROOT / lock, copy)
    command = [str(copy) if word == lock else word for word in COMMANDS[lock]]

    subprocess.run(command, cwd=ROOT, check=True)

    assert copy.read_text() == (ROOT / lock).read_text(), "make lock"


def test_every_lock_of_python_is_made_by_make_lock() -> None:
    tracked = subprocess.run(["git", "ls-files", "*.lock"], cwd=ROOT, check=True, capture_output=True, text=True).stdout

    assert set(COMMANDS) == set(tracked.split())


@pytest.mark.parametrize(
    ("group", "lock", "absent"),
    [
        ("lambda", "requirements-lambda.lock", {"duckdb", "numpy", "pyarrow", "pyiceberg", "uvicorn", "boto3"}),
        ("processor", "requirements-processor.lock", {"duckdb", "fastapi", "fastavro", "pydantic-settings", "uvicorn"}),
    ],
)
def test_what_runs_on_lambda_holds_what_it_needs_and_nothing_of_one_machine(
    group: str, lock: str, absent: set[str]
) -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        named = tomllib.load(file)["dependency-groups"][group]

    assert {name.partition("[")[0] for name in named} <= locked(lock)
    assert locked(lock) & absent == set()
    assert locked(lock) <= locked("requirements-dev.lock")
