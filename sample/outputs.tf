# What a user pastes. `terraform output -raw NAME` shows those with the write key, which are not shown unasked.

output "sample_page_url" {
  description = "URL of the sample page, which shows each event that it sends."
  value       = "${module.manymetrics.site.url}/sample"
}

output "who_is_told" {
  description = "E-mail address for alarm and budget notifications."
  value       = var.alarm_email == null ? "Nobody hears of alarms and of the budget: apply again with -var alarm_email=you@example.com" : "${var.alarm_email}, once AWS's mail is confirmed"
}

output "api_instance_url" {
  description = "URL that SDKs send to: the host in their configuration."
  value       = module.manymetrics.api_instance_url
}

output "browser_sdk_url" {
  description = "URL of the browser SDK's script; cached for 5 minutes."
  value       = module.manymetrics.browser_sdk_url
}

output "script_tag" {
  description = "Script tag for the head of your pages: the SDK pinned by its hash, with key and host."
  value       = local.script_tag
  sensitive   = true
}

output "curl_to_try" {
  description = "Command that sends an event: `terraform output -raw curl_to_try | sh` in this folder."
  value       = "curl -u \"$(terraform output -raw write_key):\" -H 'Content-Type: application/json' -d '{\"event\": \"Hello\", \"anonymousId\": \"me\"}' ${module.manymetrics.api_instance_url}/v1/track"
}

output "write_key" {
  description = "The first write key."
  value       = module.manymetrics.write_key
  sensitive   = true
}

output "write_keys_parameter" {
  description = "SSM parameter of the write keys; the API reads a change within a minute."
  value       = module.manymetrics.write_keys_parameter
}

output "glue_database_name" {
  description = "Glue database of the tables, for MANYMETRICS_DATABASE; use it with warehouse."
  value       = module.manymetrics.glue_database_name
}

output "athena_workgroup" {
  description = "Athena workgroup for queries; queries.sql is saved there."
  value       = module.manymetrics.athena_workgroup
}

output "athena_url" {
  description = "URL of Athena's console."
  value       = local.athena_url
}

output "query_to_run" {
  description = "Athena SQL that shows the newest events."
  value       = module.manymetrics.query_to_run
}

output "dashboard_url" {
  description = "URL of the CloudWatch dashboard."
  value       = module.manymetrics.dashboard_url
}

output "warehouse" {
  description = "Location of the tables, for MANYMETRICS_WAREHOUSE: with MANYMETRICS_DATABASE, `manymetrics query` reads them from your machine."
  value       = module.manymetrics.warehouse
}

output "failures_location" {
  description = "Location of batches that were given up, for `manymetrics replay`."
  value       = module.manymetrics.failures_location
}

output "region" {
  description = "The region."
  value       = var.region
}

output "batch_window_s" {
  description = "Longest time from event to table, in seconds."
  value       = var.batch_window_s
}
