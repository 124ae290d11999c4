"""The ledger ("books") of a stream: how far it is committed, and the outcome of every event up to there.

Stored as one table property per stream, and in the snapshot's summary, in the transaction that commits the rows: so
kill -9 changes no figure, and the books can't disagree with the table.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping

import msgspec

from manymetrics.outcomes import DEAD_LETTERED, DUPLICATE, STORED

PROPERTY_PREFIX = "manymetrics.stream."


class StreamBooks(msgspec.Struct, frozen=True, kw_only=True):
    """``watermarks``: the last committed sequence number per shard, as decimal text (Kinesis's have 56 digits).

    ``parts``: by shard, a record past the watermark whose events before a position are committed. Present only while
    a record is committed in parts, to isolate an event in it that can't be stored.

    ``received`` is counted from the records, independently of the outcomes, which must add up to it.
    """

    stream: str
    watermarks: dict[str, str] = {}
    parts: dict[str, tuple[str, int]] = {}
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
        received: int,
        stored: int = 0,
        duplicate: int = 0,
        dead_lettered: Mapping[str, int] | None = None,
    ) -> StreamBooks:
        """Return the books after a commit. Watermarks only rise.

        ``part``: the shard, sequence number and position up to which the last record is committed, if only in part.
        """
        risen = {shard: str(max(at, self.watermark(shard))) for shard, at in watermarks.items()}
        marks = {**self.watermarks, **risen}
        parts = {shard: one for shard, one in self.parts.items() if int(one[0]) > int(marks.get(shard, -1))}
        if part is not None:
            shard, sequence, position = part
            known, at = self.part(shard)
            parts[shard] = (str(sequence), max(position, at) if known == sequence else position)
        letters = Counter(self.dead_lettered)
        letters.update(dead_lettered or {})
        return StreamBooks(
            stream=self.stream,
            watermarks=marks,
            parts=parts,
            received=self.received + received,
            stored=self.stored + stored,
            duplicate=self.duplicate + duplicate,
            dead_lettered=dict(letters),
        )

    def outcomes(self) -> dict[str, int]:
        """Return the counts by outcome: ``stored``, ``duplicate`` and ``dead_lettered:<reason>``."""
        letters = {f"{DEAD_LETTERED}:{reason}": count for reason, count in sorted(self.dead_lettered.items())}
        return {STORED: self.stored, DUPLICATE: self.duplicate, **letters}


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
