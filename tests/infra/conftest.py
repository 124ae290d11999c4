from __future__ import annotations

from pathlib import Path

import pytest

from tests.infra.terraform import EACH_VERSION, Terraform


@pytest.fixture(scope="session", params=EACH_VERSION)
def provider(request: pytest.FixtureRequest) -> str | None:
    """Each version of the AWS provider that this machine has; None where it has none."""
    version: str | None = request.param
    return version


@pytest.fixture(scope="session")
def terraform(provider: str | None, tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """The module, ready to test. Nobody may break this one."""
    return Terraform(tmp_path_factory.mktemp("module"), version=provider)


@pytest.fixture
def broken(terraform: Terraform, tmp_path: Path) -> Terraform:
    """A copy that a test breaks."""
    return terraform.copy(tmp_path)
