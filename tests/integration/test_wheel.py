"""What pip installs holds all that one machine serves: a wheel has no checkout beside it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.conftest import ROOT


def test_a_wheel_holds_the_built_sdk_and_the_sample_page(tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", tmp_path, ROOT], check=True, timeout=120)

    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    built = ROOT / "sdk-js"
    for folder, package in (
        (built / "dist", "sdk/dist"),
        (built / "released", "sdk/released"),
        (ROOT / "sample" / "page", "sample"),
    ):
        for file in folder.rglob("*.*"):
            if file.is_file():
                assert held[f"manymetrics_cli/{package}/{file.relative_to(folder)}"] == file.read_bytes()
    kinds = {Path(name).suffix for name in held if "/sample/" in name}
    assert kinds == {".css", ".html", ".js", ".svg"}  # and no state of Terraform's
