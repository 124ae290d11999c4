# Four buckets with the same protection: no public access, no unencrypted objects, no requests without TLS.

locals {
  buckets = {
    lake     = "The tables, and beside them the dedup ids and the raw archive"
    failures = "Batches that were given up, whole, until `manymetrics replay` brings them back"
    results  = "What Athena answered"
    sdk      = "The browser SDK, which CloudFront alone may read"
  }

  tls_only = {
    for key, bucket in aws_s3_bucket.this : key => {
      Sid       = "TlsOnly"
      Effect    = "Deny"
      Principal = "*"                             # a denial: for everyone
      Action    = "s3:*"                          # a denial: of all actions
      Resource  = [bucket.arn, "${bucket.arn}/*"] # a denial: in the whole bucket
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }
  }
}

resource "aws_s3_bucket" "this" {
  for_each = local.buckets

  bucket        = "${var.name}-${each.key}-${local.suffix}"
  force_destroy = contains(["results", "sdk"], each.key) || !var.protect_data
  tags          = merge(local.tags, { Purpose = replace(each.value, "/[`,]/", "") })

  # So that a destroy that stops at a non-empty bucket has not yet deleted the bucket's key.
  depends_on = [aws_kms_key.this]
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each = local.buckets

  bucket                  = aws_s3_bucket.this[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id
  rule {
    bucket_key_enabled = each.key != "sdk"
    apply_server_side_encryption_by_default {
      # The SDK is public. With the key, CloudFront would need a permission in its policy, which may be the user's own.
      sse_algorithm     = each.key == "sdk" ? "AES256" : "aws:kms"
      kms_master_key_id = each.key == "sdk" ? null : local.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  for_each = setsubtract(keys(local.buckets), ["sdk"])

  bucket = aws_s3_bucket.this[each.key].id
  policy = jsonencode({ Version = "2012-10-17", Statement = [local.tls_only[each.key]] })

  depends_on = [aws_s3_bucket_public_access_block.this]
}

# Separate from the others, so that they and the tables don't wait minutes for the distribution.
resource "aws_s3_bucket_policy" "sdk" {
  bucket = aws_s3_bucket.this["sdk"].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      local.tls_only["sdk"],
      {
        Sid       = "CloudFront"
        Effect    = "Allow"
        Principal = { Service = "cloudfront.amazonaws.com" }
        Action    = "s3:GetObject"
        Resource  = "${aws_s3_bucket.this["sdk"].arn}/*" # everything in this bucket is served
        Condition = { StringEquals = { "aws:SourceArn" = aws_cloudfront_distribution.sdk.arn } }
      },
    ]
  })

  depends_on = [aws_s3_bucket_public_access_block.this]
}

moved {
  from = aws_s3_bucket_policy.this["sdk"]
  to   = aws_s3_bucket_policy.sdk
}

# Objects deleted or overwritten by mistake can be restored for some days: a table, or all of them.
resource "aws_s3_bucket_versioning" "lake" {
  bucket = aws_s3_bucket.this["lake"].id
  versioning_configuration {
    status = var.lake_version_days > 0 ? "Enabled" : "Suspended"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id

  rule {
    id     = "unfinished-uploads"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  dynamic "rule" {
    for_each = each.key == "results" ? [var.query_result_days] : []
    content {
      id     = "results"
      status = "Enabled"
      filter {}
      expiration {
        days = rule.value
      }
    }
  }

  dynamic "rule" {
    for_each = each.key == "lake" ? [max(var.lake_version_days, 1)] : []
    content {
      id     = "versions"
      status = "Enabled"
      filter {}
      noncurrent_version_expiration {
        noncurrent_days = rule.value
      }
      expiration {
        expired_object_delete_marker = true
      }
    }
  }

  # Nothing else expires by age: only Iceberg knows which files of a table are in use, and a failed batch is the only
  # copy of its events.
  dynamic "rule" {
    for_each = each.key == "lake" && var.archive_days > 0 ? [var.archive_days] : []
    content {
      id     = "archive"
      status = "Enabled"
      filter {
        prefix = local.archive_prefix
      }
      expiration {
        days = rule.value
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.lake]
}
