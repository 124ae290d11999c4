"""The Terraform tests run with each major version of the AWS provider that the machine's mirror holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.infra.terraform import PROVIDER, Terraform, provider_versions


def test_the_newest_of_each_major_version_that_the_module_takes_is_tested_the_oldest_first(tmp_path: Path) -> None:
    for name in ("6.9.0", "5.100.0", "6.10.1", "5.99.1", "4.67.0", "7.0.0"):
        (tmp_path / PROVIDER / name).mkdir(parents=True)

    assert provider_versions(tmp_path) == ["5.100.0", "6.10.1"]
    assert provider_versions(None) == []


def test_a_mirror_as_terraform_writes_it_is_read_too(tmp_path: Path) -> None:
    (tmp_path / PROVIDER).mkdir(parents=True)
    for name in ("index.json", "5.100.0.json", "terraform-provider-aws_6.25.0_linux_amd64.zip"):
        (tmp_path / PROVIDER / name).touch()

    assert provider_versions(tmp_path) == ["6.25.0"]


@pytest.mark.terraform
def test_the_version_that_is_asked_for_is_the_one_that_runs(terraform: Terraform, provider: str | None) -> None:
    assert terraform.version() == provider


@pytest.mark.terraform
def test_a_version_that_the_mirror_lacks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"no available releases match the given constraints .*5\.999\.0"):
        Terraform(tmp_path, version="5.999.0")
