# Ingestion over HTTP: the API's function, behind an HTTP API or its own function URL.

locals {
  http_api = var.ingress == "http_api" ? { this = true } : {}
  url      = var.ingress == "function_url" ? { this = true } : {}
}

resource "aws_lambda_function" "api" {
  function_name = "${var.name}-api"
  description   = "ManyMetrics: receives events over HTTP and writes them to the stream"
  role          = aws_iam_role.api.arn

  runtime          = "python3.13"
  architectures    = [var.api.architecture]
  handler          = "manymetrics.lambda_handler.handler"
  filename         = var.api_package.path
  source_code_hash = var.api_package.hash
  publish          = true

  memory_size                    = var.api.memory_mb
  timeout                        = var.api.timeout_s
  reserved_concurrent_executions = coalesce(var.api.concurrency, -1)

  environment {
    variables = {
      MANYMETRICS_STREAM         = aws_kinesis_stream.this.name
      MANYMETRICS_KEYS_PARAMETER = aws_ssm_parameter.keys.name
      MANYMETRICS_DATABASE       = local.database # distinguishes its metrics
    }
  }

  logging_config {
    log_format       = "JSON" # so that levels can be set; the function's own lines are unchanged
    log_group        = aws_cloudwatch_log_group.api.name
    system_log_level = "WARN" # at INFO, three lines per call, which would cost as much as the call
  }

  tags = local.tags

  depends_on = [aws_iam_role_policy.api]
}

resource "aws_lambda_alias" "live" {
  name             = "live"
  description      = "The version that the gateway invokes"
  function_name    = aws_lambda_function.api.function_name
  function_version = aws_lambda_function.api.version
}

resource "aws_cloudwatch_log_group" "api" {
  name              = "/aws/lambda/${var.name}-api"
  retention_in_days = var.log_retention_days
  tags              = local.tags
}

resource "aws_iam_role" "api" {
  name                 = "${var.name}-api"
  path                 = var.role_path
  permissions_boundary = var.permissions_boundary
  assume_role_policy   = local.lambda_trust
  tags                 = local.tags

  lifecycle {
    precondition {
      condition     = local.partition == "aws"
      error_message = "ManyMetrics supports only AWS's commercial regions: in ${local.partition} the endpoints that it signs requests for have other names."
    }
  }
}

resource "aws_iam_role_policy" "api" {
  name = "take-events"
  role = aws_iam_role.api.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "Stream"
        Effect   = "Allow"
        Action   = ["kinesis:PutRecords", "kinesis:DescribeStreamSummary"]
        Resource = aws_kinesis_stream.this.arn
      },
      { Sid = "Keys", Effect = "Allow", Action = "ssm:GetParameter", Resource = aws_ssm_parameter.keys.arn },
      {
        Sid       = "DecryptKeys"
        Effect    = "Allow"
        Action    = "kms:Decrypt"
        Resource  = local.kms_key_arn
        Condition = { StringEquals = { "kms:ViaService" = "ssm.${local.region}.amazonaws.com" } }
      },
      {
        Sid       = "EncryptRecords"
        Effect    = "Allow"
        Action    = "kms:GenerateDataKey"
        Resource  = local.kms_key_arn
        Condition = { StringEquals = { "kms:ViaService" = "kinesis.${local.region}.amazonaws.com" } }
      },
      {
        Sid      = "Logs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${aws_cloudwatch_log_group.api.arn}:*" # the streams of this one group
      },
    ]
  })
}

resource "aws_apigatewayv2_api" "this" {
  for_each = local.http_api

  name          = var.name
  description   = "ManyMetrics: events over HTTP"
  protocol_type = "HTTP"

  ip_address_type = "dualstack"

  disable_execute_api_endpoint = var.domain != null # a single entry point

  # The gateway answers preflights, without an invocation; its headers replace the function's.
  cors_configuration {
    allow_origins = var.allowed_origins
    allow_methods = ["GET", "POST", "OPTIONS"]
    allow_headers = [
      "authorization", "content-type", "content-encoding", "x-retry-count", "anonymousid", "sentat", "x-write-key",
      "x-strict-mode", "rsa-retry-attempt", "rsa-since-last-attempt", "rsa-since-first-attempt", "rsa-retry-reason",
      "rsa-recovered",
    ]
    expose_headers = ["retry-after"]
    max_age        = 86400
  }

  tags = local.tags
}

resource "aws_apigatewayv2_integration" "api" {
  for_each = local.http_api

  api_id                 = aws_apigatewayv2_api.this["this"].id
  integration_type       = "AWS_PROXY"
  integration_method     = "POST"
  integration_uri        = aws_lambda_alias.live.invoke_arn
  payload_format_version = "2.0"
  timeout_milliseconds   = (var.api.timeout_s + 1) * 1000
}

# One route for all: route keys can't end in "/", but SDKs' paths do. The function returns 404 for unknown paths before
# it loads anything. Unwanted requests cost no more there than on a guessable path.
resource "aws_apigatewayv2_route" "this" {
  for_each = local.http_api

  api_id    = aws_apigatewayv2_api.this["this"].id
  route_key = "$default"
  target    = "integrations/${aws_apigatewayv2_integration.api["this"].id}"
}

resource "aws_apigatewayv2_stage" "this" {
  for_each = local.http_api

  api_id      = aws_apigatewayv2_api.this["this"].id
  name        = "$default"
  auto_deploy = true

  default_route_settings {
    throttling_rate_limit    = var.throttle.rate_per_s
    throttling_burst_limit   = var.throttle.burst
    detailed_metrics_enabled = false # per route, each billed as a metric
  }

  dynamic "access_log_settings" {
    for_each = var.access_log ? [true] : []
    content {
      destination_arn = aws_cloudwatch_log_group.access[0].arn
      # The route, not the path, which may contain a key.
      format = jsonencode({
        at      = "$context.requestTimeEpoch", route = "$context.routeKey", status = "$context.status",
        took_ms = "$context.responseLatency", bytes = "$context.responseLength", error = "$context.integrationErrorMessage",
      })
    }
  }

  tags = local.tags
}

resource "aws_cloudwatch_log_group" "access" {
  count = var.ingress == "http_api" && var.access_log ? 1 : 0

  name              = "/aws/vendedlogs/${var.name}-access"
  retention_in_days = var.log_retention_days
  tags              = local.tags
}

resource "aws_lambda_permission" "http_api" {
  for_each = local.http_api

  statement_id  = "http-api"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.api.function_name
  qualifier     = aws_lambda_alias.live.name
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${aws_apigatewayv2_api.this["this"].execution_arn}/*" # every stage and route of this one API
}

# The cheap ingress: throttled only by the function's concurrency. The function answers preflights, from the keys.
resource "aws_lambda_function_url" "this" {
  for_each = local.url

  function_name      = aws_lambda_function.api.function_name
  qualifier          = aws_lambda_alias.live.name
  authorization_type = "NONE" # browsers have no AWS credentials: write keys authorize
}

resource "aws_lambda_permission" "url" {
  for_each = local.url

  statement_id           = "function-url"
  action                 = "lambda:InvokeFunctionUrl"
  function_name          = aws_lambda_function.api.function_name
  qualifier              = aws_lambda_alias.live.name
  principal              = "*" # the public: it is a public URL
  function_url_auth_type = "NONE"
}

# Since October 2025 a function URL also needs lambda:InvokeFunction, limited to calls through the URL. The provider
# supports that condition only from 6.28 (https://github.com/hashicorp/terraform-provider-aws/issues/44829); without it,
# any account could call the function directly. CloudFormation supports it with every version of the provider.
resource "aws_cloudformation_stack" "url_permission" {
  for_each = local.url

  name = "${var.name}-function-url"
  template_body = jsonencode({
    Resources = {
      Permission = {
        Type = "AWS::Lambda::Permission"
        Properties = {
          Action                = "lambda:InvokeFunction"
          FunctionName          = aws_lambda_alias.live.arn
          Principal             = "*" # the public, only through the URL
          InvokedViaFunctionUrl = true
        }
      }
    }
  })
  tags = local.tags

  depends_on = [aws_lambda_permission.url]
}
