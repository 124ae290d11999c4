# What a first stack may choose. ../infra has more: main.tf is yours to change.

variable "name" {
  description = "Name of the stack and prefix of its resources: 3 to 24 lower-case letters, digits and hyphens, beginning with a letter."
  type        = string
}

variable "region" {
  description = "The AWS region."
  type        = string
  default     = "us-east-1"
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

variable "processor" {
  description = "The processor's function. architecture: that of the build machine avoids emulation. memory_mb null: 1792 for spark, 1024 for arrow."
  type = object({
    architecture = optional(string, "x86_64")
    memory_mb    = optional(number)
  })
  default = {}

  validation {
    condition     = contains(["arm64", "x86_64"], var.processor.architecture)
    error_message = "processor.architecture must be arm64 or x86_64."
  }
}

variable "batch_window_s" {
  description = "Longest time from event to table, in seconds, 1 to 300. Each commit costs: 300 is the cheapest."
  type        = number
  default     = 300
}

variable "alarm_email" {
  description = "E-mail address for alarm and budget notifications, which must be confirmed in an e-mail from AWS."
  type        = string
  default     = null
}

variable "monthly_budget_usd" {
  description = "Monthly budget of the whole account, in USD: notifies at 80 %, and when the forecast exceeds it; null creates none."
  type        = number
  default     = 50
}
