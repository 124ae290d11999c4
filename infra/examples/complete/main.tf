# What a stack in production may choose: who may send, how much, how long it is kept, and who is told.

module "manymetrics" {
  source = "../.."

  name                = "shop"
  api_package         = { path = var.api_zip, hash = filebase64sha256(var.api_zip) }
  processor_image_uri = var.processor_image_uri

  allowed_origins = ["https://www.example.com", "https://shop.example.com"]
  throttle        = { rate_per_s = 2000, burst = 4000 }

  stream = { shards = 2, retention_hours = 72 }

  api       = { memory_mb = 512, concurrency = 100 }
  processor = { memory_mb = 3008, scratch_mb = 2048, concurrency = 4 }

  dedup_window_days    = 14
  archive_days         = 90
  log_retention_days   = 90
  query_result_days    = 30
  athena_scan_limit_gb = 500
  access_log           = true

  alarm_email        = "ops@example.com"
  monthly_budget_usd = 200

  tags = { CostCenter = "growth" }
}

output "manymetrics" {
  description = "All that the module says."
  value       = module.manymetrics
  sensitive   = true
}
