"""Detect a catalog that is older than the metadata files in a table's folder.

Every commit writes a metadata file whose name begins with a number that rises by one. A file more than one ahead of the
catalog's shows that the catalog is an older copy; one ahead may belong to a commit that never landed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

SET_ASIDE = ".metadata.json.set-aside"  # suffix of metadata files that are no longer a state of the table


class Seen(Protocol):
    """A state of a table that was seen before."""

    @property
    def table_uuid(self) -> str: ...
    @property
    def metadata_location(self) -> str: ...


class _Logged(msgspec.Struct, rename="kebab"):
    metadata_file: str


class _Metadata(msgspec.Struct, rename="kebab"):
    table_uuid: str
    location: str
    metadata_log: list[_Logged] = []


@dataclass(frozen=True, slots=True)
class TableFiles:
    """The folder of one table on this machine."""

    home: Path

    def why_older(self, current: str | None, seen: Seen | None) -> str | None:
        """Return why ``current``, the catalog's metadata file, is not the newest state; None if it may be."""
        if current is None:
            newest = self.newest()
            if seen is not None and newest is None:
                return f"the tables are missing: {self.home.name} was at {seen.metadata_location}"
            return None  # the newest file is adopted
        metadata = _read(Path(current))
        if metadata is None:
            return f"the catalog references {current}, which can't be read"
        number = metadata_number(current)
        if seen is not None and metadata.table_uuid != seen.table_uuid:
            return (
                f"{current} belongs to another table than the one the stream was committed to: {seen.metadata_location}"
            )
        if seen is not None and number < metadata_number(seen.metadata_location):
            return f"the catalog is older than the stream: it is at {current}, and was at {seen.metadata_location}"
        if (
            seen is not None
            and number == metadata_number(seen.metadata_location) >= 0
            and Path(current).name != seen.metadata_location.rpartition("/")[2]
        ):
            return f"the catalog references {current}, but the stream was committed to {seen.metadata_location}"
        newest = self.newest()
        if newest is not None and metadata_number(newest.name) > number + 1:
            return f"the catalog is older than its tables: it references {current}, but there is {newest.name}"
        return None

    def next_after(self, current: str) -> list[Path]:
        """Return the metadata files written by a commit on top of ``current``, the catalog's."""
        number, name = metadata_number(current) + 1, Path(current).name
        found = []
        for path in (self.home / "metadata").glob(f"{number:05d}-*.metadata.json") if number else ():
            metadata = _read(path)
            log = metadata.metadata_log if metadata is not None else []
            if log and log[-1].metadata_file.rpartition("/")[2] == name:
                found.append(path)
        return found

    def location(self) -> str | None:
        """Return the table's location as recorded at its creation; None if there is no table."""
        newest = self.newest()
        metadata = _read(newest) if newest is not None else None
        return metadata.location if metadata is not None else None

    def newest(self) -> Path | None:
        """Return the newest readable metadata file, or None."""
        found = (self.home / "metadata").glob("*.metadata.json")
        newest_first = sorted(found, key=lambda one: metadata_number(one.name), reverse=True)
        return next((path for path in newest_first if _read(path) is not None), None)


def _read(path: Path) -> _Metadata | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Metadata)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def metadata_number(location: str) -> int:
    """Return the number at the beginning of a metadata file's name; -1 if there is none."""
    number = location.rpartition("/")[2].partition("-")[0]
    return int(number) if number.isdecimal() else -1
