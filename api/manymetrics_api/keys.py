"""Write keys: who may send, for which project, from which pages.

``intake.find_key`` decides where a request carries its key.

They are in a file, or on AWS in a parameter. Both are JSON: a list of
{"key", "project", "kind": "browser" | "server", "origins": [...], "revoked": false}.
They are reread every few seconds, and also, rate-limited, before an unknown key is rejected: clients drop a batch on
401, so a newly created key must not lose events.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import re
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from manymetrics.settings import Settings

log = logging.getLogger("manymetrics.keys")

_KEYS_EXAMPLE = '[{"key": "...", "project": "default"}]'
_MEND = f"make it a list of keys, as in {_KEYS_EXAMPLE}; it is read again within seconds"

REREAD_S = 5.0  # how long a changed file may go unnoticed; documented: 60
UNKNOWN_REREAD_S = 1.0  # the shortest time between rereads caused by unknown keys


# For keys that are read over the network.
REMOTE_REREAD_S = 30.0
MAX_AGE_S = 60.0  # documented: a key revoked longer ago is rejected, so older keys are not used
# SSM allows an account 40 reads per second in all: enough for unknown keys at 200 functions.
UNKNOWN_REMOTE_REREAD_S = 5.0
RETRY_S = 1.0  # between a failed read and the next


class WriteKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``origins``: page origins that may use the key, compared as browsers send them; empty: any.

    ``ip``, ``user_agent``: how each is stored; empty: per the processor's settings MANYMETRICS_IP and
    MANYMETRICS_USER_AGENT.
    """

    key: str
    project: str
    kind: Literal["browser", "server"] = "browser"
    origins: tuple[str, ...] = ()
    revoked: bool = False
    ip: Literal["", "keep", "truncate", "drop"] = ""
    user_agent: Literal["", "keep", "drop"] = ""


class KeysUnavailableError(Exception):
    """The keys can't be read, so no key can be checked. A 503, never a 401. ``cure``: what fixes it."""

    def __init__(self, why: str, cure: str = "") -> None:
        super().__init__(why)
        self.cure = cure


class Keys(Protocol):
    """A source of write keys."""

    def find(self, key: str) -> WriteKey | None:
        """Return the active key, or None if it is unknown or revoked. Raises KeysUnavailableError."""

    def known(self, authorization: bytes) -> WriteKey | None:
        """Return the active key of an Authorization header passed to `remember` since the keys were read.

        Raises KeysUnavailableError.
        """

    def remember(self, authorization: bytes, key: WriteKey) -> None:
        """Cache a header with an active key; other headers are parsed each time."""

    def origins(self) -> frozenset[str] | None:
        """Return the union of the active keys' origins; None if one allows any. Raises KeysUnavailableError."""


_LONGEST_KNOWN, _MOST_KNOWN = 300, 1_024  # bytes of a header; headers
_NONE: tuple[bytes, WriteKey | None] = (bytes(32), None)


class KeyTable:
    """Keys in memory. Looked up by digest, so that timing reveals nothing about a key."""

    def __init__(self, keys: Iterable[WriteKey]) -> None:
        live = live_keys(list(keys))
        self._known: dict[bytes, WriteKey] = {}
        self._by_digest = {(digest := _digest(key.key)): (digest, key) for key in live}
        self._origins = (
            None if any(not key.origins for key in live) else frozenset(o for key in live for o in key.origins)
        )

    def find(self, key: str) -> WriteKey | None:
        """Like ``Keys.find``; never raises."""
        digest = _digest(key)
        known, found = self._by_digest.get(digest, _NONE)
        return found if hmac.compare_digest(known, digest) else None

    def known(self, authorization: bytes) -> WriteKey | None:
        """Like ``Keys.known``; never raises."""
        return self._known.get(authorization)

    def remember(self, authorization: bytes, key: WriteKey) -> None:
        """Like ``Keys.remember``; bounded, since a client can write one key in many ways."""
        if len(authorization) <= _LONGEST_KNOWN and len(self._known) < _MOST_KNOWN:
            self._known[authorization] = key

    def origins(self) -> frozenset[str] | None:
        """Like ``Keys.origins``; never raises."""
        return self._origins


class FileKeys:
    """Keys from a file, reread as described above. A read error is logged once, and again when it changes."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._table: KeyTable | None = None
        self._read_at = self._reread_at = float("-inf")
        self._trouble = ""

    def find(self, key: str) -> WriteKey | None:
        """Like ``Keys.find``."""
        found = self._fresh().find(key)
        if found is None:
            now = self._clock()
            if now - self._reread_at >= UNKNOWN_REREAD_S:
                self._reread_at = now
                found = self._read(now).find(key)
        return found

    def known(self, authorization: bytes) -> WriteKey | None:
        """Like ``Keys.known``."""
        return self._fresh().known(authorization)

    def remember(self, authorization: bytes, key: WriteKey) -> None:
        """Like ``Keys.remember``."""
        if self._table is not None:
            self._table.remember(authorization, key)

    def origins(self) -> frozenset[str] | None:
        """Like ``Keys.origins``."""
        return self._fresh().origins()

    def _fresh(self) -> KeyTable:
        now = self._clock()
        if self._table is None or now - self._read_at >= REREAD_S:
            return self._read(now)
        return self._table

    def _read(self, now: float) -> KeyTable:
        try:
            keys = read_keys(self._path)
        except KeysUnavailableError as error:
            self._table = None
            if str(error) != self._trouble:
                self._trouble = str(error)
                facts = {"why": str(error), "cure": error.cure}
                log.error("the write keys can't be read: event requests return 503", extra={"facts": facts})  # noqa: TRY400  # `facts` has the reason
            raise
        if self._trouble:
            self._trouble = ""
            log.info("the write keys can be read again", extra={"facts": {"path": str(self._path)}})
        self._read_at = now
        self._table = KeyTable(keys)
        return self._table


class _Held(msgspec.Struct, frozen=True):
    """Keys, and when their read started."""

    table: KeyTable
    at: float


class WatchedKeys:
    """Keys that a thread reads over the network, so that requests don't wait for it.

    If rereading fails, the last keys are used for MAX_AGE_S; after that, as before the first read, lookups raise
    KeysUnavailableError, as ``read`` may. ``wait_s`` is how long a caller may wait for keys that are recent enough: 0
    on an event loop, where requests with unknown keys are then told to retry. ``clock`` returns seconds since 1970: a
    monotonic clock may stop while Lambda freezes a process.
    """

    def __init__(
        self, read: Callable[[], list[WriteKey]], *, wait_s: float = 0, clock: Callable[[], float] = time.time
    ) -> None:
        self._watch = _Watch(read, clock)
        self._wait_s, self._clock = wait_s, clock
        self.close = weakref.finalize(self, self._watch.end)  # ends the thread, once
        threading.Thread(target=self._watch.run, name="keys", daemon=True).start()

    def find(self, key: str) -> WriteKey | None:
        """Like ``Keys.find``."""
        found = self._fresh().find(key)
        return found if found is not None else self._newer(UNKNOWN_REMOTE_REREAD_S).find(key)

    def known(self, authorization: bytes) -> WriteKey | None:
        """Like ``Keys.known``."""
        return self._fresh().known(authorization)

    def remember(self, authorization: bytes, key: WriteKey) -> None:
        """Like ``Keys.remember``. The keys may have changed since ``find``, so they are checked again."""
        held = self._watch.held
        if held is not None and held.table.find(key.key) == key:
            held.table.remember(authorization, key)

    def origins(self) -> frozenset[str] | None:
        """Like ``Keys.origins``."""
        return self._fresh().origins()

    def wait(self, timeout_s: float) -> None:
        """Wait until the first read succeeded or failed: at startup, before requests are served."""
        self._watch.look(0, timeout_s)

    def _fresh(self) -> KeyTable:
        held = self._watch.held
        if held is not None and 0 <= self._clock() - held.at < MAX_AGE_S:
            return held.table
        return self._newer(MAX_AGE_S)

    def _newer(self, age_s: float) -> KeyTable:
        """Return keys no older than ``age_s``. Raises KeysUnavailableError."""
        held = self._watch.look(age_s, self._wait_s)
        if held is None:
            raise KeysUnavailableError("the keys can't be read just now")
        return held.table


class _Watch:
    """The thread that reads for WatchedKeys, and ends with it."""

    def __init__(self, read: Callable[[], list[WriteKey]], clock: Callable[[], float]) -> None:
        self._read, self._clock = read, clock
        self.held: _Held | None = None
        self._reads, self._failed_at = 0, float("-inf")
        self._wanted, self._over = True, False
        self._changed = threading.Condition()

    def run(self) -> None:
        while self._wait_until_wanted():
            at = self._clock()
            try:
                held = _Held(KeyTable(self._read()), at)
            except KeysUnavailableError as error:
                log.warning("the write keys can't be read", extra={"facts": {"why": str(error)}})
                held = None
            except Exception:  # any error: this thread must continue
                log.exception("reading the write keys failed")
                held = None
            with self._changed:
                self._reads += 1
                if held is None:
                    self._failed_at = self._clock()
                else:
                    self.held, self._wanted = held, False
                self._changed.notify_all()

    def _wait_until_wanted(self) -> bool:
        """Wait for the next read; return False to end the thread."""
        with self._changed:
            least_s = RETRY_S - (self._clock() - self._failed_at)
            if 0 < least_s <= RETRY_S:
                self._changed.wait_for(lambda: self._over, least_s)
                self._wanted = True
            self._changed.wait_for(lambda: self._wanted or self._over, REMOTE_REREAD_S)
            self._wanted = False
            return not self._over

    def look(self, age_s: float, wait_s: float) -> _Held | None:
        """Return keys no older than ``age_s``, waiting up to ``wait_s`` for them; None if there are none."""

        def young() -> _Held | None:
            held = self.held
            return held if held is not None and 0 <= self._clock() - held.at < age_s else None

        with self._changed:
            if (held := young()) is None and not 0 <= self._clock() - self._failed_at < RETRY_S:
                self._wanted, before = True, self._reads
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._reads != before or young() is not None, wait_s)
                held = young()
            return held

    def end(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()


def read_keys(path: Path) -> list[WriteKey]:
    """Read a keys file. Raises KeysUnavailableError with what is wrong with the file."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise KeysUnavailableError(f"{path}: {error.strerror or error}", _cure(path, error)) from error
    return parse_keys(text, str(path))


def _cure(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "restore it, or restart the server, which creates one with a new key"
    if isinstance(error, PermissionError):
        return f"let the server's user read it: chmod 600 {path}, and chown it to that user"
    return f"put a file in its place that holds {_KEYS_EXAMPLE}"


def parse_keys(text: bytes | str, where: str) -> list[WriteKey]:
    """Parse keys. Raises KeysUnavailableError with what is wrong, without quoting the text."""
    try:
        keys = msgspec.json.decode(_without_mark(text), type=list[WriteKey])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise KeysUnavailableError(f"{where}: {_why(str(error))}", _MEND) from None
    for key in keys:
        if not key.key.strip() or not key.project or "\0" in key.project:
            raise KeysUnavailableError(f"{where}: each key needs a `key` and a `project`", _MEND)
    # Blanks around a key are not part of it: they may be pasted with it, by clients or on revoking.
    return [
        msgspec.structs.replace(key, key=key.key.strip(), origins=tuple(map(browser_origin, key.origins)))
        for key in keys
    ]


def _without_mark(text: bytes | str) -> bytes | str:
    """Remove the byte order mark that some editors write."""
    return text.removeprefix(b"\xef\xbb\xbf") if isinstance(text, bytes) else text.removeprefix("\ufeff")


def is_browser_origin(text: str) -> bool:
    """Return whether a browser can send this as a page's origin: scheme, host, optional port; no pattern."""
    return text == "null" or (_ORIGIN.fullmatch(text) is not None and "*" not in text)


def browser_origin(text: str) -> str:
    """Return an origin as browsers send it: scheme and host in lower-case ASCII, no default port, no path."""
    match = _ORIGIN.fullmatch(text.strip())
    if match is None:
        return text
    scheme, host, port = match[1].lower(), match[2].lower(), match[3] or ""
    if not host.isascii():
        import idna  # Python's own codec is IDNA 2003: it maps faß.de to fass.de, another domain

        with contextlib.suppress(idna.IDNAError):
            host = idna.encode(host, uts46=True).decode()
    return f"{scheme}://{host}" + ("" if (scheme, port) in _DEFAULT_PORTS else port)


_ORIGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#@:\[\]]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?(?:[/?#].*)?")
_DEFAULT_PORTS = {("http", ":80"), ("https", ":443")}


def live_keys(keys: Sequence[WriteKey]) -> list[WriteKey]:
    """Return the active keys: those that are not revoked anywhere in the list."""
    revoked = {key.key for key in keys if key.revoked}
    return [key for key in keys if key.key not in revoked]


def repeated_keys(keys: Sequence[WriteKey]) -> list[list[int]]:
    """Return the positions, from 1, of each key that occurs more than once."""
    places: dict[str, list[int]] = {}
    for place, key in enumerate(keys, 1):
        places.setdefault(key.key, []).append(place)
    return [found for found in places.values() if len(found) > 1]


def _why(text: str) -> str:
    """Return msgspec's message without its quotes of the file, which may be a misplaced key."""
    if text.startswith(("Object contains unknown field", "Invalid enum value")):
        return "a field or a kind that keys don't have" + text[text.rfind(" - at `$") :]
    return text


def keys_path(data_dir: Path) -> Path:
    """Return the path of the keys file in a data directory."""
    return data_dir / "keys.json"


def make_keys(settings: Settings) -> Keys:
    """Return the keys of the setting if it is set, else of the keys file."""
    return parse_key_list(settings.write_keys) if settings.write_keys else FileKeys(keys_path(settings.data_dir))


def write_keys(path: Path, keys: Iterable[WriteKey]) -> None:
    """Replace the file in one step, readable only by its owner; by older versions too, unless a key has a rule."""
    from manymetrics_api.private_files import write_private

    written = [
        {name: value for name, value in msgspec.structs.asdict(key).items() if value or name not in _ADDED}
        for key in keys
    ]
    write_private(path, msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n")


_ADDED = ("ip", "user_agent")  # older versions reject a file with them


def parse_key_list(text: str) -> KeyTable:
    """Parse comma-separated ``key`` or ``key:project``; the default project is ``default``."""
    pairs = (entry.strip().partition(":") for entry in text.split(",") if entry.strip())
    return KeyTable(WriteKey(key=key, project=project or "default") for key, _, project in pairs)


def new_key(project: str = "default") -> WriteKey:
    """Create an unguessable key."""
    return WriteKey(key="wk_" + secrets.token_urlsafe(18), project=project)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
