"""The durable stream on AWS: writes records to Kinesis, each confirmed before its request is answered.

One compressed record per request. On a server, records that arrive within a few milliseconds share a PutRecords call.
Only records that Kinesis did not accept are retried, until the request times out.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import secrets
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from manymetrics.records import compress
from manymetrics_api.aws.signed_calls import CallError, Place, SignedClient
from manymetrics_api.sinks import SinkResult

log = logging.getLogger("manymetrics.kinesis")

MAX_RECORDS_A_CALL = 500  # Kinesis's limit
MAX_BYTES_A_CALL = 4_500_000  # Kinesis's limit is 5 MiB, including partition keys
LINGER_S = 0.005  # how long a record on a server waits for others, to share a call
PUT_TIMEOUT_S = 5.0  # from put to "can't store"
CALL_TIMEOUT_S = 2.0  # one call, including connecting: slower ones are retried over another connection
BACKOFF_S, MAX_BACKOFF_S = 0.05, 1.0
_THROTTLED = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "ThrottlingException",
        "KMSThrottlingException",
    }
)


UNREADABLE = "unreadable response"


class _Result(msgspec.Struct):
    error_code: str | None = msgspec.field(default=None, name="ErrorCode")


class _Answer(msgspec.Struct):
    records: list[_Result] = msgspec.field(name="Records")


class _Stream(msgspec.Struct):
    status: str = msgspec.field(name="StreamStatus")


class _Summary(msgspec.Struct):
    stream: _Stream = msgspec.field(name="StreamDescriptionSummary")


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A pending record, and its waiter."""

    data: bytes
    future: asyncio.Future[SinkResult]
    until: float


class KinesisSink:
    """A Kinesis stream as a sink.

    ``linger_s``: how long a record waits for others to share its call: 0 if requests come one at a time.
    For use from one event loop.
    """

    def __init__(self, stream: str, place: Place, *, linger_s: float = LINGER_S) -> None:
        self._stream, self._linger_s = stream, linger_s
        self._client = SignedClient("kinesis", "Kinesis_20131202.", place)
        self._waiting: deque[_Waiting] = deque()
        self._flush_soon: asyncio.TimerHandle | None = None
        self._calls: set[asyncio.Task[None]] = set()

    async def put(self, records: Sequence[bytes]) -> list[SinkResult]:
        """Like ``Sink.put``. Returns within PUT_TIMEOUT_S."""
        loop, until = asyncio.get_running_loop(), time.monotonic() + PUT_TIMEOUT_S
        waiting = [_Waiting(compress(record), loop.create_future(), until) for record in records]
        self._waiting += waiting
        if not self._linger_s:
            self._flush()
        elif self._flush_soon is None:
            self._flush_soon = loop.call_later(self._linger_s, self._flush)
        return [await record.future for record in waiting]

    async def ready(self) -> bool:
        """Like ``Sink.ready``: whether the stream exists and accepts records."""
        try:
            answer = await self._client.call("DescribeStreamSummary", {"StreamName": self._stream}, CALL_TIMEOUT_S)
            status = msgspec.json.decode(answer, type=_Summary).stream.status
        except (CallError, msgspec.MsgspecError):
            return False
        return status in {"ACTIVE", "UPDATING"}

    async def close(self) -> None:
        """Like ``Sink.close``."""
        self._flush()
        await asyncio.gather(*self._calls)
        self._client.close()

    def _flush(self) -> None:
        """Start a call for the waiting records: several if one can't hold them."""
        if self._flush_soon is not None:
            self._flush_soon.cancel()
            self._flush_soon = None
        while self._waiting:
            some: list[_Waiting] = []
            size = 0
            while self._waiting and len(some) < MAX_RECORDS_A_CALL:
                size += len(self._waiting[0].data)
                if some and size > MAX_BYTES_A_CALL:
                    break
                some.append(self._waiting.popleft())
            call = asyncio.get_running_loop().create_task(self._store(some))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _store(self, records: list[_Waiting]) -> None:
        """Send until all are stored, or the oldest times out."""
        until, backoff_s = min(record.until for record in records), BACKOFF_S
        result = SinkResult.UNAVAILABLE
        try:
            while True:
                failed, result = await self._send(records, until)
                for record in set(records).difference(failed):
                    _answer(record, SinkResult.STORED)
                records = failed
                wait_s = backoff_s * random.uniform(0.5, 1)  # noqa: S311  # jitter, not security
                if not records or time.monotonic() + wait_s >= until:
                    return
                await asyncio.sleep(wait_s)
                backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
        except Exception:  # any error: the records have waiters
            log.exception("a Kinesis call failed")
        finally:
            for record in records:
                _answer(record, result)

    async def _send(self, records: list[_Waiting], until: float) -> tuple[list[_Waiting], SinkResult]:
        """Send one PutRecords; returns the records that were not stored, and their result."""
        entries = [
            # A random key each: order is kept within a record, and shards are filled evenly.
            {"Data": base64.b64encode(record.data).decode(), "PartitionKey": secrets.token_hex(8)}
            for record in records
        ]
        content = {"StreamName": self._stream, "Records": entries}
        timeout_s = min(max(0.01, until - time.monotonic()), CALL_TIMEOUT_S)
        try:
            answer = await self._client.call("PutRecords", content, timeout_s)
            codes = [result.error_code for result in msgspec.json.decode(answer, type=_Answer).records]
        except CallError as error:
            codes = [error.code] * len(records)
        except msgspec.MsgspecError:
            codes = [UNREADABLE] * len(records)
        if len(codes) != len(records):
            codes = [UNREADABLE] * len(records)
        failed = [record for record, code in zip(records, codes, strict=True) if code is not None]
        if failed:
            facts = {"failed": len(failed), "of": len(records), "codes": sorted({code for code in codes if code})}
            log.warning("Kinesis did not accept every record", extra={"facts": facts})
        throttled = any(code in _THROTTLED for code in codes)
        return failed, SinkResult.THROTTLED if throttled else SinkResult.UNAVAILABLE


def _answer(record: _Waiting, result: SinkResult) -> None:
    if not record.future.done():
        record.future.set_result(result)
