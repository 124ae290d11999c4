"""Calendar buckets of a zone: worked out here, with Python's time zone data, so that both engines agree.

An engine only adds the zone's offset, by a CASE over the days when it changed. Naive times are UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from manymetrics_insights.questions.base import Interval
from manymetrics_insights.sql import text

MAX_BUCKETS: Final = 2_000
_STEP: Final = timedelta(hours=6)  # no zone changes its offset twice within it


@dataclass(frozen=True, slots=True)
class Bucket:
    """A calendar bucket. ``label``: its first local day; for an hour, the instant at which it begins, naive UTC.

    Where clocks change by half an hour, a rest of an hour is named by where the whole one would begin.
    """

    number: int
    label: date | datetime
    start: datetime
    end: datetime

    @property
    def literal(self) -> str:
        """The label as SQL."""
        return text.timestamp(self.label) if isinstance(self.label, datetime) else text.day(self.label)


def next_end(buckets: Iterable[Bucket], time: datetime) -> datetime | None:
    """Return when the next of these buckets ends that is not over at ``time``; None if all are."""
    return min((one.end for one in buckets if one.end > time), default=None)


@dataclass(frozen=True, slots=True)
class Calendar:
    """A zone and the first day of a week."""

    zone: str
    week_start: str = "monday"

    def midnight(self, day: date) -> datetime:
        """Return the first instant of a local day, naive UTC."""
        return _midnight(self.zone, day)

    def local_day(self, time: datetime) -> date:
        """Return the local day of a naive UTC time."""
        return time.replace(tzinfo=UTC).astimezone(ZoneInfo(self.zone)).date()

    def local_time(self, column: str, start: datetime, end: datetime) -> str:
        """Return SQL for the local time of a column whose values lie in [start, end]."""
        return self._by_offset(column, start, end, lambda offset: _shifted(column, offset))

    def _by_offset(self, column: str, start: datetime, end: datetime, make: Callable[[int], str]) -> str:
        """Return SQL that is ``make`` of the zone's offset in seconds at a column's time."""
        changes = _offsets(self.zone, start, end)
        made = [make(offset) for _, offset in changes]
        if len(made) == 1:
            return made[0]
        whens = [
            f"WHEN {column} < {text.timestamp(until)} THEN {sql}"
            for (until, _), sql in zip(changes[1:], made[:-1], strict=True)
        ]
        return f"CASE {' '.join(whens)} ELSE {made[-1]} END"

    def bucket(self, column: str, interval: Interval, start: datetime, end: datetime) -> str:
        """Return SQL for the label of the bucket that a column's time lies in."""
        if interval == "hour":  # not by the difference of two times, which Trino rounds to milliseconds
            return self._by_offset(
                column,
                start,
                end,
                lambda offset: _shifted(f"DATE_TRUNC('hour', {_shifted(column, offset)})", -offset),
            )
        local = self.local_time(column, start, end)
        if interval == "day":
            return f"CAST({local} AS DATE)"
        if interval == "week" and self.week_start == "sunday":
            shifted = f"DATE_TRUNC('week', CAST({local} AS DATE) + INTERVAL '1' DAY)"
            return f"CAST({shifted} - INTERVAL '1' DAY AS DATE)"
        return f"CAST(DATE_TRUNC('{interval}', CAST({local} AS DATE)) AS DATE)"

    def first_day(self, day: date, interval: Interval) -> date:
        """Return the first local day of the bucket of a local day."""
        if interval == "week":
            back = day.weekday() if self.week_start == "monday" else (day.weekday() + 1) % 7
            return day - timedelta(back)
        if interval == "month":
            return day.replace(day=1)
        if interval == "quarter":
            return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
        return day

    def next_day(self, first: date, interval: Interval, count: int = 1) -> date:
        """Return the first local day of the bucket ``count`` after that which begins at ``first``."""
        if interval in {"month", "quarter"}:
            months = first.year * 12 + first.month - 1 + count * (3 if interval == "quarter" else 1)
            return date(months // 12, months % 12 + 1, 1)
        return first + timedelta(count * (7 if interval == "week" else 1))

    def buckets(self, first: date, to: date, interval: Interval) -> list[Bucket]:
        """Return the buckets that hold the local days from ``first`` up to, without, ``to``. Raises ValueError."""
        if interval == "hour":
            return self._hours(first, to)
        found: list[Bucket] = []
        day = self.first_day(first, interval)
        while day < to:
            after = self.next_day(day, interval)
            found.append(Bucket(len(found), day, self.midnight(day), self.midnight(after)))
            day = after
            _check_count(len(found))
        return found

    def extended(self, buckets: list[Bucket], interval: Interval, count: int) -> list[Bucket]:
        """Return the buckets and ``count`` more. Raises ValueError."""
        found = list(buckets)
        while len(found) < len(buckets) + count:
            start = found[-1].end
            if interval == "hour":
                label: date | datetime = start - self._into_hour(start)
                end = self._next_hour(start)
            else:
                label = self.next_day(found[-1].label, interval)
                end = self.midnight(self.next_day(label, interval))
            found.append(Bucket(len(found), label, start, end))
            _check_count(len(found))
        return found

    def _hours(self, first: date, to: date) -> list[Bucket]:
        time, end = self.midnight(first), self.midnight(to)
        found: list[Bucket] = []
        while time < end:
            after = self._next_hour(time)
            found.append(Bucket(len(found), time - self._into_hour(time), time, after))
            time = after
            _check_count(len(found))
        return found

    def _next_hour(self, time: datetime) -> datetime:
        """Return the next instant that begins a local hour: 60 minutes later unless the offset changes between."""
        after = time - self._into_hour(time) + timedelta(hours=1)
        offsets = _offsets(self.zone, time, after)
        return offsets[1][0] if len(offsets) > 1 and offsets[1][1] % 3_600 != offsets[0][1] % 3_600 else after

    def _into_hour(self, time: datetime) -> timedelta:
        local = time.replace(tzinfo=UTC).astimezone(ZoneInfo(self.zone))
        return timedelta(minutes=local.minute, seconds=local.second)


def _shifted(column: str, offset: int) -> str:
    return column if offset == 0 else f"{column} {'+' if offset > 0 else '-'} {text.seconds(abs(offset))}"


def _check_count(count: int) -> None:
    if count > MAX_BUCKETS:
        raise ValueError(f"the range has more than {MAX_BUCKETS} buckets: choose a longer interval or a shorter range")


@lru_cache(maxsize=10_000)
def _midnight(zone: str, day: date) -> datetime:
    """Return the first instant of a local day; where clocks skip midnight, that of the change, as zoneinfo resolves it."""
    local = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
    return local.astimezone(UTC).replace(tzinfo=None)


@lru_cache(maxsize=1_000)
def _offsets(zone: str, start: datetime, end: datetime) -> list[tuple[datetime, int]]:
    """Return the offsets from UTC, in seconds, within [start, end], each with the instant from which it applies."""
    info = ZoneInfo(zone)
    found = [(start, _offset(info, start))]
    time = start
    while time < end:
        after = min(time + _STEP, end)
        if _offset(info, after) != found[-1][1]:
            low, high = time, after
            while high - low > timedelta(seconds=1):
                middle = low + (high - low) / 2
                middle = middle.replace(microsecond=0) if middle.replace(microsecond=0) > low else middle
                low, high = (middle, high) if _offset(info, middle) == found[-1][1] else (low, middle)
            found.append((high.replace(microsecond=0), _offset(info, high)))
        time = after
    return found


def _offset(info: ZoneInfo, time: datetime) -> int:
    offset = time.replace(tzinfo=UTC).astimezone(info).utcoffset()
    return int(offset.total_seconds()) if offset is not None else 0
