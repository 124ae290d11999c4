"""Find a table's file in the data folder of one machine, wherever that folder was moved or copied to.

Iceberg names each file by the whole path that it was written under. Those names stay as they are, and are never opened:
what follows ``/warehouse/`` is looked for in the folder at hand.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from manymetrics.tables import NAMESPACE

UNFINISHED: Final = "backup.unfinished"  # a file of a copy that `backup` has not finished
_WAREHOUSE: Final = "/warehouse/"
_FILE: Final = "file://"  # PyIceberg writes the path after it as it is, without percent escapes
_UNUSABLE: Final = re.compile("[*?\\[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def why_unusable(data_dir: Path, cure: str = "name another one with --data-dir") -> str | None:
    """Say why a folder of this path can't hold data, with the cure; None where it can.

    DuckDB takes ``*``, ``?`` and ``[`` for patterns, and would read sibling folders that match them.
    """
    found = _UNUSABLE.search(str(data_dir.resolve()))
    if found is None:
        return None
    shown = str(data_dir.resolve()).encode("unicode_escape").decode()
    return f"{found[0]!r} in {shown} can't be in the path of a data folder: {cure}"


def why_unfinished(data_dir: Path) -> str | None:
    """Say why a folder that `backup` has not finished can't be used, with the cure; None where it can."""
    if not os.path.exists(data_dir / UNFINISHED):  # noqa: PTH110  # Path raises on a name that is too long
        return None
    return f"{data_dir} holds a backup that was not finished: remove it, and run `manymetrics backup` again"


def to_folder(location: str) -> str:
    """The folder, as a URI, that a table's file was written in; empty where it is no table's file of one machine."""
    return location.rpartition(f"{_WAREHOUSE}{NAMESPACE}/")[0]


def path_in(data_dir: str, location: str) -> str:
    """The path of a table's file in a data folder. Raises ValueError where it can't be within it."""
    _, found, rest = location.rpartition(_WAREHOUSE)
    path = f"{data_dir}{found}{rest}" if found else location.removeprefix(_FILE)
    if not path.startswith(f"{data_dir}/") or ".." in path.split("/"):
        raise ValueError(f"{location} is not in {data_dir}")
    return path
