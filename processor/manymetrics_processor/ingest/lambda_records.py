"""Records as Lambda delivers them, and in as many at once as a commit may hold."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from manymetrics.records import count_events
from manymetrics_processor.decode.batch import StreamRecord

MAX_EVENTS = 20_000  # a commit: what a 2 GB function holds in memory with ease
MAX_BYTES = 32_000_000  # of records.weight


def stream_record(record: Mapping[str, Any]) -> StreamRecord:
    """Convert a record of Lambda's Kinesis event."""
    shard = record["eventID"].partition(":")[0]
    kinesis = record["kinesis"]
    arrived_at = round(kinesis["approximateArrivalTimestamp"] * 1_000_000)
    return StreamRecord(shard, int(kinesis["sequenceNumber"]), base64.b64decode(kinesis["data"]), arrived_at)


def parse_payload(body: Mapping[str, Any]) -> dict[str, Any]:
    """The event that Lambda gave up, of the object that it writes of it.

    Lambda writes it as text; an object would mean the same. Raises KeyError, msgspec.MsgspecError.
    """
    payload = body["payload"]
    return msgspec.json.decode(
        payload if isinstance(payload, str) else msgspec.json.encode(payload), type=dict[str, Any]
    )


def split_parts(records: Sequence[StreamRecord]) -> Iterator[list[StreamRecord]]:
    """The records in order, in as many at once as a commit may hold."""
    part: list[StreamRecord] = []
    events = size = 0
    for record in records:
        more, larger = count_events(record.data), record.weight
        if part and (events + more > MAX_EVENTS or size + larger > MAX_BYTES):
            yield part
            part, events, size = [], 0, 0
        part.append(record)
        events, size = events + more, size + larger
    if part:
        yield part
