"""Counters, and JSON log lines, which never contain payloads, IP addresses, keys or the values of a traceback.

Outcomes of events are counted in the committed books (the processor's ledger) instead, so that kill -9 changes no
figure; these counters hold the outcomes of requests since the process started.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from manymetrics.outcomes import RequestOutcome

_LONG_LINE = 4_000  # characters; in a longer line, each value is cut
_CUT_TO = 400

request_counts: Counter[RequestOutcome] = Counter()


refusal_counts: Counter[str] = Counter()  # by code, which never comes from a client


def count_request(outcome: RequestOutcome, code: str = "") -> None:
    """Count one request by outcome; ``code`` is that of its refusal."""
    request_counts[outcome] += 1
    if code:
        refusal_counts[code] += 1


def embedded_metrics(database: str, names: Sequence[str], values: Mapping[str, int]) -> str:
    """Return a line in CloudWatch's embedded metric format, with the database, unique per stack, as dimension.

    Each of ``names`` is a metric, at $0.30 per month; Logs Insights finds the other values.
    """
    metrics = [{"Name": name, "Unit": "Count"} for name in names]
    directive = {"Namespace": "ManyMetrics", "Dimensions": [["Database"]], "Metrics": metrics}
    metadata = {"Timestamp": round(time.time() * 1_000), "CloudWatchMetrics": [directive]}
    return json.dumps({"_aws": metadata, "Database": database, **values})


class JsonLines(logging.Formatter):
    """Format a record as one JSON line, whatever its message holds, with the fields of ``extra={"facts": {...}}``."""

    def format(self, record: logging.LogRecord) -> str:
        """Like ``logging.Formatter.format``."""
        line = {
            "at": self.formatTime(record),
            "level": record.levelname,
            "log": record.name,
            "message": record.getMessage(),
        }
        facts = getattr(record, "facts", None)
        if isinstance(facts, dict):
            line |= facts
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__
            line["where"] = _where(record)
        text = json.dumps(line, default=str)
        return text if len(text) <= _LONG_LINE else json.dumps({name: _cut(value) for name, value in line.items()})


def _cut(value: object) -> object:
    if isinstance(value, int | float | None):
        return value
    text = str(value)
    return text if len(text) <= _CUT_TO else text[:_CUT_TO] + "…"


def _where(record: logging.LogRecord) -> str:
    trace = record.exc_info[2] if record.exc_info else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""


def log_json_lines(level: int = logging.INFO) -> None:
    """Send all logs to stderr as JSON lines. Only for entry points."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("uvicorn.access", "pyiceberg"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
