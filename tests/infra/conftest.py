from __future__ import annotations

from pathlib import Path

import pytest

from tests.infra.terraform import Terraform


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """The module, ready to test. Nobody may break this one."""
    return Terraform(tmp_path_factory.mktemp("module"))


@pytest.fixture
def broken(terraform: Terraform, tmp_path: Path) -> Terraform:
    """A copy that a test breaks."""
    return terraform.copy(tmp_path)
