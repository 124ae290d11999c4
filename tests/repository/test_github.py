"""What GitHub reads of the repository is what GitHub takes, and its workflow tests what `.ci/run` does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.infra.scan import actionlint, matches_schema

GITHUB = ROOT / ".github"
WORKFLOW = GITHUB / "workflows" / "test.yml"
TEXT = WORKFLOW.read_text()
SCHEMAS = [
    ("github-workflows", WORKFLOW, "runs-on:", "runs_on:"),
    ("dependabot", GITHUB / "dependabot.yml", "interval: weekly", "interval: often"),
    ("github-issue-forms", GITHUB / "ISSUE_TEMPLATE" / "bug.yml", "type: dropdown", "type: list"),
    ("github-issue-forms", GITHUB / "ISSUE_TEMPLATE" / "feature.yml", "attributes:", "attribute:"),
    ("github-issue-config", GITHUB / "ISSUE_TEMPLATE" / "config.yml", "false", "maybe"),
]


@pytest.mark.scan
@pytest.mark.parametrize(("schema", "file", "old", "new"), SCHEMAS, ids=[file.name for _, file, *_ in SCHEMAS])
def test_it_is_as_its_schema_has_it(schema: str, file: Path, old: str, new: str, tmp_path: Path) -> None:
    broken = tmp_path / file.name
    assert old in file.read_text()
    broken.write_text(file.read_text().replace(old, new))

    assert (matches_schema(schema, file), matches_schema(schema, broken)) == (True, False)


def test_every_yaml_file_has_a_schema() -> None:
    assert {*GITHUB.rglob("*.yml"), *GITHUB.rglob("*.yaml")} == {file for _, file, *_ in SCHEMAS}


@pytest.mark.scan
def test_actionlint_finds_nothing_in_the_workflow(tmp_path: Path) -> None:
    broken = tmp_path / WORKFLOW.name
    broken.write_text(TEXT.replace("matrix.python }}", "matrix.pythons }}"))

    assert actionlint(WORKFLOW) == []
    assert "expression" in actionlint(broken)[0]


def test_actions_are_pinned_by_commit_with_their_version() -> None:
    used = re.findall(r"uses: (.*)", TEXT)

    assert used
    assert [one for one in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one)] == []


def test_a_job_may_read_the_repository_and_no_more() -> None:
    assert "\npermissions: {}\n" in TEXT
    assert TEXT.count("permissions:\n      contents: read\n") == TEXT.count("runs-on:") == 2
    assert TEXT.count("persist-credentials: false") == TEXT.count("actions/checkout@")
    assert not re.search(r": write|secrets\.|pull_request_target", TEXT)


def test_it_tests_with_each_python_that_is_supported() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    supported = re.findall(r"Python :: (3\.\d+)'", str(project["classifiers"]))

    assert re.findall(r'"(3\.\d+)"', re.findall(r"python: \[(.*)\]", TEXT)[0]) == supported
    assert project["requires-python"] == f">={supported[0]}"
    assert f'python-version: "{supported[0]}"' in TEXT


def test_it_installs_what_ci_installs() -> None:
    [programs] = re.findall(r"for program in (.*); do", (ROOT / ".ci" / "run").read_text())
    packages = {program.rpartition(":")[2] for program in programs.split()}
    [installed] = re.findall(r"apt-get install .*\\\n +(.*)", TEXT)

    assert packages <= set(installed.split())
    assert set(installed.split()) - packages == {"debian-archive-keyring"}  # Ubuntu knows no Debian without it


def test_it_fetches_each_major_version_of_the_provider_that_the_module_takes() -> None:
    [(least, below)] = re.findall(r'version = ">= (\d+)[\d.]*, < (\d+)', (ROOT / "infra" / "versions.tf").read_text())

    assert re.findall(r'"~> (\d+)\.', TEXT) == [str(major) for major in range(int(least), int(below))]


def test_dependabot_looks_where_something_is_pinned() -> None:
    text = (GITHUB / "dependabot.yml").read_text()
    npm = {f"/{file.parent.relative_to(ROOT)}" for file in (ROOT / "sdk-js", ROOT / "tests" / "kinesis")
           for file in file.glob("package-lock.json")}  # fmt: skip

    assert set(re.findall(r"directories: \[(.*)\]", text)[0].split(", ")) == npm
    assert list((ROOT / "docker").glob("*Dockerfile"))
    assert "directory: /docker" in text
