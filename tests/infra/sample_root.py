"""``sample/`` in a copy, beside stand-ins for what builds: they write down how they were called, and build nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from tests.infra.terraform import IGNORED, ROOT, Terraform

SAMPLE = ROOT / "sample"
TESTS = "sample.tftest.hcl"
# As much of the sources as tells whether a change of them is seen.
SOURCES = (
    "contract/manymetrics/records.py",
    "api/manymetrics_api/collect.py",
    "processor/manymetrics_processor/lake/lake.py",
    "requirements-lambda.lock",
)
_BUILD_IMAGE = """\
import json, os, pathlib, sys

called = {"arguments": sys.argv[1:], "user": os.environ["REGISTRY_USER"], "password": os.environ["REGISTRY_PASSWORD"]}
with pathlib.Path(__file__).with_name("called").open("a") as file:
    file.write(json.dumps(called) + "\\n")
"""
_MAKEFILE = """\
package:
\t@echo "$(PACKAGE_ARGS)" >>packaged
"""


class Built(NamedTuple):
    """How the script that builds the image was called, and `make package`, each in order."""

    images: list[dict[str, str | list[str]]]
    zips: list[str]


def sample_root(folder: Path, version: str | None = None) -> Terraform:
    """Ready to use. Its own runs are in TESTS."""
    shutil.copytree(SAMPLE, folder / "sample", ignore=IGNORED)
    (folder / "sample" / "tests").mkdir()
    shutil.copy(Path(__file__).with_name(TESTS), folder / "sample" / "tests")
    for source in SOURCES:
        (folder / source).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, folder / source)
    (folder / "docker").mkdir()
    (folder / "docker" / "build_image.py").write_text(_BUILD_IMAGE)
    (folder / "Makefile").write_text(_MAKEFILE)
    return Terraform(folder, "sample", version=version)


def built(sample: Terraform) -> Built:
    """Since it was copied."""
    folder = sample.module.parent
    called, packaged = folder / "docker" / "called", folder / "packaged"
    return Built(
        [json.loads(line) for line in called.read_text().splitlines()] if called.exists() else [],
        packaged.read_text().splitlines() if packaged.exists() else [],
    )
