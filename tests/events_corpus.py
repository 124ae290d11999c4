"""The corpus tests/events/*.json, as its README says: read, turned into requests, and outcomes made comparable."""

import base64
import gzip
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from manymetrics.tables import EVENTS
from manymetrics_processor.decode.batch import StreamRecord, decode
from tests.in_process import CLIENT_IP, NOW

FOLDER = Path(__file__).parent / "events"
Case = dict[str, Any]
Row = dict[str, Any]

NOW_TEXT = "2026-01-02T03:04:05.678000Z"
USUAL = {
    "project_id": "shop",
    "key_kind": "browser",
    "received_at": NOW_TEXT,
    "event_time": NOW_TEXT,
    "context_ip": CLIENT_IP,
}
# And what enrichment makes of the others, whose tests are its own.
_LINEAGE = {"_stream", "_shard", "_sequence", "_position", "request_id"} | {
    column.name for column in EVENTS.columns if column.enriched
}
_JSON = {column.name for column in EVENTS.columns if column.json}


def read_cases() -> dict[str, Case]:
    """Each case by its file's name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def request_of(case: Case) -> tuple[str, str, dict[str, str], bytes]:
    """Method, target, headers and body."""
    return case["method"], case["route"], case["headers"], _body(case)


def _body(case: Case) -> bytes:
    if "body_base64" in case:
        body = base64.b64decode(case["body_base64"])
    elif "body_text" in case:
        body = case["body_text"].encode()
    elif "body" in case:
        body = json.dumps(case["body"], separators=(",", ":"), ensure_ascii=False).encode()
    else:
        body = b""
    return gzip.compress(body, 1) if case.get("gzip") else body


def outcomes_of(records: Sequence[bytes]) -> list[dict[str, Any]]:
    """What became of each event, in the order in which they came: as ``expect.events`` says it."""
    stream = [StreamRecord("shard", number, record, NOW) for number, record in enumerate(records, 1)]
    batch = decode(stream, "stream")
    rows: list[Row] = batch.events.table.to_pylist()
    letters: list[Row] = batch.letters.table.to_pylist()
    placed = [(_place(row), {"outcome": "stored", "row": _shown(row)}) for row in rows]
    placed += [(_place(row), {"outcome": "dead_lettered", **_letter_shown(row)}) for row in letters]
    return [outcome for _, outcome in sorted(placed, key=lambda pair: pair[0])]


def _letter_shown(row: Row) -> Row:
    return {name: row[name] for name in ("reason", "detail", "raw")}


def _place(row: Row) -> tuple[int, int]:
    return int(row["_sequence"]), row["_position"]


def _shown(row: Row) -> Row:
    """What is not as usual: null only where the usual is not."""
    shown = {}
    for name, value in row.items():
        text = _time_text(value) if isinstance(value, datetime) else value
        if name not in _LINEAGE and text != USUAL.get(name):
            shown[name] = _json_shown(text) if name in _JSON and isinstance(text, str) else text
    if "message_id_missing" in (row["repairs"] or ""):
        shown["message_id"] = "(made)"
    return shown


def _json_shown(text: str) -> object:
    """The value, where its compact JSON is the very text; else the text."""
    value = json.loads(text)
    return value if json.dumps(value, separators=(",", ":"), ensure_ascii=False) == text else text


def _time_text(time: datetime) -> str:
    return time.isoformat(timespec="microseconds") + "Z"
