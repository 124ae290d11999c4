"""Keep the data folder of one machine to its owner: no other user of the machine reads, locks or pins anything in it.

The folder's 0700 is what counts, since nobody passes it; the files' 0600 stands behind it, for a folder whose mode
somebody loosens again or a file that is moved out of it.
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

log = logging.getLogger("manymetrics.private_files")

_OTHERS = 0o077  # the bits of the group and of everybody else
# Only names of ours: who names a folder with other things in it keeps their modes.
_OURS = ("keys.json", "stream.db*", "catalog.db*", "committer.*", "server.json", "warehouse")


def keep_private() -> None:
    """Make all files of this process, and of those that it starts, their owner's. For the roots of one machine."""
    os.umask(_OTHERS)


def make_private(folder: Path) -> None:
    """Make the folder with mode 0700, or close one that is there, and what of ours lies at its top.

    What can't be closed is logged with its cure, and used as it is: it may be on a file system without modes. Raises
    OSError where the folder can't be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in _ours(folder):
        try:
            _close(path)
        except FileNotFoundError:  # SQLite dropped it meanwhile
            pass
        except OSError as error:
            why = error.strerror or type(error).__name__
            log.warning("%s is open to other users: %s", path, why, extra={"facts": {"cure": cure(path)}})


def open_to_others(path: Path) -> int:
    """The mode bits that let others than the owner at it; 0 for none, and where it is gone."""
    try:
        return stat.S_IMODE(path.stat().st_mode) & _OTHERS
    except FileNotFoundError:
        return 0


def open_files(folder: Path) -> list[Path]:
    """The folder and what of ours lies at its top, as far as others are let at it."""
    return [path for path in _ours(folder) if open_to_others(path)]


def is_ours(folder: Path, path: Path) -> bool:
    """Whether a path is of what a server keeps in a data folder. Both are resolved."""
    if not path.is_relative_to(folder) or path == folder:
        return False
    return any(fnmatch(path.relative_to(folder).parts[0], pattern) for pattern in _OURS)


def cure(path: Path) -> str:
    """Say how to close a path that is open to others."""
    if path.is_dir() and path.stat().st_mode & stat.S_ISVTX:
        return f"{path} is shared by all users: name a folder of its own with --data-dir"
    return f"chmod {'700' if path.is_dir() else '600'} {path}, as the user that owns it"


def write_private(path: Path, data: bytes) -> None:
    """Replace a file in one step that outlives a power cut. It is at no moment open to others."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600, and never somebody else's file
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _ours(folder: Path) -> Iterator[Path]:
    """The folder first: once it is closed, nobody can put another file in the place of one of these."""
    yield folder
    for pattern in _OURS:
        for path in sorted(folder.glob(pattern)):
            if not path.is_symlink():  # it leads to a place that is for its owner to guard
                yield path


def _close(path: Path) -> None:
    """Raises OSError where it stays open to others."""
    found = path.stat()
    if not found.st_mode & _OTHERS:
        return
    if found.st_mode & stat.S_ISVTX:
        raise PermissionError(0, "it is a folder shared by all users")
    path.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
    if open_to_others(path):
        raise OSError(0, "its file system keeps no modes")
    log.info("closed to other users", extra={"facts": {"path": str(path)}})
