# Write keys: one SSM parameter, which the API reads again every 30 seconds. Terraform makes it with one random key in it
# and never looks at it again: from then on it is its owner's.

resource "terraform_data" "first_key" {
  # 128 random bits, made once: ignored from then on. Not as an input, whose copy, the output, a destroy's plan would show.
  triggers_replace = sensitive(uuid())

  lifecycle {
    ignore_changes = [triggers_replace]
  }
}

resource "aws_ssm_parameter" "keys" {
  name        = "/${var.name}/write-keys"
  description = "ManyMetrics write keys: [{key, project, kind, origins, revoked}]"
  type        = "SecureString"
  key_id      = local.kms_key_arn
  value       = jsonencode([{ key = "wk_${replace(terraform_data.first_key.triggers_replace, "-", "")}", project = "default" }])
  tags        = local.tags

  lifecycle {
    ignore_changes = [value] # keys that were added and revoked since
  }
}
