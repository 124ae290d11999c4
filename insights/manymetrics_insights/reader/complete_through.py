"""Tell from the books up to which time everything received is in the tables (complete-through).

The least, over the shards, of when the newest committed record arrived in its stream. The books can't tell a shard
that received nothing from one whose records wait: on one machine the stream itself does; on AWS, a shard counts as
idle if no record that arrived within 15 minutes is committed. The reader of the stream has an alarm for the other case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from manymetrics.books import KINESIS_STREAM, LOCAL_STREAM, StreamBooks, read_books

IDLE_AFTER: Final = timedelta(minutes=15)  # the longest batching window is 5 minutes
_NAMED: Final = 3  # shards that a note names

CompleteThrough = tuple[datetime | None, list[str]]
"""The time, aware and in UTC, up to which (exclusively) the tables are complete, None if unknown; and notes on it."""


@dataclass(frozen=True, slots=True)
class StreamState:
    """The stream of one machine, as against the books of the table that was read.

    ``is_empty``: whether these books have all of its records. ``oldest_waiting``: when the oldest that they don't have
    arrived, aware; None if unknown.
    """

    is_empty: bool
    oldest_waiting: datetime | None = None


def complete_through(
    properties: Mapping[str, str], now: datetime, local_stream: StreamState | None = None
) -> CompleteThrough:
    """Return up to which time everything that was acknowledged is in the table with these properties.

    ``properties``: of ``events``. ``now``: aware, taken before the table was read. ``local_stream``: read after the
    table; None on AWS, or if it can't be read.
    """
    now = now.astimezone(UTC)
    books = read_books(properties)
    if local_stream is not None and local_stream.is_empty:
        return now, []
    streams = [] if local_stream is not None else _current_incarnations(books)
    if streams:
        return _on_aws(streams, now)
    return _on_one_machine([one for one in books if one.stream.startswith(LOCAL_STREAM)], now, local_stream)


def _on_one_machine(books: Iterable[StreamBooks], now: datetime, local_stream: StreamState | None) -> CompleteThrough:
    """Use the last incarnation: what it found waiting is its own, and an earlier one has no other records."""
    times = [_to_datetime(at) for one in books for at in one.arrived_at.values()]
    if not times:
        return None, ["complete-through is unknown: no commit has noted it yet"]
    newest = min(now, max(times))
    if local_stream is None:
        return newest, [
            "the local stream was not read: complete-through is the time of the newest record in the tables"
        ]
    return min(newest, local_stream.oldest_waiting or newest), []


def _current_incarnations(books: Iterable[StreamBooks]) -> list[StreamBooks]:
    """Return the books of each Kinesis stream's last incarnation: what an earlier one held is gone."""
    newest: dict[str, tuple[float, StreamBooks]] = {}
    for one in books:
        if one.stream.startswith(KINESIS_STREAM):
            arn, _, created = one.stream.partition("@")
            known = newest.get(arn)
            if known is None or known[0] < float(created or 0):
                newest[arn] = float(created or 0), one
    return [one for _, one in newest.values()]


def _on_aws(streams: Iterable[StreamBooks], now: datetime) -> CompleteThrough:
    times: dict[str, datetime] = {}
    unknown: list[str] = []
    for books in streams:
        times |= {f"{books.stream}/{shard}": _to_datetime(at) for shard, at in books.arrived_at.items()}
        unknown += sorted(books.watermarks.keys() - books.arrived_at.keys() - set(books.ended))
    if unknown or not times:
        what = f"the books have no time for {_names(unknown)}" if unknown else "nothing is committed yet"
        return None, [f"complete-through is unknown: {what}; the next commit of a shard notes its time"]
    idle = {shard: at for shard, at in times.items() if at < now - IDLE_AFTER}
    through = min(now, *(max(at, now - IDLE_AFTER) for at in times.values()))
    return through, [_idle_note(idle, len(times))] if idle else []


def _idle_note(idle: Mapping[str, datetime], count: int) -> str:
    last = min(idle.values())
    since = f"since {last:%Y-%m-%dT%H:%M:%SZ}" if last.timestamp() > 0 else "ever"
    names = _names([shard.rpartition("/")[2] for shard in idle])
    return (
        f"no new record {since} in {len(idle)} of {count} shards ({names}), which count as complete up to 15 minutes "
        "ago; if the alarm on the stream's iterator age is on, records are waiting instead"
    )


def _names(shards: list[str]) -> str:
    more = [f"{len(shards) - _NAMED} more"] if len(shards) > _NAMED else []
    return ", ".join([*shards[:_NAMED], *more])


def _to_datetime(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
