# Events under a name of your own, in a zone that Route 53 has already: first-party to your pages.

data "aws_route53_zone" "this" {
  name = "example.com"
}

module "manymetrics" {
  source = "../.."

  name                = "shop"
  api_package         = { path = var.api_zip, hash = filebase64sha256(var.api_zip) }
  processor_image_uri = var.processor_image_uri

  domain = { name = "events.example.com", zone_id = data.aws_route53_zone.this.zone_id }
}

output "host" {
  description = "Where SDKs send to."
  value       = module.manymetrics.api_instance_url
}
