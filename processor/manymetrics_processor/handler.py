"""The former path of ``manymetrics_processor.ingest.lambda_handler``, kept for one release: deployed images name it."""

from manymetrics_processor.ingest.lambda_handler import handler

__all__ = ["handler"]
