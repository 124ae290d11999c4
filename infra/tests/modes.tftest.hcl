# What the switches switch.

mock_provider "aws" {
  source = "./tests/aws"
}

variables {
  name                = "shop"
  api_package         = { path = "build/manymetrics-api-arm64.zip" }
  processor_image_uri = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop@sha256:0000000000000000000000000000000000000000000000000000000000000000"
}

run "a_function_url_in_place_of_the_gateway" {
  command = apply
  variables {
    ingress = "function_url"
    api     = { concurrency = 20 }
  }

  assert {
    condition     = length(aws_apigatewayv2_api.this) == 0 && length(aws_apigatewayv2_route.this) == 0 && output.api_instance_url == "https://mock.lambda-url.eu-west-1.on.aws"
    error_message = "no gateway, and the URL is the function's"
  }

  assert {
    condition     = jsondecode(aws_cloudformation_stack.url_permission["this"].template_body).Resources.Permission.Properties.InvokedViaFunctionUrl
    error_message = "nobody may call the function but by its URL"
  }

  assert {
    condition     = length(aws_lambda_function_url.this["this"].cors) == 0
    error_message = "the function answers preflights, from its keys"
  }
}

run "a_database_is_named_as_the_stack_is_in_letters_that_sql_takes" {
  command = apply
  variables {
    name = "shop-eu-2"
  }

  assert {
    condition     = output.glue_database_name == "shop_eu_2" && aws_lambda_function.processor.environment[0].variables.MANYMETRICS_DATABASE == "shop_eu_2"
    error_message = "the processor is told of ${output.glue_database_name}"
  }
}

run "a_database_of_your_own_choice" {
  command = apply
  variables {
    database        = "clicks"
    glue_optimizers = true
  }

  assert {
    condition     = output.glue_database_name == "clicks" && aws_lambda_function.processor.environment[0].variables.MANYMETRICS_DATABASE == "clicks" && aws_lambda_invocation.ensure_tables.triggers.database == "clicks"
    error_message = "the processor makes the tables there"
  }

  assert {
    condition = alltrue([
      for view in aws_glue_catalog_table.view : view.database_name == "clicks" && jsondecode(base64decode(regex("Presto View: ([^ ]+) ", view.view_original_text)[0])).schema == "clicks"
    ]) && length(aws_glue_catalog_table.view) > 0
    error_message = "the views are there, and read from there"
  }

  assert {
    condition     = alltrue([for query in aws_athena_named_query.this : query.database == "clicks"])
    error_message = "the saved queries ask there"
  }

  assert {
    condition = alltrue(flatten([
      for policy in [aws_iam_role_policy.processor.policy, aws_iam_role_policy.optimizer[0].policy] : [
        for arn in flatten([for statement in jsondecode(policy).Statement : statement.Resource if can(regex("glue:", join(" ", flatten([statement.Action]))))]) :
        can(regex(":(catalog|database/clicks|table/clicks/(events|dead_letters))$", arn))
      ]
    ]))
    error_message = "the roles reach this database alone"
  }

  assert {
    condition = alltrue([
      for one in aws_glue_catalog_table_optimizer.this : one.database_name == "clicks" && alltrue([
        for place in flatten(one.configuration[0].orphan_file_deletion_configuration[*].iceberg_configuration[*].location) : endswith(place, "/tables/clicks/${one.table_name}")
      ])
    ])
    error_message = "Glue optimizes its tables, where their files are"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["dead-letters"].dimensions.Database == "clicks" && strcontains(aws_cloudwatch_dashboard.this.dashboard_body, "\"ManyMetrics\",\"stored\",\"Database\",\"clicks\"")
    error_message = "its metrics are told from another stack's"
  }
}

run "arrow_takes_half_the_memory" {
  command = plan
  variables {
    engine = "arrow"
  }

  assert {
    condition     = aws_lambda_function.processor.memory_size == 1024
    error_message = "1 GB is enough for arrow"
  }
}

run "addresses_and_user_agents_are_kept_or_not" {
  command = plan
  variables {
    processor = { ip = "truncate", user_agent = "drop" }
  }

  assert {
    condition     = aws_lambda_function.processor.environment[0].variables.MANYMETRICS_IP == "truncate" && aws_lambda_function.processor.environment[0].variables.MANYMETRICS_USER_AGENT == "drop"
    error_message = "the processor is told"
  }
}

run "spark_takes_a_whole_core" {
  command = plan

  assert {
    condition     = aws_lambda_function.processor.memory_size == 1792
    error_message = "1792 MB for spark, with which Lambda gives one core"
  }
}

run "an_on_demand_stream_has_no_shard_count" {
  command = plan
  variables {
    stream = { mode = "ON_DEMAND" }
  }

  assert {
    condition     = aws_kinesis_stream.this.shard_count == null
    error_message = "AWS refuses both"
  }
}

run "a_week_of_retention_moves_the_record_age_and_not_the_alarm" {
  command = plan
  variables {
    stream = { retention_hours = 168 }
  }

  assert {
    condition     = aws_lambda_event_source_mapping.stream.maximum_record_age_in_seconds == 164 * 3600
    error_message = "4 hours are left to act in"
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["iterator-age"].threshold == 3600 * 1000
    error_message = "the alarm comes at an hour"
  }
}

run "a_year_of_retention_stays_below_lambda_s_most" {
  command = plan
  variables {
    stream = { retention_hours = 8760 }
  }

  assert {
    condition     = aws_lambda_event_source_mapping.stream.maximum_record_age_in_seconds == 604800
    error_message = "Lambda's most is 7 days"
  }
}

run "the_archive_is_kept_for_its_days" {
  command = apply
  variables {
    archive_days = 90
  }

  assert {
    condition     = aws_lambda_function.processor.environment[0].variables.MANYMETRICS_ARCHIVE == "s3://${aws_s3_bucket.this["lake"].id}/archive"
    error_message = "the processor knows where"
  }

  assert {
    condition     = [for r in aws_s3_bucket_lifecycle_configuration.this["lake"].rule : "${r.filter[0].prefix} ${r.expiration[0].days}" if length(r.expiration) > 0 && r.id != "versions"] == ["archive/ 90"]
    error_message = "only the archive expires"
  }
}

run "your_own_key" {
  command = plan
  variables {
    kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/99999999-2222-3333-4444-555555555555"
  }

  assert {
    condition     = length(aws_kms_key.this) == 0 && aws_kinesis_stream.this.kms_key_id == var.kms_key_arn
    error_message = "no key is made"
  }
}

run "a_domain_of_your_own" {
  command = apply
  variables {
    domain = { name = "events.example.com", zone_id = "Z0123456789" }
  }

  assert {
    condition     = output.api_instance_url == "https://events.example.com" && aws_apigatewayv2_api.this["this"].disable_execute_api_endpoint
    error_message = "the domain is the one way in"
  }

  assert {
    condition     = aws_apigatewayv2_domain_name.api["this"].domain_name_configuration[0].security_policy == "TLS_1_2" && toset([for r in aws_route53_record.api : r.type]) == toset(["A", "AAAA"])
    error_message = "with TLS 1.2, by IPv4 and IPv6"
  }
}

run "optimizers_budget_mail_and_access_log" {
  command = apply
  variables {
    glue_optimizers    = true
    monthly_budget_usd = 50
    alarm_email        = "ops@example.com"
    access_log         = true
  }

  assert {
    condition     = length(aws_glue_catalog_table_optimizer.this) == 6
    error_message = "three for each table"
  }

  assert {
    condition     = aws_budgets_budget.this[0].limit_amount == "50" && aws_sns_topic_subscription.email[0].endpoint == "ops@example.com"
    error_message = "the budget is told to the address"
  }

  assert {
    condition     = !strcontains(aws_apigatewayv2_stage.this["this"].access_log_settings[0].format, "sourceIp") && !strcontains(aws_apigatewayv2_stage.this["this"].access_log_settings[0].format, "$context.path")
    error_message = "no address and no key in the access log"
  }
}

run "nothing_is_protected" {
  command = plan
  variables {
    protect_data = false
  }

  assert {
    condition     = alltrue([for b in aws_s3_bucket.this : b.force_destroy])
    error_message = "destroy leaves nothing"
  }
}

run "more_tags_than_an_object_takes" {
  command = plan
  variables {
    tags = { for number in range(20) : "Tag${number}" => "value" }
  }

  assert {
    condition     = length(aws_kinesis_stream.this.tags) == 22 && [for key, object in aws_s3_object.sdk : key if length(object.tags) > 10] == []
    error_message = "S3 refuses an object with more than 10 tags"
  }
}

run "roles_have_the_path_and_the_boundary_that_an_account_asks_for" {
  command = apply
  variables {
    role_path            = "/apps/"
    permissions_boundary = "arn:aws:iam::123456789012:policy/boundary"
    glue_optimizers      = true
    lake_formation       = {}
  }

  assert {
    condition = alltrue([
      for role in [aws_iam_role.api, aws_iam_role.processor, aws_iam_role.optimizer[0], aws_iam_role.lake_formation["this"]] :
      role.path == "/apps/" && role.permissions_boundary == "arn:aws:iam::123456789012:policy/boundary"
    ])
    error_message = "each role of the stack"
  }
}

run "a_batch_that_is_given_up_is_told_of_at_once" {
  command = apply

  assert {
    condition     = aws_s3_bucket_notification.given_up.topic[0].topic_arn == aws_sns_topic.alarms.arn && aws_s3_bucket_notification.given_up.topic[0].events == toset(["s3:ObjectCreated:*"])
    error_message = "S3 tells of each object in the failures bucket"
  }
}

run "the_lake_keeps_what_was_deleted_for_a_week" {
  command = apply

  assert {
    condition     = aws_s3_bucket_versioning.lake.versioning_configuration[0].status == "Enabled"
    error_message = "a table can be brought back"
  }

  assert {
    condition     = [for rule in aws_s3_bucket_lifecycle_configuration.this["lake"].rule : rule.noncurrent_version_expiration[0].noncurrent_days if rule.id == "versions"] == [7]
    error_message = "and not for longer"
  }
}

run "the_lake_keeps_nothing_that_was_deleted_if_it_is_told_so" {
  command = apply
  variables {
    lake_version_days = 0
  }

  assert {
    condition     = aws_s3_bucket_versioning.lake.versioning_configuration[0].status == "Suspended"
    error_message = "what was kept before goes within a day"
  }
}

run "where_lake_formation_decides_too" {
  command = apply
  variables {
    lake_formation  = { readers = ["arn:aws:iam::123456789012:role/analysts"] }
    glue_optimizers = true
    name            = "governed"
  }

  assert {
    condition     = aws_lakeformation_resource.tables["this"].arn == "${aws_s3_bucket.this["lake"].arn}/tables" && aws_lakeformation_resource.tables["this"].role_arn == aws_iam_role.lake_formation["this"].arn
    error_message = "the files of the tables are registered, and nothing else in the bucket"
  }

  assert {
    condition = { for who, grant in aws_lakeformation_permissions.database : who => join(" ", grant.permissions) } == {
      processor = "CREATE_TABLE DESCRIBE", optimizer = "DESCRIBE", reader-0 = "DESCRIBE"
    }
    error_message = "only the processor makes tables"
  }

  assert {
    condition = { for who, grant in aws_lakeformation_permissions.tables : who => join(" ", grant.permissions) } == {
      processor = "ALTER DESCRIBE", optimizer = "ALTER DELETE DESCRIBE INSERT SELECT", reader-0 = "DESCRIBE SELECT"
    }
    error_message = "readers change nothing"
  }

  assert {
    condition     = alltrue([for grant in aws_lakeformation_permissions.tables : grant.table[0].wildcard && grant.table[0].database_name == "governed"])
    error_message = "on every table and view of the database, those to come too"
  }

  assert {
    condition     = keys(aws_lakeformation_permissions.location) == ["optimizer", "processor"]
    error_message = "who changes tables may say where their files are"
  }

  assert {
    condition     = aws_lakeformation_permissions.tables["reader-0"].principal == "arn:aws:iam::123456789012:role/analysts"
    error_message = "the reader is who was named"
  }

  assert {
    condition     = anytrue([for statement in jsondecode(aws_iam_role_policy.optimizer[0].policy).Statement : statement.Action == "lakeformation:GetDataAccess"])
    error_message = "Glue's optimizers reach the files by way of it"
  }
}

run "lake_formation_without_readers_lets_no_role_of_its_own_write" {
  command = apply
  variables {
    lake_formation = {}
  }

  assert {
    condition     = keys(aws_lakeformation_permissions.tables) == ["processor"]
    error_message = "the processor alone is granted something"
  }

  assert {
    condition     = flatten([for statement in jsondecode(aws_iam_role_policy.lake_formation["this"].policy).Statement : statement.Action]) == ["s3:GetObject", "s3:ListBucket", "kms:Decrypt"]
    error_message = "what it hands out keys of can only read"
  }
}

run "iam_alone_decides_unless_said_otherwise" {
  command = apply
  variables {
    glue_optimizers = true
  }

  assert {
    condition     = length(aws_lakeformation_resource.tables) + length(aws_lakeformation_permissions.database) + length(aws_lakeformation_permissions.tables) + length(aws_lakeformation_permissions.location) + length(aws_iam_role.lake_formation) == 0
    error_message = "nothing of Lake Formation is touched"
  }

  assert {
    condition     = !strcontains(aws_iam_role_policy.optimizer[0].policy, "lakeformation")
    error_message = "nor allowed"
  }
}
