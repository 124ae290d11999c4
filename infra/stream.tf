# The stream between the API and the tables. 200 means that an event is in it, and won't be lost.

resource "aws_kinesis_stream" "this" {
  name             = var.name
  shard_count      = var.stream.mode == "PROVISIONED" ? var.stream.shards : null
  retention_period = var.stream.retention_hours
  encryption_type  = "KMS"
  kms_key_id       = local.kms_key_arn

  stream_mode_details {
    stream_mode = var.stream.mode
  }

  tags = local.tags
}
