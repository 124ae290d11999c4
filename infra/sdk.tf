# The browser SDK: a private bucket behind CloudFront. One path names a build and is immutable, so that a page can pin it
# with a hash; the other is the build of the last apply.

locals {
  sdk_path  = coalesce(var.sdk_path, "${path.module}/../sdk-js")
  sdk_files = fileset("${local.sdk_path}/dist", "**/*.{js,map}")
  sdk_build = format("%s-%s", # same name as on one machine: cli/manymetrics_cli/built_sdk.py
    jsondecode(file("${local.sdk_path}/package.json")).version,
    substr(sha256(join("", [
      for name in sort(local.sdk_files) : "${name} ${substr(filesha256("${local.sdk_path}/dist/${name}"), 0, 16)} " if endswith(name, ".js")
    ])), 0, 12),
  )
  sdk_integrity = "sha512-${filebase64sha512("${local.sdk_path}/dist/mm.js")}"

  # A released build stays under its path after later applies.
  sdk_for_ever = merge(
    { for name in local.sdk_files : "${local.sdk_build}/${name}" => "dist/${name}" },
    { for name in fileset("${local.sdk_path}/released", "*/*.js") : name => "released/${name}" },
  )
  sdk_objects = merge(
    { for name, file in local.sdk_for_ever : "sdk/${name}" => { file = file, cache = "public, max-age=31536000, immutable" } },
    { for name in local.sdk_files : "sdk/${name}" => { file = "dist/${name}", cache = "public, max-age=300" } },
  )

  # Managed by AWS, the same in every account:
  # https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/using-managed-cache-policies.html
  caching_optimized = "658327ea-f89d-4fab-a63d-7e88639e58f6"
  simple_cors       = "60669652-455b-4ae9-85a4-c4c02393f86c"
}

resource "aws_s3_object" "sdk" {
  for_each = local.sdk_objects

  bucket        = aws_s3_bucket.this["sdk"].id
  key           = each.key
  source        = "${local.sdk_path}/${each.value.file}"
  source_hash   = filemd5("${local.sdk_path}/${each.value.file}")
  content_type  = endswith(each.value.file, ".js") ? "text/javascript; charset=utf-8" : "application/json"
  cache_control = each.value.cache
  tags          = { Application = "ManyMetrics", Stack = var.name } # without var.tags: S3 allows 10 per object
}

resource "aws_cloudfront_origin_access_control" "sdk" {
  name                              = "${var.name}-sdk-${local.region}"
  description                       = "ManyMetrics ${var.name}: the browser SDK"
  origin_access_control_origin_type = "s3"
  signing_behavior                  = "always"
  signing_protocol                  = "sigv4"
}

resource "aws_cloudfront_distribution" "sdk" {
  comment         = "ManyMetrics ${var.name}: the browser SDK"
  enabled         = true
  is_ipv6_enabled = true
  http_version    = "http2and3"
  price_class     = "PriceClass_100"

  origin {
    origin_id                = "sdk"
    domain_name              = aws_s3_bucket.this["sdk"].bucket_regional_domain_name
    origin_access_control_id = aws_cloudfront_origin_access_control.sdk.id
  }

  default_cache_behavior {
    target_origin_id           = "sdk"
    viewer_protocol_policy     = "redirect-to-https"
    allowed_methods            = ["GET", "HEAD"]
    cached_methods             = ["GET", "HEAD"]
    compress                   = true
    cache_policy_id            = local.caching_optimized
    response_headers_policy_id = local.simple_cors
  }

  restrictions {
    geo_restriction {
      restriction_type = "none"
    }
  }

  viewer_certificate {
    cloudfront_default_certificate = true
  }

  tags = local.tags
}
