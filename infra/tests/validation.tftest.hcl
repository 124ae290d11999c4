# What is refused, each by its own variable.

mock_provider "aws" {
  source = "./tests/aws"
}

variables {
  name                = "shop"
  api_package         = { path = "build/manymetrics-api-arm64.zip" }
  processor_image_uri = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop@sha256:0000000000000000000000000000000000000000000000000000000000000000"
}

run "refuses_upper_case_in_the_name" {
  command = plan
  variables {
    name = "Shop"
  }
  expect_failures = [var.name]
}

run "refuses_a_name_too_long" {
  command = plan
  variables {
    name = "a-name-of-twenty-six-chars"
  }
  expect_failures = [var.name]
}

run "refuses_a_name_that_ssm_keeps_for_itself" {
  command = plan
  variables {
    name = "aws-events"
  }
  expect_failures = [var.name]
}

run "refuses_a_name_ending_in_a_hyphen" {
  command = plan
  variables {
    name = "shop-"
  }
  expect_failures = [var.name]
}

run "refuses_a_database_with_a_hyphen" {
  command = plan
  variables {
    database = "shop-eu"
  }
  expect_failures = [var.database]
}

run "refuses_a_database_in_upper_case" {
  command = plan
  variables {
    database = "Shop"
  }
  expect_failures = [var.database]
}

run "refuses_a_database_of_64_letters" {
  command = plan
  variables {
    database = "a234567890123456789012345678901234567890123456789012345678901234"
  }
  expect_failures = [var.database]
}

run "refuses_a_package_that_is_no_zip" {
  command = plan
  variables {
    api_package = { path = "build/api.tar.gz" }
  }
  expect_failures = [var.api_package]
}

run "refuses_an_image_by_tag" {
  command = plan
  variables {
    processor_image_uri = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop:latest"
  }
  expect_failures = [var.processor_image_uri]
}

run "refuses_an_image_without_either" {
  command = plan
  variables {
    processor_image_uri = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop"
  }
  expect_failures = [var.processor_image_uri]
}

run "refuses_another_engine" {
  command = plan
  variables {
    engine = "flink"
  }
  expect_failures = [var.engine]
}

run "refuses_another_ingress" {
  command = plan
  variables {
    ingress = "alb"
  }
  expect_failures = [var.ingress]
}

run "refuses_an_origin_with_a_path" {
  command = plan
  variables {
    allowed_origins = ["https://www.example.com/shop"]
  }
  expect_failures = [var.allowed_origins]
}

run "refuses_no_origin" {
  command = plan
  variables {
    allowed_origins = []
  }
  expect_failures = [var.allowed_origins]
}

run "refuses_a_wildcard_among_origins" {
  command = plan
  variables {
    allowed_origins = ["*", "https://www.example.com"]
  }
  expect_failures = [var.allowed_origins]
}

run "refuses_a_burst_below_the_rate" {
  command = plan
  variables {
    throttle = { rate_per_s = 100, burst = 50 }
  }
  expect_failures = [var.throttle]
}

run "refuses_an_api_that_has_no_time" {
  command = plan
  variables {
    api = { timeout_s = 9 }
  }
  expect_failures = [var.api]
}

run "refuses_an_api_that_outlasts_the_gateway" {
  command = plan
  variables {
    api = { timeout_s = 30 }
  }
  expect_failures = [var.api]
}

run "refuses_another_architecture" {
  command = plan
  variables {
    api = { architecture = "riscv" }
  }
  expect_failures = [var.api]
}

run "refuses_an_api_too_small" {
  command = plan
  variables {
    api = { memory_mb = 128 }
  }
  expect_failures = [var.api]
}

run "refuses_spark_in_too_little_memory" {
  command = plan
  variables {
    processor = { memory_mb = 1024 }
  }
  expect_failures = [var.processor]
}

run "refuses_as_many_runs_as_shards" {
  command = plan
  variables {
    processor = { concurrency = 1 }
  }
  expect_failures = [var.processor]
}

run "refuses_a_processor_of_another_architecture" {
  command = plan
  variables {
    processor = { architecture = "arm" }
  }
  expect_failures = [var.processor]
}

run "refuses_another_stream_mode" {
  command = plan
  variables {
    stream = { mode = "SERVERLESS" }
  }
  expect_failures = [var.stream]
}

run "refuses_no_shard" {
  command = plan
  variables {
    stream = { shards = 0 }
  }
  expect_failures = [var.stream]
}

run "refuses_half_a_day_of_retention" {
  command = plan
  variables {
    stream = { retention_hours = 12 }
  }
  expect_failures = [var.stream]
}

run "refuses_a_window_over_lambda_s_most" {
  command = plan
  variables {
    batch_window_s = 301
  }
  expect_failures = [var.batch_window_s]
}

run "refuses_no_window" {
  command = plan
  variables {
    batch_window_s = 0
  }
  expect_failures = [var.batch_window_s]
}

run "refuses_a_dedup_window_of_none" {
  command = plan
  variables {
    dedup_window_days = 0
  }
  expect_failures = [var.dedup_window_days]
}

run "refuses_half_a_day_of_archive" {
  command = plan
  variables {
    archive_days = 0.5
  }
  expect_failures = [var.archive_days]
}

run "refuses_a_scan_limit_below_athena_s_least" {
  command = plan
  variables {
    athena_scan_limit_gb = 0.001
  }
  expect_failures = [var.athena_scan_limit_gb]
}

run "refuses_results_for_no_day" {
  command = plan
  variables {
    query_result_days = 0
  }
  expect_failures = [var.query_result_days]
}

run "refuses_a_log_retention_that_cloudwatch_lacks" {
  command = plan
  variables {
    log_retention_days = 31
  }
  expect_failures = [var.log_retention_days]
}

run "refuses_logs_without_end" {
  command = plan
  variables {
    log_retention_days = 0
  }
  expect_failures = [var.log_retention_days]
}

run "refuses_a_key_s_alias" {
  command = plan
  variables {
    kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:alias/shop"
  }
  expect_failures = [var.kms_key_arn]
}

run "refuses_an_address_without_at" {
  command = plan
  variables {
    alarm_email = "ops"
  }
  expect_failures = [var.alarm_email]
}

run "refuses_a_budget_of_nothing" {
  command = plan
  variables {
    monthly_budget_usd = 0
  }
  expect_failures = [var.monthly_budget_usd]
}

run "refuses_a_domain_that_is_none" {
  command = plan
  variables {
    domain = { name = "https://events.example.com", zone_id = "Z0123456789" }
  }
  expect_failures = [var.domain]
}

run "refuses_a_domain_for_a_function_url" {
  command = plan
  variables {
    domain  = { name = "events.example.com", zone_id = "Z0123456789" }
    ingress = "function_url"
    api     = { concurrency = 20 }
  }
  expect_failures = [var.domain]
}

run "refuses_a_function_url_that_nothing_bounds" {
  command = plan
  variables {
    ingress = "function_url"
  }
  expect_failures = [var.api]
}

run "refuses_less_than_athenas_least" {
  command = plan
  variables {
    athena_scan_limit_gb = 0.01
  }
  expect_failures = [var.athena_scan_limit_gb]
}

run "takes_athenas_least" {
  command = plan
  variables {
    athena_scan_limit_gb = 0.01048576
  }
}

run "refuses_a_boundary_that_is_no_policy" {
  command = plan
  variables {
    permissions_boundary = "boundary"
  }
  expect_failures = [var.permissions_boundary]
}

run "refuses_a_role_path_without_slashes" {
  command = plan
  variables {
    role_path = "apps"
  }
  expect_failures = [var.role_path]
}

run "refuses_another_partition" {
  command = plan
  override_data {
    target = data.aws_partition.this
    values = { partition = "aws-cn" }
  }
  expect_failures = [aws_iam_role.api]
}

run "refuses_a_reader_that_is_no_arn" {
  command = plan
  variables {
    lake_formation = { readers = ["analysts"] }
  }
  expect_failures = [var.lake_formation]
}
