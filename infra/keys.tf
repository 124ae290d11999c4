# Write keys: one SSM parameter, which the API reads again every 30 seconds. Terraform makes it with one random key in it
# and never looks at it again: from then on it is its owner's.

resource "terraform_data" "first_key" {
  input = uuid() # 122 random bits, made once: ignored from then on

  lifecycle {
    ignore_changes = [input]
  }
}

resource "aws_ssm_parameter" "keys" {
  name        = "/${var.name}/write-keys"
  description = "ManyMetrics write keys: [{key, project, kind, origins, revoked}]"
  type        = "SecureString"
  key_id      = local.kms_key_arn
  value       = jsonencode([{ key = "wk_${replace(terraform_data.first_key.output, "-", "")}", project = "default" }])
  tags        = local.tags

  lifecycle {
    ignore_changes = [value] # keys that were added and revoked since
  }
}
