"""The tables of one machine: files in a directory, with SQLite as the catalog."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import quote

from manymetrics.data_folder import path_in, why_unusable
from manymetrics.tables import NAMESPACE
from manymetrics_insights.reader.iceberg import Attached, DataFile, LakeError, gone

if TYPE_CHECKING:
    import duckdb

CATALOG_NAME: Final = "manymetrics"
CATALOG_FILE: Final = "catalog.db"


@dataclass(frozen=True, slots=True)
class Folder:
    """A ``Source``: the data directory of one machine."""

    data_dir: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "data_dir", self.data_dir.resolve())  # once, not for each file

    def metadata_location(self, table: str) -> str | None:
        """Implement ``Source``; also raises sqlite3.Error."""
        if (why := why_unusable(self.data_dir)) is not None:
            raise LakeError(f"{why}.")
        if not self.data_dir.is_dir():
            raise LakeError(
                f"No data directory at {self.data_dir}. Start the server first (`make run`, or `manymetrics serve`), "
                "or name the right directory with --data-dir or MANYMETRICS_DATA_DIR; for the tables on AWS, set "
                "MANYMETRICS_WAREHOUSE."
            )
        return _metadata_location(self.data_dir / CATALOG_FILE, table)

    def path(self, location: str) -> str:
        return _path(self.data_dir, location)

    def read(self, locations: Sequence[str]) -> Iterator[bytes]:
        for location in locations:
            path = self.path(location)
            try:
                yield Path(path).read_bytes()
            except FileNotFoundError as error:
                raise gone(path) from error

    def attach(self, _connection: duckdb.DuckDBPyConnection, files: Sequence[DataFile]) -> Attached:
        """Do nothing: DuckDB reads local files itself."""
        return lambda: next((gone(file.path) for file in files if not Path(file.path).exists()), None)

    def pyiceberg_properties(self) -> dict[str, str]:
        """Return the properties for ``folder_io``."""
        return {"py-io-impl": "manymetrics_insights.reader.folder_io.FolderFileIO", "folder": str(self.data_dir)}


def metadata_path(data_dir: Path, name: str) -> str | None:
    """Return a table's current metadata file, or None if there is no such table.

    Raises sqlite3.Error, LakeError.
    """
    location = _metadata_location(data_dir / CATALOG_FILE, name)
    return None if location is None else _path(data_dir.resolve(), location)


def _path(data_dir: Path, location: str) -> str:
    try:
        return path_in(str(data_dir), location)
    except ValueError as error:
        raise LakeError(f"{error}: restore the catalog.db of these tables, or run `manymetrics recover`.") from error


def open_read_only(path: Path, timeout_s: float = 5.0, *, immutable: bool = False) -> sqlite3.Connection:
    """Open a SQLite file read-only, whatever characters its path has. ``timeout_s``: how long to wait for a lock.

    ``immutable``: nobody writes, so no lock and no other file is needed. Raises sqlite3.Error.
    """
    mode = "immutable=1" if immutable else "mode=ro"
    return sqlite3.connect(f"file://{quote(str(path.absolute()))}?{mode}", uri=True, timeout=timeout_s)


def _metadata_location(catalog: Path, name: str) -> str | None:
    if not catalog.exists():
        return None
    with closing(open_read_only(catalog, timeout_s=10)) as database:
        if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'iceberg_tables'").fetchone() is None:
            return None
        row = database.execute(
            "SELECT metadata_location FROM iceberg_tables"
            " WHERE catalog_name = ? AND table_namespace = ? AND table_name = ?",
            (CATALOG_NAME, NAMESPACE, name),
        ).fetchone()
    return None if row is None else cast("str", row[0])
