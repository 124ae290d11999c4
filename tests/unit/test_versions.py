"""The version of a release stands in pyproject.toml. Each other place that names it says the same."""

from __future__ import annotations

import json
import re
import tomllib
from importlib import metadata

from tests.conftest import ROOT

with (ROOT / "pyproject.toml").open("rb") as _file:
    VERSION: str = tomllib.load(_file)["project"]["version"]
SDK = ROOT / "sdk-js"


def test_it_is_a_plain_version_and_the_one_that_is_installed() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    assert metadata.version("manymetrics") == VERSION


def test_the_browser_sdk_has_it_in_its_package_lock_and_events() -> None:
    lock = json.loads((SDK / "package-lock.json").read_text())
    [sent] = re.findall(r'VERSION = "(.*)"', (SDK / "src" / "envelope.ts").read_text())

    package = json.loads((SDK / "package.json").read_text())["version"]
    assert {package, lock["version"], lock["packages"][""]["version"], sent} == {VERSION}


def test_the_docs_of_the_browser_sdk_name_its_tarball_by_it() -> None:
    assert re.findall(r"manymetrics-browser-([\d.]+)\.tgz", (SDK / "README.md").read_text()) == [VERSION]


def test_no_other_place_of_the_product_names_it() -> None:
    """Or a release would have to look for them."""
    folders = ("contract", "api", "processor", "insights", "cli", "docker", "infra", "sample")
    files = [
        file
        for folder in folders
        for kind in ("*.py", "*.tf", "*file", "*.yaml")
        for file in (ROOT / folder).rglob(kind)
    ]

    assert [file for file in files if f'"{VERSION}"' in file.read_text()] == []
