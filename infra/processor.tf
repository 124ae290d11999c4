# From the stream to the tables: a function that receives Kinesis' records, one invocation per shard at a time.

locals {
  # A failing batch is retried until its records approach the stream's retention; then all of it goes to S3.
  record_age_s = min((var.stream.retention_hours - 4) * 3600, 604800) # Lambda's maximum is 7 days
}

resource "aws_lambda_function" "processor" {
  function_name = "${var.name}-processor"
  description   = "ManyMetrics: commits the stream to Iceberg tables"
  role          = aws_iam_role.processor.arn

  package_type  = "Image"
  image_uri     = var.processor_image_uri
  architectures = [var.processor.architecture]

  memory_size                    = coalesce(var.processor.memory_mb, var.engine == "spark" ? 1792 : 1024)
  timeout                        = 900 # Lambda's maximum: a backlog and maintenance take minutes
  reserved_concurrent_executions = coalesce(var.processor.concurrency, -1)

  ephemeral_storage {
    size = var.processor.scratch_mb
  }

  environment {
    variables = merge(
      {
        MANYMETRICS_WAREHOUSE         = local.warehouse
        MANYMETRICS_DATABASE          = local.database
        MANYMETRICS_ENGINE            = var.engine
        MANYMETRICS_DEDUP_WINDOW_DAYS = tostring(var.dedup_window_days)
        MANYMETRICS_IP                = var.processor.ip
        MANYMETRICS_USER_AGENT        = var.processor.user_agent
      },
      var.archive_days > 0 ? { MANYMETRICS_ARCHIVE = local.archive } : {},
    )
  }

  logging_config {
    log_format = "Text" # the function itself writes JSON lines, including metrics
    log_group  = aws_cloudwatch_log_group.processor.name
  }

  tags = local.tags

  depends_on = [aws_iam_role_policy.processor]
}

resource "aws_cloudwatch_log_group" "processor" {
  name              = "/aws/lambda/${var.name}-processor"
  retention_in_days = var.log_retention_days
  tags              = local.tags
}

resource "aws_lambda_event_source_mapping" "stream" {
  function_name     = aws_lambda_function.processor.arn
  event_source_arn  = aws_kinesis_stream.this.arn
  starting_position = "TRIM_HORIZON"

  batch_size                         = 10000
  maximum_batching_window_in_seconds = var.batch_window_s
  parallelization_factor             = 1 # the watermark is a shard's highest sequence number, which requires a single reader

  function_response_types        = ["ReportBatchItemFailures"]
  bisect_batch_on_function_error = true
  maximum_retry_attempts         = -1 # failures are temporary errors of the processor; a bad record doesn't fail its batch
  maximum_record_age_in_seconds  = local.record_age_s

  destination_config {
    on_failure {
      destination_arn = aws_s3_bucket.this["failures"].arn # S3 receives the records themselves, SQS only their positions
    }
  }

  tags = local.tags

  depends_on = [aws_lambda_invocation.ensure_tables, aws_iam_role_policy.processor]
}

# Creates the tables before the first event, and adds the columns of a newer image.
resource "aws_lambda_invocation" "ensure_tables" {
  function_name = aws_lambda_function.processor.function_name
  input         = jsonencode({ action = "ensure_tables" })
  triggers      = { image = var.processor_image_uri, warehouse = local.warehouse, database = local.database }

  depends_on = [
    aws_glue_catalog_database.this, aws_iam_role_policy.processor,
    aws_s3_bucket_policy.this, aws_s3_bucket_server_side_encryption_configuration.this,
    aws_lakeformation_permissions.database, aws_lakeformation_permissions.tables, aws_lakeformation_permissions.location,
  ]
}

# Without it each commit is slower than the one before: manifests and small files accumulate. Orphans of killed processes
# are searched once a day, since that reads the references of every snapshot.
locals {
  maintenance = {
    hourly = { at = "cron(0 * * * ? *)", orphans = false }
    daily  = { at = "cron(30 3 * * ? *)", orphans = true }
  }
}

resource "aws_cloudwatch_event_rule" "maintain" {
  for_each = local.maintenance

  name                = "${var.name}-maintain-${each.key}"
  description         = "ManyMetrics: merge small files, expire snapshots${each.value.orphans ? ", remove orphans" : ""}"
  schedule_expression = each.value.at
  tags                = local.tags
}

resource "aws_cloudwatch_event_target" "maintain" {
  for_each = local.maintenance

  rule  = aws_cloudwatch_event_rule.maintain[each.key].name
  arn   = aws_lambda_function.processor.arn
  input = jsonencode({ action = "maintain", orphans = each.value.orphans })
}

resource "aws_lambda_permission" "maintain" {
  for_each = local.maintenance

  statement_id  = "maintain-${each.key}"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.processor.function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.maintain[each.key].arn
}

resource "aws_lambda_function_event_invoke_config" "maintain" {
  function_name                = aws_lambda_function.processor.function_name
  maximum_retry_attempts       = 0 # the next hour's run repeats it
  maximum_event_age_in_seconds = 3600
}

resource "aws_iam_role" "processor" {
  name                 = "${var.name}-processor"
  path                 = var.role_path
  permissions_boundary = var.permissions_boundary
  assume_role_policy   = local.lambda_trust
  tags                 = local.tags
}

resource "aws_iam_role_policy" "processor" {
  name = "commit-events"
  role = aws_iam_role.processor.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Stream"
        Effect = "Allow"
        Action = [
          "kinesis:DescribeStream", "kinesis:DescribeStreamSummary", "kinesis:GetRecords",
          "kinesis:GetShardIterator", "kinesis:ListShards",
        ]
        Resource = aws_kinesis_stream.this.arn
      },
      { Sid = "Database", Effect = "Allow", Action = "glue:GetDatabase", Resource = local.glue_database_arns },
      {
        Sid      = "Tables"
        Effect   = "Allow"
        Action   = ["glue:CreateTable", "glue:GetTable", "glue:UpdateTable"]
        Resource = local.glue_table_arns
      },
      {
        Sid    = "Files"
        Effect = "Allow"
        Action = ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"] # otherwise failed large uploads continue to be billed
        Resource = [
          "${aws_s3_bucket.this["lake"].arn}/${local.tables_prefix}*", # the tables and dedup ids, by their folder
        ]
      },
      {
        Sid    = "Keep"
        Effect = "Allow"
        Action = "s3:PutObject"
        Resource = concat(
          ["${aws_s3_bucket.this["failures"].arn}/aws/lambda/*"],                                    # where Lambda puts failed batches
          var.archive_days > 0 ? ["${aws_s3_bucket.this["lake"].arn}/${local.archive_prefix}*"] : [] # the archive, by its folder
        )
      },
      {
        Sid      = "List"
        Effect   = "Allow"
        Action   = "s3:ListBucket"
        Resource = [aws_s3_bucket.this["lake"].arn, aws_s3_bucket.this["failures"].arn]
      },
      {
        Sid      = "Decrypt"
        Effect   = "Allow"
        Action   = "kms:Decrypt"
        Resource = local.kms_key_arn
        Condition = {
          StringEquals = { "kms:ViaService" = [for service in ["kinesis", "s3"] : "${service}.${local.region}.amazonaws.com"] }
        }
      },
      {
        Sid       = "Encrypt"
        Effect    = "Allow"
        Action    = "kms:GenerateDataKey"
        Resource  = local.kms_key_arn
        Condition = { StringEquals = { "kms:ViaService" = "s3.${local.region}.amazonaws.com" } }
      },
      {
        Sid      = "Logs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${aws_cloudwatch_log_group.processor.arn}:*" # the streams of this one group
      },
    ]
  })
}
