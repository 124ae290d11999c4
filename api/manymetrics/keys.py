"""Write keys: who may send, for which project, from which pages.

The file is JSON: a list of {"key", "project", "kind": "browser" | "server", "origins": [...], "revoked": false}.
It is read again when it changes (looked at every few seconds), and once more, rate-limited, before an unknown key is
refused: clients drop a batch on 401, so a key that was made a moment ago must not lose events.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from manymetrics.settings import Settings

REREAD_S = 5.0  # how long a changed file may go unnoticed; the promise is 60
UNKNOWN_REREAD_S = 1.0  # and how often strangers with unknown keys can make us read it


class WriteKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``origins``: the pages' origins that may send with it, compared exactly; none means any."""

    key: str
    project: str
    kind: Literal["browser", "server"] = "browser"
    origins: tuple[str, ...] = ()
    revoked: bool = False


class KeysUnavailableError(Exception):
    """The keys can't be read: nobody can be told yes or no. A 503, never a 401."""


class Keys(Protocol):
    """Where write keys come from."""

    def find(self, key: str) -> WriteKey | None:
        """The live key, or None for an unknown or revoked one. Raises KeysUnavailableError."""

    def known(self, authorization: bytes) -> WriteKey | None:
        """The live key of an Authorization header that `remember` was told of since the keys were read.

        Raises KeysUnavailableError.
        """

    def remember(self, authorization: bytes, key: WriteKey) -> None:
        """A header that was found to hold a live key; those that weren't are looked at in full each time."""

    def origins(self) -> frozenset[str] | None:
        """The union of the live keys' origins; None where one of them takes any. Raises KeysUnavailableError."""


_LONGEST_KNOWN, _MOST_KNOWN = 300, 1_024  # bytes of a header; headers
_NONE: tuple[bytes, WriteKey | None] = (bytes(32), None)


class KeyTable:
    """Keys in memory. Looked up by digest, so that the time it takes tells nothing about a key."""

    def __init__(self, keys: Iterable[WriteKey]) -> None:
        live = [key for key in keys if not key.revoked]
        self._known: dict[bytes, WriteKey] = {}
        self._by_digest = {(digest := _digest(key.key)): (digest, key) for key in live}
        self._origins = (
            None if any(not key.origins for key in live) else frozenset(o for key in live for o in key.origins)
        )

    def find(self, key: str) -> WriteKey | None:
        """As Keys.find; never raises."""
        digest = _digest(key)
        known, found = self._by_digest.get(digest, _NONE)
        return found if hmac.compare_digest(known, digest) else None

    def known(self, authorization: bytes) -> WriteKey | None:
        """As Keys.known; never raises."""
        return self._known.get(authorization)

    def remember(self, authorization: bytes, key: WriteKey) -> None:
        """As Keys.remember; the bounds are on what a client can make us keep by writing one key in many ways."""
        if len(authorization) <= _LONGEST_KNOWN and len(self._known) < _MOST_KNOWN:
            self._known[authorization] = key

    def origins(self) -> frozenset[str] | None:
        """As Keys.origins; never raises."""
        return self._origins


class FileKeys:
    """Keys from a file, read again as the module says."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._table: KeyTable | None = None
        self._read_at = self._reread_at = float("-inf")

    def find(self, key: str) -> WriteKey | None:
        """As Keys.find."""
        found = self._fresh().find(key)
        if found is None:
            now = self._clock()
            if now - self._reread_at >= UNKNOWN_REREAD_S:
                self._reread_at = now
                found = self._read(now).find(key)
        return found

    def known(self, authorization: bytes) -> WriteKey | None:
        """As Keys.known."""
        return self._fresh().known(authorization)

    def remember(self, authorization: bytes, key: WriteKey) -> None:
        """As Keys.remember."""
        if self._table is not None:
            self._table.remember(authorization, key)

    def origins(self) -> frozenset[str] | None:
        """As Keys.origins."""
        return self._fresh().origins()

    def _fresh(self) -> KeyTable:
        now = self._clock()
        if self._table is None or now - self._read_at >= REREAD_S:
            return self._read(now)
        return self._table

    def _read(self, now: float) -> KeyTable:
        try:
            keys = read_keys(self._path)
        except KeysUnavailableError:
            self._table = None
            raise
        self._read_at = now
        self._table = KeyTable(keys)
        return self._table


def read_keys(path: Path) -> list[WriteKey]:
    """Raises KeysUnavailableError, which says what is wrong with the file."""
    try:
        keys = msgspec.json.decode(path.read_bytes(), type=list[WriteKey])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise KeysUnavailableError(f"{path}: {error}") from error
    for key in keys:
        if not key.key or not key.project or "\0" in key.project:
            raise KeysUnavailableError(f"{path}: each key needs a `key` and a `project`")
    return keys


def keys_path(data_dir: Path) -> Path:
    """The keys file in a data folder."""
    return data_dir / "keys.json"


def keys_of(settings: Settings) -> Keys:
    """From the setting, else from the keys file."""
    return parse_key_list(settings.write_keys) if settings.write_keys else FileKeys(keys_path(settings.data_dir))


def write_keys(path: Path, keys: Iterable[WriteKey]) -> None:
    """Replace the file in one step, readable by its owner alone."""
    beside = path.with_suffix(".new")
    beside.touch(mode=0o600)
    beside.write_bytes(msgspec.json.format(msgspec.json.encode(list(keys)), indent=2) + b"\n")
    beside.replace(path)


def parse_key_list(text: str) -> KeyTable:
    """Keys from ``key`` or ``key:project``, comma-separated; the project is ``default`` where none is named."""
    pairs = (entry.strip().partition(":") for entry in text.split(",") if entry.strip())
    return KeyTable(WriteKey(key=key, project=project or "default") for key, _, project in pairs)


def new_key(project: str = "default") -> WriteKey:
    """A key that nobody can guess."""
    return WriteKey(key="wk_" + secrets.token_urlsafe(18), project=project)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
