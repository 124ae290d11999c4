"""The catalog of one machine: SQLite, with the tables' files in a directory next to it.

It differs from pyiceberg's SqlCatalog in three ways:

- Each transaction uses a separate connection. A COMMIT that fails (because of a reader) leaves SQLite's transaction
  open: a pooled connection would then show an uncommitted row.
- Files are on the disk before a commit references them: data files, manifests and metadata are synced, then their
  folders, and then the catalog's row is changed. So after a power failure the tables match the catalog.
- A directory that was moved or copied keeps its original file names, also for new files, since names are compared as
  text when files are searched or removed. A name becomes a path in the current directory only when the file is opened.
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

_DEPTH = 6  # of warehouse/<database>/<table>/data/<day> in the data directory
SYNCS_AT_ONCE = 4
LOCK_WAIT_S = 5.0  # for other readers or writers of the catalog; then the commit is retried


_PATH, _FOLDER = "manymetrics.catalog", "manymetrics.folder"  # properties of the catalog, and of its FileIO


def open_catalog(data_dir: Path, path: Path | None = None) -> SqlCatalog:
    """Open the catalog of a data directory, creating it if missing. ``path``: a file to use in place of its own."""
    data_dir.mkdir(parents=True, exist_ok=True)
    home = data_dir.resolve()
    properties = {
        "uri": "sqlite://",  # a path may contain characters that are special in a URI
        _PATH: str(path or home / "catalog.db"),
        _FOLDER: str(home),
        "warehouse": f"{_written_in(home) or f'file://{home}'}/warehouse",
        "py-io-impl": f"{__name__}.{SyncedFileIO.__name__}",
    }
    return _Catalog("manymetrics", **properties)


def _written_in(home: Path) -> str | None:
    """Return the URI of the directory in which the tables were created; None if there are none."""
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
        """Write the metadata, the last file of every commit, and sync everything written."""
        SqlCatalog._write_metadata(metadata, io, metadata_path)  # noqa: SLF001  # the method that this replaces
        sync_written()


class SyncedFileIO(PyArrowFileIO):
    """pyiceberg's FileIO, within one directory; remembers written files, to sync them before a commit."""

    @staticmethod
    def parse_location(location: str, properties: Properties = EMPTY_DICT) -> tuple[str, str, str]:
        """Like ``PyArrowFileIO.parse_location``. Raises ValueError for a file outside the warehouse."""
        warehouse = f"{properties['warehouse']}/"
        if "://" not in location:  # a plain path, as typed by a user
            location = f"file://{os.path.abspath(location)}"  # noqa: PTH100  # Path keeps `..`
        if not location.startswith(warehouse) or ".." in location.split("/"):
            raise ValueError(f"{location} does not belong to the tables in {properties[_FOLDER]}")
        return "file", "", f"{properties[_FOLDER]}/warehouse/{location.removeprefix(warehouse)}"

    def new_output(self, location: str) -> PyArrowFile:
        """Like ``FileIO.new_output``."""
        self.note_written(location)
        return super().new_output(location)

    def note_written(self, location: str) -> None:
        """Like ``storage.NotesWritten``."""
        _written.add(self.parse_location(location, self.properties)[2])


_written: set[str] = set()  # per process, whichever handle wrote them


def sync_written() -> None:
    """Sync the files written since the last call, then their folders. Raises OSError.

    In parallel, so the wait for the disk is shared.
    """
    paths = list(_written)
    folders = sorted({os.path.dirname(path) for path in paths})  # noqa: PTH120  # called for every file of a commit
    for some in (paths, [one for folder in folders for one in (folder, *_new_parents(folder))]):
        list(_pool().map(sync, some))
    _written.difference_update(paths)


def _new_parents(folder: str) -> list[str]:
    """Return the folders up to the data directory's parent, once: this process may have created them."""
    if folder in _known_folders:
        return []
    _known_folders.add(folder)
    return [str(parent) for parent in list(Path(folder).parents)[:_DEPTH]]


_known_folders: set[str] = set()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(SYNCS_AT_ONCE, thread_name_prefix="sync")


def sync(path: str) -> None:
    """Sync a file or folder to the disk, if it exists. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:  # removed after a failed attempt
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
