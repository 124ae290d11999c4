"""What AWS tells the resources of an account and region apart by, where that is a name."""

from __future__ import annotations

from collections.abc import Sequence

from tests.infra.terraform import Resource

Name = tuple[str, ...]

NAMED_BY = {
    "aws_athena_workgroup": ["name"],
    "aws_budgets_budget": ["name"],
    "aws_cloudformation_stack": ["name"],
    "aws_cloudfront_origin_access_control": ["name"],
    "aws_cloudwatch_dashboard": ["dashboard_name"],
    "aws_cloudwatch_event_rule": ["name"],
    "aws_cloudwatch_log_group": ["name"],
    "aws_cloudwatch_metric_alarm": ["alarm_name"],
    "aws_ecr_repository": ["name"],
    "aws_glue_catalog_database": ["name"],
    "aws_glue_catalog_table": ["database_name", "name"],
    "aws_glue_catalog_table_optimizer": ["database_name", "table_name", "type"],
    "aws_iam_role": ["name"],
    "aws_kinesis_stream": ["name"],
    "aws_kms_alias": ["name"],
    "aws_lambda_function": ["function_name"],
    "aws_s3_bucket": ["bucket"],
    "aws_sns_topic": ["name"],
    "aws_ssm_parameter": ["name"],
}
# These AWS gives an id of its own, or they are a part of another.
NOT_NAMED = {
    "aws_apigatewayv2_api",
    "aws_apigatewayv2_integration",
    "aws_apigatewayv2_route",
    "aws_apigatewayv2_stage",
    "aws_athena_named_query",
    "aws_cloudfront_distribution",
    "aws_cloudwatch_event_target",
    "aws_ecr_lifecycle_policy",
    "aws_ecr_repository_policy",
    "aws_iam_role_policy",
    "aws_kms_key",
    "aws_lakeformation_permissions",
    "aws_lakeformation_resource",
    "aws_lambda_alias",
    "aws_lambda_event_source_mapping",
    "aws_lambda_function_event_invoke_config",
    "aws_lambda_function_url",
    "aws_lambda_invocation",
    "aws_lambda_permission",
    "aws_s3_bucket_lifecycle_configuration",
    "aws_s3_bucket_notification",
    "aws_s3_bucket_ownership_controls",
    "aws_s3_bucket_policy",
    "aws_s3_bucket_public_access_block",
    "aws_s3_bucket_server_side_encryption_configuration",
    "aws_s3_bucket_versioning",
    "aws_s3_object",
    "aws_sns_topic_policy",
    "aws_sns_topic_subscription",
    "terraform_data",
}


def names_of(resources: Sequence[Resource]) -> set[Name]:
    """Each kind and name. A KeyError for a kind of which nobody has said how two are told apart."""
    named = [one for one in resources if one.type not in NOT_NAMED]
    return {(one.type, *(str(one.values[by]) for by in NAMED_BY[one.type])) for one in named}
