# What a user pastes.

output "api_instance_url" {
  description = "Where SDKs send to: their host."
  value = trimsuffix(
    var.domain != null ? "https://${var.domain.name}" :
    var.ingress == "http_api" ? aws_apigatewayv2_api.this["this"].api_endpoint :
    aws_lambda_function_url.this["this"].function_url, "/"
  )
}

output "browser_sdk_url" {
  description = "The browser SDK's script, as it was applied last; cached for 5 minutes."
  value       = "https://${aws_cloudfront_distribution.sdk.domain_name}/sdk/mm.js"
}

output "browser_sdk_pinned_url" {
  description = "The same script under the path of its build, which never changes its bytes."
  value       = "https://${aws_cloudfront_distribution.sdk.domain_name}/sdk/${local.sdk_build}/mm.js"
}

output "browser_sdk_integrity" {
  description = "The hash that a page holds the pinned script to (SRI)."
  value       = local.sdk_integrity
}

output "site" {
  description = "The bucket behind CloudFront, and its URL: what is put beside the SDK is public there."
  value       = { bucket = aws_s3_bucket.this["sdk"].id, url = "https://${aws_cloudfront_distribution.sdk.domain_name}" }
}

output "write_key" {
  description = "The write key that was made first; it stays here if it is revoked. Terraform shows it only when asked for by name."
  value       = "wk_${replace(terraform_data.first_key.triggers_replace, "-", "")}"
  sensitive   = true
}

output "write_keys_parameter" {
  description = "The SSM parameter with the write keys: change it, and within a minute the API knows."
  value       = aws_ssm_parameter.keys.name
}

output "glue_database_name" {
  description = "The database of the tables, as MANYMETRICS_DATABASE takes it."
  value       = aws_glue_catalog_database.this.name
}

output "athena_workgroup" {
  description = "The workgroup to ask in."
  value       = aws_athena_workgroup.this.name
}

output "query_to_run" {
  description = "SQL for Athena that shows the newest events of a day."
  value       = "select * from ${aws_glue_catalog_database.this.name}.events where received_at > current_timestamp - interval '1' day order by received_at desc limit 20"
}

output "warehouse" {
  description = "Where the tables are, as MANYMETRICS_WAREHOUSE takes it."
  value       = local.warehouse
}

output "failures_location" {
  description = "Where batches lie that were given up, as `manymetrics replay` takes it."
  value       = "s3://${aws_s3_bucket.this["failures"].id}/aws/lambda"
}

output "dashboard_url" {
  description = "The dashboard in CloudWatch."
  value       = "https://${local.region}.console.aws.amazon.com/cloudwatch/home?region=${local.region}#dashboards/dashboard/${aws_cloudwatch_dashboard.this.dashboard_name}"
}

output "alarm_topic_arn" {
  description = "The SNS topic that every alarm goes to."
  value       = aws_sns_topic.alarms.arn
}

output "stream_name" {
  description = "The Kinesis stream."
  value       = aws_kinesis_stream.this.name
}

output "function_names" {
  description = "The functions, for their logs."
  value       = { api = aws_lambda_function.api.function_name, processor = aws_lambda_function.processor.function_name }
}
