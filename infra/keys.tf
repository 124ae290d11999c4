# Write keys: one SSM parameter, which the API rereads every 30 seconds. Terraform creates it with one random key, and
# ignores later changes by its owner.

resource "terraform_data" "first_key" {
  # 128 random bits, created once and then ignored. Not an input, since a destroy's plan would show its output.
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
    ignore_changes = [value] # keys added and revoked since
  }
}
