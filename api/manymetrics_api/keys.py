"""Write keys: who may send, for which project, from which pages.

``intake.find_key`` decides where a request carries its key.

They stand in a file, or on AWS in a parameter. Both are JSON: a list of
{"key", "project", "kind": "browser" | "server", "origins": [...], "revoked": false}.
They are read again every few seconds, and once more, rate-limited, before an unknown key is refused: clients drop a
batch on 401, so a key that was made a moment ago must not lose events.
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

REREAD_S = 5.0  # how long a changed file may go unnoticed; the promise is 60
UNKNOWN_REREAD_S = 1.0  # and how often strangers with unknown keys can make us read it


# Of keys that are read over the network.
REMOTE_REREAD_S = 30.0
MAX_AGE_S = 60.0  # the promise: a key that was revoked longer ago is not taken, so older keys are as good as none
# SSM answers 40 reads a second in an account, whoever asks for them: 200 functions' worth of strangers' keys.
UNKNOWN_REMOTE_REREAD_S = 5.0
RETRY_S = 1.0  # from a read that failed to the next


class WriteKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``origins``: the pages' origins that may send with it, compared as browsers send them; none means any.

    ``ip``, ``user_agent``: what is kept of both; empty: as the processor's settings MANYMETRICS_IP and
    MANYMETRICS_USER_AGENT say.
    """

    key: str
    project: str
    kind: Literal["browser", "server"] = "browser"
    origins: tuple[str, ...] = ()
    revoked: bool = False
    ip: Literal["", "keep", "truncate", "drop"] = ""
    user_agent: Literal["", "keep", "drop"] = ""


class KeysUnavailableError(Exception):
    """The keys can't be read: nobody can be told yes or no. A 503, never a 401. ``cure``: what the user does."""

    def __init__(self, why: str, cure: str = "") -> None:
        super().__init__(why)
        self.cure = cure


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
        """Like ``Keys.remember``; the bounds are on what a client can make us keep by writing one key in many ways."""
        if len(authorization) <= _LONGEST_KNOWN and len(self._known) < _MOST_KNOWN:
            self._known[authorization] = key

    def origins(self) -> frozenset[str] | None:
        """Like ``Keys.origins``; never raises."""
        return self._origins


class FileKeys:
    """Keys from a file, read again as the module says. Why it can't be read is logged once, and when that changes."""

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
                log.error("the write keys can't be read: every event is answered 503", extra={"facts": facts})  # noqa: TRY400  # says why by itself
            raise
        if self._trouble:
            self._trouble = ""
            log.info("the write keys can be read again", extra={"facts": {"path": str(self._path)}})
        self._read_at = now
        self._table = KeyTable(keys)
        return self._table


class _Held(msgspec.Struct, frozen=True):
    """Keys, and when they began to be read."""

    table: KeyTable
    at: float


class WatchedKeys:
    """Keys that a thread reads over the network, so that nobody who serves an event waits for it.

    Those that were read are served while they can't be read again, for MAX_AGE_S; then, as before the first time,
    nobody is told yes or no. ``read`` raises KeysUnavailableError. ``wait_s`` is how long a caller may be held while
    keys that will do are read: 0 on an event loop, where an unknown key is then asked to come again. ``clock`` gives
    seconds since 1970: a clock from the start may stand still while Lambda freezes a process.
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
        """Like ``Keys.remember``. Between find and this the keys may be other ones: those decide again."""
        held = self._watch.held
        if held is not None and held.table.find(key.key) == key:
            held.table.remember(authorization, key)

    def origins(self) -> frozenset[str] | None:
        """Like ``Keys.origins``."""
        return self._fresh().origins()

    def wait(self, timeout_s: float) -> None:
        """Until they were read once, or that failed: at the start, when nobody is served yet."""
        self._watch.look(0, timeout_s)

    def _fresh(self) -> KeyTable:
        held = self._watch.held
        if held is not None and 0 <= self._clock() - held.at < MAX_AGE_S:
            return held.table
        return self._newer(MAX_AGE_S)

    def _newer(self, age_s: float) -> KeyTable:
        """Keys that are no older. Raises KeysUnavailableError."""
        held = self._watch.look(age_s, self._wait_s)
        if held is None:
            raise KeysUnavailableError("the keys can't be read just now")
        return held.table


class _Watch:
    """The thread that reads for WatchedKeys, and ends with them."""

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
            except Exception:  # whatever it is: this thread must go on
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
        """False where it is over."""
        with self._changed:
            least_s = RETRY_S - (self._clock() - self._failed_at)
            if 0 < least_s <= RETRY_S:
                self._changed.wait_for(lambda: self._over, least_s)
                self._wanted = True
            self._changed.wait_for(lambda: self._wanted or self._over, REMOTE_REREAD_S)
            self._wanted = False
            return not self._over

    def look(self, age_s: float, wait_s: float) -> _Held | None:
        """Return the keys that are held and no older than that, and wait for them where there are none."""

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
    """Raises KeysUnavailableError, which says what is wrong with the file."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise KeysUnavailableError(f"{path}: {error.strerror or error}", _cure(path, error)) from error
    return parse_keys(text, str(path))


def _cure(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "put it back, or start the server again, which makes one with a new key"
    if isinstance(error, PermissionError):
        return f"let the server's user read it: chmod 600 {path}, and chown it to that user"
    return f"put a file in its place that holds {_KEYS_EXAMPLE}"


def parse_keys(text: bytes | str, where: str) -> list[WriteKey]:
    """Raises KeysUnavailableError, which says what is wrong with it, and holds none of it."""
    try:
        keys = msgspec.json.decode(_without_mark(text), type=list[WriteKey])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise KeysUnavailableError(f"{where}: {_why(str(error))}", _MEND) from None
    for key in keys:
        if not key.key.strip() or not key.project or "\0" in key.project:
            raise KeysUnavailableError(f"{where}: each key needs a `key` and a `project`", _MEND)
    # Blanks around a key are not part of it: whoever sends one, and whoever revokes one, may have pasted some.
    return [
        msgspec.structs.replace(key, key=key.key.strip(), origins=tuple(map(browser_origin, key.origins)))
        for key in keys
    ]


def _without_mark(text: bytes | str) -> bytes | str:
    """Without the byte order mark that some editors write before the text."""
    return text.removeprefix(b"\xef\xbb\xbf") if isinstance(text, bytes) else text.removeprefix("\ufeff")


def is_browser_origin(text: str) -> bool:
    """Whether a browser can send this as its page's origin: a scheme, a host and maybe a port, and no pattern."""
    return text == "null" or (_ORIGIN.fullmatch(text) is not None and "*" not in text)


def browser_origin(text: str) -> str:
    """An origin as browsers send it: scheme and host in lower case and ASCII, no default port, no path."""
    match = _ORIGIN.fullmatch(text.strip())
    if match is None:
        return text
    scheme, host, port = match[1].lower(), match[2].lower(), match[3] or ""
    if not host.isascii():
        import idna  # Python's own codec is of 2003: it makes fass.de, somebody else's, of faß.de

        with contextlib.suppress(idna.IDNAError):
            host = idna.encode(host, uts46=True).decode()
    return f"{scheme}://{host}" + ("" if (scheme, port) in _DEFAULT_PORTS else port)


_ORIGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#@:\[\]]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?(?:[/?#].*)?")
_DEFAULT_PORTS = {("http", ":80"), ("https", ":443")}


def live_keys(keys: Sequence[WriteKey]) -> list[WriteKey]:
    """Those that are not revoked anywhere in the list."""
    revoked = {key.key for key in keys if key.revoked}
    return [key for key in keys if key.key not in revoked]


def repeated_keys(keys: Sequence[WriteKey]) -> list[list[int]]:
    """The places of keys that are there more than once, from 1."""
    places: dict[str, list[int]] = {}
    for place, key in enumerate(keys, 1):
        places.setdefault(key.key, []).append(place)
    return [found for found in places.values() if len(found) > 1]


def _why(text: str) -> str:
    """Return msgspec's message without what it quotes of the file: that may be a key in a wrong place."""
    if text.startswith(("Object contains unknown field", "Invalid enum value")):
        return "a field or a kind that keys don't have" + text[text.rfind(" - at `$") :]
    return text


def keys_path(data_dir: Path) -> Path:
    """The keys file in a data folder."""
    return data_dir / "keys.json"


def make_keys(settings: Settings) -> Keys:
    """From the setting, else from the keys file."""
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
    """Keys from ``key`` or ``key:project``, comma-separated; the project is ``default`` where none is named."""
    pairs = (entry.strip().partition(":") for entry in text.split(",") if entry.strip())
    return KeyTable(WriteKey(key=key, project=project or "default") for key, _, project in pairs)


def new_key(project: str = "default") -> WriteKey:
    """A key that nobody can guess."""
    return WriteKey(key="wk_" + secrets.token_urlsafe(18), project=project)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
