# Lake Formation, for accounts that use it in addition to IAM: registers the tables' files, and grants the processor and the readers
# their permissions. The identity that applies must be one of its administrators.

locals {
  governed = var.lake_formation == null ? [] : ["this"]

  # By role, since an ARN may not be known before the apply.
  lake_principals = { for who, arn in merge(
    { processor = aws_iam_role.processor.arn },
    { for role in aws_iam_role.optimizer : "optimizer" => role.arn },
    { for number, arn in try(var.lake_formation.readers, []) : "reader-${number}" => arn },
  ) : who => arn if var.lake_formation != null }

  # Permissions of each on the database, and on every table in it.
  lake_permissions = {
    processor = { database = ["CREATE_TABLE", "DESCRIBE"], tables = ["ALTER", "DESCRIBE"] }
    optimizer = { database = ["DESCRIBE"], tables = ["ALTER", "DELETE", "DESCRIBE", "INSERT", "SELECT"] }
    reader    = { database = ["DESCRIBE"], tables = ["DESCRIBE", "SELECT"] }
  }

  # For roles of the stack that access files through Lake Formation.
  lake_keys = { Sid = "Keys", Effect = "Allow", Action = "lakeformation:GetDataAccess", Resource = "*" } # supports no resources
}

resource "aws_lakeformation_resource" "tables" {
  for_each = toset(local.governed)

  arn      = "${aws_s3_bucket.this["lake"].arn}/${trimsuffix(local.tables_prefix, "/")}"
  role_arn = aws_iam_role.lake_formation["this"].arn

  depends_on = [aws_iam_role_policy.lake_formation]
}

resource "aws_lakeformation_permissions" "database" {
  for_each = local.lake_principals

  principal   = each.value
  permissions = local.lake_permissions[split("-", each.key)[0]].database

  database {
    name = aws_glue_catalog_database.this.name
  }
}

resource "aws_lakeformation_permissions" "tables" {
  for_each = local.lake_principals

  principal   = each.value
  permissions = local.lake_permissions[split("-", each.key)[0]].tables

  table {
    database_name = aws_glue_catalog_database.this.name
    wildcard      = true # also future tables, and the views
  }
}

# Creating a table requires access to its location. Readers create none.
resource "aws_lakeformation_permissions" "location" {
  for_each = { for who, arn in local.lake_principals : who => arn if !startswith(who, "reader-") }

  principal   = each.value
  permissions = ["DATA_LOCATION_ACCESS"]

  data_location {
    arn = aws_lakeformation_resource.tables["this"].arn
  }
}

# The role with which Lake Formation vends credentials: to readers through Athena, and to Glue's optimizers, which write.
resource "aws_iam_role" "lake_formation" {
  for_each = toset(local.governed)

  name                 = "${var.name}-lake-formation"
  path                 = var.role_path
  permissions_boundary = var.permissions_boundary
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "lakeformation.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
  tags = local.tags
}

resource "aws_iam_role_policy" "lake_formation" {
  for_each = toset(local.governed)

  name = "reach-tables"
  role = aws_iam_role.lake_formation[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "Files"
        Effect   = "Allow"
        Action   = concat(["s3:GetObject"], var.glue_optimizers ? ["s3:DeleteObject", "s3:PutObject"] : [])
        Resource = "${aws_s3_bucket.this["lake"].arn}/${local.tables_prefix}*" # the files of the tables, by their folder
      },
      { Sid = "List", Effect = "Allow", Action = "s3:ListBucket", Resource = aws_s3_bucket.this["lake"].arn },
      {
        Sid       = "Key"
        Effect    = "Allow"
        Action    = concat(["kms:Decrypt"], var.glue_optimizers ? ["kms:GenerateDataKey"] : [])
        Resource  = local.kms_key_arn
        Condition = { StringEquals = { "kms:ViaService" = "s3.${local.region}.amazonaws.com" } }
      },
    ]
  })
}
