"""The module as Terraform sees it: formatted, valid, and its own tests green, each of which can turn red."""

from __future__ import annotations

import re

import pytest

from tests.infra.terraform import MODULE, VALID, Terraform

pytestmark = pytest.mark.terraform

FILES = sorted(path.name for path in (MODULE / "tests").glob("*.tftest.hcl"))


def test_it_is_formatted(terraform: Terraform) -> None:
    done = terraform.run("fmt", "-check", "-recursive", "-diff")

    assert done.returncode == 0, done.stdout


def test_it_is_valid_and_uses_nothing_deprecated(terraform: Terraform, broken: Terraform) -> None:
    broken.edit("buckets.tf", "  force_destroy =", '  acl           = "private"\n  force_destroy =')

    done, warned = (one.run("validate", "-no-color") for one in (terraform, broken))

    assert (done.stdout, done.stderr) == (VALID, "")
    assert "acl is deprecated" in warned.stdout


@pytest.mark.parametrize("file", FILES)
def test_its_own_tests_pass(terraform: Terraform, file: str) -> None:
    tested = terraform.test(file)

    assert tested.errors == []
    assert set(tested.runs.values()) == {"pass"}


def test_the_key_outlives_what_is_written_under_it(terraform: Terraform, broken: Terraform) -> None:
    edge = '"aws_s3_bucket.this" -> "aws_kms_key.this"'
    broken.edit("buckets.tf", "depends_on = [aws_kms_key.this]", "")

    assert edge in terraform.run("graph").stdout
    assert edge not in broken.run("graph").stdout


def _waiting(terraform: Terraform, resource: str) -> set[str]:
    """What is made only once that resource is there, by way of others too."""
    edges = re.findall(r'"([^"]+)" -> "([^"]+)"', terraform.run("graph").stdout)
    found, new = set[str](), {resource}
    while new := {one for one, other in edges if other in new} - found:
        found |= new
    return found


def test_only_what_serves_the_sdk_waits_for_cloudfront(terraform: Terraform, broken: Terraform) -> None:
    broken.edit("processor.tf", "aws_s3_bucket_policy.this, ", "aws_s3_bucket_policy.this, aws_s3_bucket_policy.sdk, ")

    assert _waiting(terraform, "aws_cloudfront_distribution.sdk") == {"aws_s3_bucket_policy.sdk"}
    assert "aws_lambda_event_source_mapping.stream" in _waiting(broken, "aws_cloudfront_distribution.sdk")


def test_a_misspelt_attribute_is_not_valid(broken: Terraform) -> None:
    broken.edit("stream.tf", "retention_period ", "retention_hours ")

    done = broken.run("validate", "-no-color")

    assert done.returncode == 1
    assert 'An argument named "retention_hours" is not expected here' in done.stderr


def test_a_file_out_of_format_is_found(broken: Terraform) -> None:
    broken.edit("stream.tf", '  encryption_type  = "KMS"', '  encryption_type = "KMS"')

    assert broken.run("fmt", "-check", "-recursive").returncode != 0


@pytest.mark.parametrize(
    ("file", "run", "source", "old", "new", "error"),
    [
        pytest.param(
            "validation.tftest.hcl",
            "refuses_an_image_by_tag",
            "variables.tf",
            '[^@:]+(:[0-9]+)?/[^@]+@sha256:[0-9a-f]{64}$"',
            '.+$"',
            "Missing expected failure",
            id="an image by tag",
        ),
        pytest.param(
            "validation.tftest.hcl",
            "refuses_logs_without_end",
            "variables.tf",
            "contains([1, 3, 5,",
            "contains([0, 1, 3, 5,",
            "Missing expected failure",
            id="logs without end",
        ),
        pytest.param(
            "security.tftest.hcl",
            "nothing_is_public_or_plain",
            "buckets.tf",
            "block_public_policy     = true",
            "block_public_policy     = false",
            "every bucket is closed",
            id="a bucket that is open",
        ),
        pytest.param(
            "defaults.tftest.hcl",
            "a_batch_that_fails_is_tried_until_near_the_retention_and_then_kept_whole",
            "processor.tf",
            "maximum_retry_attempts         = -1",
            "maximum_retry_attempts         = 10",
            "tried without limit",
            id="retries that end",
        ),
        pytest.param(
            "defaults.tftest.hcl",
            "everything_is_made",
            "keys.tf",
            "sensitive(uuid())",
            "uuid()",
            "no plan shows the first key",
            id="a key that plans show",
        ),
        pytest.param(
            "defaults.tftest.hcl",
            "the_tables_are_made_at_apply_and_maintained_every_hour",
            "observability.tf",
            'key == "processor-errors" ? 24 : 3',
            "3",
            "maintenance that fails each hour is told of",
            id="an alarm that forgets before the next hour",
        ),
        pytest.param(
            "defaults.tftest.hcl",
            "everything_is_made",
            "main.tf",
            'lookup(data.aws_region.this, "region", lookup(data.aws_region.this, "name", null))',
            "data.aws_region.this.id",
            "the region is read where both versions",
            id="a region by what version 6 calls deprecated",
        ),
        pytest.param(
            "validation.tftest.hcl",
            "refuses_a_name_that_ssm_keeps_for_itself",
            "variables.tf",
            '"^(aws|ssm)"',
            '"^ssm"',
            "Missing expected failure",
            id="a name of AWS's own",
        ),
        pytest.param(
            "defaults.tftest.hcl",
            "the_gateway_speaks_payload_2_and_leaves_paths_to_the_function",
            "ingest.tf",
            '  payload_format_version = "2.0"\n',
            "",
            "the provider's default is 1.0",
            id="payload 1.0",
        ),
        pytest.param(
            "modes.tftest.hcl",
            "more_tags_than_an_object_takes",
            "sdk.tf",
            '{ Application = "ManyMetrics", Stack = var.name }',
            "local.tags",
            "S3 refuses an object",
            id="an object with all tags",
        ),
        pytest.param(
            "modes.tftest.hcl",
            "an_on_demand_stream_has_no_shard_count",
            "stream.tf",
            'var.stream.mode == "PROVISIONED" ? var.stream.shards : null',
            "var.stream.shards",
            "AWS refuses both",
            id="shards on demand",
        ),
        pytest.param(
            "modes.tftest.hcl",
            "where_lake_formation_decides_too",
            "lakeformation.tf",
            'tables = ["DESCRIBE", "SELECT"]',
            'tables = ["ALTER", "DESCRIBE", "SELECT"]',
            "readers change nothing",
            id="a reader who changes tables",
        ),
        pytest.param(
            "modes.tftest.hcl",
            "lake_formation_without_readers_lets_no_role_of_its_own_write",
            "lakeformation.tf",
            'var.glue_optimizers ? ["s3:DeleteObject", "s3:PutObject"] : []',
            '["s3:DeleteObject", "s3:PutObject"]',
            "can only read",
            id="keys of Lake Formation's that write",
        ),
        pytest.param(
            "modes.tftest.hcl",
            "iam_alone_decides_unless_said_otherwise",
            "lakeformation.tf",
            'var.lake_formation == null ? [] : ["this"]',
            '["this"]',
            "nothing of Lake Formation is touched",
            id="Lake Formation where IAM decides",
        ),
    ],
)
def test_each_kind_of_its_tests_turns_red(
    broken: Terraform, file: str, run: str, source: str, old: str, new: str, error: str
) -> None:
    broken.keep_runs(file, run)
    broken.edit(source, old, new)

    tested = broken.test(file)
    assert list(tested.runs) == [run]
    assert error in "".join(tested.errors)


def test_a_key_that_changes_with_each_apply_is_found(broken: Terraform) -> None:
    broken.edit("keys.tf", "ignore_changes = [triggers_replace]", "ignore_changes = []")

    assert "a write key is made once and kept" in "".join(broken.test("defaults.tftest.hcl").errors)


def test_nothing_is_left_in_the_tree() -> None:
    assert [path.name for path in MODULE.glob(".terraform*")] == []
