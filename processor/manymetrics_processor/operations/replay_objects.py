"""Replay from S3 what the tables lack: batches that were given up, and the raw archive.

A batch that was given up lies behind its shard's watermark, so it is committed under a separate source, with a
watermark per object: replaying one twice changes nothing. The archive is redelivered unchanged, under its stream's
watermark: records that the tables have are skipped, and a lost table is restored.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from manymetrics_processor.decode.batch import DEAD_LETTERED, DUPLICATE, STORED, Batch, StreamRecord, decode
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import raw_archive
from manymetrics_processor.ingest.lambda_records import parse_payload, split_parts, stream_record
from manymetrics_processor.ingest.pipeline import run
from manymetrics_processor.lake.lake import Lake
from manymetrics_processor.lake.object_storage import list_files, read_bytes, stored_file

SOURCE = "replay:s3"
_SPAN = re.compile(r"-(\d+)-\d+" + re.escape(raw_archive.SUFFIX) + "$")


class NoObjectsError(Exception):
    """There are no objects at a location. The message names it."""


@dataclass(slots=True)
class Report:
    """Result of replaying objects. ``records_passed_over``: those that had been committed before."""

    objects: int = 0
    stored: int = 0
    duplicate: int = 0
    dead_lettered: int = 0
    records_passed_over: int = 0
    unreadable_objects: list[str] = field(default_factory=list)


def replay_objects(
    lake: Lake,
    window: Window,
    location: str,
    stream_of: Callable[[str], str],
    on_object: Callable[[str], None] = lambda _location: None,
) -> Report:
    """Replay one object, or all under a prefix. ``stream_of`` returns a stream's name with its incarnation, by ARN.

    Raises NoObjectsError.
    """
    report = Report()
    for one in _objects(lake, location):
        on_object(one)
        try:
            source, batches = _batches(lake, one, stream_of)
        except (msgspec.MsgspecError, AttributeError, KeyError, TypeError, ValueError):
            report.unreadable_objects.append(one)
            continue
        report.objects += 1
        for stream, records in batches:
            for part in split_parts(records):
                _replay(lake, window, stream, part, source, report)
    return report


def _replay(
    lake: Lake, window: Window, stream: str, records: list[StreamRecord], source: str | None, report: Report
) -> None:
    def decode_as_replay(of: Sequence[StreamRecord], _stream: str, **options: Any) -> Batch:  # noqa: ANN401  # decode's
        """Decode under the object's source; rows keep their position in the original stream."""
        batch = decode(of, stream, **options)
        keys = [(f"{source}/{shard}", at) for shard, at in batch.keys]
        return replace(batch, stream=SOURCE, keys=keys, arrived_at={})

    if source is None:
        outcomes = run(records, stream, lake, window).outcomes
    else:
        outcomes = run(records, SOURCE, lake, window, decode=decode_as_replay).outcomes
    marks = Counter(mark for one in outcomes for mark in one or b"")
    report.stored += marks[STORED[0]]
    report.duplicate += marks[DUPLICATE[0]]
    report.dead_lettered += marks[DEAD_LETTERED[0]]
    report.records_passed_over += outcomes.count(None)


def _objects(lake: Lake, location: str) -> list[str]:
    """Yield the objects; those of the archive in the order of their records in the shards."""
    found = [one for one, _ in list_files(lake.io, location)] or [location]
    if found == [location] and stored_file(lake.io, location) is None:
        raise NoObjectsError(f"there is nothing to replay at {location}")
    return sorted(found, key=lambda one: int(span[1]) if (span := _SPAN.search(one)) else 0)


def _batches(
    lake: Lake, location: str, stream_of: Callable[[str], str]
) -> tuple[str | None, Iterator[tuple[str, list[StreamRecord]]]]:
    """Return the source to commit an object under (None for its own stream), and its records by stream."""
    if location.endswith(raw_archive.SUFFIX):
        return None, iter(list(raw_archive.read(lake.io, location)))  # now, so that damage is detected at once
    body = msgspec.json.decode(read_bytes(lake.io, location), type=dict[str, Any])
    records = parse_payload(body)["Records"]
    stream = stream_of(body["KinesisBatchInfo"]["streamArn"])
    source = hashlib.sha256(location.encode()).hexdigest()[:16]
    return source, iter([(stream, [stream_record(record) for record in records])])
