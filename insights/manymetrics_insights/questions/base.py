"""What all parts of a question share: strict, immutable models, and values with a grammar of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, timedelta
from difflib import get_close_matches
from typing import Annotated, Final, Literal, TypeAlias
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

Interval = Literal["hour", "day", "week", "month", "quarter"]
Population = Literal["exclude", "include", "only"]
Scalar: TypeAlias = StrictBool | StrictInt | StrictFloat | StrictStr

MAX_TEXT: Final = 1_000  # characters of a name or a value; the longest event name that is stored has 500
_UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,8})([smhdw])")
_MAX_DURATION_S: Final = 3_650 * 86_400
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Model(BaseModel):
    """A part of a question. Unknown fields are errors, and so are values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=False, allow_inf_nan=False)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``: did you mean X?`` for the known name that is nearest to ``name``, else an empty string."""
    found = get_close_matches(name, list(known), 1)
    return f": did you mean {found[0]!r}?" if found else ""


def seconds(duration: str) -> int:
    """Return the length of a duration such as ``30m`` or ``7d`` in seconds."""
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise ValueError(f"{duration!r} is not a duration: write a number and a unit, such as 90s, 30m, 24h, 7d or 2w")
    length = int(match[1]) * _UNIT_SECONDS[match[2]]
    if length > _MAX_DURATION_S:
        raise ValueError(f"{duration!r} is longer than ten years")
    return length


def _checked_duration(text: str) -> str:
    seconds(text)
    return text


def _checked_last(text: str) -> str:
    if _DURATION.fullmatch(text) is None or text[-1] not in "dw":
        raise ValueError(f"{text!r} is not a number of days: write 7d, 30d or 4w")
    seconds(text)
    return text


def _checked_date(text: str) -> str:
    try:
        day = date.fromisoformat(text if _DATE.fullmatch(text) else "")
    except ValueError:
        raise ValueError(f"{text!r} is not a date: write the year, month and day, as in 2026-09-05") from None
    if not 1970 <= day.year <= 9000:
        raise ValueError(f"{text!r} is out of range: years from 1970 to 9000")
    return text


def _checked_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise ValueError(f"{name!r} is not a time zone: write an IANA name, such as Europe/London or UTC") from None
    return name


def _checked_text(text: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("holds half of a UTF-16 pair, which no stored text can hold")
    return text


def _checked_value(value: Scalar) -> Scalar:
    return _checked_text(value) if isinstance(value, str) else value


Text = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_checked_text)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(_checked_text)]
Value = Annotated[Scalar, AfterValidator(_checked_value)]
Duration = Annotated[str, AfterValidator(_checked_duration), Field(examples=["30m", "24h", "7d"])]
LastDays = Annotated[str, AfterValidator(_checked_last), Field(examples=["30d"])]
LocalDate = Annotated[str, AfterValidator(_checked_date), Field(examples=["2026-09-05"])]
Zone = Annotated[str, AfterValidator(_checked_zone), Field(examples=["Europe/London"])]
Path = Annotated[tuple[Name, ...], Field(min_length=1, max_length=20, strict=False)]


def days(last: str) -> timedelta:
    """Return the length of ``last``."""
    return timedelta(seconds=seconds(last))
