"""Deprecated alias of ``manymetrics_api.aws.app``, kept for one release."""

from manymetrics_api.aws.app import create_aws_app

__all__ = ["create_aws_app"]
