"""The books of a stream: how far it is committed, and what became of every event up to there.

Kept as one table property a stream, and in the summary of the snapshot that moves it, in the transaction that
commits the rows: so kill -9 changes no figure, and the books can't disagree with the table.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping

import msgspec

from manymetrics.outcomes import DEAD_LETTERED, DUPLICATE, STORED

PROPERTY_PREFIX = "manymetrics.stream."


class StreamBooks(msgspec.Struct, frozen=True, kw_only=True):
    """``watermarks``: the last committed sequence number of each shard, decimal text (Kinesis has 56 digits).

    ``received`` is what the records say they hold, counted apart from the outcomes that must add up to it.
    """

    stream: str
    watermarks: dict[str, str] = {}
    received: int = 0
    stored: int = 0
    duplicate: int = 0
    dead_lettered: dict[str, int] = {}

    @property
    def balanced(self) -> bool:
        """Received = stored + duplicate + dead-lettered, exactly."""
        return self.received == self.stored + self.duplicate + sum(self.dead_lettered.values())

    def watermark(self, shard: str) -> int:
        """-1 where nothing of the shard is committed."""
        return int(self.watermarks.get(shard, -1))

    def moved(
        self,
        watermarks: Mapping[str, int],
        *,
        received: int,
        stored: int = 0,
        duplicate: int = 0,
        dead_lettered: Mapping[str, int] | None = None,
    ) -> StreamBooks:
        """The books after a commit. Watermarks only rise."""
        risen = {shard: str(max(at, self.watermark(shard))) for shard, at in watermarks.items()}
        letters = Counter(self.dead_lettered)
        letters.update(dead_lettered or {})
        return StreamBooks(
            stream=self.stream,
            watermarks={**self.watermarks, **risen},
            received=self.received + received,
            stored=self.stored + stored,
            duplicate=self.duplicate + duplicate,
            dead_lettered=dict(letters),
        )

    def outcomes(self) -> dict[str, int]:
        """``stored``, ``duplicate`` and ``dead_lettered:<reason>``, with their counts."""
        letters = {f"{DEAD_LETTERED}:{reason}": count for reason, count in sorted(self.dead_lettered.items())}
        return {STORED: self.stored, DUPLICATE: self.duplicate, **letters}


_decoder = msgspec.json.Decoder(StreamBooks)
_encoder = msgspec.json.Encoder()


def property_name(stream: str) -> str:
    """The key of a stream's books; a hash, since stream names hold colons and slashes."""
    return PROPERTY_PREFIX + hashlib.sha256(stream.encode()).hexdigest()[:16]


def encode(books: StreamBooks) -> str:
    """As the property's text."""
    return _encoder.encode(books).decode()


def read_books(properties: Mapping[str, str]) -> list[StreamBooks]:
    """The books of every stream that a table's properties (or a snapshot's summary) hold."""
    return [_decoder.decode(text) for key, text in sorted(properties.items()) if key.startswith(PROPERTY_PREFIX)]


def books_of(stream: str, properties: Mapping[str, str]) -> StreamBooks:
    """A stream's books; empty ones where it has none."""
    text = properties.get(property_name(stream))
    return _decoder.decode(text) if text else StreamBooks(stream=stream)
