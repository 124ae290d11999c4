# What a user must or may choose. The two without a default are what was built: the API's zip and the processor's image.

variable "name" {
  description = "Name of the stack and prefix of its resources: 3 to 24 lower-case letters, digits and hyphens, beginning with a letter."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name takes 3 to 24 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen."
  }

  validation {
    condition     = !can(regex("^(aws|ssm)", var.name))
    error_message = "name may not begin with aws or ssm: SSM, where the write keys are, keeps such names for itself."
  }
}

variable "database" {
  description = "The Glue database of the tables: 1 to 63 lower-case letters, digits and underscores, beginning with a letter; null: name, with _ for -."
  type        = string
  default     = null

  validation {
    condition     = var.database == null ? true : can(regex("^[a-z][a-z0-9_]{0,62}$", var.database))
    error_message = "database takes 1 to 63 lower-case letters, digits and underscores, beginning with a letter."
  }
}

variable "tags" {
  description = "Tags for every resource, in addition to Application and Stack. The SDK's files have only these two: S3 takes no more than 10."
  type        = map(string)
  default     = {}
}

variable "api_package" {
  description = "The API's zip for Lambda, and its filebase64sha256, whose change updates the function. Without a hash, the file's name must change with its content."
  type = object({
    path = string
    hash = optional(string)
  })

  validation {
    condition     = endswith(var.api_package.path, ".zip")
    error_message = "api_package.path takes a .zip, as `make package` builds it."
  }
}

variable "processor_image_uri" {
  description = "The processor's image in ECR, by digest: a tag can be moved to another image without a plan showing it."
  type        = string

  validation {
    condition     = can(regex("^[^@:]+(:[0-9]+)?/[^@]+@sha256:[0-9a-f]{64}$", var.processor_image_uri))
    error_message = "processor_image_uri takes repository@sha256:digest; a tag such as :latest is refused."
  }
}

variable "engine" {
  description = "Engine with which the processor commits: spark, or arrow, which needs no JVM and half the memory."
  type        = string
  default     = "spark"

  validation {
    condition     = contains(["spark", "arrow"], var.engine)
    error_message = "engine takes spark or arrow."
  }
}

variable "ingress" {
  description = "Ingress for events: http_api, which throttles; or function_url, which costs nothing per request and doesn't throttle."
  type        = string
  default     = "http_api"

  validation {
    condition     = contains(["http_api", "function_url"], var.ingress)
    error_message = "ingress takes http_api or function_url."
  }
}

variable "allowed_origins" {
  description = "CORS origins of the HTTP API: the union of the write keys' origins. Each event is also checked against its own key's."
  type        = list(string)
  default     = ["*"]

  validation {
    condition     = length(var.allowed_origins) > 0 && alltrue([for origin in var.allowed_origins : origin == "*" || can(regex("^https?://[^/*]+$", origin))])
    error_message = "allowed_origins takes origins such as https://www.example.com, without a path, or * alone."
  }

  validation {
    condition     = length(var.allowed_origins) == 1 || !contains(var.allowed_origins, "*")
    error_message = "allowed_origins takes * alone, or origins."
  }
}

variable "domain" {
  description = "Custom domain of the HTTP API, such as events.example.com, and the id of its Route 53 zone; null uses AWS's name."
  type = object({
    name    = string
    zone_id = string
  })
  default = null

  validation {
    condition     = var.domain == null ? true : can(regex("^([a-z0-9-]+[.])+[a-z]{2,}$", var.domain.name))
    error_message = "domain.name takes a full name in lower case, such as events.example.com."
  }

  validation {
    condition     = var.domain == null || var.ingress == "http_api"
    error_message = "domain goes with the HTTP API: a function URL takes no name of yours."
  }
}

variable "throttle" {
  description = "Throttle of the HTTP API: requests per second, and burst. Requests over it are answered 429, which SDKs retry."
  type = object({
    rate_per_s = optional(number, 500)
    burst      = optional(number, 1000)
  })
  default = {}

  validation {
    condition     = var.throttle.rate_per_s >= 1 && var.throttle.burst >= var.throttle.rate_per_s
    error_message = "throttle takes a rate of at least 1 a second, and a burst that is no less."
  }
}

variable "permissions_boundary" {
  description = "ARN of the permissions boundary of every role of the stack, where your account requires one; null sets none."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary == null ? true : can(regex("^arn:aws:iam::([0-9]{12}|aws):policy/.+$", var.permissions_boundary))
    error_message = "permissions_boundary takes the ARN of a policy, such as arn:aws:iam::123456789012:policy/boundary."
  }
}

variable "role_path" {
  description = "Path of the stack's roles, where your account requires one, such as /apps/."
  type        = string
  default     = "/"

  validation {
    condition     = can(regex("^/([!-~]+/)?$", var.role_path)) && length(var.role_path) <= 512
    error_message = "role_path begins and ends with a slash, such as /apps/."
  }
}

variable "api" {
  description = "The API's function. concurrency reserves, and caps; null reserves none, as an account with a limit of 10 has none to give. A function URL needs it, or -1 for none: nothing else bounds what strangers can cost there."
  type = object({
    architecture = optional(string, "arm64")
    memory_mb    = optional(number, 256)
    timeout_s    = optional(number, 15)
    concurrency  = optional(number)
  })
  default = {}

  validation {
    condition     = contains(["arm64", "x86_64"], var.api.architecture)
    error_message = "api.architecture takes arm64 or x86_64, as the zip was built for."
  }

  validation {
    condition     = var.api.timeout_s >= 10 && var.api.timeout_s <= 29
    error_message = "api.timeout_s takes 10 to 29: storing an event may take 5 and reading the keys 3, and an HTTP API waits 30."
  }

  validation {
    condition     = var.api.memory_mb >= 256 && var.api.memory_mb <= 10240
    error_message = "api.memory_mb takes 256 to 10240."
  }

  validation {
    condition     = var.ingress == "http_api" || var.api.concurrency != null
    error_message = "api.concurrency must be given with a function URL, such as 20: it alone bounds what strangers can cost there. -1 reserves none, as an account with a limit of 10 must."
  }
}

variable "processor" {
  description = "The processor's function. memory_mb null: 1792 for spark, 1024 for arrow. concurrency as the API's; reserve at least the shards and one more."
  type = object({
    architecture = optional(string, "x86_64")
    memory_mb    = optional(number)
    scratch_mb   = optional(number, 1024)
    concurrency  = optional(number)
  })
  default = {}

  validation {
    condition     = contains(["arm64", "x86_64"], var.processor.architecture)
    error_message = "processor.architecture takes arm64 or x86_64, as the image was built for."
  }

  validation {
    condition     = var.processor.memory_mb == null ? true : var.processor.memory_mb >= (var.engine == "spark" ? 1792 : 1024) && var.processor.memory_mb <= 10240
    error_message = "processor.memory_mb takes 1792 (spark) or 1024 (arrow) to 10240."
  }

  validation {
    condition     = var.processor.concurrency == null || var.stream.mode == "ON_DEMAND" ? true : var.processor.concurrency > var.stream.shards
    error_message = "processor.concurrency must be over the number of shards: each shard has one reader, and maintenance runs beside them."
  }
}

variable "stream" {
  description = "The Kinesis stream. ON_DEMAND scales by itself, for $29 a month when idle, against $11 a shard (us-east-1). More hours give an outage more time, and cost more."
  type = object({
    mode            = optional(string, "PROVISIONED")
    shards          = optional(number, 1)
    retention_hours = optional(number, 24)
  })
  default = {}

  validation {
    condition     = contains(["PROVISIONED", "ON_DEMAND"], var.stream.mode)
    error_message = "stream.mode takes PROVISIONED or ON_DEMAND."
  }

  validation {
    condition     = var.stream.shards >= 1 && var.stream.shards <= 500
    error_message = "stream.shards takes 1 to 500."
  }

  validation {
    condition     = var.stream.retention_hours >= 24 && var.stream.retention_hours <= 8760
    error_message = "stream.retention_hours takes 24 to 8760."
  }
}

variable "batch_window_s" {
  description = "Longest time from event to table, in seconds. Each commit costs: 300, the maximum, is the cheapest."
  type        = number
  default     = 300

  validation {
    condition     = var.batch_window_s >= 1 && var.batch_window_s <= 300
    error_message = "batch_window_s takes 1 to 300."
  }
}

variable "dedup_window_days" {
  description = "Number of UTC days after an event within which the same messageId is a duplicate."
  type        = number
  default     = 7

  validation {
    condition     = var.dedup_window_days >= 1 && var.dedup_window_days <= 400
    error_message = "dedup_window_days takes 1 to 400."
  }
}

variable "archive_days" {
  description = "Number of days for which raw records are kept, from which the tables can be rebuilt; 0 keeps none."
  type        = number
  default     = 0

  validation {
    condition     = var.archive_days >= 0 && floor(var.archive_days) == var.archive_days
    error_message = "archive_days takes a whole number of days, or 0."
  }
}

variable "lake_version_days" {
  description = "Number of days for which deleted or overwritten files of the lake can be restored; 0 disables versions. The erase job deletes versions too."
  type        = number
  default     = 7

  validation {
    condition     = var.lake_version_days >= 0 && floor(var.lake_version_days) == var.lake_version_days
    error_message = "lake_version_days takes a whole number of days, or 0."
  }
}

variable "protect_data" {
  description = "Whether destroy stops at buckets that are not empty. With false, it deletes the events too."
  type        = bool
  default     = true
}

variable "glue_optimizers" {
  description = "Whether Glue's optimizers compact the tables, billed by the hour. The processor's own maintenance makes them unnecessary."
  type        = bool
  default     = false
}

variable "lake_formation" {
  description = "Where Lake Formation decides on new databases: {} registers the tables' files with it and grants the processor what it needs; readers: the ARNs of roles and users that may ask in Athena. Whoever applies must be one of its administrators. null: IAM alone decides."
  type = object({
    readers = optional(list(string), [])
  })
  default = null

  validation {
    condition     = alltrue([for arn in try(var.lake_formation.readers, []) : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user|saml-provider)/", arn))])
    error_message = "lake_formation.readers takes ARNs of IAM's roles and users."
  }
}

variable "athena_scan_limit_gb" {
  description = "Maximum that one query may scan, in GB: Athena bills what it scans."
  type        = number
  default     = 100

  validation {
    condition     = floor(var.athena_scan_limit_gb * 1000000000) >= 10485760
    error_message = "athena_scan_limit_gb takes 0.011 or more: Athena's least is 10,485,760 bytes."
  }
}

variable "query_result_days" {
  description = "Number of days for which Athena's results are kept. They hold data of events."
  type        = number
  default     = 7

  validation {
    condition     = var.query_result_days >= 1
    error_message = "query_result_days takes 1 or more."
  }
}

variable "log_retention_days" {
  description = "Number of days for which logs are kept. No log holds an event, an address or a key."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days takes what CloudWatch has: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

variable "access_log" {
  description = "Whether the HTTP API logs each request, without its address. It can cost as much as the gateway itself."
  type        = bool
  default     = false
}

variable "kms_key_arn" {
  description = "ARN of your own KMS key for stream, tables, query results and write keys; null creates one."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null ? true : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "kms_key_arn takes the ARN of a key: not of an alias, and not its id."
  }
}

variable "alarm_email" {
  description = "E-mail address for alarm and budget notifications, which AWS asks to confirm first; null creates the topic without a subscriber."
  type        = string
  default     = null

  validation {
    condition     = var.alarm_email == null ? true : can(regex("^[^@ ]+@[^@ ]+$", var.alarm_email))
    error_message = "alarm_email takes an address."
  }
}

variable "monthly_budget_usd" {
  description = "Monthly budget of the whole account, in USD: notifies at 80 %, and when the forecast exceeds it; null creates none."
  type        = number
  default     = null

  validation {
    condition     = var.monthly_budget_usd == null ? true : var.monthly_budget_usd > 0
    error_message = "monthly_budget_usd takes more than 0."
  }
}

variable "sdk_path" {
  description = "Folder of the browser SDK, with its package.json and the built dist; null uses that of this repository."
  type        = string
  default     = null
}
