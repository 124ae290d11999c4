"""The ledger ("books") of a stream: how far it is committed, and the outcome of every event up to there.

Stored as one table property per stream, and in the snapshot's summary, in the transaction that commits the rows: so
kill -9 changes no figure, and the books can't disagree with the table.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import msgspec

from manymetrics.outcomes import DEAD_LETTERED, DUPLICATE, STORED

PROPERTY_PREFIX = "manymetrics.stream."
LOCAL_STREAM = "local:"  # begins the name of one machine's stream; then comes its incarnation
KINESIS_STREAM = (
    "arn:"  # begins the name of a Kinesis stream: its ARN, `@`, and when it was created, in seconds since 1970
)
_NO_TIMES: Mapping[str, int] = MappingProxyType({})

Shards = Mapping[str, Sequence[str]]
"""The shards that a stream lists, each with its parents: the closed ones that a resharding made it from."""


class StreamBooks(msgspec.Struct, frozen=True, kw_only=True):
    """``watermarks``: the last committed sequence number per shard, as decimal text (Kinesis's have 56 digits).

    ``parts``: by shard, a record past the watermark whose events before a position are committed. Present only while
    a record is committed in parts, to isolate an event in it that can't be stored.

    ``arrived_at``: by shard, when the newest committed record arrived in the stream, in microseconds since 1970, UTC;
    0 for a shard of which nothing is committed yet. Empty for sources that are no stream: backfills and replays.

    ``ended``: the shards that a resharding closed, once they were read to their end. They have no time.

    ``received`` is counted from the records, independently of the outcomes, which must add up to it.
    """

    stream: str
    watermarks: dict[str, str] = {}
    parts: dict[str, tuple[str, int]] = {}
    arrived_at: dict[str, int] = {}
    ended: list[str] = []
    received: int = 0
    stored: int = 0
    duplicate: int = 0
    dead_lettered: dict[str, int] = {}

    @property
    def balanced(self) -> bool:
        """Return whether received = stored + duplicate + dead-lettered, exactly."""
        return self.received == self.stored + self.duplicate + sum(self.dead_lettered.values())

    def watermark(self, shard: str) -> int:
        """Return a shard's watermark; -1 if nothing of it is committed."""
        return int(self.watermarks.get(shard, -1))

    def part(self, shard: str) -> tuple[int, int]:
        """Return the partly committed record, and up to which position it is. (-1, 0) if there is none."""
        sequence, position = self.parts.get(shard, ("-1", 0))
        return int(sequence), position

    def moved(
        self,
        watermarks: Mapping[str, int],
        *,
        part: tuple[str, int, int] | None = None,
        arrived_at: Mapping[str, int] = _NO_TIMES,
        shards: Shards | None = None,
        received: int,
        stored: int = 0,
        duplicate: int = 0,
        dead_lettered: Mapping[str, int] | None = None,
    ) -> StreamBooks:
        """Return the books after a commit. Watermarks and times only rise.

        ``part``: the shard, sequence number and position up to which the last record is committed, if only in part.
        ``arrived_at``: by shard, the latest arrival of a committed record. ``shards``: those that the stream lists, if
        known.
        """
        risen = {shard: str(max(at, self.watermark(shard))) for shard, at in watermarks.items()}
        marks = {**self.watermarks, **risen}
        parts = {shard: one for shard, one in self.parts.items() if int(one[0]) > int(marks.get(shard, -1))}
        if part is not None:
            shard, sequence, position = part
            known, at = self.part(shard)
            parts[shard] = (str(sequence), max(position, at) if known == sequence else position)
        times, ended = self._moved_times(arrived_at, marks, shards)
        letters = Counter(self.dead_lettered)
        letters.update(dead_lettered or {})
        return StreamBooks(
            stream=self.stream,
            watermarks=marks,
            parts=parts,
            arrived_at=times,
            ended=ended,
            received=self.received + received,
            stored=self.stored + stored,
            duplicate=self.duplicate + duplicate,
            dead_lettered=dict(letters),
        )

    def _moved_times(
        self, arrived_at: Mapping[str, int], marks: Mapping[str, str], shards: Shards | None
    ) -> tuple[dict[str, int], list[str]]:
        """Return ``arrived_at`` and ``ended`` after a commit."""
        times = {
            **self.arrived_at,
            **{shard: max(at, self.arrived_at.get(shard, 0)) for shard, at in arrived_at.items()},
        }
        if shards is None:
            ended = set(self.ended)
        else:
            times = {**dict.fromkeys(shards.keys() - marks.keys(), 0), **times}
            ended = {*self.ended, *_ancestors(marks, shards), *_expired({*marks, *times}, shards)}
        return {shard: at for shard, at in times.items() if shard not in ended}, sorted(ended)

    def outcomes(self) -> dict[str, int]:
        """Return the counts by outcome: ``stored``, ``duplicate`` and ``dead_lettered:<reason>``."""
        letters = {f"{DEAD_LETTERED}:{reason}": count for reason, count in sorted(self.dead_lettered.items())}
        return {STORED: self.stored, DUPLICATE: self.duplicate, **letters}


def _ancestors(read: Iterable[str], shards: Shards) -> set[str]:
    """Return the ancestors of shards that were read: a shard is only read once its parents are finished."""
    found: set[str] = set()
    waiting = [parent for shard in read for parent in shards.get(shard, ())]
    while waiting:
        shard = waiting.pop()
        if shard not in found:
            found.add(shard)
            waiting += shards.get(shard, ())
    return found


def _expired(known: Iterable[str], shards: Shards) -> set[str]:
    """Return the shards that are no longer listed: they were closed, and have outlived the stream's retention.

    The list may be older than a shard's first record. Such a shard is newer than all in it, and ids of shards rise.
    """
    newest = max(shards, default="")
    return {shard for shard in known if shard not in shards and shard < newest}


_decoder = msgspec.json.Decoder(StreamBooks)
_encoder = msgspec.json.Encoder()


def property_name(stream: str) -> str:
    """Return the property name of a stream's books: a hash, since stream names contain colons and slashes."""
    return PROPERTY_PREFIX + hashlib.sha256(stream.encode()).hexdigest()[:16]


def encode(books: StreamBooks) -> str:
    """Encode as the property's text."""
    return _encoder.encode(books).decode()


def read_books(properties: Mapping[str, str]) -> list[StreamBooks]:
    """Read the books of every stream from a table's properties or a snapshot's summary."""
    return [_decoder.decode(text) for key, text in sorted(properties.items()) if key.startswith(PROPERTY_PREFIX)]


def parse_books(stream: str, properties: Mapping[str, str]) -> StreamBooks:
    """Parse a stream's books; empty ones if it has none."""
    text = properties.get(property_name(stream))
    return _decoder.decode(text) if text else StreamBooks(stream=stream)
