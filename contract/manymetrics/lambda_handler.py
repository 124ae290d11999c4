"""Deprecated alias of ``manymetrics_api.lambda_handler``, kept for one release: deployed stacks refer to it."""

from manymetrics_api.lambda_handler import handler

__all__ = ["handler"]
