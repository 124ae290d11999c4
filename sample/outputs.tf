# What a user pastes. `terraform output -raw NAME` shows those with the write key, which are not shown unasked.

output "sample_page_url" {
  description = "Open it, click, see the events go."
  value       = "${module.manymetrics.site.url}/sample"
}

output "who_is_told" {
  description = "Who hears of alarms and of the budget."
  value       = var.alarm_email == null ? "Nobody hears of alarms and of the budget: apply again with -var alarm_email=you@example.com" : "${var.alarm_email}, once AWS's mail is confirmed"
}

output "api_instance_url" {
  description = "Where SDKs send to: their host."
  value       = module.manymetrics.api_instance_url
}

output "browser_sdk_url" {
  description = "The browser SDK's script, as it was applied last; cached for 5 minutes."
  value       = module.manymetrics.browser_sdk_url
}

output "script_tag" {
  description = "For your pages: the SDK by its hash, with key and host. Put it into their head."
  value       = local.script_tag
  sensitive   = true
}

output "curl_to_try" {
  description = "An event from a terminal: `terraform output -raw curl_to_try | sh` in this folder."
  value       = "curl -u \"$(terraform output -raw write_key):\" -H 'Content-Type: application/json' -d '{\"event\": \"Hello\", \"anonymousId\": \"me\"}' ${module.manymetrics.api_instance_url}/v1/track"
}

output "write_key" {
  description = "The write key that was made first."
  value       = module.manymetrics.write_key
  sensitive   = true
}

output "write_keys_parameter" {
  description = "The SSM parameter with the write keys: change it, and within a minute the API knows."
  value       = module.manymetrics.write_keys_parameter
}

output "glue_database_name" {
  description = "The database of the tables, as MANYMETRICS_DATABASE takes it: it goes with warehouse."
  value       = module.manymetrics.glue_database_name
}

output "athena_workgroup" {
  description = "The workgroup to ask in. queries.sql is saved there."
  value       = module.manymetrics.athena_workgroup
}

output "athena_url" {
  description = "Athena's console, to ask in."
  value       = local.athena_url
}

output "query_to_run" {
  description = "SQL for Athena that shows the newest events."
  value       = module.manymetrics.query_to_run
}

output "dashboard_url" {
  description = "The dashboard in CloudWatch."
  value       = module.manymetrics.dashboard_url
}

output "warehouse" {
  description = "Where the tables are, as MANYMETRICS_WAREHOUSE takes it: with MANYMETRICS_DATABASE, `manymetrics query` asks them from here."
  value       = module.manymetrics.warehouse
}

output "failures_location" {
  description = "Where batches lie that were given up, as `manymetrics replay` takes it."
  value       = module.manymetrics.failures_location
}

output "region" {
  description = "The region."
  value       = var.region
}

output "batch_window_s" {
  description = "The longest wait from event to table, in seconds."
  value       = var.batch_window_s
}
