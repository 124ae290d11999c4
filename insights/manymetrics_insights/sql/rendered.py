"""A question as SQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Rendered:
    """``columns`` of the answer; a further one, if any, is the value's where it is not null: exact, not a double.

    ``ignored``: a statement that counts values that are no numbers, if there may be any. ``changes_at``: when the
    passing of time alone may change the answer, naive UTC; None: never. ``used``: the columns of ``person_events``
    that it reads.
    """

    sql: str
    columns: tuple[str, ...]
    ignored: str | None = None
    changes_at: datetime | None = None
    used: frozenset[str] = frozenset()
