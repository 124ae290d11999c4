"""All Terraform here against version 6 of the AWS provider, which `terraform init` takes and no other test loads."""

from __future__ import annotations

import re
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from tests.infra.fetch_schema import FOLDERS, LOCK, fetch, is_there, unpack, used
from tests.infra.hcl import read_folder, read_source
from tests.infra.provider_rules import deprecated, refused
from tests.infra.provider_schema import DEPRECATED, TYPES, Schema
from tests.infra.terraform import MODULE, ROOT

pytestmark = pytest.mark.schema


@pytest.fixture(scope="module")
def schema() -> Schema:
    return Schema()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_it_takes_all_that_is_written_and_tells_all_that_is_read(schema: Schema, folder: Path) -> None:
    source = read_folder(folder)

    assert refused(source, schema) == []


def test_nothing_that_is_used_is_deprecated() -> None:
    assert [name for folder in FOLDERS for name in deprecated(read_folder(folder), DEPRECATED)] == []


def test_it_is_of_the_newest_major_version_that_is_allowed_and_whole(schema: Schema) -> None:
    [bound] = re.findall(r'"hashicorp/aws"\n +version = ">= [\d.]+, < (\d+)\.0"', (MODULE / "versions.tf").read_text())

    assert int(schema.version().partition(".")[0]) == int(bound) - 1
    assert schema.types > used()
    assert len(schema.types) > 2000


def test_what_is_written_is_seen_whole() -> None:
    """As many as the text has, dynamic blocks too."""
    text = "\n".join(path.read_text() for path in MODULE.glob("*.tf"))
    written = read_folder(MODULE).written
    [budget] = [one for one in written if one.type == "aws_budgets_budget"]

    assert len(written) == len(re.findall(r'(?m)^(?:resource|data) "aws_', text))
    assert [name for name, _ in budget.body.blocks] == ["notification"]


@pytest.mark.parametrize(
    ("file", "old", "new", "found"),
    [
        pytest.param(
            "infra/stream.tf",
            "retention_period ",
            "retention_hours ",
            "aws_kinesis_stream.this: no argument retention_hours",
            id="an argument",
        ),
        pytest.param(
            "infra/lake.tf",
            "snapshot_retention_period_in_days",
            "days",
            "aws_glue_catalog_table_optimizer.this: configuration: retention_configuration: iceberg_configuration: "
            "no argument days",
            id="an argument in blocks of which one is dynamic",
        ),
        pytest.param(
            "infra/processor.tf",
            "  ephemeral_storage {",
            "  scratch {",
            "aws_lambda_function.processor: no block scratch",
            id="a block",
        ),
        pytest.param(
            "infra/observability.tf",
            'dynamic "notification"',
            'dynamic "notifications"',
            "aws_budgets_budget.this: no block notifications",
            id="a dynamic block",
        ),
        pytest.param(
            "infra/ingest.tf",
            "  logging_config {",
            "  logging_config = {",
            "aws_lambda_function.api: logging_config is a block",
            id="a block written as an argument",
        ),
        pytest.param(
            "infra/processor.tf",
            '  principal     = "events.amazonaws.com"\n',
            "",
            "aws_lambda_permission.maintain: wants principal",
            id="an argument that is left out",
        ),
        pytest.param(
            "infra/domain.tf",
            "    evaluate_target_health = false\n",
            "",
            "aws_route53_record.api: alias: wants evaluate_target_health",
            id="an argument that a block leaves out",
        ),
        pytest.param(
            "infra/sdk.tf",
            "viewer_certificate {",
            "certificate {",
            "aws_cloudfront_distribution.sdk: no block certificate; "
            "aws_cloudfront_distribution.sdk: wants viewer_certificate",
            id="a block that is left out",
        ),
        pytest.param(
            "infra/outputs.tf",
            "aws_kinesis_stream.this.name",
            "aws_kinesis_stream.this.called",
            "aws_kinesis_stream tells no called",
            id="an attribute that is read",
        ),
        pytest.param(
            "infra/domain.tf",
            "[0].target_domain_name",
            "[0].target_name",
            "aws_apigatewayv2_domain_name tells no domain_name_configuration.target_name",
            id="an attribute that is read of a block",
        ),
        pytest.param(
            "infra/domain.tf",
            "resource_record_value",
            "resource_record",
            "aws_acm_certificate tells no domain_validation_options.resource_record",
            id="an attribute that is read of the one of some",
        ),
        pytest.param(
            "infra/buckets.tf",
            "[bucket.arn,",
            "[bucket.uri,",
            "aws_s3_bucket tells no uri",
            id="an attribute that is read of each",
        ),
        pytest.param(
            "infra/observability.tf",
            'function = function.function_name, text = "The ${short}\'s function fails"',
            'function = function.called, text = "The ${short}\'s function fails"',
            "aws_lambda_function tells no called",
            id="an attribute that is read of each in a local",
        ),
        pytest.param(
            "infra/keys.tf",
            "ignore_changes = [value]",
            "ignore_changes = [secret]",
            "aws_ssm_parameter tells no secret",
            id="an attribute whose changes are ignored",
        ),
        # https://github.com/hashicorp/terraform-provider-aws/blob/main/website/docs/guides/version-6-upgrade.html.markdown
        pytest.param(
            "infra/stream.tf",
            'resource "aws_kinesis_stream"',
            'resource "aws_opsworks_stack"',
            "no aws_opsworks_stack",
            id="a resource that version 6 dropped",
        ),
        pytest.param(
            "infra/main.tf",
            'data "aws_region" "this" {}',
            'data "aws_region" "this" {}\ndata "aws_redshift_service_account" "this" {}',
            "no data.aws_redshift_service_account",
            id="data that version 6 dropped",
        ),
        pytest.param(
            "infra/stream.tf",
            'resource "aws_kinesis_stream" "this" {',
            'resource "aws_batch_compute_environment" "this" {\n  type                     = "MANAGED"\n'
            '  compute_environment_name = "shop"\n}\nresource "aws_kinesis_stream" "this" {',
            "aws_batch_compute_environment.this: no argument compute_environment_name",
            id="an argument that version 6 dropped",
        ),
        pytest.param(
            "sample/provider.tf",
            "  region = var.region\n",
            '  region = var.region\n  endpoints {\n    opsworks = "http://127.0.0.1"\n  }\n',
            "provider.aws: endpoints: no argument opsworks",
            id="an argument of the provider that version 6 dropped",
        ),
    ],
)
def test_what_it_does_not_know_is_found(schema: Schema, file: str, old: str, new: str, found: str) -> None:
    text = (ROOT / file).read_text()
    assert old in text

    assert "; ".join(refused(read_source(text.replace(old, new)), schema)) == found


def test_what_a_map_holds_is_nobodys_to_say(schema: Schema) -> None:
    read = "aws_cloudformation_stack.x.outputs.Url, aws_ecr_repository.x.tags.Stack, aws_s3_bucket.x[0].tags_all"

    assert refused(read_source(f"output x {{ value = [{read}] }}"), schema) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("output x { value = data.aws_region.this.name }", "data.aws_region.name"),
        ('resource "aws_iam_role" "x" {\n  inline_policy {\n  }\n}', "aws_iam_role.inline_policy"),
        (
            'resource "aws_s3_bucket_lifecycle_configuration" "x" {\n  rule {\n    prefix = "x"\n  }\n}',
            "aws_s3_bucket_lifecycle_configuration.rule.prefix",
        ),
    ],
)
def test_what_is_deprecated_is_found(source: str, found: str) -> None:
    assert deprecated(read_source(source), DEPRECATED) == [found]


def test_another_package_than_the_locked_one_is_refused(tmp_path: Path) -> None:
    npm = "import sys; open(sys.argv[-1].partition('=')[2] + '/package.tgz', 'w').write('another')"

    with pytest.raises(SystemExit, match="has not the hash"):
        fetch(tmp_path, [sys.executable, "-c", npm])


def test_no_package_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="npm could not fetch @cdktf/provider-aws@"):
        fetch(tmp_path, ["false"])


def test_of_the_package_only_what_is_used_is_kept(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as tar:
        for name in ("s3-bucket", "data-aws-region", "opsworks-stack"):
            member = tarfile.TarInfo(f"package/lib/{name}/index.js")
            member.size = len(text := b"code\n//# sourceMappingURL=data:...")
            tar.addfile(member, BytesIO(text))

    unpack(tmp_path / "package.tgz", tmp_path / "schema")

    assert {path.name: path.read_text() for path in (tmp_path / "schema").iterdir()} == {
        "aws_s3_bucket.js": "code\n",
        "data.aws_region.js": "code\n",
        TYPES: "aws_opsworks_stack\naws_s3_bucket\ndata.aws_region\n",
    }


def test_what_lies_there_is_taken_if_it_is_of_the_locked_package_and_has_all_that_is_used(tmp_path: Path) -> None:
    names = [LOCK.name, *(f"{type_}.js" for type_ in used())]
    for name in names:
        (tmp_path / name).write_bytes(LOCK.read_bytes())
    assert is_there(tmp_path)

    (tmp_path / "aws_kinesis_stream.js").unlink()
    assert not is_there(tmp_path)
    (tmp_path / "aws_kinesis_stream.js").touch()
    (tmp_path / LOCK.name).write_text("{}")
    assert not is_there(tmp_path)


def test_without_the_set_up_it_skips(tmp_path: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="make schema"):
        _ = Schema(tmp_path / "schema").types
