"""checkov over all Terraform here, with a list of checks that are left out for a reason, and still have to be."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.infra.scan import checkov
from tests.infra.terraform import MODULE, ROOT

CONFIG = MODULE / ".checkov.yaml"
LEFT_OUT = re.findall(r"(?m)^  - (\w+)(.*)$", CONFIG.read_text())


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy that has everything: checkov takes a variable's null for no resource, and then says nothing of it."""
    for folder in (MODULE, ROOT / "sample"):
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns(".terraform*", CONFIG.name))
    for source in tmp_path.rglob("*.tf"):
        source.write_text(re.sub(r"(?m)^  count += .*\n", "", source.read_text()))
    return tmp_path


@pytest.mark.scan
def test_what_fails_is_what_is_left_out_and_nothing_is_left_out_in_vain(copy: Path) -> None:
    checked = checkov(copy)

    assert sorted(checked.failed) == sorted(check for check, _ in LEFT_OUT), checked.failed
    assert checked.passed > 80


def test_each_check_that_is_left_out_says_why() -> None:
    assert len(LEFT_OUT) == len(re.findall(r"\bCKV2?_\w+", CONFIG.read_text()))
    assert [check for check, reason in LEFT_OUT if not re.fullmatch(r" # .{20,}", reason)] == []


BREAKS = [
    ("ingest.tf", "  retention_in_days = var.log_retention_days\n", "", "CKV_AWS_66"),
    ("buckets.tf", "block_public_policy     = true", "block_public_policy     = false", "CKV_AWS_54"),
    ("buckets.tf", "bucket                  = aws_s3_bucket.this[each.key].id", "bucket = var.name", "CKV2_AWS_6"),
    ("main.tf", "enable_key_rotation     = true", "enable_key_rotation     = false", "CKV_AWS_7"),
    ("keys.tf", "SecureString", "String", "CKV2_AWS_34"),
    ("stream.tf", '"KMS"', '"NONE"', "CKV_AWS_43"),
]


@pytest.mark.scan
def test_a_module_that_is_worse_is_found_by_the_list_as_it_stands(copy: Path) -> None:
    for file, old, new, _ in BREAKS:
        source = copy / "infra" / file
        assert old in source.read_text()
        source.write_text(source.read_text().replace(old, new))

    worse = checkov(copy, "--config-file", str(CONFIG))

    assert sorted(worse.failed) == sorted(check for *_, check in BREAKS)
