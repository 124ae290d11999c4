# Everything, in one apply: what build.tf builds, the module that runs it, and a page to try it with (page.tf).

module "manymetrics" {
  source = "../infra"

  name                = var.name
  api_package         = { path = terraform_data.api_zip.output }
  processor_image_uri = "${aws_ecr_repository.processor.repository_url}@${data.aws_ecr_image.processor.image_digest}"

  engine             = var.engine
  processor          = var.processor
  batch_window_s     = var.batch_window_s
  throttle           = { rate_per_s = 50, burst = 100 } # what strangers can cost at most: about $175 a month
  alarm_email        = var.alarm_email
  monthly_budget_usd = var.monthly_budget_usd

  protect_data = false # destroy takes the events along: leave this out where they matter
}
