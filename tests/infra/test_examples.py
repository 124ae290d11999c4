"""The examples of the module, valid each: all called from one root, which is initialised once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.infra.terraform import MODULE, VALID, Terraform

pytestmark = pytest.mark.terraform

EXAMPLES = sorted(path.name for path in (MODULE / "examples").iterdir())
_ROOT = """\
variable "api_zip" {}

variable "processor_image_uri" {}
"""
_CALL = """
module "%s" {
  source = "../infra/examples/%s"

  api_zip             = var.api_zip
  processor_image_uri = var.processor_image_uri
}
"""


@pytest.fixture(scope="module")
def examples(provider: str | None, tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    folder = tmp_path_factory.mktemp("examples")
    (folder / "all").mkdir()
    (folder / "all" / "main.tf").write_text(_ROOT + "".join(_CALL % (name, name) for name in EXAMPLES))
    return Terraform(folder, "all", version=provider)


def test_each_is_valid(examples: Terraform) -> None:
    done = examples.run("validate", "-no-color")

    assert (done.stdout, done.stderr) == (VALID, "")


def test_one_that_the_module_does_not_know_any_more_is_found(examples: Terraform, tmp_path: Path) -> None:
    copy = examples.copy(tmp_path)
    copy.edit("../infra/examples/complete/main.tf", "archive_days ", "archived_days ")

    done = copy.run("validate", "-no-color")

    assert done.returncode == 1
    assert 'An argument named "archived_days" is not expected here' in done.stderr


def test_there_are_those_of_the_readme() -> None:
    readme = (MODULE / "README.md").read_text()

    assert re.findall(r"\[examples/([a-z-]+)\]\(examples/\1\)", readme) == EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_says_what_it_takes_itself(example: str) -> None:
    """It is a root of its own, to copy."""
    said = "".join(path.read_text() for path in (MODULE / "examples" / example).glob("*.tf"))

    versions = (MODULE / "versions.tf").read_text()
    assert versions.strip() in said
    assert {*re.findall(r'^variable "(\w+)"', said, re.MULTILINE)} == {*re.findall(r"\bvar\.(\w+)", said)}
