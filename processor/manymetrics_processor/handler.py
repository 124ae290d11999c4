"""Deprecated alias of ``manymetrics_processor.ingest.lambda_handler``, kept for one release for deployed images."""

from manymetrics_processor.ingest.lambda_handler import handler

__all__ = ["handler"]
