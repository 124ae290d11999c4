# What `name`, a zip and an image alone come to.

mock_provider "aws" {
  source = "./tests/aws"
}

variables {
  name                = "shop"
  api_package         = { path = "build/manymetrics-api-arm64.zip" }
  processor_image_uri = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop@sha256:0000000000000000000000000000000000000000000000000000000000000000"
}

run "everything_is_made" {
  command = apply

  assert {
    condition     = output.api_instance_url == "https://mock.execute-api.eu-west-1.amazonaws.com"
    error_message = "api_instance_url is ${output.api_instance_url}"
  }

  assert {
    condition     = startswith(output.dashboard_url, "https://eu-west-1.console.aws.amazon.com/")
    error_message = "the region is read where both versions of the provider tell it: ${output.dashboard_url}"
  }

  assert {
    condition     = output.browser_sdk_url == "https://mock.cloudfront.net/sdk/mm.js"
    error_message = "browser_sdk_url is ${output.browser_sdk_url}"
  }

  assert {
    condition     = output.glue_database_name == "shop" && output.query_to_run == "select * from shop.events where received_at > current_timestamp - interval '1' day order by received_at desc limit 20"
    error_message = "the tables are in ${output.glue_database_name}"
  }

  assert {
    condition     = can(regex("^wk_[0-9a-f]{32}$", output.write_key)) && aws_ssm_parameter.keys.value == jsonencode([{ key = output.write_key, project = "default" }])
    error_message = "the first key is random and in the parameter"
  }

  assert {
    condition     = issensitive(terraform_data.first_key.triggers_replace) && terraform_data.first_key.output == null
    error_message = "no plan shows the first key, not even that of a destroy"
  }

  assert {
    condition     = contains(keys(aws_s3_object.sdk), "sdk/mm.js") && contains(keys(aws_s3_object.sdk), trimprefix(output.browser_sdk_pinned_url, "https://mock.cloudfront.net/"))
    error_message = "both paths of the SDK's script lead to an object"
  }

  assert {
    condition     = [for b in aws_s3_bucket.this : b.bucket if length(b.bucket) > 63] == []
    error_message = "a bucket's name may have 63 characters"
  }
}

run "a_second_apply_keeps_the_first_key" {
  command = apply

  assert {
    condition     = output.write_key == run.everything_is_made.write_key
    error_message = "a write key is made once and kept"
  }
}

run "the_stream_is_the_cheapest_there_is" {
  command = plan

  assert {
    condition     = aws_kinesis_stream.this.stream_mode_details[0].stream_mode == "PROVISIONED" && aws_kinesis_stream.this.shard_count == 1 && aws_kinesis_stream.this.retention_period == 24
    error_message = "one provisioned shard, kept for a day"
  }

  assert {
    condition     = aws_lambda_event_source_mapping.stream.maximum_batching_window_in_seconds == 300
    error_message = "the window is 300 s"
  }
}

run "a_batch_that_fails_is_tried_until_near_the_retention_and_then_kept_whole" {
  command = apply

  assert {
    condition     = aws_lambda_event_source_mapping.stream.maximum_retry_attempts == -1 && aws_lambda_event_source_mapping.stream.maximum_record_age_in_seconds == 72000
    error_message = "tried without limit for 20 of 24 hours"
  }

  assert {
    condition     = aws_lambda_event_source_mapping.stream.bisect_batch_on_function_error && aws_lambda_event_source_mapping.stream.function_response_types == toset(["ReportBatchItemFailures"])
    error_message = "a part that fails takes no other with it"
  }

  assert {
    condition     = aws_lambda_event_source_mapping.stream.destination_config[0].on_failure[0].destination_arn == aws_s3_bucket.this["failures"].arn
    error_message = "what is given up goes to S3, which keeps the records themselves"
  }

  assert {
    condition     = aws_lambda_event_source_mapping.stream.parallelization_factor == 1
    error_message = "the watermark needs one reader a shard"
  }
}

run "the_tables_are_made_at_apply_and_maintained_every_hour" {
  command = plan

  assert {
    condition     = jsondecode(aws_lambda_invocation.ensure_tables.input) == { action = "ensure_tables" }
    error_message = "the tables are there before the first event"
  }

  assert {
    condition     = jsondecode(aws_cloudwatch_event_target.maintain["hourly"].input) == { action = "maintain", orphans = false } && aws_cloudwatch_event_rule.maintain["hourly"].schedule_expression == "cron(0 * * * ? *)"
    error_message = "maintenance runs every hour"
  }

  assert {
    condition     = jsondecode(aws_cloudwatch_event_target.maintain["daily"].input).orphans && aws_cloudwatch_event_rule.maintain["daily"].schedule_expression != aws_cloudwatch_event_rule.maintain["hourly"].schedule_expression
    error_message = "orphans are looked for once a day, and not beside the hourly run"
  }

  assert {
    condition = (
      aws_cloudwatch_metric_alarm.this["processor-errors"].period * aws_cloudwatch_metric_alarm.this["processor-errors"].evaluation_periods >= 2 * 3600
      && aws_cloudwatch_metric_alarm.this["processor-errors"].datapoints_to_alarm == 2
    )
    error_message = "maintenance that fails each hour is told of"
  }

  assert {
    condition     = length(aws_glue_catalog_table_optimizer.this) == 0
    error_message = "Glue's optimizers are off"
  }
}

run "commits_that_fail_are_told_of_though_lambda_counts_no_error" {
  command = plan

  assert {
    condition = (
      aws_cloudwatch_metric_alarm.this["iterator-age"].threshold <= 3600 * 1000
      && aws_cloudwatch_metric_alarm.this["iterator-age"].threshold > 2 * 1000 * aws_lambda_event_source_mapping.stream.maximum_batching_window_in_seconds
    )
    error_message = "at an hour, which no window comes near"
  }

  assert {
    condition = (
      aws_cloudwatch_metric_alarm.this["iterator-age"].period * aws_cloudwatch_metric_alarm.this["iterator-age"].evaluation_periods
      > aws_lambda_function.processor.timeout * aws_cloudwatch_metric_alarm.this["iterator-age"].datapoints_to_alarm
    )
    error_message = "also where each delivery takes all the time that it has, and tells its age once in that"
  }
}

run "a_stack_that_nobody_sends_to_yet_is_silent" {
  command = apply

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["no-events"].treat_missing_data == "missing" && aws_cloudwatch_metric_alarm.this["no-events"].insufficient_data_actions == toset([aws_sns_topic.alarms.arn])
    error_message = "silence is told by the state that a new alarm is in, so only once it was left"
  }

  assert {
    condition     = [for key, alarm in aws_cloudwatch_metric_alarm.this : key if key != "no-events" && (alarm.treat_missing_data != "notBreaching" || length(alarm.insufficient_data_actions) > 0)] == []
    error_message = "no other alarm tells of silence"
  }
}

run "a_fresh_account_can_apply_it" {
  command = plan

  assert {
    condition     = aws_lambda_function.api.reserved_concurrent_executions == -1 && aws_lambda_function.processor.reserved_concurrent_executions == -1
    error_message = "nothing is reserved: an account whose limit is 10 has nothing to reserve"
  }
}

run "the_gateway_speaks_payload_2_and_leaves_paths_to_the_function" {
  command = plan

  assert {
    condition     = aws_apigatewayv2_integration.api["this"].payload_format_version == "2.0"
    error_message = "the provider's default is 1.0"
  }

  assert {
    condition     = [for route in aws_apigatewayv2_route.this : route.route_key] == ["$default"]
    error_message = "a path that ends in / reaches the function by $default alone"
  }
}
