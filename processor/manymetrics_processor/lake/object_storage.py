"""Where a table's files are: in a folder of this machine, or in S3. Locations are as Iceberg writes them."""

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
    """An io that can do better than file by file."""

    def delete_many(self, locations: Iterable[str]) -> None: ...


@runtime_checkable
class NotesWritten(Protocol):
    """An io whose files are on the disk only once they are synced, which a commit does."""

    def note_written(self, location: str) -> None: ...


class StoredFile(NamedTuple):
    """A file as it is listed. ``modified_at``: microseconds since 1970, UTC."""

    location: str
    size: int
    modified_at: int


def open_parquet(io: FileIO, location: str) -> pq.ParquetFile:
    """A Parquet file, to be closed by the caller. Raises FileNotFoundError."""
    system, path = locate(io, location)
    return pq.ParquetFile(path, filesystem=system)


def read_bytes(io: FileIO, location: str) -> bytes:
    """A whole file. Raises FileNotFoundError."""
    system, path = locate(io, location)
    with system.open_input_file(path) as file:
        data: bytes = file.read()
    return data


def write_bytes(io: FileIO, location: str, data: bytes) -> None:
    """Write a file, or replace it. On S3 it is there whole or not at all."""
    system, path = locate(io, location)
    make_folder(system, path)
    with system.open_output_stream(path) as file:
        file.write(data)


def note_written(io: FileIO, location: str) -> None:
    """Tell of a file that is written past ``io``, so that it is on the disk before a commit names it. On S3 it is."""
    if isinstance(io, NotesWritten):
        io.note_written(location)


def delete_files(io: FileIO, locations: Iterable[str]) -> None:
    """Delete files that may be gone already."""
    if isinstance(io, DeletesMany):
        io.delete_many(locations)
        return
    for location in locations:
        system, path = locate(io, location)
        with contextlib.suppress(FileNotFoundError):
            system.delete_file(path)


def list_files(io: FileIO, folder: str) -> Iterator[tuple[str, float]]:
    """The files of a folder and its folders, and the age of each in seconds. None where there is no such folder."""
    now = time.time()
    for file in stored_files(io, folder):
        yield file.location, now - file.modified_at / 1e6


def stored_files(io: FileIO, folder: str) -> Iterator[StoredFile]:
    """Like ``list_files``, with the storage's facts of each."""
    system, path = locate(io, folder)
    if system.get_file_info(path).type == pa_fs.FileType.File:
        return
    for file in system.get_file_info(pa_fs.FileSelector(path, recursive=True, allow_not_found=True)):
        if file.type == pa_fs.FileType.File:
            yield StoredFile(
                folder.rstrip("/") + file.path.removeprefix(path.rstrip("/")), file.size, file.mtime_ns // 1_000
            )


def stored_file(io: FileIO, location: str) -> StoredFile | None:
    """The file at just this location, if there is one."""
    system, path = locate(io, location)
    file = system.get_file_info(path)
    if file.type != pa_fs.FileType.File:
        return None
    return StoredFile(location, file.size, file.mtime_ns // 1_000)


def make_folder(system: pa_fs.FileSystem, path: str) -> None:
    """The folder of a file; S3 needs none."""
    if isinstance(system, pa_fs.LocalFileSystem):
        _make_local_folder(path.rpartition("/")[0])


def locate(io: FileIO, location: str) -> tuple[pa_fs.FileSystem, str]:
    """The file system that a location is on, and its path there."""
    assert isinstance(io, PyArrowFileIO)  # noqa: S101  # which our catalogues ask for
    scheme, netloc, path = io.parse_location(location, io.properties)
    return io.fs_by_scheme(scheme, netloc), path


@cache
def _make_local_folder(path: str) -> None:
    pa_fs.LocalFileSystem().create_dir(path, recursive=True)
