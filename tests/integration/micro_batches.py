"""Stream records and what the tables hold of them, for tests of the processor."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from manymetrics.books import StreamBooks
from manymetrics.records import Stamp, pack
from manymetrics.tables import EVENTS, NAMESPACE, Table
from manymetrics_processor.decode.batch import Rows, StreamRecord, decode
from manymetrics_processor.decode.row import DAY_US
from manymetrics_processor.lake.lake import Lake, current_books, live_files, local_catalog
from manymetrics_processor.lake.scan import read_files

STREAM, SHARD = "local:test", "shard-0"
NOW = 1_763_990_000_000_000  # 2025-11-24 13:13:20 UTC, in microseconds since 1970

Event = dict[str, Any]
Row = dict[str, Any]


def make_lake(data_dir: Path, database: str = NAMESPACE) -> Lake:
    """The tables of a folder, made where they aren't there; as many handles as a test likes."""
    lake = Lake(local_catalog(data_dir), database=database, sleep=lambda _seconds: None)
    lake.ensure_tables()
    return lake


def track(message_id: str | None, **fields: object) -> Event:
    event = {"type": "track", "event": "E", "userId": "u", "messageId": message_id, **fields}
    return {name: value for name, value in event.items() if value is not None}


def packed(events: list[Event | bytes], *, day: int = 0, **stamp: Any) -> bytes:  # noqa: ANN401  # what a stamp takes
    """Records are received on ``day``, counted from NOW."""
    given = {"received_at": NOW + day * DAY_US, "request_id": "r", "project_id": "shop", "key_kind": "server", **stamp}
    raws = [event if isinstance(event, bytes) else msgspec.json.encode(event) for event in events]
    [one] = pack(Stamp(**given), raws)
    return one


def record(sequence: int, *events: Event | bytes, shard: str = SHARD, **stamp: Any) -> StreamRecord:  # noqa: ANN401  # as packed
    return StreamRecord(shard, sequence, packed(list(events), **stamp), NOW)


def kinesis_event(arn: str, *records: tuple[int, bytes], shard: str = "shardId-000000000000") -> dict[str, Any]:
    """As Lambda hands records over, that arrived just now: sequence numbers and data."""
    return {"Records": [_delivered(arn, shard, sequence, data) for sequence, data in records]}


def _delivered(arn: str, shard: str, sequence: int, data: bytes) -> dict[str, Any]:
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "k",
            "sequenceNumber": str(sequence),
            "data": base64.b64encode(data).decode(),
            "approximateArrivalTimestamp": time.time(),
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{shard}:{sequence}",
        "eventName": "aws:kinesis:record",
        "eventSourceARN": arn,
    }


def rows(lake: Lake, table: Table = EVENTS) -> list[Row]:
    """All rows, in the order of their places."""
    iceberg = lake.load(table)
    found = read_files(table, iceberg, live_files(iceberg)).to_pylist()
    return sorted(found, key=lambda row: (row["_stream"], row["_shard"], int(row["_sequence"]), row["_position"]))


def message_ids(lake: Lake) -> list[str]:
    return sorted(row["message_id"] for row in rows(lake))


def books(lake: Lake, stream: str = STREAM) -> StreamBooks:
    return current_books(lake.load(EVENTS), stream)


def counts(kept: StreamBooks) -> Mapping[str, int]:
    """What a stream's books say, and that they balance."""
    assert kept.balanced
    return {"received": kept.received, **{name: count for name, count in kept.outcomes().items() if count}}


def file_paths(data_dir: Path) -> set[Path]:
    """The tables' files on the disk."""
    return {path for path in (data_dir / "warehouse").rglob("*") if path.is_file()}


OLDER_EVENTS = replace(EVENTS, columns=tuple(one for one in EVENTS.columns if not (one.added or one.enriched)))


def append_as_older_processor(lake: Lake, sequence: int, message_id: str, context: str, *, day: int = 0) -> None:
    """Store an event as a processor does that knows no added column: it leaves ``context`` as JSON text."""
    batch = decode([record(sequence, track(message_id), day=day)], STREAM)
    data = batch.events.table.select(OLDER_EVENTS.column_names)
    at = data.schema.get_field_index("context")
    data = data.set_column(at, data.schema.field(at), pa.array([context]))
    iceberg = lake.load(EVENTS)
    staged = lake.stage(OLDER_EVENTS, iceberg, Rows(data, *batch.events[1:]))
    lake._engine.append(OLDER_EVENTS, iceberg, staged, {"manymetrics.operation": "ingest"}, {})
