# Values for users to paste.

output "api_instance_url" {
  description = "URL that SDKs send to: the host in their configuration."
  value = trimsuffix(
    var.domain != null ? "https://${var.domain.name}" :
    var.ingress == "http_api" ? aws_apigatewayv2_api.this["this"].api_endpoint :
    aws_lambda_function_url.this["this"].function_url, "/"
  )
}

output "browser_sdk_url" {
  description = "URL of the browser SDK's script; cached for 5 minutes."
  value       = "https://${aws_cloudfront_distribution.sdk.domain_name}/sdk/mm.js"
}

output "browser_sdk_pinned_url" {
  description = "URL of the same script under the immutable path of its build."
  value       = "https://${aws_cloudfront_distribution.sdk.domain_name}/sdk/${local.sdk_build}/mm.js"
}

output "browser_sdk_integrity" {
  description = "Subresource integrity hash of the pinned script."
  value       = local.sdk_integrity
}

output "site" {
  description = "Bucket behind CloudFront, and its URL: files uploaded next to the SDK are public."
  value       = { bucket = aws_s3_bucket.this["sdk"].id, url = "https://${aws_cloudfront_distribution.sdk.domain_name}" }
}

output "write_key" {
  description = "The first write key, even after it is revoked. Sensitive: Terraform shows it only by name."
  value       = "wk_${replace(terraform_data.first_key.triggers_replace, "-", "")}"
  sensitive   = true
}

output "write_keys_parameter" {
  description = "SSM parameter of the write keys; the API reads a change within a minute."
  value       = aws_ssm_parameter.keys.name
}

output "glue_database_name" {
  description = "Glue database of the tables, for MANYMETRICS_DATABASE."
  value       = aws_glue_catalog_database.this.name
}

output "athena_workgroup" {
  description = "Athena workgroup for queries."
  value       = aws_athena_workgroup.this.name
}

output "query_to_run" {
  description = "Athena SQL that shows the newest events of the last day."
  value       = "select * from ${aws_glue_catalog_database.this.name}.events where received_at > current_timestamp - interval '1' day order by received_at desc limit 20"
}

output "warehouse" {
  description = "Location of the tables, for MANYMETRICS_WAREHOUSE."
  value       = local.warehouse
}

output "failures_location" {
  description = "Location of batches that were given up, for `manymetrics replay`."
  value       = "s3://${aws_s3_bucket.this["failures"].id}/aws/lambda"
}

output "dashboard_url" {
  description = "URL of the CloudWatch dashboard."
  value       = "https://${local.region}.console.aws.amazon.com/cloudwatch/home?region=${local.region}#dashboards/dashboard/${aws_cloudwatch_dashboard.this.dashboard_name}"
}

output "alarm_topic_arn" {
  description = "SNS topic of all alarms."
  value       = aws_sns_topic.alarms.arn
}

output "stream_name" {
  description = "The Kinesis stream."
  value       = aws_kinesis_stream.this.name
}

output "function_names" {
  description = "Names of the functions, for their logs."
  value       = { api = aws_lambda_function.api.function_name, processor = aws_lambda_function.processor.function_name }
}
