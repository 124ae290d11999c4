# The sample page beside the SDK, on CloudFront: the page that one machine shows at /sample, with other words in its places.
# It holds the first write key, as every page that sends events does.

locals {
  script_tag = join(" ", [
    "<script defer src=\"${module.manymetrics.browser_sdk_pinned_url}\" integrity=\"${module.manymetrics.browser_sdk_integrity}\"",
    "crossorigin=\"anonymous\" data-key=\"${module.manymetrics.write_key}\" data-host=\"${module.manymetrics.api_instance_url}\"></script>",
  ])

  page = templatefile("${path.module}/page/index.html", {
    where     = "hosted"
    sdk       = local.script_tag
    shown_sdk = replace(replace(replace(local.script_tag, "&", "&amp;"), "<", "&lt;"), ">", "&gt;")
    project   = "default"
    host      = module.manymetrics.api_instance_url
    athena    = local.athena_url
    workgroup = module.manymetrics.athena_workgroup
    database  = module.manymetrics.glue_database_name
    wait      = var.batch_window_s > 60 ? "about ${ceil(var.batch_window_s / 60)} minutes" : "a minute or two"
    query     = "" # for one machine
  })

  athena_url = "https://${var.region}.console.aws.amazon.com/athena/home?region=${var.region}#/query-editor"

  page_types = { css = "text/css; charset=utf-8", js = "text/javascript; charset=utf-8", svg = "image/svg+xml" }
}

# Under the second the page comes by its own link, and may be loaded again.
resource "aws_s3_object" "page" {
  for_each = toset(["sample", "sample/about"])

  bucket        = module.manymetrics.site.bucket
  key           = each.value
  content       = local.page
  content_type  = "text/html; charset=utf-8"
  cache_control = "no-cache"
}

resource "aws_s3_object" "page_file" {
  for_each = fileset("${path.module}/page", "*.{css,js,svg}")

  bucket        = module.manymetrics.site.bucket
  key           = "sample/${each.value}"
  source        = "${path.module}/page/${each.value}"
  source_hash   = filemd5("${path.module}/page/${each.value}")
  content_type  = local.page_types[regex("[^.]+$", each.value)]
  cache_control = "no-cache"
}
