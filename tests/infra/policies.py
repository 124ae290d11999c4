"""Rules of this house over what Terraform would make. Each returns what breaks it, in words; nothing is well."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any

from manymetrics.settings import PREFIX, Settings
from tests.infra.terraform import Resource

Rule = Callable[[Sequence[Resource]], list[str]]

_CLOSED = ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
_OF_NO_RESOURCE = {"lakeformation:GetDataAccess"}  # IAM takes nothing but * for it
_TAGS = {"Application", "Stack"}
# What neither function may ever do: destroy, or look beyond its own.
_DANGEROUS = {
    "dynamodb:DeleteTable", "glue:DeleteDatabase", "glue:DeleteTable", "iam:PassRole", "kinesis:DeleteStream",
    "kinesis:DecreaseStreamRetentionPeriod", "kms:DisableKey", "kms:PutKeyPolicy", "kms:ScheduleKeyDeletion",
    "lambda:UpdateFunctionCode", "logs:DeleteLogGroup", "s3:DeleteBucket", "s3:ListAllMyBuckets", "s3:PutBucketPolicy",
    "ssm:DeleteParameter", "ssm:PutParameter", "sts:AssumeRole",
}  # fmt: skip


def every_log_group_has_retention(resources: Sequence[Resource]) -> list[str]:
    return [one.address for one in of(resources, "aws_cloudwatch_log_group") if not one.values["retention_in_days"]]


def every_function_logs_to_a_group_of_ours(resources: Sequence[Resource]) -> list[str]:
    groups = {one.values["name"] for one in of(resources, "aws_cloudwatch_log_group")}
    return [
        one.address
        for one in of(resources, "aws_lambda_function")
        if not {config["log_group"] for config in one.values["logging_config"]} & groups
    ]


def every_bucket_is_closed_four_ways(resources: Sequence[Resource]) -> list[str]:
    blocks = {one.values["bucket"]: one.values for one in of(resources, "aws_s3_bucket_public_access_block")}
    return [
        one.address
        for one in of(resources, "aws_s3_bucket")
        if not all(blocks.get(one.values["id"], {}).get(way) for way in _CLOSED)
    ]


def every_bucket_is_encrypted_and_refuses_plain_http(resources: Sequence[Resource]) -> list[str]:
    encrypted = {one.values["bucket"] for one in of(resources, "aws_s3_bucket_server_side_encryption_configuration")}
    refusing = {
        one.values["bucket"]
        for one in of(resources, "aws_s3_bucket_policy")
        for statement in _statements(one)
        if statement["Effect"] == "Deny" and statement.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}
    }
    return [one.address for one in of(resources, "aws_s3_bucket") if one.values["id"] not in encrypted & refusing]


def every_bucket_ends_unfinished_uploads(resources: Sequence[Resource]) -> list[str]:
    ending = {
        one.values["bucket"]
        for one in of(resources, "aws_s3_bucket_lifecycle_configuration")
        for rule in one.values["rule"]
        if rule["abort_incomplete_multipart_upload"] and rule["status"] == "Enabled"
    }
    return [one.address for one in of(resources, "aws_s3_bucket") if one.values["id"] not in ending]


def every_alarm_has_an_action(resources: Sequence[Resource]) -> list[str]:
    return [one.address for one in of(resources, "aws_cloudwatch_metric_alarm") if not one.values["alarm_actions"]]


def everything_is_tagged(resources: Sequence[Resource]) -> list[str]:
    return [one.address for one in resources if "tags" in one.values and not (one.values["tags"] or {}).keys() >= _TAGS]


def no_statement_allows_with_a_wildcard(resources: Sequence[Resource]) -> list[str]:
    """An action is named in full. A resource may end in one, for what lies in a folder, but is never that alone."""
    return [
        f"{one.address}: {part}"
        for one in resources
        for statement in _statements(one)
        if statement["Effect"] == "Allow"
        for part in [
            *(action for action in _list(statement["Action"]) if "*" in action),
            *(arn for arn in _list(statement.get("Resource", [])) if _is_without_limit(arn, statement["Action"])),
            *(["Principal *"] if statement.get("Principal") in ("*", {"AWS": "*"}) else []),
        ]
    ]


def _is_without_limit(arn: str, action: str | list[str]) -> bool:
    return "*" in arn[:-1] or not (arn.startswith("arn:") or {*_list(action)} <= _OF_NO_RESOURCE)


def no_role_may_destroy(resources: Sequence[Resource]) -> list[str]:
    return [
        f"{one.address}: {action}"
        for one in of(resources, "aws_iam_role_policy")
        for statement in _statements(one)
        if statement["Effect"] == "Allow"
        for action in sorted(_DANGEROUS & set(_list(statement["Action"])))
    ]


def every_image_is_named_by_its_digest(resources: Sequence[Resource]) -> list[str]:
    return [
        one.address
        for one in of(resources, "aws_lambda_function")
        if one.values["package_type"] == "Image" and "@sha256:" not in one.values["image_uri"]
    ]


def functions_are_given_only_settings_that_exist(resources: Sequence[Resource]) -> list[str]:
    """The functions refuse to start with a setting they don't know."""
    known = {PREFIX + field.name.upper() for field in fields(Settings)}
    return [
        f"{one.address}: {name}"
        for one in of(resources, "aws_lambda_function")
        for environment in one.values["environment"]
        for name in sorted(environment["variables"].keys() - known)
    ]


def only_aws_and_what_terraform_has_built_in(resources: Sequence[Resource]) -> list[str]:
    return [one.address for one in resources if not one.type.startswith("aws_") and one.type != "terraform_data"]


RULES: tuple[Rule, ...] = (
    every_log_group_has_retention,
    every_function_logs_to_a_group_of_ours,
    every_bucket_is_closed_four_ways,
    every_bucket_is_encrypted_and_refuses_plain_http,
    every_bucket_ends_unfinished_uploads,
    every_alarm_has_an_action,
    everything_is_tagged,
    no_statement_allows_with_a_wildcard,
    no_role_may_destroy,
    every_image_is_named_by_its_digest,
    functions_are_given_only_settings_that_exist,
    only_aws_and_what_terraform_has_built_in,
)


def unexplained_wildcards(source: str) -> list[str]:
    """Lines of a .tf with an unlimited name in quotes, such as "s3:*", and no reason behind it."""
    return [line.strip() for line in source.splitlines() if re.search(r'^[^#]*\*"[^#]*$', line)]


def moving_parts(source: str) -> list[str]:
    """What means another thing at each apply: times, a tag that moves. Also a random id that nothing keeps."""
    code = "\n".join(line.partition(" # ")[0] for line in source.splitlines() if not line.lstrip().startswith("#"))
    found = re.findall(r"\b(?:timestamp|plantimestamp|bcrypt)\(|:latest\b(?! is refused)", code)
    for block in re.findall(r"(?ms)^resource .*?^}", code):
        if "uuid()" in block and not re.search(r"ignore_changes\s*=\s*\[triggers_replace\]", block):
            found.append("uuid() that is not kept")
    return found


def of(resources: Iterable[Resource], type_: str) -> Iterator[Resource]:
    return (one for one in resources if one.type == type_)


def iam_policies(resources: Iterable[Resource]) -> dict[str, dict[str, Any]]:
    """Every policy document there is, by whose it is: of roles, who may take them on, of buckets and topics."""
    return {
        one.address: json.loads(one.values["assume_role_policy" if one.type == "aws_iam_role" else "policy"])
        for one in resources
        if one.type == "aws_iam_role" or one.type.endswith("_policy")
    }


def _statements(one: Resource) -> list[dict[str, Any]]:
    """Of a policy of a role, a bucket or a topic."""
    policy = json.loads(one.values["policy"]) if one.type.endswith("_policy") else {}
    return list(policy.get("Statement", []))  # one of a lifecycle has none


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
