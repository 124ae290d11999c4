"""The option ``--data-dir``, the same for every command that works on the files of one machine.

Where there is no data, or no tables where a command works on those, each ends with 2 and one line that names the cure.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
from pathlib import Path

from manymetrics.data_folder import why_unfinished, why_unusable
from manymetrics.settings import SettingsError

VARIABLE = "MANYMETRICS_DATA_DIR"
CURE = f"start the server (make run, or manymetrics serve), or name the right folder with --data-dir or {VARIABLE}"
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
    """Raises ArgumentTypeError for an empty text, which Path takes for the current folder: mostly an unset variable."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty: name a folder (`.` is the current one)")
    return Path(text)


def default_data_dir() -> Path:
    """The folder where the option doesn't name one. An empty variable is as none."""
    return Path(os.environ.get(VARIABLE) or ".manymetrics")


def require_data(data_dir: Path) -> None:
    """Raise SettingsError where a command finds nothing to work on: no folder, or one without a server's data."""
    if (why := why_unusable(data_dir)) is not None:
        raise SettingsError(why)
    if not os.path.isdir(data_dir):  # noqa: PTH112  # Path raises on a name that is too long
        raise SettingsError(f"there is no data folder at {data_dir}: {CURE}")
    if (why := why_unfinished(data_dir)) is not None:
        raise SettingsError(why)
    if not any((data_dir / name).exists() for name in _DATA):
        raise SettingsError(f"there is no data in {data_dir}: {CURE}")


def require_tables(data_dir: Path) -> None:
    """Like ``require_data``, also where the catalogue has no tables. Unreadable data is for the command to report."""
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
