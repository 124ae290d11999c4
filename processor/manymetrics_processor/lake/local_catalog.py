"""The catalogue of one machine: SQLite, with the tables' files in a folder next to it.

Three things differ from pyiceberg's own:

- Each transaction has a connection of its own. A COMMIT that fails (somebody reads the file) leaves SQLite's
  transaction open: a pooled connection would then show a row that is not committed.
- What a commit names is on the disk before it: data files, manifests and metadata are synced, then their folders, and
  then the catalogue's row is changed. So a power cut leaves the tables as the catalogue has them.
- A folder that was moved or copied keeps the names that its files were written under, also for new files: they are
  compared as text wherever files are looked for or removed. Only as a file is opened, its name becomes a path in the
  folder at hand.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.typedef import EMPTY_DICT, Properties
from sqlalchemy import URL, NullPool, create_engine

from manymetrics.data_folder import to_folder
from manymetrics.tables import NAMESPACE, TABLES
from manymetrics_processor.lake.rollback import TableFiles

_DEPTH = 6  # of warehouse/<database>/<table>/data/<day> in the data folder
SYNCS_AT_ONCE = 4
LOCK_WAIT_S = 5.0  # for somebody who reads or writes the catalogue; then the commit is tried again


_PATH, _FOLDER = "manymetrics.catalog", "manymetrics.folder"  # properties: of the catalogue, and of its files' io


def open_catalog(data_dir: Path, path: Path | None = None) -> SqlCatalog:
    """Open the catalogue of a data folder, creating it if missing. ``path``: a file to use in place of its own."""
    data_dir.mkdir(parents=True, exist_ok=True)
    home = data_dir.resolve()
    properties = {
        "uri": "sqlite://",  # a path may hold what has a meaning in a URI
        _PATH: str(path or home / "catalog.db"),
        _FOLDER: str(home),
        "warehouse": f"{_written_in(home) or f'file://{home}'}/warehouse",
        "py-io-impl": f"{__name__}.{SyncedFileIO.__name__}",
    }
    return _Catalog("manymetrics", **properties)


def _written_in(home: Path) -> str | None:
    """The folder, as a URI, that the tables of a folder were made in; None where it has none."""
    locations = (TableFiles(home / "warehouse" / NAMESPACE / table.name).location() for table in TABLES)
    return next((to_folder(location) for location in locations if location is not None), None)


class _Catalog(SqlCatalog):
    def _init_catalog(self) -> None:
        self.engine.dispose()
        url = URL.create("sqlite", database=self.properties[_PATH])
        self.engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": LOCK_WAIT_S})
        super()._init_catalog()

    @staticmethod
    def _write_metadata(metadata: TableMetadata, io: FileIO, metadata_path: str) -> None:
        """The last file of every commit, whatever it changes."""
        SqlCatalog._write_metadata(metadata, io, metadata_path)  # noqa: SLF001  # the one that this takes the place of
        sync_written()


class SyncedFileIO(PyArrowFileIO):
    """Like pyiceberg's, in one folder; what is written is remembered, to be synced before a commit."""

    @staticmethod
    def parse_location(location: str, properties: Properties = EMPTY_DICT) -> tuple[str, str, str]:
        """Like ``PyArrowFileIO.parse_location``. Raises ValueError for a file that is not in the folder's warehouse."""
        warehouse = f"{properties['warehouse']}/"
        if "://" not in location:  # as somebody wrote it
            location = f"file://{os.path.abspath(location)}"  # noqa: PTH100  # Path keeps `..`
        if not location.startswith(warehouse) or ".." in location.split("/"):
            raise ValueError(f"{location} is not of the tables in {properties[_FOLDER]}")
        return "file", "", f"{properties[_FOLDER]}/warehouse/{location.removeprefix(warehouse)}"

    def new_output(self, location: str) -> PyArrowFile:
        """Like ``FileIO.new_output``."""
        self.note_written(location)
        return super().new_output(location)

    def note_written(self, location: str) -> None:
        """Like ``storage.NotesWritten``."""
        _written.add(self.parse_location(location, self.properties)[2])


_written: set[str] = set()  # of this process, whichever handle wrote them


def sync_written() -> None:
    """Put on the disk what was written since, then the folders that name it. Raises OSError.

    All at once: the disk then waits once, not for each.
    """
    paths = list(_written)
    folders = sorted({os.path.dirname(path) for path in paths})  # noqa: PTH120  # on every file of a commit
    for some in (paths, [one for folder in folders for one in (folder, *_new_parents(folder))]):
        list(_pool().map(sync, some))
    _written.difference_update(paths)


def _new_parents(folder: str) -> list[str]:
    """Up to the data folder and its own place, once: this process may have made them."""
    if folder in _known_folders:
        return []
    _known_folders.add(folder)
    return [str(parent) for parent in list(Path(folder).parents)[:_DEPTH]]


_known_folders: set[str] = set()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(SYNCS_AT_ONCE, thread_name_prefix="sync")


def sync(path: str) -> None:
    """Put a file or folder on the disk, if it is there. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:  # it was given up
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
