"""Parse records delivered by Lambda, and split them into batches that fit a commit."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from manymetrics.records import count_events
from manymetrics_processor.decode.batch import StreamRecord

MAX_EVENTS = 20_000  # per commit: fits easily into the memory of a 2 GB function
MAX_BYTES = 32_000_000  # of records.weight


def stream_record(record: Mapping[str, Any]) -> StreamRecord:
    """Convert a record of Lambda's Kinesis event."""
    shard = record["eventID"].partition(":")[0]
    kinesis = record["kinesis"]
    arrived_at = round(kinesis["approximateArrivalTimestamp"] * 1_000_000)
    return StreamRecord(shard, int(kinesis["sequenceNumber"]), base64.b64decode(kinesis["data"]), arrived_at)


def parse_payload(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event that Lambda gave up, from the object that it writes to S3.

    Lambda writes the event as a string; an object is accepted too. Raises KeyError, msgspec.MsgspecError.
    """
    payload = body["payload"]
    return msgspec.json.decode(
        payload if isinstance(payload, str) else msgspec.json.encode(payload), type=dict[str, Any]
    )


def split_parts(records: Sequence[StreamRecord]) -> Iterator[list[StreamRecord]]:
    """Split the records, in order, into parts that fit a commit."""
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
