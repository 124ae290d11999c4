"""The option ``--data-dir``, shared by every command that works on the files of one machine.

If there is no data, or no tables for a command that needs them, each exits with 2 and one line that names the fix.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
from pathlib import Path

from manymetrics.data_folder import why_unfinished, why_unusable
from manymetrics.settings import SettingsError

VARIABLE = "MANYMETRICS_DATA_DIR"
CURE = f"start the server (make run, or manymetrics serve), or name the right directory with --data-dir or {VARIABLE}"
NO_DISK_BYTES = 1_000_000  # free: with less, nothing can be stored
_DATA = ("keys.json", "stream.db", "catalog.db", "warehouse")  # what a server makes


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        "--data-dir",
        type=folder,
        default=default_data_dir(),
        metavar="DIR",
        help=f"where the data is kept (default: {VARIABLE}, else .manymetrics)",
    )


def folder(text: str) -> Path:
    """Raise ArgumentTypeError for an empty text, mostly an unset variable: Path takes it for the current directory."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty: name a directory (`.` is the current one)")
    return Path(text)


def default_data_dir() -> Path:
    """Return the directory to use if the option names none. An empty variable counts as unset."""
    return Path(os.environ.get(VARIABLE) or ".manymetrics")


def require_data(data_dir: Path) -> None:
    """Raise SettingsError if a command finds nothing to work on: no directory, or one without a server's data."""
    if (why := why_unusable(data_dir)) is not None:
        raise SettingsError(why)
    if not os.path.isdir(data_dir):  # noqa: PTH112  # Path raises on a name that is too long
        raise SettingsError(f"there is no data directory at {data_dir}: {CURE}")
    if (why := why_unfinished(data_dir)) is not None:
        raise SettingsError(why)
    if not any((data_dir / name).exists() for name in _DATA):
        raise SettingsError(f"there is no data in {data_dir}: {CURE}")


def require_tables(data_dir: Path) -> None:
    """Like ``require_data``, and also if the catalog has no tables. Leaves unreadable data to the command to report."""
    from manymetrics.tables import EVENTS
    from manymetrics_insights.reader.folder import metadata_path
    from manymetrics_insights.reader.iceberg import LakeError

    require_data(data_dir)
    try:
        location = metadata_path(data_dir, EVENTS.name)
    except (sqlite3.Error, LakeError):
        return
    if location is None:
        raise SettingsError(f"there are no tables in {data_dir}: {CURE}")
