# Required and optional inputs. The two without a default are the builds: the API's zip and the processor's image.

variable "name" {
  description = "Name of the stack and prefix of its resources: 3 to 24 lower-case letters, digits and hyphens, beginning with a letter."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 24 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen."
  }

  validation {
    condition     = !can(regex("^(aws|ssm)", var.name))
    error_message = "name must not begin with aws or ssm: SSM, which stores the write keys, reserves such names."
  }
}

variable "database" {
  description = "The Glue database of the tables: 1 to 63 lower-case letters, digits and underscores, beginning with a letter; null: name, with _ for -."
  type        = string
  default     = null

  validation {
    condition     = var.database == null ? true : can(regex("^[a-z][a-z0-9_]{0,62}$", var.database))
    error_message = "database must be 1 to 63 lower-case letters, digits and underscores, beginning with a letter."
  }
}

variable "tags" {
  description = "Tags for every resource, in addition to Application and Stack. The SDK's files have only these two: S3 allows at most 10 per object."
  type        = map(string)
  default     = {}
}

variable "api_package" {
  description = "The API's zip for Lambda, and its filebase64sha256, which triggers updates of the function. Without a hash, the file's name must change with its content."
  type = object({
    path = string
    hash = optional(string)
  })

  validation {
    condition     = endswith(var.api_package.path, ".zip")
    error_message = "api_package.path must be a .zip, as built by `make package`."
  }
}

variable "processor_image_uri" {
  description = "The processor's image in ECR, by digest: a plan would not show that a tag was moved to another image."
  type        = string

  validation {
    condition     = can(regex("^[^@:]+(:[0-9]+)?/[^@]+@sha256:[0-9a-f]{64}$", var.processor_image_uri))
    error_message = "processor_image_uri must be repository@sha256:digest; a tag is rejected, since it can be moved."
  }
}

variable "engine" {
  description = "Engine with which the processor commits: spark, or arrow, which needs no JVM and half the memory."
  type        = string
  default     = "spark"

  validation {
    condition     = contains(["spark", "arrow"], var.engine)
    error_message = "engine must be spark or arrow."
  }
}

variable "ingress" {
  description = "Ingress for events: http_api, which throttles; or function_url, which costs nothing per request and doesn't throttle."
  type        = string
  default     = "http_api"

  validation {
    condition     = contains(["http_api", "function_url"], var.ingress)
    error_message = "ingress must be http_api or function_url."
  }
}

variable "allowed_origins" {
  description = "CORS origins of the HTTP API: the union of the write keys' origins. Each event is also checked against the origins of its key."
  type        = list(string)
  default     = ["*"]

  validation {
    condition     = length(var.allowed_origins) > 0 && alltrue([for origin in var.allowed_origins : origin == "*" || can(regex("^https?://[^/*]+$", origin))])
    error_message = "allowed_origins must be origins such as https://www.example.com, without a path, or only *."
  }

  validation {
    condition     = length(var.allowed_origins) == 1 || !contains(var.allowed_origins, "*")
    error_message = "allowed_origins must be either only *, or origins."
  }
}

variable "domain" {
  description = "Custom domain of the HTTP API, such as events.example.com, and the id of its Route 53 zone; null uses the default AWS domain."
  type = object({
    name    = string
    zone_id = string
  })
  default = null

  validation {
    condition     = var.domain == null ? true : can(regex("^([a-z0-9-]+[.])+[a-z]{2,}$", var.domain.name))
    error_message = "domain.name must be a fully qualified name in lower case, such as events.example.com."
  }

  validation {
    condition     = var.domain == null || var.ingress == "http_api"
    error_message = "domain requires ingress http_api: function URLs don't support custom domains."
  }
}

variable "throttle" {
  description = "Throttle of the HTTP API: requests per second, and burst. Excess requests get 429, which SDKs retry."
  type = object({
    rate_per_s = optional(number, 500)
    burst      = optional(number, 1000)
  })
  default = {}

  validation {
    condition     = var.throttle.rate_per_s >= 1 && var.throttle.burst >= var.throttle.rate_per_s
    error_message = "throttle must have a rate of at least 1 per second, and a burst of at least the rate."
  }
}

variable "permissions_boundary" {
  description = "ARN of the permissions boundary of every role of the stack, if your account requires one; null sets none."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary == null ? true : can(regex("^arn:aws:iam::([0-9]{12}|aws):policy/.+$", var.permissions_boundary))
    error_message = "permissions_boundary must be the ARN of a policy, such as arn:aws:iam::123456789012:policy/boundary."
  }
}

variable "role_path" {
  description = "Path of the stack's roles, if your account requires one, such as /apps/."
  type        = string
  default     = "/"

  validation {
    condition     = can(regex("^/([!-~]+/)?$", var.role_path)) && length(var.role_path) <= 512
    error_message = "role_path must begin and end with a slash, such as /apps/."
  }
}

variable "api" {
  description = "The API's function. concurrency reserves and limits concurrent executions; null reserves none, which accounts with a limit of 10 require. A function URL requires a value, or -1 for none, since nothing else limits the cost of unwanted requests."
  type = object({
    architecture = optional(string, "arm64")
    memory_mb    = optional(number, 256)
    timeout_s    = optional(number, 15)
    concurrency  = optional(number)
  })
  default = {}

  validation {
    condition     = contains(["arm64", "x86_64"], var.api.architecture)
    error_message = "api.architecture must be arm64 or x86_64, for which the zip was built."
  }

  validation {
    condition     = var.api.timeout_s >= 10 && var.api.timeout_s <= 29
    error_message = "api.timeout_s must be 10 to 29: storing an event may take 5 s and reading the keys 3 s, and an HTTP API waits 30 s."
  }

  validation {
    condition     = var.api.memory_mb >= 256 && var.api.memory_mb <= 10240
    error_message = "api.memory_mb must be 256 to 10240."
  }

  validation {
    condition     = var.ingress == "http_api" || var.api.concurrency != null
    error_message = "api.concurrency is required with a function URL, such as 20: only it limits the cost of unwanted requests. -1 reserves none, which accounts with a limit of 10 require."
  }
}

variable "processor" {
  description = "The processor's function. memory_mb null: 1792 for spark, 1024 for arrow. concurrency as for the API; reserve at least the number of shards plus one. ip (keep, truncate to /24 and /48, or drop) and user_agent (keep or drop): how both are stored, after location and device are derived; a write key's own rules take precedence."
  type = object({
    architecture = optional(string, "x86_64")
    memory_mb    = optional(number)
    scratch_mb   = optional(number, 1024)
    concurrency  = optional(number)
    ip           = optional(string, "keep")
    user_agent   = optional(string, "keep")
  })
  default = {}

  validation {
    condition     = contains(["keep", "truncate", "drop"], var.processor.ip)
    error_message = "processor.ip must be keep, truncate or drop."
  }

  validation {
    condition     = contains(["keep", "drop"], var.processor.user_agent)
    error_message = "processor.user_agent must be keep or drop."
  }

  validation {
    condition     = contains(["arm64", "x86_64"], var.processor.architecture)
    error_message = "processor.architecture must be arm64 or x86_64, for which the image was built."
  }

  validation {
    condition     = var.processor.memory_mb == null ? true : var.processor.memory_mb >= (var.engine == "spark" ? 1792 : 1024) && var.processor.memory_mb <= 10240
    error_message = "processor.memory_mb must be 1792 (spark) or 1024 (arrow) to 10240."
  }

  validation {
    condition     = var.processor.concurrency == null || var.stream.mode == "ON_DEMAND" ? true : var.processor.concurrency > var.stream.shards
    error_message = "processor.concurrency must be greater than the number of shards: each shard has one reader, and maintenance runs concurrently."
  }
}

variable "stream" {
  description = "The Kinesis stream. ON_DEMAND scales automatically, for $29 a month when idle, compared with $11 a shard (us-east-1). A longer retention survives longer outages, and costs more."
  type = object({
    mode            = optional(string, "PROVISIONED")
    shards          = optional(number, 1)
    retention_hours = optional(number, 24)
  })
  default = {}

  validation {
    condition     = contains(["PROVISIONED", "ON_DEMAND"], var.stream.mode)
    error_message = "stream.mode must be PROVISIONED or ON_DEMAND."
  }

  validation {
    condition     = var.stream.shards >= 1 && var.stream.shards <= 500
    error_message = "stream.shards must be 1 to 500."
  }

  validation {
    condition     = var.stream.retention_hours >= 24 && var.stream.retention_hours <= 8760
    error_message = "stream.retention_hours must be 24 to 8760."
  }
}

variable "batch_window_s" {
  description = "Longest time from event to table, in seconds. Each commit costs: 300, the maximum, is the cheapest."
  type        = number
  default     = 300

  validation {
    condition     = var.batch_window_s >= 1 && var.batch_window_s <= 300
    error_message = "batch_window_s must be 1 to 300."
  }
}

variable "dedup_window_days" {
  description = "Number of UTC days after an event within which the same messageId is a duplicate."
  type        = number
  default     = 7

  validation {
    condition     = var.dedup_window_days >= 1 && var.dedup_window_days <= 400
    error_message = "dedup_window_days must be 1 to 400."
  }
}

variable "archive_days" {
  description = "Number of days for which raw records are kept, from which the tables can be rebuilt; 0 keeps none."
  type        = number
  default     = 0

  validation {
    condition     = var.archive_days >= 0 && floor(var.archive_days) == var.archive_days
    error_message = "archive_days must be a whole number of days, or 0."
  }
}

variable "lake_version_days" {
  description = "Number of days for which deleted or overwritten files of the lake can be restored; 0 disables versions. The erase job deletes versions too."
  type        = number
  default     = 7

  validation {
    condition     = var.lake_version_days >= 0 && floor(var.lake_version_days) == var.lake_version_days
    error_message = "lake_version_days must be a whole number of days, or 0."
  }
}

variable "protect_data" {
  description = "Whether destroy fails for buckets that are not empty. With false, it deletes the events too."
  type        = bool
  default     = true
}

variable "glue_optimizers" {
  description = "Whether Glue's optimizers compact the tables, billed by the hour. The processor's own maintenance makes them unnecessary."
  type        = bool
  default     = false
}

variable "lake_formation" {
  description = "For accounts where Lake Formation controls new databases: {} registers the tables' files with it and grants the processor its permissions; readers: the ARNs of roles and users that may query in Athena. The applying identity must be a Lake Formation administrator. null: only IAM applies."
  type = object({
    readers = optional(list(string), [])
  })
  default = null

  validation {
    condition     = alltrue([for arn in try(var.lake_formation.readers, []) : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user|saml-provider)/", arn))])
    error_message = "lake_formation.readers must be ARNs of IAM roles and users."
  }
}

variable "athena_scan_limit_gb" {
  description = "Maximum data scanned per query, in GB: Athena bills by data scanned."
  type        = number
  default     = 100

  validation {
    condition     = floor(var.athena_scan_limit_gb * 1000000000) >= 10485760
    error_message = "athena_scan_limit_gb must be at least 0.011: Athena's minimum is 10,485,760 bytes."
  }
}

variable "query_result_days" {
  description = "Number of days for which Athena's results are kept. They contain event data."
  type        = number
  default     = 7

  validation {
    condition     = var.query_result_days >= 1
    error_message = "query_result_days must be at least 1."
  }
}

variable "log_retention_days" {
  description = "Number of days for which logs are kept. Logs never contain events, IP addresses or keys."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be a value that CloudWatch supports: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

variable "access_log" {
  description = "Whether the HTTP API logs each request, without its IP address. It can cost as much as the gateway itself."
  type        = bool
  default     = false
}

variable "kms_key_arn" {
  description = "ARN of your own KMS key for stream, tables, query results and write keys; null creates one."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null ? true : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key, not of an alias, and not a key id."
  }
}

variable "alarm_email" {
  description = "E-mail address for alarm and budget notifications, which must be confirmed in an e-mail from AWS; null creates the topic without a subscriber."
  type        = string
  default     = null

  validation {
    condition     = var.alarm_email == null ? true : can(regex("^[^@ ]+@[^@ ]+$", var.alarm_email))
    error_message = "alarm_email must be an e-mail address."
  }
}

variable "monthly_budget_usd" {
  description = "Monthly budget of the whole account, in USD: notifies at 80 %, and when the forecast exceeds it; null creates none."
  type        = number
  default     = null

  validation {
    condition     = var.monthly_budget_usd == null ? true : var.monthly_budget_usd > 0
    error_message = "monthly_budget_usd must be greater than 0."
  }
}

variable "sdk_path" {
  description = "Folder of the browser SDK, with its package.json and the built dist; null uses that of this repository."
  type        = string
  default     = null
}
