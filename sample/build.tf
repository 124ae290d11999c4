# The API's zip and the processor's image, built on this machine: named by the hash of what goes into them, and built
# again only when it changes. Another machine that changes something else needs neither: Lambda has them.

locals {
  root = "${path.module}/.." # relative, so that it is the same on every machine

  api_sources = flatten([
    for pattern in [
      "api/build_lambda.py", "contract/manymetrics/**/*.py", "api/manymetrics_api/**/*.py", "requirements-lambda.lock",
    ] :
    sort(fileset(local.root, pattern))
  ])
  api_hash = substr(sha256(join("\n", [for name in local.api_sources : "${name} ${filesha256("${local.root}/${name}")}"])), 0, 12)

  image_sources = flatten([
    for pattern in [
      "docker/processor.Dockerfile", "docker/*.{lock,py}", "tests/jvm/pom.xml", "requirements-processor.lock", "pyproject.toml",
      "contract/manymetrics/**/*.py", "processor/manymetrics_processor/**/*.py",
      "docker/geoip/**", # all GeoIP files that are there
    ] :
    sort(fileset(local.root, pattern))
  ])
  image_hash = substr(sha256(join("\n", [for name in local.image_sources : "${name} ${filesha256("${local.root}/${name}")}"])), 0, 12)
  image_tag  = "${var.engine}-${var.processor.architecture}-${local.image_hash}"
}

resource "terraform_data" "api_zip" {
  input            = "${local.root}/build/api-${local.api_hash}/manymetrics-api-arm64.zip"
  triggers_replace = local.api_hash

  # No shell: these are make's arguments.
  provisioner "local-exec" {
    working_dir = local.root
    interpreter = ["make", "--no-print-directory", "package"]
    command     = "PACKAGE_ARGS=--out=build/api-${local.api_hash}"
  }
}

resource "aws_ecr_repository" "processor" {
  name                 = "${var.name}-processor"
  image_tag_mutability = "IMMUTABLE"
  force_delete         = true # images that are built again from their sources

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "KMS" # under AWS's own key for ECR, which costs nothing
  }
}

resource "aws_ecr_lifecycle_policy" "processor" {
  repository = aws_ecr_repository.processor.name
  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "Keep the last 10 images: the current one, and those to roll back to"
      selection    = { tagStatus = "any", countType = "imageCountMoreThan", countNumber = 10 }
      action       = { type = "expire" }
    }]
  })
}

data "aws_caller_identity" "this" {}

data "aws_partition" "this" {}

# Lambda would add this itself, if whoever applies may let it, and has been seen to lose it:
# https://docs.aws.amazon.com/lambda/latest/dg/images-create.html#gettingstarted-images-permissions
resource "aws_ecr_repository_policy" "processor" {
  repository = aws_ecr_repository.processor.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "LambdaPulls"
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      Condition = {
        StringEquals = {
          "aws:SourceArn" = "arn:${data.aws_partition.this.partition}:lambda:${var.region}:${data.aws_caller_identity.this.account_id}:function:${var.name}-processor"
        }
      }
    }]
  })
}

# Good for 12 hours, and in the state as all data is. So no AWS CLI is needed here.
data "aws_ecr_authorization_token" "this" {}

resource "terraform_data" "image" {
  input            = local.image_tag
  triggers_replace = [aws_ecr_repository.processor.repository_url, local.image_tag]

  depends_on = [aws_ecr_repository_policy.processor] # whoever has the image's digest may run it

  # No shell: these are the script's arguments, the image last. Who pushes stands in its environment alone.
  provisioner "local-exec" {
    interpreter = [
      "python3", "${local.root}/docker/build_image.py", "--engine", var.engine, "--architecture", var.processor.architecture, "--push",
    ]
    command = "${aws_ecr_repository.processor.repository_url}:${local.image_tag}"
    environment = {
      REGISTRY_USER     = data.aws_ecr_authorization_token.this.user_name
      REGISTRY_PASSWORD = nonsensitive(data.aws_ecr_authorization_token.this.password) # else Terraform hides all that the build says
    }
  }
}

# Asked for by the tag that was pushed, so it waits for the push, and for nothing else.
data "aws_ecr_image" "processor" {
  repository_name = aws_ecr_repository.processor.name
  image_tag       = terraform_data.image.output
}
