"""What AWS refuses stops an apply, and Terraform shows AWS's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.infra.terraform import Terraform
from tests.strict_moto import strict_moto

pytestmark = pytest.mark.terraform

_ROOT = """
provider "aws" {
  max_retries                 = 2
  skip_credentials_validation = true
  skip_requesting_account_id  = true
}

resource "aws_apigatewayv2_api" "this" {
  name          = "shop"
  protocol_type = "HTTP"
}

resource "aws_apigatewayv2_route" "this" {
  api_id    = aws_apigatewayv2_api.this.id
  route_key = "POST /v1/batch/"
}
"""


def test_a_route_that_ends_in_a_slash_stops_the_apply(tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "main.tf").write_text(_ROOT)

    with strict_moto() as aws:
        gateway = Terraform(tmp_path, "gateway", aws.environ)
        refused = gateway.run("apply", "-auto-approve", "-input=false", "-no-color")
        gateway.edit("main.tf", "/v1/batch/", "/v1/batch")
        taken = gateway.run("apply", "-auto-approve", "-input=false", "-no-color")

    assert refused.returncode == 1
    assert "BadRequestException: The provided route key is not formatted properly: POST /v1/batch/" in refused.stderr
    assert taken.returncode == 0, taken.stderr
