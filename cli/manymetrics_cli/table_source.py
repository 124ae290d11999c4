"""Find the tables that a command reads: those of one machine, or those on AWS."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Final

from manymetrics.settings import Settings, SettingsError
from manymetrics_cli.data_dir import default_data_dir, require_tables
from manymetrics_cli.packages import missing_module
from manymetrics_cli.rows_output import CommandError

if TYPE_CHECKING:
    from manymetrics_insights.reader.iceberg import Source

WAREHOUSE_VARIABLE: Final = "MANYMETRICS_WAREHOUSE"


def find_source(data_dir: Path | None) -> Source:
    """Return the tables to query: those of --data-dir, else of the warehouse, else of the default data directory."""
    warehouse = os.environ.get(WAREHOUSE_VARIABLE)
    if data_dir is not None or not warehouse:
        from manymetrics_insights.reader.folder import Folder

        folder = data_dir or default_data_dir()
        try:
            require_tables(folder)
        except SettingsError as error:
            more = f"; for the tables on AWS, set {WAREHOUSE_VARIABLE}" if str(error).startswith("there ") else ""
            raise SettingsError(f"{error}{more}") from error
        return Folder(folder)
    try:
        from manymetrics_insights.reader.s3 import glue_source
    except ModuleNotFoundError as error:
        raise CommandError(missing_module(error) or str(error)) from error
    return glue_source(warehouse, Settings.read(os.environ).database, os.environ)


def describe_reading_failure(error: Exception) -> str | None:
    """Return the message for the user about tables or files that can't be read or written; None for other errors."""
    from manymetrics_insights.reader.formats import escape_controls
    from manymetrics_insights.reader.iceberg import LakeError

    if isinstance(error, sqlite3.Error):
        return f"The catalog can't be read: {error}. See `manymetrics doctor`."
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "The disk that the rows are written to is full: free some space, or name another file with --to."
    if isinstance(error, PermissionError):
        return f"{error.filename or 'A file'} can't be read: run this as the user that runs the server."
    if isinstance(error, CommandError | LakeError | OSError):
        return escape_controls(str(error).strip(), keep="\n")
    return None
