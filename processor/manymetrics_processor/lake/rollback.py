"""Which states of a table the files in its folder have, and whether the catalogue's is older than one of them.

Every commit writes a metadata file whose name begins with a number that rises by one. So a file that is more than one
ahead of the catalogue's shows that the catalogue was put back: one ahead may be of a commit that never landed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

SET_ASIDE = ".metadata.json.set-aside"  # ends the name of a metadata file that is no state of the table any more


class Seen(Protocol):
    """A state of a table that was seen."""

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
        """Say why ``current``, the catalogue's metadata file, is not the newest state; None where it may be."""
        if current is None:
            newest = self.newest()
            if seen is not None and newest is None:
                return f"the tables are gone: {self.home.name} was at {seen.metadata_location}, and there is none"
            return None  # the newest file is adopted
        metadata = _read(Path(current))
        if metadata is None:
            return f"{current} can't be read, and the catalogue names it"
        number = metadata_number(current)
        if seen is not None and metadata.table_uuid != seen.table_uuid:
            return f"{current} is of another table than the stream was committed to: {seen.metadata_location}"
        if seen is not None and number < metadata_number(seen.metadata_location):
            return f"the catalogue is older than the stream: {current}, which was at {seen.metadata_location}"
        if (
            seen is not None
            and number == metadata_number(seen.metadata_location) >= 0
            and Path(current).name != seen.metadata_location.rpartition("/")[2]
        ):
            return f"the catalogue names {current}, and the stream was committed to {seen.metadata_location}"
        newest = self.newest()
        if newest is not None and metadata_number(newest.name) > number + 1:
            return f"the catalogue is older than its tables: it names {current}, and there is {newest.name}"
        return None

    def next_after(self, current: str) -> list[Path]:
        """The metadata files that were written on top of ``current``, the catalogue's, for a commit."""
        number, name = metadata_number(current) + 1, Path(current).name
        found = []
        for path in (self.home / "metadata").glob(f"{number:05d}-*.metadata.json") if number else ():
            metadata = _read(path)
            log = metadata.metadata_log if metadata is not None else []
            if log and log[-1].metadata_file.rpartition("/")[2] == name:
                found.append(path)
        return found

    def location(self) -> str | None:
        """Where the table says that it is, which was so when it was made; None where there is no table."""
        newest = self.newest()
        metadata = _read(newest) if newest is not None else None
        return metadata.location if metadata is not None else None

    def newest(self) -> Path | None:
        """The newest metadata file that can be read; None where there is none."""
        found = (self.home / "metadata").glob("*.metadata.json")
        newest_first = sorted(found, key=lambda one: metadata_number(one.name), reverse=True)
        return next((path for path in newest_first if _read(path) is not None), None)


def _read(path: Path) -> _Metadata | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Metadata)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def metadata_number(location: str) -> int:
    """The number that a metadata file's name begins with; -1 where it begins with none."""
    number = location.rpartition("/")[2].partition("-")[0]
    return int(number) if number.isdecimal() else -1
