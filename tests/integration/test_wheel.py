"""What pip installs is whole: it holds all that one machine serves, and runs where nothing else is installed."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.release_check import ALONGSIDE, PACKAGES, build, first_row, missing_files


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("release"))


def test_the_wheel_has_every_file_of_its_packages_the_built_sdk_and_the_sample_page(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    assert missing_files(wheel) == []
    assert {Path(name).suffix for name in names if "/sample/" in name} == {".css", ".html", ".js", ".svg"}  # no state
    assert {name for name in names if name.endswith("/py.typed")} == {f"{Path(one).name}/py.typed" for one in PACKAGES}


def test_a_wheel_that_lacks_a_file_or_has_another_is_found(wheel: Path, tmp_path: Path) -> None:
    broken = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(broken, "w") as archive:
        for name in whole.namelist():
            if name != "manymetrics_insights/views/users.sql":
                archive.writestr(name, b"" if name == "manymetrics_cli/sdk/dist/mm.js" else whole.read(name))

    assert sorted(missing_files(broken)) == ["manymetrics_cli/sdk/dist/mm.js", "manymetrics_insights/views/users.sql"]


def test_the_wheel_serves_to_the_first_row_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """In the versions that are locked, so that a newer package breaks `make release-check`, not every change."""
    row = first_row(wheel, tmp_path / "data", "--constraints", str(ROOT / "requirements.lock"))

    assert row == {"event": "Signed Up", "user_id": "u-1"}


def test_the_sdist_has_what_the_wheel_is_made_of(wheel: Path, tmp_path: Path) -> None:
    [sdist] = wheel.parent.glob("*.tar.gz")
    shutil.unpack_archive(sdist, tmp_path, filter="data")
    [unpacked] = tmp_path.iterdir()

    for folder in (*PACKAGES, *ALONGSIDE):
        assert (unpacked / folder).is_dir()
    assert not (unpacked / ".venv").exists()
