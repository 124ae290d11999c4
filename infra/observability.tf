# Alarms and the dashboard. All alarms notify one topic; the dashboard shows an event's flow from left to right.

locals {
  # Errors of the API's function become 5xx of its gateway.
  watched = merge({ processor = aws_lambda_function.processor }, var.ingress == "http_api" ? {} : { api = aws_lambda_function.api })

  lambda_alarms = merge([
    for short, function in local.watched : {
      "${short}-errors"    = { metric = "Errors", function = function.function_name, text = "The ${short} function fails" }
      "${short}-throttles" = { metric = "Throttles", function = function.function_name, text = "The ${short} function is throttled: it reaches its concurrency limit" }
    }
  ]...)

  # threshold: the highest good value. missing: the meaning of missing data.
  alarms = merge(
    {
      for key, one in local.lambda_alarms : key => {
        text      = one.text, namespace = "AWS/Lambda", metric = one.metric, dimensions = { FunctionName = one.function },
        statistic = "Sum", period_s = 300, threshold = 0, comparison = "GreaterThanThreshold", missing = "notBreaching",
        # Maintenance fails at most once an hour, so two errors of the processor in two hours are enough.
        periods = key == "processor-errors" ? 24 : 3, breaching = key == "processor-errors" ? 2 : 3
      }
    },
    {
      iterator-age = {
        text      = "The tables are an hour behind the stream: commits fail, or are too slow. Events are lost once the lag exceeds the stream's retention",
        namespace = "AWS/Lambda", metric = "IteratorAge", dimensions = { FunctionName = aws_lambda_function.processor.function_name },
        statistic = "Maximum", period_s = 300, threshold = 3600000, comparison = "GreaterThanThreshold", missing = "notBreaching"
        # A failing invocation may take 15 minutes, and reports its age once: three in an hour are enough.
        periods = 12, breaching = 3
      }
      stream-throttled = {
        text      = "The stream is throttled: the API returns 429 and clients retry; add a shard",
        namespace = "AWS/Kinesis", metric = "WriteProvisionedThroughputExceeded", dimensions = { StreamName = aws_kinesis_stream.this.name },
        statistic = "Sum", period_s = 300, periods = 3, threshold = 0, comparison = "GreaterThanThreshold", missing = "notBreaching"
      }
      failures-not-kept = {
        text      = "A batch that was given up could not be written to the failures bucket: its events are lost when the stream's retention ends",
        namespace = "AWS/Lambda", metric = "DestinationDeliveryErrors", dimensions = { FunctionName = aws_lambda_function.processor.function_name },
        statistic = "Sum", period_s = 300, periods = 1, threshold = 0, comparison = "GreaterThanThreshold", missing = "notBreaching"
      }
      no-events = {
        text      = "No events for a day, after there were some",
        namespace = "AWS/Kinesis", metric = "IncomingRecords", dimensions = { StreamName = aws_kinesis_stream.this.name },
        statistic = "Sum", period_s = 3600, periods = 24, threshold = 1, comparison = "LessThanThreshold"
        # Notifies on INSUFFICIENT_DATA, the initial state of an alarm: so it is silent until a first event changes the state.
        missing = "missing", silence = true
      }
      dead-letters = {
        text      = "Many events are dead letters; for the reasons: select reason, detail, raw from dead_letters",
        namespace = "ManyMetrics", metric = "dead_lettered", dimensions = { Database = local.database },
        statistic = "Sum", period_s = 3600, periods = 1, threshold = 1000, comparison = "GreaterThanThreshold", missing = "notBreaching"
      }
    },
    {
      encoding-lost = {
        text      = "A gateway treated compressed bodies as text and damaged them, so their events are lost: turn gzip off in the client, or see api/README.md",
        namespace = "ManyMetrics", metric = "encoding_lost", dimensions = { Database = local.database },
        statistic = "Sum", period_s = 300, periods = 1, threshold = 0, comparison = "GreaterThanThreshold", missing = "notBreaching"
      }
    },
    var.ingress == "http_api" ? {} : {
      api-5xx = {
        text      = "The function URL returns 5xx that are not function errors; clients retry",
        namespace = "AWS/Lambda", metric = "Url5xxCount", dimensions = { FunctionName = aws_lambda_function.api.function_name },
        statistic = "Sum", period_s = 300, periods = 3, threshold = 10, comparison = "GreaterThanThreshold", missing = "notBreaching"
      }
    },
    var.ingress != "http_api" ? {} : {
      for key, one in {
        api-5xx  = { metric = "5xx", statistic = "Sum", threshold = 10, text = "The gateway returns 5xx; clients retry" }
        api-slow = { metric = "Latency", statistic = "p99", threshold = 5000, text = "1% of requests take over 5 s" }
        } : key => {
        text      = one.text, namespace = "AWS/ApiGateway", metric = one.metric, dimensions = { ApiId = aws_apigatewayv2_api.this["this"].id },
        statistic = one.statistic, period_s = 300, periods = 3, threshold = one.threshold, comparison = "GreaterThanThreshold", missing = "notBreaching"
      }
    },
  )
}

# Not encrypted with the KMS key: messages contain only names and values of alarms, and a key policy without CloudWatch
# would silence all of them.
resource "aws_sns_topic" "alarms" {
  name = "${var.name}-alarms"
  tags = local.tags
}

resource "aws_sns_topic_policy" "alarms" {
  arn = aws_sns_topic.alarms.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Alarms"
      Effect    = "Allow"
      Principal = { Service = ["cloudwatch.amazonaws.com", "budgets.amazonaws.com", "s3.amazonaws.com"] }
      Action    = "sns:Publish"
      Resource  = aws_sns_topic.alarms.arn
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

# Notifies of a failed batch when it is written: S3's own metric of a bucket's objects is only daily.
# `manymetrics replay` stores its events; then delete it.
resource "aws_s3_bucket_notification" "given_up" {
  bucket = aws_s3_bucket.this["failures"].id

  topic {
    id        = "batch-given-up-run-manymetrics-replay"
    topic_arn = aws_sns_topic.alarms.arn
    events    = ["s3:ObjectCreated:*"] # any operation that Lambda uses
  }

  depends_on = [aws_sns_topic_policy.alarms]
}

resource "aws_sns_topic_subscription" "email" {
  count = var.alarm_email == null ? 0 : 1

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = var.alarm_email
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name        = "${var.name}-${each.key}"
  alarm_description = each.value.text
  alarm_actions     = [aws_sns_topic.alarms.arn]
  ok_actions        = [aws_sns_topic.alarms.arn]

  insufficient_data_actions = try(each.value.silence, false) ? [aws_sns_topic.alarms.arn] : []

  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = startswith(each.value.statistic, "p") ? null : each.value.statistic
  extended_statistic  = startswith(each.value.statistic, "p") ? each.value.statistic : null
  period              = each.value.period_s
  evaluation_periods  = each.value.periods
  datapoints_to_alarm = try(each.value.breaching, null)
  threshold           = each.value.threshold
  comparison_operator = each.value.comparison
  treat_missing_data  = each.value.missing

  tags = local.tags
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = [
      for index, widget in [
        { title = "Requests", metrics = var.ingress == "http_api" ? [for metric in ["Count", "4xx", "5xx"] : ["AWS/ApiGateway", metric, "ApiId", aws_apigatewayv2_api.this["this"].id]] : [for metric in ["UrlRequestCount", "Url4xxCount", "Url5xxCount"] : ["AWS/Lambda", metric, "FunctionName", aws_lambda_function.api.function_name]], statistic = "Sum" },
        { title = "Outcomes of events", metrics = [for metric in ["stored", "dead_lettered"] : ["ManyMetrics", metric, "Database", local.database]], statistic = "Sum" },
        { title = "Stream", metrics = [for metric in ["IncomingRecords", "WriteProvisionedThroughputExceeded"] : ["AWS/Kinesis", metric, "StreamName", aws_kinesis_stream.this.name]], statistic = "Sum" },
        { title = "How far the tables are behind (ms)", metrics = [["AWS/Lambda", "IteratorAge", "FunctionName", aws_lambda_function.processor.function_name]], statistic = "Maximum" },
        { title = "Time taken (ms)", metrics = [for function in [aws_lambda_function.api, aws_lambda_function.processor] : ["AWS/Lambda", "Duration", "FunctionName", function.function_name]], statistic = "p99" },
        { title = "Errors", metrics = [for function in [aws_lambda_function.api, aws_lambda_function.processor] : ["AWS/Lambda", "Errors", "FunctionName", function.function_name]], statistic = "Sum" },
        ] : {
        type       = "metric", x = index % 2 * 12, y = floor(index / 2) * 6, width = 12, height = 6
        properties = { title = widget.title, metrics = widget.metrics, stat = widget.statistic, period = 300, region = local.region, view = "timeSeries" }
      }
    ]
  })
}

resource "aws_budgets_budget" "this" {
  count = var.monthly_budget_usd == null ? 0 : 1

  name         = var.name
  budget_type  = "COST"
  time_unit    = "MONTHLY"
  limit_unit   = "USD"
  limit_amount = tostring(var.monthly_budget_usd)

  dynamic "notification" {
    for_each = { ACTUAL = 80, FORECASTED = 100 }
    content {
      notification_type         = notification.key
      threshold                 = notification.value
      threshold_type            = "PERCENTAGE"
      comparison_operator       = "GREATER_THAN"
      subscriber_sns_topic_arns = [aws_sns_topic.alarms.arn]
    }
  }

  tags = local.tags

  depends_on = [aws_sns_topic_policy.alarms]
}
