# SQL: an Athena workgroup with a scan limit, and saved queries (queries/*.sql).

locals {
  query_files = fileset("${path.module}/queries", "*.sql")
}

resource "aws_athena_workgroup" "this" {
  name          = var.name
  description   = "ManyMetrics: select * from ${local.database}.events"
  force_destroy = true # only saved queries and history, no data

  configuration {
    enforce_workgroup_configuration    = true
    publish_cloudwatch_metrics_enabled = true
    bytes_scanned_cutoff_per_query     = floor(var.athena_scan_limit_gb * 1000000000)

    engine_version {
      selected_engine_version = "Athena engine version 3"
    }

    result_configuration {
      output_location = "s3://${aws_s3_bucket.this["results"].id}/"
      encryption_configuration {
        encryption_option = "SSE_KMS"
        kms_key_arn       = local.kms_key_arn
      }
    }
  }

  tags = local.tags
}

resource "aws_athena_named_query" "this" {
  for_each = local.query_files

  name        = trimsuffix(each.value, ".sql")
  description = trimprefix(split("\n", file("${path.module}/queries/${each.value}"))[0], "-- ")
  workgroup   = aws_athena_workgroup.this.id
  database    = aws_glue_catalog_database.this.name
  query       = file("${path.module}/queries/${each.value}")
}
