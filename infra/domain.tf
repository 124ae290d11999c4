# A custom domain for the HTTP API, with its certificate, in a Route 53 zone.

locals {
  domain = var.domain == null ? {} : { this = var.domain }
}

resource "aws_acm_certificate" "api" {
  for_each = local.domain

  domain_name       = each.value.name
  validation_method = "DNS"
  tags              = local.tags

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_route53_record" "validation" {
  for_each = local.domain

  zone_id         = each.value.zone_id
  name            = one(aws_acm_certificate.api["this"].domain_validation_options).resource_record_name
  type            = one(aws_acm_certificate.api["this"].domain_validation_options).resource_record_type
  records         = [one(aws_acm_certificate.api["this"].domain_validation_options).resource_record_value]
  ttl             = 300
  allow_overwrite = true # the validation record is the same in every region
}

resource "aws_acm_certificate_validation" "api" {
  for_each = local.domain

  certificate_arn         = aws_acm_certificate.api["this"].arn
  validation_record_fqdns = [aws_route53_record.validation["this"].fqdn]
}

resource "aws_apigatewayv2_domain_name" "api" {
  for_each = local.domain

  domain_name = each.value.name
  domain_name_configuration {
    certificate_arn = aws_acm_certificate_validation.api["this"].certificate_arn
    endpoint_type   = "REGIONAL"
    ip_address_type = "dualstack"
    security_policy = "TLS_1_2"
  }
  tags = local.tags
}

resource "aws_apigatewayv2_api_mapping" "api" {
  for_each = local.domain

  api_id      = aws_apigatewayv2_api.this["this"].id
  domain_name = aws_apigatewayv2_domain_name.api["this"].id
  stage       = aws_apigatewayv2_stage.this["this"].id
}

resource "aws_route53_record" "api" {
  for_each = var.domain == null ? [] : toset(["A", "AAAA"])

  zone_id = var.domain.zone_id
  name    = var.domain.name
  type    = each.value
  alias {
    name                   = aws_apigatewayv2_domain_name.api["this"].domain_name_configuration[0].target_domain_name
    zone_id                = aws_apigatewayv2_domain_name.api["this"].domain_name_configuration[0].hosted_zone_id
    evaluate_target_health = false
  }
}
