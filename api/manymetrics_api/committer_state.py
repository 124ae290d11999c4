"""Keep the committer's state in a file of the data folder: for `doctor`, and for the log of the server.

It is there only while commits fail, or the committer waits for its lock. A process that is started meanwhile counts on.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from manymetrics_api.private_files import write_private

STALLED_S = 60.0  # records that have waited so long without any commit: nothing moves
_NAME = "committer.json"


class CommitterState(msgspec.Struct, frozen=True):
    """``since``: seconds since 1970. ``failures``: how many commits failed since, one after the other."""

    since: float
    error: str
    failures: int = 0

    @property
    def age_s(self) -> float:
        """For how long, in seconds."""
        return max(0.0, time.time() - self.since)


def write_state(data_dir: Path, state: CommitterState | None) -> None:
    """Replace the state, or remove it. Never raises: the disk may be what fails."""
    path = data_dir / _NAME
    try:
        if state is None:
            path.unlink(missing_ok=True)
            return
        write_private(path, msgspec.json.encode(state))
    except OSError:
        return


def read_state(data_dir: Path) -> CommitterState | None:
    """None where all is well, or nobody can tell."""
    try:
        return msgspec.json.decode((data_dir / _NAME).read_bytes(), type=CommitterState)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
