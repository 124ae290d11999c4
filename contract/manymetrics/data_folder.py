"""Find a table's file in the data directory of one machine, wherever it was moved or copied to.

Iceberg names each file by the absolute path that it was written to. Those names are kept, but never opened: the part
after ``/warehouse/`` is looked up in the current data directory.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from manymetrics.tables import NAMESPACE

UNFINISHED: Final = "backup.unfinished"  # marks a copy that `backup` has not finished
_WAREHOUSE: Final = "/warehouse/"
_FILE: Final = "file://"  # PyIceberg appends the path without percent-encoding it
_UNUSABLE: Final = re.compile("[*?\\[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def why_unusable(data_dir: Path, cure: str = "name another one with --data-dir") -> str | None:
    """Return why a directory at this path can't hold data, with the fix; None if it can.

    DuckDB reads ``*``, ``?`` and ``[`` as glob patterns, and would read sibling directories that match them.
    """
    found = _UNUSABLE.search(str(data_dir.resolve()))
    if found is None:
        return None
    shown = str(data_dir.resolve()).encode("unicode_escape").decode()
    return f"{found[0]!r} in {shown} is not allowed in the path of a data directory: {cure}"


def why_unfinished(data_dir: Path) -> str | None:
    """Return why an unfinished copy of `backup` can't be used, with the fix; None if the directory is no such copy."""
    if not os.path.exists(data_dir / UNFINISHED):  # noqa: PTH110  # Path raises on a name that is too long
        return None
    return f"{data_dir} is an unfinished backup: remove it, and run `manymetrics backup` again"


def to_folder(location: str) -> str:
    """Return the URI of the directory that a table's file was written to; empty if it is not a local table's file."""
    return location.rpartition(f"{_WAREHOUSE}{NAMESPACE}/")[0]


def path_in(data_dir: str, location: str) -> str:
    """Return the path of a table's file in a data directory. Raises ValueError if it is outside."""
    _, found, rest = location.rpartition(_WAREHOUSE)
    path = f"{data_dir}{found}{rest}" if found else location.removeprefix(_FILE)
    if not path.startswith(f"{data_dir}/") or ".." in path.split("/"):
        raise ValueError(f"{location} is not in {data_dir}")
    return path
