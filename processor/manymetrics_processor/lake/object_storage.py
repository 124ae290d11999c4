"""Access a table's files, in a local folder or in S3, by Iceberg location."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple, Protocol, runtime_checkable

import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import PyArrowFileIO


@runtime_checkable
class DeletesMany(Protocol):
    """A FileIO that deletes in bulk."""

    def delete_many(self, locations: Iterable[str]) -> None: ...


@runtime_checkable
class NotesWritten(Protocol):
    """A FileIO whose written files must be synced, which a commit does."""

    def note_written(self, location: str) -> None: ...


class StoredFile(NamedTuple):
    """A file in a listing. ``modified_at``: microseconds since 1970, UTC."""

    location: str
    size: int
    modified_at: int


def open_parquet(io: FileIO, location: str) -> pq.ParquetFile:
    """Open a Parquet file, to be closed by the caller. Raises FileNotFoundError."""
    system, path = locate(io, location)
    return pq.ParquetFile(path, filesystem=system)


def read_bytes(io: FileIO, location: str) -> bytes:
    """Read a whole file. Raises FileNotFoundError."""
    system, path = locate(io, location)
    with system.open_input_file(path) as file:
        data: bytes = file.read()
    return data


def write_bytes(io: FileIO, location: str, data: bytes) -> None:
    """Write or replace a file; atomic on S3."""
    system, path = locate(io, location)
    make_folder(system, path)
    with system.open_output_stream(path) as file:
        file.write(data)


def note_written(io: FileIO, location: str) -> None:
    """Register a file written without ``io``, so that it is synced before a commit references it. Not needed on S3."""
    if isinstance(io, NotesWritten):
        io.note_written(location)


def delete_files(io: FileIO, locations: Iterable[str]) -> None:
    """Delete files, ignoring missing ones."""
    if isinstance(io, DeletesMany):
        io.delete_many(locations)
        return
    for location in locations:
        system, path = locate(io, location)
        with contextlib.suppress(FileNotFoundError):
            system.delete_file(path)


def list_files(io: FileIO, folder: str) -> Iterator[tuple[str, float]]:
    """List the files in and below a folder, with their age in seconds; empty if there is no such folder."""
    now = time.time()
    for file in stored_files(io, folder):
        yield file.location, now - file.modified_at / 1e6


def stored_files(io: FileIO, folder: str) -> Iterator[StoredFile]:
    """Like ``list_files``, with the storage's metadata of each."""
    system, path = locate(io, folder)
    if system.get_file_info(path).type == pa_fs.FileType.File:
        return
    for file in system.get_file_info(pa_fs.FileSelector(path, recursive=True, allow_not_found=True)):
        if file.type == pa_fs.FileType.File:
            yield StoredFile(
                folder.rstrip("/") + file.path.removeprefix(path.rstrip("/")), file.size, file.mtime_ns // 1_000
            )


def stored_file(io: FileIO, location: str) -> StoredFile | None:
    """Return the file at exactly this location, if it exists."""
    system, path = locate(io, location)
    file = system.get_file_info(path)
    if file.type != pa_fs.FileType.File:
        return None
    return StoredFile(location, file.size, file.mtime_ns // 1_000)


def make_folder(system: pa_fs.FileSystem, path: str) -> None:
    """Create a file's folder; not needed on S3."""
    if isinstance(system, pa_fs.LocalFileSystem):
        _make_local_folder(path.rpartition("/")[0])


def locate(io: FileIO, location: str) -> tuple[pa_fs.FileSystem, str]:
    """Return a location's file system, and the path in it."""
    assert isinstance(io, PyArrowFileIO)  # noqa: S101  # configured by our catalogs
    scheme, netloc, path = io.parse_location(location, io.properties)
    return io.fs_by_scheme(scheme, netloc), path


@cache
def _make_local_folder(path: str) -> None:
    pa_fs.LocalFileSystem().create_dir(path, recursive=True)
