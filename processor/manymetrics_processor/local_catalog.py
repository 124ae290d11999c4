"""The catalogue of one machine: SQLite, with the tables' files in a folder beside it.

Two things differ from pyiceberg's own:

- Each transaction has a connection of its own. A COMMIT that fails (somebody reads the file) leaves SQLite's
  transaction open: a pooled connection would then show a row that is not committed.
- What a commit names is on the disk before it: data files, manifests, metadata and their folders are synced as they are
  written, so that a power cut leaves the tables as the catalogue has them.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io import OutputStream
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO
from sqlalchemy import NullPool, create_engine

_DEPTH = 6  # of warehouse/<database>/<table>/data/<day> in the data folder
LOCK_WAIT_S = 5.0  # for somebody who reads or writes the catalogue; then the commit is tried again


def open_catalog(data_dir: Path) -> SqlCatalog:
    """The catalogue of a data folder, which is made where there is none."""
    data_dir.mkdir(parents=True, exist_ok=True)
    home = data_dir.resolve()
    uri, warehouse = f"sqlite:///{quote(str(home))}/catalog.db", f"file://{home}/warehouse"
    io = f"{__name__}.{SyncedFileIO.__name__}"
    return _Catalog("manymetrics", uri=uri, warehouse=warehouse, **{"py-io-impl": io})


class _Catalog(SqlCatalog):
    def _init_catalog(self) -> None:
        self.engine.dispose()
        uri = self.properties["uri"]
        self.engine = create_engine(uri, poolclass=NullPool, connect_args={"timeout": LOCK_WAIT_S})
        super()._init_catalog()


class SyncedFileIO(PyArrowFileIO):
    """As pyiceberg's; a file is on the disk, with its name, when it is closed."""

    def new_output(self, location: str) -> PyArrowFile:
        """As FileIO.new_output."""
        plain = super().new_output(location)
        return _SyncedFile(plain.location, plain._path, plain._filesystem)  # noqa: SLF001  # to make one of our own

    def sync(self, location: str) -> None:
        """Sync a file that was written otherwise."""
        sync_file(self.parse_location(location)[2])


class _SyncedFile(PyArrowFile):
    def create(self, overwrite: bool = False) -> OutputStream:  # noqa: FBT001, FBT002  # as pyiceberg's
        """As OutputFile.create."""
        stream = super().create(overwrite)
        return _SyncedStream(stream, self._path)


class _SyncedStream:
    """An open file that is synced when it is closed without an error."""

    def __init__(self, stream: Any, path: str) -> None:  # noqa: ANN401  # Arrow's
        self._stream, self._path = stream, path

    def write(self, data: bytes) -> int:
        return int(self._stream.write(data))

    def close(self) -> None:
        if not self._stream.closed:
            self._stream.close()
            sync_file(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._stream.close()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # as Arrow's
        return getattr(self._stream, name)


def sync_file(path: str) -> None:
    """Put a file on the disk, and its name: a new file is not there after a power cut until its folder is."""
    _sync(path)
    folder = os.path.dirname(path) or "."  # noqa: PTH120  # on every file of a commit
    _sync(folder)
    _sync_parents(folder)


@cache
def _sync_parents(folder: str) -> None:
    """Of a folder that this process may have made, up to the data folder and its own place."""
    for parent in list(Path(folder).parents)[:_DEPTH]:
        _sync(str(parent))


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
