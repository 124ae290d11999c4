"""Erase a person from the objects next to the tables: the raw archive, and batches that were given up.

Their events are emptied in place, so that later events keep their positions: a later replay makes the same rows, and a
dead letter with the reason `erased` for each erased event.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from pyiceberg.io import FileIO

from manymetrics.records import UnreadableRecordError, without
from manymetrics.tables import DEAD_LETTERS, EVENTS
from manymetrics_processor.decode.batch import StreamRecord, decode
from manymetrics_processor.ingest import raw_archive
from manymetrics_processor.ingest.lambda_records import parse_payload, stream_record
from manymetrics_processor.lake.object_storage import list_files, read_bytes, write_bytes
from manymetrics_processor.operations.erase_tables import Person, is_theirs
from manymetrics_processor.parallel import Spread


@dataclass(slots=True)
class ObjectsReceipt:
    """The result of an erasure under one location. ``unreadable``: objects that may hold data of the person."""

    location: str
    objects: int = 0
    objects_rewritten: int = 0
    events_erased: int = 0
    unreadable: list[str] = field(default_factory=list)


def erase_from_objects(
    io: FileIO, location: str, person: Person, spread: Spread = map, *, dry_run: bool = False
) -> ObjectsReceipt:
    """Erase the person, all of whose ids are given. A dry run only counts. Idempotent."""
    receipt = ObjectsReceipt(location)
    locations = [one for one, _ in list_files(io, location)]
    for one, erased in zip(locations, spread(partial(_erase_from, io, person, dry_run), locations), strict=True):
        receipt.objects += 1
        if erased is None:
            receipt.unreadable.append(one)
        else:
            receipt.objects_rewritten += bool(erased)
            receipt.events_erased += erased
    return receipt


def _erase_from(io: FileIO, person: Person, dry_run: bool, location: str) -> int | None:  # noqa: FBT001  # as partial gives it
    data = read_bytes(io, location)
    try:
        scrub = _scrub_archived if location.endswith(raw_archive.SUFFIX) else _scrub_batch
        scrubbed, erased = scrub(data, person)
    except (msgspec.MsgspecError, pa.ArrowException, KeyError, ValueError, TypeError, AttributeError):
        return None
    if erased and not dry_run:
        write_bytes(io, location, scrubbed)
    return erased


def _scrub_archived(data: bytes, person: Person) -> tuple[bytes, int]:
    kept, erased = [], 0
    for stream, records in raw_archive.decode(data):
        scrubbed, more = _scrub(records, person)
        kept.append((stream, scrubbed))
        erased += more
    return raw_archive.encode(kept), erased


def _scrub_batch(data: bytes, person: Person) -> tuple[bytes, int]:
    """Scrub a batch in the format of Lambda's failure destination."""
    body = msgspec.json.decode(data, type=dict[str, Any])
    payload = parse_payload(body)
    records = [stream_record(record) for record in payload["Records"]]
    scrubbed, erased = _scrub(records, person)
    for record, after in zip(payload["Records"], scrubbed, strict=True):
        record["kinesis"]["data"] = base64.b64encode(after.data).decode()
    body["payload"] = msgspec.json.encode(payload).decode() if isinstance(body["payload"], str) else payload
    return msgspec.json.encode(body), erased


def _scrub(records: Sequence[StreamRecord], person: Person) -> tuple[list[StreamRecord], int]:
    """Return the records, in the same order, and the number of emptied events."""
    order = sorted(range(len(records)), key=lambda number: (records[number].shard, records[number].sequence))
    batch = decode(records, "")
    gone: dict[int, set[int]] = defaultdict(set)  # by record
    for table, rows in ((EVENTS, batch.events), (DEAD_LETTERS, batch.letters)):
        for row in np.flatnonzero(is_theirs(table, rows.table, person)):
            gone[order[rows.record[row]]].add(int(rows.position[row]))
    scrubbed = list(records)
    for number, positions in gone.items():
        scrubbed[number] = records[number]._replace(data=_without(records[number].data, positions))
    return scrubbed, sum(map(len, gone.values()))


def _without(data: bytes, positions: set[int]) -> bytes:
    try:
        return without(data, positions)
    except UnreadableRecordError:  # its bytes hold one of the ids: drop it completely
        return b""
