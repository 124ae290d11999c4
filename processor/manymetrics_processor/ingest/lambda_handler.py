"""The processor's AWS Lambda entry point: commits the records of Kinesis events to the tables.

    manymetrics_processor.ingest.lambda_handler.handler

Also handles ``{"action": "ensure_tables"}`` and ``{"action": "maintain"}``; the latter is cheap with
``"orphans": false``.
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
    """Handle one invocation."""
    return processor().handle(event, context)


@cache
def processor() -> Processor:
    """Build the processor from the environment. Raises SettingsError."""
    log_json_lines()
    settings = Settings.read(os.environ)
    return make_processor(settings, make_catalog(settings, os.environ), os.environ)


if "AWS_LAMBDA_RUNTIME_API" in os.environ:  # Lambda gives an init more CPU than an invocation
    processor()
