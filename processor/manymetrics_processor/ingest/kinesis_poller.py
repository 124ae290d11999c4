"""Deliver a Kinesis stream to the processor's handler as Lambda's event source mapping does; on a server, or in a test.

Each shard has a thread. It collects records until the batch is full or the window is over, and calls the handler with
Lambda's event format. After a reported failure it redelivers from the failed record, bisecting the batch while it has
several, without limit until the first record is too old; then the whole batch goes to S3, in Lambda's format, and the
shard continues. After a start, reading resumes from the table's watermark, so no other state can disagree with it.
Child shards of a resharding are read once their parents are finished.

A stream is identified by its incarnation. Records read by the old incarnation's reader after the stream was recreated
are left to the new one's reader; records read before are delivered as the old one's.
"""

from __future__ import annotations

import base64
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

log = logging.getLogger("manymetrics.event_source")

PAYLOAD_BYTES = 6_000_000  # of an event, as JSON: Lambda's limit
MAINTAIN_EVERY_S = 3_600.0
_ENVELOPE_BYTES = 600  # of JSON per record, without its data
_READ_LIMIT = 10_000  # Kinesis's own
_IDLE_S, _FULL_S = 0.25, 0.01
_SHARDS_EVERY_S = 2.0
_BACKOFF_S, _LONGEST_BACKOFF_S = 0.1, 30.0

Record = dict[str, Any]
"""A record of Lambda's Kinesis event."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options with Lambda's semantics. ``retries``: -1 means no limit, until a record is too old."""

    batch_size: int = 10_000
    window_s: float = 1.0
    retries: int = -1
    max_record_age_s: float = 20 * 3_600.0  # below the 24 hours for which a stream keeps a record by default
    bisect: bool = True


class EventSource:
    """Reads one stream. ``kinesis`` is a boto3 client.

    ``watermark`` returns up to where a shard is committed (-1: nothing), by the stream's name with its incarnation.
    ``put_failure`` stores a batch that was given up: a key, and the object.
    """

    def __init__(
        self,
        kinesis: Any,  # noqa: ANN401  # boto3 ships no types
        arn: str,
        invoke: Callable[[dict[str, Any]], Mapping[str, Any]],
        name_of: Callable[[str], str],
        watermark: Callable[[str, str], int],
        put_failure: Callable[[str, bytes], None],
        options: Options,
    ) -> None:
        self._kinesis, self._arn, self._call = kinesis, arn, invoke
        self._name_of, self._watermark, self._put_failure = name_of, watermark, put_failure
        self.options = options
        self.stream = ""  # the incarnation being read and delivered
        self._one_at_a_time = threading.Lock()

    def run(self, stop: threading.Event) -> None:
        """Run until ``stop`` is set; finishes the current commit first."""
        while not stop.is_set():
            try:
                self._run_incarnation(self._name_of(self._arn), stop)
            except Exception as error:  # the stream is unreachable, or doesn't exist yet
                log.warning("the stream can't be read; retrying", exc_info=error)
            stop.wait(_SHARDS_EVERY_S)

    def _run_incarnation(self, name: str, stop: threading.Event) -> None:
        """Run until the stream is recreated: then it starts at its first record."""
        self.stream = name
        over = _Either(stop)
        shards: dict[str, _Shard] = {}
        try:
            while not stop.is_set() and self._name_of(self._arn) == name:
                listed = list_shards(self._kinesis, self._arn)
                for shard_id, parents in listed.items():
                    if shard_id not in shards and all(_is_done(shards, listed, parent) for parent in parents):
                        shards[shard_id] = _Shard(self, shard_id, self._watermark(name, shard_id), over)
                        shards[shard_id].start()
                stop.wait(_SHARDS_EVERY_S)
        finally:
            over.set()
            for shard in shards.values():
                shard.join()

    def read(self, iterator: str) -> Mapping[str, Any]:
        """Like Kinesis's GetRecords."""
        answer: Mapping[str, Any] = self._kinesis.get_records(
            StreamARN=self._arn, ShardIterator=iterator, Limit=_READ_LIMIT
        )
        return answer

    def is_made_anew(self) -> bool:
        """Return whether the stream is no longer the incarnation being read."""
        return self._name_of(self._arn) != self.stream

    def iterator(self, shard_id: str, after: int) -> str:
        """Return the iterator to continue with; from the oldest record if there is no earlier position."""
        start = {"ShardIteratorType": "TRIM_HORIZON"}
        if after >= 0:
            start = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": str(after)}
        answer = self._kinesis.get_shard_iterator(StreamARN=self._arn, ShardId=shard_id, **start)
        return str(answer["ShardIterator"])

    def event_record(self, shard_id: str, record: Mapping[str, Any]) -> Record:
        """Convert a record of GetRecords to Lambda's format."""
        return {
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": record["PartitionKey"],
                "sequenceNumber": record["SequenceNumber"],
                "data": base64.b64encode(record["Data"]).decode(),
                "approximateArrivalTimestamp": record["ApproximateArrivalTimestamp"].timestamp(),
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": f"{shard_id}:{record['SequenceNumber']}",
            "eventName": "aws:kinesis:record",
            "eventSourceARN": self._arn,
        }

    def invoke(self, batch: Sequence[Record]) -> tuple[int, bool]:
        """Call the handler; returns the number of committed records, and whether the function itself failed."""
        try:
            with self._one_at_a_time:  # the handler's table and window are shared
                failures = self._call({"Records": list(batch)}).get("batchItemFailures") or []
        except Exception as error:  # like Lambda, for any error
            log.warning("the processor failed", exc_info=error)
            return 0, True
        if not failures:
            return len(batch), False
        failed = {failure["itemIdentifier"] for failure in failures}
        return next(n for n, one in enumerate(batch) if one["kinesis"]["sequenceNumber"] in failed), False

    def give_up(self, shard_id: str, batch: Sequence[Record], attempts: int) -> None:
        """Store the whole batch for `replay`, as Lambda's failure destination does. Raises what S3 raises."""
        now = datetime.now(UTC)
        first, last = (batch[at]["kinesis"] for at in (0, -1))
        body = {
            "requestContext": {
                "requestId": str(uuid4()),
                "functionArn": "manymetrics",
                "condition": "RetryAttemptsExhausted",
                "approximateInvokeCount": attempts,
            },
            "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
            "version": "1.0",
            "timestamp": _iso(now.timestamp()),
            "KinesisBatchInfo": {
                "shardId": shard_id,
                "startSequenceNumber": first["sequenceNumber"],
                "endSequenceNumber": last["sequenceNumber"],
                "approximateArrivalOfFirstRecord": _iso(first["approximateArrivalTimestamp"]),
                "approximateArrivalOfLastRecord": _iso(last["approximateArrivalTimestamp"]),
                "batchSize": len(batch),
                "streamArn": self._arn,
            },
            "payload": json.dumps({"Records": list(batch)}),
        }
        key = f"manymetrics/{shard_id}/{now:%Y/%m/%d/%Y-%m-%dT%H.%M.%S}-{uuid4()}"
        self._put_failure(key, json.dumps(body).encode())
        log.error("a batch was given up and stored; replay it with `manymetrics replay`", extra={"facts": {"key": key}})


class _Either(threading.Event):
    """An event that is set if either of two is."""

    def __init__(self, other: threading.Event) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        return super().is_set() or self._other.is_set()


class _Shard(threading.Thread):
    """Reads one shard and delivers its records in order, until its end."""

    def __init__(self, source: EventSource, shard_id: str, watermark: int, stop: threading.Event) -> None:
        super().__init__(name=shard_id, daemon=True)
        self._source, self._shard_id, self._stop_event = source, shard_id, stop
        self._read_up_to = watermark
        self._iterator: str | None = None
        self._held: list[Record] = []
        self._held_since = 0.0
        self._is_closed = False  # a closed shard, read to its end
        self.is_done = False

    def run(self) -> None:
        """Run until the shard's end. Never raises."""
        wait = _BACKOFF_S
        while not self._stop_event.is_set():
            try:
                more = self._read() if not self._is_closed and not self._is_full() else False
            except Exception as error:
                log.warning("a shard can't be read; retrying", exc_info=error)
                self._iterator, wait = None, min(_LONGEST_BACKOFF_S, wait * 2)
                self._stop_event.wait(wait)
                continue
            wait = _BACKOFF_S
            if self._held and (self._is_full() or self._is_closed or self._is_due()):
                batch = self._take()
                self._deliver(batch)
            elif self._is_closed:
                self.is_done = True
                return
            elif not more:
                self._stop_event.wait(_IDLE_S)
            else:
                self._stop_event.wait(_FULL_S)

    def _read(self) -> bool:
        """Read once; returns whether there were records."""
        if self._iterator is None:
            self._iterator = self._source.iterator(self._shard_id, self._read_up_to)
        answer = self._source.read(self._iterator)
        records = answer["Records"]
        if records and self._source.is_made_anew():
            return False
        if records:
            if not self._held:
                self._held_since = time.monotonic()
            self._held += [self._source.event_record(self._shard_id, record) for record in records]
            self._read_up_to = int(records[-1]["SequenceNumber"])
        self._iterator = answer.get("NextShardIterator")
        self._is_closed = self._iterator is None
        return bool(records)

    def _is_due(self) -> bool:
        return time.monotonic() - self._held_since >= self._source.options.window_s

    def _is_full(self) -> bool:
        return self._batch_length() < len(self._held) or len(self._held) >= self._source.options.batch_size

    def _batch_length(self) -> int:
        """Return how many of the held records fit into one Lambda event, at least one."""
        size = 0
        for count, record in enumerate(self._held[: self._source.options.batch_size]):
            size += len(record["kinesis"]["data"]) + _ENVELOPE_BYTES
            if size > PAYLOAD_BYTES and count:
                return count
        return min(len(self._held), self._source.options.batch_size)

    def _take(self) -> list[Record]:
        length = self._batch_length()
        batch, self._held = self._held[:length], self._held[length:]
        self._held_since = time.monotonic()
        return batch

    def _deliver(self, batch: list[Record]) -> None:
        """Deliver until everything is committed or given up, or until ``stop`` is set."""
        options, waiting, attempts, wait = self._source.options, [batch], 0, _BACKOFF_S
        while waiting and not self._stop_event.is_set():
            current = waiting.pop(0)
            done, has_thrown = self._source.invoke(current)
            rest = current[done:]
            if not rest:
                attempts, wait = 0, _BACKOFF_S
                continue
            attempts = 1 if done else attempts + 1
            if has_thrown and options.bisect and len(rest) > 1:
                middle = len(rest) // 2
                waiting[:0] = [rest[:middle], rest[middle:]]
            elif self._is_too_old(rest[0]) or 0 <= options.retries < attempts:
                self._give_up(rest, attempts)
                continue
            else:
                waiting.insert(0, rest)
            self._stop_event.wait(random.uniform(wait / 2, wait))  # noqa: S311  # jitter
            wait = min(_LONGEST_BACKOFF_S, wait * 2)

    def _give_up(self, batch: list[Record], attempts: int) -> None:
        wait = _BACKOFF_S
        while not self._stop_event.is_set():
            try:
                self._source.give_up(self._shard_id, batch, attempts)
            except Exception as error:
                log.warning("a batch that was given up can't be stored yet", exc_info=error)
                self._stop_event.wait(wait)
                wait = min(_LONGEST_BACKOFF_S, wait * 2)
            else:
                return

    def _is_too_old(self, record: Record) -> bool:
        age_s = time.time() - float(record["kinesis"]["approximateArrivalTimestamp"])
        return age_s > self._source.options.max_record_age_s


def list_shards(kinesis: Any, arn: str) -> dict[str, list[str]]:  # noqa: ANN401  # as above
    """Return the stream's shards, each with its parents."""
    found: list[dict[str, Any]] = []
    page = kinesis.list_shards(StreamARN=arn)
    found += page["Shards"]
    while "NextToken" in page:
        page = kinesis.list_shards(NextToken=page["NextToken"])
        found += page["Shards"]
    names = ("ParentShardId", "AdjacentParentShardId")
    return {one["ShardId"]: [one[name] for name in names if one.get(name)] for one in found}


def _is_done(shards: Mapping[str, _Shard], listed: Mapping[str, object], parent: str) -> bool:
    """Return whether a parent is finished; one that is no longer listed has no records left."""
    return parent not in listed or (parent in shards and shards[parent].is_done)


def _iso(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
