"""Tell an event that can't be stored from an outage, and find it by halves.

A batch fails because of the disk, the network, the catalogue or a lost race: then it is tried again as it is. Or it
fails because of what is in it: then the events that make it fail become dead letters, and the rest is committed.

How the two are told apart:

1. An error that no event can cause (``is_retryable``) never condemns one: the batch is tried again.
2. At any other error a plain event goes the same way: staged on the same day and appended but for the commit. Before an
   event is condemned, a commit without events is made, too. Where either fails, the cause is not in the batch: it is
   tried again. What the table holds and can't be read is an error of the first kind (``StoredDataError``).
3. Otherwise the batch is halved, first between records and then inside one, and each half is staged without a commit.
   An event that fails by itself, twice, while a plain one passes, is the cause.
4. Where nothing fails without a commit, the halves are committed in order, each with its own watermark. A single event
   is the cause when its commit failed ATTEMPTS times.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException
from sqlalchemy.exc import DBAPIError

from manymetrics.records import unpack
from manymetrics_processor.decode.batch import EventKey, StreamRecord
from manymetrics_processor.errors import RetryableError

_RETRYABLE = (
    *(RetryableError, MemoryError, OSError, sqlite3.Error, DBAPIError),
    *(CommitFailedException, CommitStateUnknownException),
)
ATTEMPTS = 3
MOST_TRIALS = 400  # a commit's halves that are tried: past it, what fails goes whole, so that no batch takes minutes


def is_retryable(error: BaseException, *, suspect: bool = False) -> bool:
    """Whether no event can cause an error.

    ``suspect``: the batch has failed again and again. Then an error of a file system counts only where it has an errno
    or names AWS: Arrow raises OSError without one for what it can't write, too.
    """
    if suspect and type(error) is OSError and error.errno is None:
        return "AWS Error" in str(error)
    return isinstance(error, _RETRYABLE) or type(error).__module__.partition(".")[0] == "botocore"


class Span(NamedTuple):
    """Events of a batch that follow each other; ``begin`` and ``end`` as in decode.Batch."""

    records: Sequence[StreamRecord]
    begin: int
    end: int | None


class Spans:
    """A batch as one row of events, from 0 to ``len``.

    ``records`` are in a batch's order. ``length``: how many events one has.
    """

    def __init__(self, records: Sequence[StreamRecord], length: Callable[[StreamRecord], int]) -> None:
        self._records = records
        self._starts = [0, *accumulate(max(1, length(record)) for record in records)]

    def __len__(self) -> int:
        return self._starts[-1]

    def span(self, start: int, stop: int) -> Span:
        """The events from ``start`` to before ``stop``, which are not none."""
        first, last = self._record_at(start), self._record_at(stop - 1)
        end = None if stop == self._starts[last + 1] else stop - self._starts[last]
        return Span(self._records[first : last + 1], start - self._starts[first], end)

    def middle(self, start: int, stop: int) -> int:
        """Where to halve: between two records while there are two, else inside one."""
        middle, first, last = (start + stop) // 2, self._record_at(start), self._record_at(stop - 1)
        if first == last:
            return middle
        at = self._record_at(middle)
        borders = [self._starts[one] for one in (at, at + 1) if first < one <= last]
        return min(borders, key=lambda border: abs(border - middle))

    def key(self, at: int) -> EventKey:
        """The event at a place."""
        record = self._record_at(at)
        return (*self._records[record][:2], at - self._starts[record])

    def failing(self, start: int, stop: int, try_out: Callable[[Span], Exception | None]) -> dict[int, str]:
        """The places whose events fail when tried out, each with the error's name.

        By halves, depth first; past MOST_TRIALS a half that fails is not halved again.
        """
        found: dict[int, str] = {}
        waiting, trials = [(start, stop)], 0
        while waiting:
            begin, end = waiting.pop()
            trials += 1
            error = try_out(self.span(begin, end))
            if error is None:
                continue
            is_last = end - begin == 1 or trials > MOST_TRIALS
            if is_last and (error := try_out(self.span(begin, end))) is None:
                continue
            if is_last:
                found |= dict.fromkeys(range(begin, end), type(error).__name__)
            else:
                middle = self.middle(begin, end)
                waiting += [(middle, end), (begin, middle)]
        return found

    def _record_at(self, at: int) -> int:
        return bisect_right(self._starts, at) - 1


def event_count(record: StreamRecord) -> int:
    """How many events a record holds: one where it can't be read, since it becomes one dead letter."""
    try:
        return len(unpack(record.data).events)
    except Exception:  # noqa: BLE001  # whatever it is, decoding the record tells
        return 1
