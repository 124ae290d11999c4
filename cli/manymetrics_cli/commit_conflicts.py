"""Report that a command could not commit because other processes kept committing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class LostRacesError(Exception):
    """Nothing is broken or half done; the message tells the user what to do."""


@contextmanager
def report_commit_conflicts() -> Iterator[None]:
    """Raise LostRacesError for what the lake raises after its last attempt."""
    from sqlalchemy.exc import OperationalError

    from manymetrics_processor.errors import CommitNotConfirmedError
    from manymetrics_processor.lake.lake import CommitContentionError, RolledBackError

    try:
        yield
    except (CommitContentionError, CommitNotConfirmedError) as error:
        raise LostRacesError(f"{error}: run the command again") from error
    except OperationalError as error:
        why = "is in use" if "locked" in str(error.orig) else "can't be written"
        raise LostRacesError(f"the catalog {why} ({error.orig}): run the command again") from error
    except RolledBackError as error:
        raise LostRacesError(str(error)) from error
