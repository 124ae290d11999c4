"""Looks up an address's country, region, city and network in the MMDB files of the setting MANYMETRICS_GEOIP.

Supports files of MaxMind, DB-IP, IPinfo and ip-location-db, also several: the first with a value for a field applies.
They are memory-mapped once, and reopened after they were replaced. An unreadable file is skipped, and `states` has the
reason: events are stored without its values.
"""

from __future__ import annotations

import ipaddress
import logging
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import maxminddb

from manymetrics.settings import Settings

log = logging.getLogger("manymetrics.geo")

LOOK_EVERY_S = 60.0  # interval of checks for replaced files
_CACHED = 16_384  # prefixes
_V4_PREFIX, _V6_PREFIX = 24, 48  # cached per prefix, since a network is usually at one location
MAX_NAME = 200  # characters of a name from a file


def geoip_paths(settings: Settings) -> list[Path]:
    """Return the files in the setting, else those that `geoip fetch` downloaded to the data directory."""
    named = [Path(one.strip()) for one in settings.geoip.split(",") if one.strip()]
    return named or sorted((settings.data_dir / GEOIP_FOLDER).glob("*.mmdb"))


GEOIP_FOLDER = "geoip"


class Location(NamedTuple):
    """The columns, in their order. ``country``: ISO 3166-1 alpha-2. Names are English."""

    country: str | None = None
    region: str | None = None
    city: str | None = None
    asn: int | None = None


NOWHERE = Location()


class FileState(NamedTuple):
    """``version``: the file's type and build date, UTC; ``error``: why it is not used."""

    path: Path
    version: str
    error: str


class GeoIP:
    """Looks up addresses. Thread-safe."""

    def __init__(self, paths: Iterable[Path], clock: Callable[[], float] = time.monotonic) -> None:
        self._paths, self._clock = tuple(paths), clock
        self._lock = threading.Lock()
        self._readers: list[maxminddb.Reader] = []
        self._found: dict[object, Location] = {}
        self._stamps: list[object] = []
        self._looked_at = float("-inf")
        self._states: list[FileState] = []

    @property
    def states(self) -> Sequence[FileState]:
        """Each file's state at the last check."""
        self.refresh()
        return self._states

    @property
    def version(self) -> str:
        """The versions of the files in use, comma-separated: ``GeoLite2-City@2026-11-01``."""
        return ",".join(state.version for state in self._states if not state.error)

    def refresh(self) -> None:
        """Open the files, or reopen them if one was replaced; checks at most every LOOK_EVERY_S."""
        if not self._paths or self._clock() - self._looked_at < LOOK_EVERY_S:
            return
        with self._lock:
            self._looked_at = self._clock()
            stamps = list(map(_stamp, self._paths))
            if stamps != self._stamps:
                self._open()
                self._stamps = stamps

    def find(self, address: str | None) -> Location:
        """Return an address's location; all None if it is unknown or not a public address. Never raises."""
        if not address or not self._readers:
            return NOWHERE
        if ":" in address:
            return self._find_v6(address)
        prefix = address.rpartition(".")[0]
        return self._found.get(prefix) or self._look_up(address, prefix, _V4_PREFIX)

    def _find_v6(self, address: str) -> Location:
        try:
            ip = ipaddress.IPv6Address(address.partition("%")[0])
        except ValueError:
            return NOWHERE
        if ip.ipv4_mapped is not None:
            return self.find(str(ip.ipv4_mapped))
        prefix = ip.packed[: _V6_PREFIX // 8]
        return self._found.get(prefix) or self._look_up(str(ip), prefix, _V6_PREFIX)

    def _look_up(self, address: str, key: object, prefix: int) -> Location:
        """Look up an address, and cache the location if all addresses with this prefix share it."""
        location, is_whole = NOWHERE, True
        for reader in self._readers:
            try:
                record, length = reader.get_with_prefix_len(address)
                its = to_location(record) if isinstance(record, dict) else NOWHERE
            except _DAMAGED:  # or no address, or an IPv6 address in a file of IPv4
                is_whole = False
                continue
            is_whole = is_whole and length <= prefix
            if its != NOWHERE:
                location = its if location is NOWHERE else _merged(location, its)
        if is_whole:
            if len(self._found) >= _CACHED:
                self._found.clear()
            self._found[key] = location
        return location

    def _open(self) -> None:
        readers: list[maxminddb.Reader] = []
        states = []
        for path in self._paths:
            try:
                reader, version = _open_file(path)
            except _DAMAGED as error:
                why = getattr(error, "strerror", None) or str(error) or type(error).__name__
                states.append(FileState(path, "", why))
                log.warning("a GeoIP file is not used", extra={"facts": {"file": str(path), "why": why}})
            else:
                readers.append(reader)
                states.append(FileState(path, version, ""))
        self._readers, self._states, self._found = readers, states, {}


def _merged(first: Location, second: Location) -> Location:
    return Location._make(its if one is None else one for one, its in zip(first, second, strict=True))


def _stamp(path: Path) -> object:
    with suppress(OSError):
        found = path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns
    return None


# Exceptions of the readers for damaged files, found by damaging one at random.
_DAMAGED = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    RecursionError,
    struct.error,
    SystemError,
    maxminddb.InvalidDatabaseError,
)


def _open_file(path: Path) -> tuple[maxminddb.Reader, str]:
    """Open a file, and check that its records hold a column's value; also returns its version. Raises _DAMAGED."""
    with closing(maxminddb.open_database(path, maxminddb.MODE_MMAP)) as checked:  # iterating in C aborts on damage
        version = _version(checked)
        with suppress(*_DAMAGED):
            for _, record in islice(checked, _LOOKED_AT):
                if isinstance(record, dict) and to_location(record) != NOWHERE:
                    return maxminddb.open_database(path), version
    raise ValueError(f"{version.partition('@')[0]} holds no country, region, city or network number")


_LOOKED_AT = 10_000  # records checked before a file is rejected as another type


def _version(reader: maxminddb.Reader) -> str:
    metadata = reader.metadata()
    made = datetime.fromtimestamp(metadata.build_epoch, UTC).date()
    return f"{metadata.database_type or 'mmdb'}@{made.isoformat()}".replace(" ", "-").replace(",", "-")[:MAX_NAME]


def to_location(record: Mapping[str, Any]) -> Location:
    """Convert a record of any supported vendor; see the module."""
    country = record.get("country")
    if not isinstance(country, dict):
        country = record.get("registered_country") if "country_code" not in record and country is None else country
    code = country.get("iso_code") if isinstance(country, dict) else record.get("country_code", country)
    return Location(
        _text(code) if isinstance(code, str) and len(code) == 2 and code.isalpha() else None,
        _name(record.get("subdivisions")) or _text(record.get("region") or record.get("state1")),
        _name(record.get("city")),
        _number(record.get("autonomous_system_number", record.get("asn"))),
    )


def _name(value: object) -> str | None:
    """Return MaxMind's English name (of the first and largest part if there are several), or plain text."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        names = value.get("names")
        value = names.get("en") if isinstance(names, dict) else None
    return _text(value)


def _text(value: object) -> str | None:
    return value[:MAX_NAME] or None if isinstance(value, str) else None


def _number(value: object) -> int | None:
    """Return a network's number; IPinfo writes ``AS15169``."""
    if isinstance(value, str) and value[:2].upper() == "AS" and value[2:].isascii() and value[2:].isdigit():
        value = int(value[2:])
    return value if isinstance(value, int) and 0 <= value < 2**32 else None
