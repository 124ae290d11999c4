# Everything under a key that is there already. Its policy must leave it to IAM, as the default one does: the functions'
# roles say what they may do with it.

data "aws_kms_key" "this" {
  key_id = "alias/analytics"
}

module "manymetrics" {
  source = "../.."

  name                = "shop"
  api_package         = { path = var.api_zip, hash = filebase64sha256(var.api_zip) }
  processor_image_uri = var.processor_image_uri

  kms_key_arn = data.aws_kms_key.this.arn
}

output "warehouse" {
  description = "Where the tables are, under your key."
  value       = module.manymetrics.warehouse
}
