# What sample/ makes of a first user's choices, one apply after the other. It runs in a copy where what builds is a
# stand-in: a provisioner runs in tests too.

mock_provider "aws" {
  source = "../infra/tests/aws"

  mock_data "aws_ecr_authorization_token" {
    defaults = { user_name = "AWS", password = "token-of-12-hours" }
  }

  mock_data "aws_ecr_image" {
    defaults = { image_digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000" }
  }

  mock_resource "aws_ecr_repository" {
    defaults = { repository_url = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sample-processor" }
  }
}

variables {
  name = "sample"
}

run "first" {
}

run "more_memory" {
  variables {
    processor = { memory_mb = 3008 }
  }
}

run "arrow" {
  variables {
    engine         = "arrow"
    processor      = { architecture = "arm64" }
    batch_window_s = 60
    alarm_email    = "ops@example.com"
  }
}
