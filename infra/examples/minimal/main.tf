# A name, and what your CI built.

module "manymetrics" {
  source = "../.."

  name                = "shop"
  api_package         = { path = var.api_zip, hash = filebase64sha256(var.api_zip) }
  processor_image_uri = var.processor_image_uri
}

output "manymetrics" {
  description = "All that the module says."
  value       = module.manymetrics
  sensitive   = true
}
