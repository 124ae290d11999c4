"""The processor's entry point on AWS Lambda: a Kinesis event in, rows in the tables.

    manymetrics_processor.ingest.lambda_handler.handler

``{"action": "ensure_tables"}`` and ``{"action": "maintain"}`` are answered too; the latter with ``"orphans": false``
costs little.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from manymetrics.settings import Settings
from manymetrics.telemetry import log_json_lines
from manymetrics_processor.ingest.factory import make_catalog, make_processor
from manymetrics_processor.ingest.processor import Context, Processor


def handler(event: Mapping[str, Any], context: Context | None = None) -> dict[str, Any]:
    """Lambda's entry."""
    return processor().handle(event, context)


@cache
def processor() -> Processor:
    """The processor that the environment describes. Raises SettingsError."""
    log_json_lines()
    settings = Settings.read(os.environ)
    return make_processor(settings, make_catalog(settings, os.environ), os.environ)


if "AWS_LAMBDA_RUNTIME_API" in os.environ:  # Lambda gives a start more CPU than a first invocation
    processor()
