"""Distinguish events that can't be stored from outages, and find them by bisection.

A batch may fail because of the disk, the network, the catalog or a lost race: then it is retried unchanged. Or it
fails because of its content: then the events that cause it become dead letters, and the rest is committed.

How the two are distinguished:

1. An error that no event can cause (``is_retryable``) never condemns an event: the batch is retried.
2. After any other error, a control event goes the same way: it is staged on the same day and appended without the
   commit. Before an event is condemned, a commit without events is made, too. If either fails, the batch is not the
   cause: it is retried. Unreadable data in the table is an error of the first kind (``StoredDataError``).
3. Otherwise the batch is bisected, first between records and then inside one, and each half is staged without a
   commit. An event that fails on its own, twice, while the control event passes, is the cause.
4. If nothing fails without a commit, the halves are committed in order, each with its own watermark. A single event is
   the cause once its commit has failed ATTEMPTS times.
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
MOST_TRIALS = 400  # trials per commit: past it, a failing part is condemned whole, so that no batch takes minutes


def is_retryable(error: BaseException, *, suspect: bool = False) -> bool:
    """Return whether an error can't be caused by an event.

    ``suspect``: the batch has failed repeatedly. Then a file system error counts only if it has an errno or names AWS:
    Arrow also raises OSError, without an errno, for values that it can't write.
    """
    if suspect and type(error) is OSError and error.errno is None:
        return "AWS Error" in str(error)
    return isinstance(error, _RETRYABLE) or type(error).__module__.partition(".")[0] == "botocore"


class Span(NamedTuple):
    """Consecutive events of a batch; ``begin`` and ``end`` as in decode.Batch."""

    records: Sequence[StreamRecord]
    begin: int
    end: int | None


class Spans:
    """A batch as one sequence of events, from 0 to ``len``.

    ``records`` are in the batch's order. ``length``: returns a record's number of events.
    """

    def __init__(self, records: Sequence[StreamRecord], length: Callable[[StreamRecord], int]) -> None:
        self._records = records
        self._starts = [0, *accumulate(max(1, length(record)) for record in records)]

    def __len__(self) -> int:
        return self._starts[-1]

    def span(self, start: int, stop: int) -> Span:
        """Return the events from ``start`` to before ``stop``, at least one."""
        first, last = self._record_at(start), self._record_at(stop - 1)
        end = None if stop == self._starts[last + 1] else stop - self._starts[last]
        return Span(self._records[first : last + 1], start - self._starts[first], end)

    def middle(self, start: int, stop: int) -> int:
        """Return where to bisect: between two records if there are several, else inside one."""
        middle, first, last = (start + stop) // 2, self._record_at(start), self._record_at(stop - 1)
        if first == last:
            return middle
        at = self._record_at(middle)
        borders = [self._starts[one] for one in (at, at + 1) if first < one <= last]
        return min(borders, key=lambda border: abs(border - middle))

    def key(self, at: int) -> EventKey:
        """Return the key of the event at a position."""
        record = self._record_at(at)
        return (*self._records[record][:2], at - self._starts[record])

    def failing(self, start: int, stop: int, try_out: Callable[[Span], Exception | None]) -> dict[int, str]:
        """Return the positions of events that fail when tried out, with the error's name.

        Bisects, depth first; past MOST_TRIALS a failing half is not split again.
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
    """Return a record's number of events; 1 if it can't be read, since it becomes one dead letter."""
    try:
        return len(unpack(record.data).events)
    except Exception:  # noqa: BLE001  # decoding the record will report it
        return 1
