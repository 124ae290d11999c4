variable "api_zip" {
  description = "The API's zip, as `make package` builds it."
  type        = string
}

variable "processor_image_uri" {
  description = "The processor's image in ECR, by digest."
  type        = string
}
