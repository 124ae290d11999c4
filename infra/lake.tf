# The tables: files in the lake's bucket, registered in Glue's catalog. The processor creates and changes them, each with
# its own location; Terraform manages only the database.

locals {
  database       = coalesce(var.database, replace(var.name, "-", "_")) # a hyphen would need quotes in SQL
  tables         = ["events", "dead_letters"]
  tables_prefix  = "tables/"
  archive_prefix = "archive/"
  warehouse      = "s3://${aws_s3_bucket.this["lake"].id}/${trimsuffix(local.tables_prefix, "/")}"
  archive        = "s3://${aws_s3_bucket.this["lake"].id}/${trimsuffix(local.archive_prefix, "/")}"

  optimizer_types = var.glue_optimizers ? ["compaction", "retention", "orphan_file_deletion"] : []
  optimizers = {
    for pair in setproduct(local.tables, local.optimizer_types) : "${pair[0]}-${pair[1]}" => { table = pair[0], type = pair[1] }
  }

  # Glue checks permissions on the table, its database and the catalog.
  glue_arn           = "arn:${local.partition}:glue:${local.arn_tail}"
  glue_database_arns = ["${local.glue_arn}:catalog", "${local.glue_arn}:database/${local.database}"]
  glue_table_arns    = concat(local.glue_database_arns, [for table in local.tables : "${local.glue_arn}:table/${local.database}/${table}"])
}

resource "aws_glue_catalog_database" "this" {
  name        = local.database
  description = "ManyMetrics ${var.name}: product analytics events, and views over them"
  tags        = local.tags
}

resource "aws_glue_catalog_table_optimizer" "this" {
  for_each = local.optimizers

  catalog_id    = local.account
  database_name = aws_glue_catalog_database.this.name
  table_name    = each.value.table
  type          = each.value.type

  configuration {
    enabled  = true
    role_arn = aws_iam_role.optimizer[0].arn

    dynamic "retention_configuration" {
      for_each = each.value.type == "retention" ? [true] : []
      content {
        iceberg_configuration {
          snapshot_retention_period_in_days = 1
          number_of_snapshots_to_retain     = 100
          clean_expired_files               = true
        }
      }
    }

    dynamic "orphan_file_deletion_configuration" {
      for_each = each.value.type == "orphan_file_deletion" ? [true] : []
      content {
        iceberg_configuration {
          orphan_file_retention_period_in_days = 3
          location                             = "${local.warehouse}/${local.database}/${each.value.table}"
        }
      }
    }
  }

  depends_on = [aws_lambda_invocation.ensure_tables, aws_iam_role_policy.optimizer]
}

resource "aws_iam_role" "optimizer" {
  count = var.glue_optimizers ? 1 : 0

  name                 = "${var.name}-optimizer"
  path                 = var.role_path
  permissions_boundary = var.permissions_boundary
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "glue.amazonaws.com" } }]
  })
  tags = local.tags
}

# As in https://docs.aws.amazon.com/glue/latest/dg/optimization-prerequisites.html, plus the key.
resource "aws_iam_role_policy" "optimizer" {
  count = var.glue_optimizers ? 1 : 0

  name = "optimize-tables"
  role = aws_iam_role.optimizer[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([for _ in local.governed : local.lake_keys], [
      { Sid = "Tables", Effect = "Allow", Action = ["glue:GetTable", "glue:UpdateTable"], Resource = local.glue_table_arns },
      {
        Sid      = "Files"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
        Resource = "${aws_s3_bucket.this["lake"].arn}/${local.tables_prefix}*" # the files of the tables, by their folder
      },
      { Sid = "List", Effect = "Allow", Action = "s3:ListBucket", Resource = aws_s3_bucket.this["lake"].arn },
      {
        Sid       = "Key"
        Effect    = "Allow"
        Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource  = local.kms_key_arn
        Condition = { StringEquals = { "kms:ViaService" = "s3.${local.region}.amazonaws.com" } }
      },
      {
        # Glue names these groups, and all optimizers of the account and region share them, so the module doesn't manage them.
        Sid    = "Logs"
        Effect = "Allow"
        Action = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = [
          for work in ["compaction", "retention", "orphan-file-deletion"] :
          "arn:${local.partition}:logs:${local.arn_tail}:log-group:/aws-glue/iceberg-${work}/logs:*" # the streams of one group
        ]
      },
    ])
  })
}
