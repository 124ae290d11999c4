# The views, in Athena's format: Glue tables whose text is SQL. views.json is generated from the table contract.

locals {
  views = jsondecode(file("${path.module}/views.json"))
}

resource "aws_glue_catalog_table" "view" {
  for_each = local.views

  database_name = aws_glue_catalog_database.this.name
  name          = each.key
  description   = each.value.description
  owner         = "manymetrics" # optional for Athena; Trino, on EMR or your own, requires it
  table_type    = "VIRTUAL_VIEW"
  parameters    = { presto_view = "true", comment = "Presto View" }
  view_original_text = "/* Presto View: ${base64encode(jsonencode({
    originalSql = each.value.sql
    catalog     = "awsdatacatalog" # lower case, though the console writes AwsDataCatalog
    schema      = aws_glue_catalog_database.this.name
    columns     = [for column in each.value.columns : { name = column.name, type = column.sql_type }]
  }))} */"
  view_expanded_text = "/* Presto View */"

  storage_descriptor {
    location = ""

    dynamic "columns" {
      for_each = each.value.columns
      content {
        name    = columns.value.name
        type    = columns.value.type
        comment = columns.value.comment
      }
    }

    # Athena rejects a view without it: https://github.com/hashicorp/terraform-provider-aws/issues/28517
    ser_de_info {
      name                  = "-"
      serialization_library = "-"
    }
  }

  depends_on = [aws_lambda_invocation.ensure_tables]
}
