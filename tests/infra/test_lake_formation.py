"""What the module tells Lake Formation, applied to moto, which keeps grants and refuses nothing for want of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.terraform import Terraform
from tests.strict_moto import Aws, strict_moto

pytestmark = pytest.mark.terraform

_READER = "arn:aws:iam::123456789012:role/analysts"
_VARIABLES = (
    "-var=name=shop",
    '-var=api_package={path="unused.zip"}',
    f"-var=processor_image_uri=123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop@sha256:{'0' * 64}",
    f'-var=lake_formation={{readers=["{_READER}"]}}',
)
_PROVIDER = """
provider "aws" {
  max_retries                 = 2
  s3_use_path_style           = true
  skip_credentials_validation = true
  skip_metadata_api_check     = true
}
"""
_PARTS = (
    "-target=aws_lakeformation_resource.tables",
    *(f"-target=aws_lakeformation_permissions.{one}" for one in ("database", "tables", "location")),
)


def test_it_is_granted_registered_and_taken_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    with strict_moto() as aws:
        module = Terraform(tmp_path_factory.mktemp("governed"), aws=aws.environ)
        (module.module / "provider.tf").write_text(_PROVIDER)

        _run(module, "apply")
        granted, registered = _granted(aws), _registered(aws)
        _run(module, "destroy")

        role = "arn:aws:iam::123456789012:role/shop-processor"
        [lake] = registered
        assert granted == {
            (role, "database shop", "CREATE_TABLE DESCRIBE"),
            (role, "tables of shop", "ALTER DESCRIBE"),
            (role, lake, "DATA_LOCATION_ACCESS"),
            (_READER, "database shop", "DESCRIBE"),
            (_READER, "tables of shop", "DESCRIBE SELECT"),
        }
        assert registered == {lake: "arn:aws:iam::123456789012:role/shop-lake-formation"}
        assert lake.endswith("/tables")
        assert (_granted(aws), _registered(aws)) == (set(), {})


def _run(module: Terraform, verb: str) -> None:
    done = module.run(verb, "-auto-approve", "-input=false", "-no-color", *_VARIABLES, *_PARTS)
    assert done.returncode == 0, done.stderr


def _granted(aws: Aws) -> set[tuple[str, str, str]]:
    """Who, on what, and what."""
    found = aws.client("lakeformation").list_permissions()["PrincipalResourcePermissions"]
    return {
        (one["Principal"]["DataLakePrincipalIdentifier"], _words(one["Resource"]), " ".join(sorted(one["Permissions"])))
        for one in found
    }


def _words(resource: dict[str, Any]) -> str:
    match resource:
        case {"Database": {"Name": name}}:
            return f"database {name}"
        case {"Table": {"DatabaseName": name, "TableWildcard": _}}:
            return f"tables of {name}"
        case {"DataLocation": {"ResourceArn": arn}}:
            return str(arn)
    return repr(resource)


def _registered(aws: Aws) -> dict[str, str]:
    """By what, the role that reaches it."""
    found = aws.client("lakeformation").list_resources()["ResourceInfoList"]
    return {one["ResourceArn"]: one["RoleArn"] for one in found}
