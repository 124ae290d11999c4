# What must hold whatever else is chosen. The rest is in tests/infra of the repository, over all resources at once.

mock_provider "aws" {
  source = "./tests/aws"
}

variables {
  name                = "shop"
  api_package         = { path = "build/manymetrics-api-arm64.zip" }
  processor_image_uri = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop@sha256:0000000000000000000000000000000000000000000000000000000000000000"
}

run "nothing_is_public_or_plain" {
  command = apply

  assert {
    condition = alltrue([
      for b in aws_s3_bucket_public_access_block.this : b.block_public_acls && b.block_public_policy && b.ignore_public_acls && b.restrict_public_buckets
    ]) && length(aws_s3_bucket_public_access_block.this) == length(aws_s3_bucket.this)
    error_message = "every bucket is closed, four ways"
  }

  assert {
    condition     = aws_kinesis_stream.this.encryption_type == "KMS" && aws_kinesis_stream.this.kms_key_id == aws_kms_key.this[0].arn
    error_message = "the stream is under the key"
  }

  assert {
    condition     = aws_ssm_parameter.keys.type == "SecureString" && aws_ssm_parameter.keys.key_id == aws_kms_key.this[0].arn
    error_message = "the write keys are under the key"
  }

  assert {
    condition     = aws_athena_workgroup.this.configuration[0].enforce_workgroup_configuration && aws_athena_workgroup.this.configuration[0].result_configuration[0].encryption_configuration[0].encryption_option == "SSE_KMS"
    error_message = "no query may choose another place for what it answers, or leave it plain"
  }

  assert {
    condition = alltrue([
      for p in concat(values(aws_s3_bucket_policy.this), [aws_s3_bucket_policy.sdk]) : contains([for s in jsondecode(p.policy).Statement : s.Effect == "Deny" ? s.Condition.Bool["aws:SecureTransport"] : "-"], "false")
    ]) && length(aws_s3_bucket_policy.this) + 1 == length(aws_s3_bucket.this)
    error_message = "no bucket answers without TLS"
  }

  assert {
    condition     = aws_kms_key.this[0].enable_key_rotation
    error_message = "the key is rotated"
  }
}

run "only_cloudfront_reads_the_sdk" {
  command = apply

  assert {
    condition = [
      for s in jsondecode(aws_s3_bucket_policy.sdk.policy).Statement : [s.Principal, s.Action, s.Condition] if s.Effect == "Allow"
    ] == [[{ Service = "cloudfront.amazonaws.com" }, "s3:GetObject", { StringEquals = { "aws:SourceArn" = aws_cloudfront_distribution.sdk.arn } }]]
    error_message = "one distribution reads"
  }

  assert {
    condition     = aws_cloudfront_distribution.sdk.default_cache_behavior[0].viewer_protocol_policy == "redirect-to-https"
    error_message = "the SDK comes by HTTPS"
  }
}

run "the_gateway_is_throttled_and_takes_no_cookies" {
  command = plan

  assert {
    condition     = aws_apigatewayv2_stage.this["this"].default_route_settings[0].throttling_rate_limit == 500
    error_message = "the gateway is throttled"
  }

  assert {
    condition     = coalesce(aws_apigatewayv2_api.this["this"].cors_configuration[0].allow_credentials, false) == false
    error_message = "no cookie is read"
  }

  assert {
    condition     = length(aws_apigatewayv2_stage.this["this"].access_log_settings) == 0
    error_message = "no access log unless asked for"
  }
}

run "data_is_protected" {
  command = plan

  assert {
    condition     = !aws_s3_bucket.this["lake"].force_destroy && !aws_s3_bucket.this["failures"].force_destroy
    error_message = "destroy stops at events"
  }
}
