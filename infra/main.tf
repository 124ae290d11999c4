# ManyMetrics in an AWS account: HTTP (ingest.tf), Kinesis (stream.tf), Iceberg tables (processor.tf, lake.tf),
# Athena (query.tf). Write keys in keys.tf, the browser SDK in sdk.tf, alarms in observability.tf.

data "aws_caller_identity" "this" {}

data "aws_region" "this" {}

data "aws_partition" "this" {}

locals {
  account   = data.aws_caller_identity.this.account_id
  region    = lookup(data.aws_region.this, "region", lookup(data.aws_region.this, "name", null)) # its name in version 6 of the provider, and in 5
  partition = data.aws_partition.this.partition
  arn_tail  = "${local.region}:${local.account}"

  # Bucket names are globally unique; this suffix is the same at every apply.
  suffix = substr(sha256("${local.account}/${local.region}/${var.name}"), 0, 10)

  tags = merge(var.tags, { Application = "ManyMetrics", Stack = var.name })

  kms_key_arn = var.kms_key_arn == null ? aws_kms_key.this[0].arn : var.kms_key_arn

  lambda_trust = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "lambda.amazonaws.com" } }]
  })
}

resource "aws_kms_key" "this" {
  count = var.kms_key_arn == null ? 1 : 0

  description             = "ManyMetrics ${var.name}: stream, tables, query results, write keys"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  tags                    = local.tags
}

resource "aws_kms_alias" "this" {
  count = var.kms_key_arn == null ? 1 : 0

  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.this[0].key_id
}
