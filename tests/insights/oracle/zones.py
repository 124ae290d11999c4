"""Local days and buckets. A bucket is the date of its first day; an hour is the UTC instant at which it starts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

Bucket = date | datetime  # a datetime only for hours


@lru_cache(maxsize=200_000)
def local(instant: datetime, zone: str) -> datetime:
    return instant.replace(tzinfo=UTC).astimezone(ZoneInfo(zone))


def local_day(instant: datetime, zone: str) -> date:
    return local(instant, zone).date()


@lru_cache(maxsize=10_000)
def start_of_day(day: date, zone: str) -> datetime:
    """The first instant of a local day, naive and UTC."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
    return midnight.astimezone(UTC).replace(tzinfo=None)


def bucket_of(instant: datetime, interval: str, zone: str, week_start: str) -> Bucket:
    here = local(instant, zone)
    if interval == "hour":
        return instant - timedelta(minutes=here.minute, seconds=here.second, microseconds=here.microsecond)
    return bucket_of_day(here.date(), interval, week_start)


def bucket_of_day(day: date, interval: str, week_start: str) -> date:
    if interval == "day":
        return day
    if interval == "week":
        days_in = day.weekday() if week_start == "monday" else (day.weekday() + 1) % 7
        return day - timedelta(days=days_in)
    if interval == "month":
        return day.replace(day=1)
    assert interval == "quarter"
    return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)


def after(bucket: Bucket, interval: str, count: int = 1) -> Bucket:
    """The bucket ``count`` later."""
    if interval == "hour":
        return bucket + timedelta(hours=count)
    if interval in ("day", "week"):
        return bucket + timedelta(days=count * (7 if interval == "week" else 1))
    months = bucket.year * 12 + bucket.month - 1 + count * (3 if interval == "quarter" else 1)
    return date(months // 12, months % 12 + 1, 1)


def start_of(bucket: Bucket, zone: str) -> datetime:
    return bucket if isinstance(bucket, datetime) else start_of_day(bucket, zone)


def end_of(bucket: Bucket, interval: str, zone: str) -> datetime:
    return start_of(after(bucket, interval), zone)


def days(start: date, stop: date) -> Iterator[date]:
    while start < stop:
        yield start
        start += timedelta(days=1)


@lru_cache(maxsize=10_000)
def buckets(start: date, stop: date, interval: str, zone: str, week_start: str) -> tuple[Bucket, ...]:
    """Every bucket that has a part of the local days [start, stop)."""
    if interval != "hour":
        return tuple(sorted({bucket_of_day(day, interval, week_start) for day in days(start, stop)}))
    found = set()
    instant = start_of_day(start, zone)
    while instant < start_of_day(stop, zone):
        found.add(bucket_of(instant, "hour", zone, week_start))
        instant += timedelta(minutes=15)
    return tuple(sorted(found))


def shown(bucket: Bucket) -> str:
    return instant_text(bucket) if isinstance(bucket, datetime) else bucket.isoformat()


def instant_text(instant: datetime) -> str:
    return instant.isoformat() + "Z"  # microseconds only where not zero


def duration(text: str) -> timedelta:
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[text[-1]]
    return timedelta(**{unit: int(text[:-1])})
