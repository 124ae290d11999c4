provider "aws" {
  region = var.region

  default_tags {
    tags = { Application = "ManyMetrics", Stack = var.name }
  }
}
