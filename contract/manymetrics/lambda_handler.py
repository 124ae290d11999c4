"""The former path of ``manymetrics_api.lambda_handler``, kept for one release: deployed stacks name it."""

from manymetrics_api.lambda_handler import handler

__all__ = ["handler"]
