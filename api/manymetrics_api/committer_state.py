"""Store the committer's state in a file of the data directory, for `doctor` and the server's log.

The file exists only while commits fail, or the committer waits for its lock. A new process continues its count.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from manymetrics_api.private_files import write_private

STALLED_S = 60.0  # records that have waited this long without a commit count as stalled
_NAME = "committer.json"


class CommitterState(msgspec.Struct, frozen=True):
    """``since``: seconds since 1970. ``failures``: the number of consecutive failed commits since."""

    since: float
    error: str
    failures: int = 0

    @property
    def age_s(self) -> float:
        """The duration of this state, in seconds."""
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
    """Read the state; None if there is no problem, or it is unknown."""
    try:
        return msgspec.json.decode((data_dir / _NAME).read_bytes(), type=CommitterState)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
