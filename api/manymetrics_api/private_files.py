"""Keep the data directory private to its owner: no other user of the machine can read, lock or pin anything in it.

The directory's mode 0700 protects everything in it; the files' 0600 is a second line of defence, should the directory's
mode be loosened or a file be moved out of it.
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

_OTHERS = 0o077  # the mode bits of group and others
# Only the server's own files: other files in the directory keep their modes.
_OURS = ("keys.json", "stream.db*", "catalog.db*", "committer.*", "server.json", "warehouse")


def keep_private() -> None:
    """Set the umask so that files of this process and its children are private. For entry points of one machine."""
    os.umask(_OTHERS)


def make_private(folder: Path) -> None:
    """Create the directory with mode 0700, or restrict an existing one and the server's files at its top level.

    What can't be restricted is logged with the fix, and used anyway: the file system may not support modes. Raises
    OSError if the directory can't be created.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in _ours(folder):
        try:
            _close(path)
        except FileNotFoundError:  # SQLite removed it meanwhile
            pass
        except OSError as error:
            why = error.strerror or type(error).__name__
            log.warning("%s is open to other users: %s", path, why, extra={"facts": {"cure": cure(path)}})


def open_to_others(path: Path) -> int:
    """Return the mode bits that grant access to others than the owner; 0 for none, and if the file is missing."""
    try:
        return stat.S_IMODE(path.stat().st_mode) & _OTHERS
    except FileNotFoundError:
        return 0


def open_files(folder: Path) -> list[Path]:
    """Return the directory and the server's files at its top level, if they are open to others."""
    return [path for path in _ours(folder) if open_to_others(path)]


def is_ours(folder: Path, path: Path) -> bool:
    """Return whether a path belongs to a server's data in a data directory. Both are resolved."""
    if not path.is_relative_to(folder) or path == folder:
        return False
    return any(fnmatch(path.relative_to(folder).parts[0], pattern) for pattern in _OURS)


def cure(path: Path) -> str:
    """Return how to restrict a path that is open to others."""
    if path.is_dir() and path.stat().st_mode & stat.S_ISVTX:
        return f"{path} is shared by all users: name a separate directory with --data-dir"
    return f"chmod {'700' if path.is_dir() else '600'} {path}, as the user that owns it"


def write_private(path: Path, data: bytes) -> None:
    """Replace a file atomically and durably. It is never open to others."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600, and never an existing file
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
    """Yield the directory first: once it is restricted, no other user can replace the files."""
    yield folder
    for pattern in _OURS:
        for path in sorted(folder.glob(pattern)):
            if not path.is_symlink():  # a link's target is up to its owner
                yield path


def _close(path: Path) -> None:
    """Restrict a path. Raises OSError if it stays open to others."""
    found = path.stat()
    if not found.st_mode & _OTHERS:
        return
    if found.st_mode & stat.S_ISVTX:
        raise PermissionError(0, "it is a directory shared by all users")
    path.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
    if open_to_others(path):
        raise OSError(0, "its file system does not support modes")
    log.info("restricted to the owner", extra={"facts": {"path": str(path)}})
