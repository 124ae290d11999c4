"""`manymetrics doctor`: check everything the server depends on, and print how to fix what is wrong."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.client import HTTPException
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from manymetrics.outcomes import Reason
from manymetrics.settings import Settings, SettingsError
from manymetrics_cli.data_dir import NO_DISK_BYTES, add_data_dir, require_data
from manymetrics_cli.help_text import KeepExamples
from manymetrics_cli.packages import install_command, requirements

if TYPE_CHECKING:
    from manymetrics.books import StreamBooks
    from manymetrics_insights.reader.iceberg import Snapshot

LOW_DISK_BYTES = 1_000_000_000
LATE_S = 60
_PID_CHARACTERS, _MAX_PID = 20, 2**31 - 1  # of a process id as noted in a file
_ANSWER_BYTES = 1_000  # of a server's response that are read
_LOOKS = 5  # attempts at a table whose files are replaced during the check
_ERROR_CHARACTERS = 200  # of the committer's error: the rest is in the log
_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; ``cure``, the fix, is empty if the state is ok."""

    check: str
    state: Literal["ok", "warn", "fail"]
    message: str
    cure: str = ""


Check = Callable[[Settings], Iterator[Finding]]


_EXAMPLES = """\
examples:
  manymetrics doctor
  manymetrics doctor --json --data-dir /var/lib/manymetrics
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``doctor``."""
    parser = subparsers.add_parser(
        "doctor",
        help="check versions, disk, permissions, port, keys, stream, tables and lag",
        description="Check the data directory, its server and its settings, and print how to fix what is wrong. "
        "Changes nothing.",
        epilog=_EXAMPLES,
        formatter_class=KeepExamples,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per finding")
    add_data_dir(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings. Returns 1 if a check fails, 2 if there is no data."""
    from dataclasses import replace

    from manymetrics_insights.reader.formats import escape_controls, escape_json

    settings = replace(Settings.read(os.environ), data_dir=args.data_dir)
    findings = [finding for check in CHECKS for finding in _safely(check, settings)]
    for finding in findings:
        if args.json:
            print(escape_json(json.dumps(asdict(finding))))
        else:
            print(escape_controls(f"{_MARKS[finding.state]}  {finding.check:<12} {finding.message}"))
            if finding.cure:
                print(escape_controls(f"      {'':<12} -> {finding.cure}"))
    if any(finding.check == "data" for finding in findings):
        return 2
    return int(any(finding.state == "fail" for finding in findings))


def _safely(check: Check, settings: Settings) -> list[Finding]:
    """Run a check; an exception in it becomes a finding too."""
    name = check.__name__.removeprefix("check_")
    findings: list[Finding] = []
    try:
        findings.extend(check(settings))
    except Exception as error:  # noqa: BLE001  # reported, not hidden
        is_full = "disk is full" in str(error) or "No space left" in str(error)
        cure = "free some space" if is_full else "check that the data directory is complete, readable and writable"
        findings.append(Finding(name, "fail", f"{type(error).__name__}: {error}", cure))
    return findings


def check_versions(_settings: Settings) -> Iterator[Finding]:
    """Check Python and the packages of the installed extras against the versions that ManyMetrics pins."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("versions", "ok", f"Python {version}, manymetrics {metadata.version('manymetrics')}")
    for name, requirement in installed_requirements().items():
        cure = install_command(requirement)
        have, wanted = _version(name), requirement.partition("==")[2]
        if have is None:
            yield Finding("versions", "fail", f"{name} is not installed", cure)
        elif wanted and have != wanted:
            yield Finding("versions", "warn", f"{name} is {have}; tested with {wanted}", cure)


def installed_requirements() -> dict[str, str]:
    """Map each package that ManyMetrics needs to its requirement, such as `uvicorn[standard]==0.54.0`.

    Extras count if all of their packages are installed, since pip doesn't record extras.
    """
    extras: dict[str, dict[str, str]] = {"": {}}
    for name, requirement, extra in requirements():
        extras.setdefault(extra, {})[name] = requirement
    needed = extras.pop("")
    for wants in extras.values():
        if all(_version(name) for name in wants):
            needed |= wants
    return needed


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_data(settings: Settings) -> Iterator[Finding]:
    """Check that there is a server's data. Yields nothing if there is."""
    try:
        require_data(settings.data_dir)
    except SettingsError as error:
        said, _, cure = str(error).rpartition(": ")
        yield Finding("data", "fail", said, cure)


def check_disk(settings: Settings) -> Iterator[Finding]:
    """Check that the data directory is writable, and its free space."""
    folder = settings.data_dir
    if not folder.is_dir():
        return
    for path in (folder, *(folder / name for name in ("stream.db", "catalog.db", "warehouse"))):
        if path.exists() and not os.access(path, os.W_OK):
            yield Finding(
                "disk",
                "fail",
                f"{path} can't be written",
                f"mount it writable, or chown it to the user that runs the server: {path}",
            )
    free = shutil.disk_usage(folder).free
    if free < LOW_DISK_BYTES:
        state: Literal["warn", "fail"] = "fail" if free < NO_DISK_BYTES else "warn"
        yield Finding(
            "disk",
            state,
            f"{free // 1_000_000} MB free",
            "free some space: without it, events are rejected with 503",
        )
    else:
        yield Finding("disk", "ok", f"{folder.resolve()}, {free // 1_000_000_000} GB free")


def check_modes(settings: Settings) -> Iterator[Finding]:
    """Check that other users of this machine have no access to the data directory."""
    from manymetrics_api.private_files import cure, open_files

    if not settings.data_dir.is_dir():
        return
    found = open_files(settings.data_dir)
    for path in found:
        is_folder = path == settings.data_dir
        state: Literal["warn", "fail"] = "fail" if is_folder or path.name == "keys.json" else "warn"
        what = "access its data" if is_folder else "read it"
        yield Finding("modes", state, f"{path} is open: other users may {what}", cure(path))
    if not found:
        yield Finding("modes", "ok", "only the owner can read the data directory")


def check_port(settings: Settings) -> Iterator[Finding]:
    """Check that the server of this data directory responds, or else whether its port is free."""
    from manymetrics_cli.one_machine import noted_server

    noted = noted_server(settings.data_dir)
    if noted is None or not _is_ours(str(noted.process)):
        yield _no_server(settings)
        return
    try:
        with build_opener(ProxyHandler({})).open(f"{noted.url}/readyz", timeout=3):
            yield Finding("server", "ok", f"ready at {noted.url}")
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError) and error.code == HTTPStatus.SERVICE_UNAVAILABLE:
            if b"keys_unavailable" in error.read(_ANSWER_BYTES):
                said, cure = "it can't read the write keys", "see `keys` in this report"
            else:
                said, cure = "it can't store events", "see `disk` and `stream` in this report, and the server's log"
            yield Finding("server", "fail", f"{noted.url}/readyz returns 503: {said}", cure)
            return
        said = f"process {noted.process} exists, but {noted.url} doesn't respond: {error}"
        yield Finding("server", "fail", said, "check whether the process is suspended, and its log")


def _no_server(settings: Settings) -> Finding:
    cure = _serve(settings.data_dir)
    try:
        with socket.create_connection((settings.host, settings.port), timeout=3):
            taken = f"; port {settings.port} is in use by another program, or by the server of another data directory"
            cure += " --port N"
    except OSError:
        taken = f"; port {settings.port} is free"
    return Finding("server", "warn", f"not running for {settings.data_dir.absolute()}{taken}", cure)


def _serve(data_dir: Path) -> str:
    """Return the command that starts a server of this directory."""
    from manymetrics_cli.one_machine import shell_command

    return shell_command("serve", data_dir)


def check_keys(settings: Settings) -> Iterator[Finding]:
    """Check that there is an active write key."""
    from manymetrics_api.keys import (
        KeysUnavailableError,
        is_browser_origin,
        keys_path,
        live_keys,
        read_keys,
        repeated_keys,
    )

    if settings.write_keys:
        yield Finding(
            "keys",
            "warn",
            "from MANYMETRICS_WRITE_KEYS: they can't be revoked",
            "use keys.json for anything but a trial",
        )
        return
    path = keys_path(settings.data_dir)
    if not path.exists():
        yield Finding("keys", "warn", f"no keys file at {path}", "the server creates one at its first start")
        return
    try:
        keys = read_keys(path)
    except KeysUnavailableError as error:
        yield Finding("keys", "fail", f"can't be read, so every event is rejected with 503: {error}", error.cure)
        return
    for places in repeated_keys(keys):
        named = " and ".join(map(str, places))
        is_revoked = any(keys[place - 1].revoked for place in places)
        result = "it is treated as revoked" if is_revoked else "the last one applies"
        yield Finding("keys", "warn", f"entries {named} in {path} are the same key: {result}", "keep only one of them")
    for place, key in enumerate(keys, 1):
        odd = [origin for origin in key.origins if not is_browser_origin(origin)]
        if odd:
            said = f"entry {place} in {path} has an invalid origin: {', '.join(odd)}"
            cure = "write origins as https://www.example.com, one entry per host; without origins, every page may send"
            yield Finding("keys", "warn", said, cure)
    live = len({key.key for key in live_keys(keys)})
    if not live:
        yield Finding("keys", "fail", "no active key: every event is rejected with 401", f"add one to {path}")
    else:
        yield Finding("keys", "ok", f"{live} of {len(keys)} active")


def check_stream(settings: Settings) -> Iterator[Finding]:
    """Check that the stream is writable, and how far the committer lags behind it."""
    from manymetrics_api.sinks.local_stream import LocalSource
    from manymetrics_cli.one_machine import committed_up_to, stream_path

    path = stream_path(settings.data_dir)
    if not path.exists():
        yield Finding("stream", "warn", "not created yet", "the server creates it at its first start")
        return
    with closing(sqlite3.connect(path.absolute(), timeout=2)) as database:
        try:
            database.execute("begin immediate")
            database.execute("rollback")
        except sqlite3.OperationalError as error:
            yield Finding(
                "stream", "fail", f"can't be written: {error}", "stop the program that locks the file; see `disk`"
            )
            yield _committer(settings.data_dir)
            return
    with closing(LocalSource(path)) as source:
        pending, oldest = source.pending(committed_up_to(settings.data_dir))
    lag = time.time() - oldest / 1_000_000 if oldest else 0.0
    said = f"{pending} records are waiting, the oldest for {lag:.0f} s" if pending else "all records are committed"
    late = pending and lag > LATE_S
    yield Finding(
        "stream", "warn" if late else "ok", said, "check whether the server is running, and its log" if late else ""
    )
    yield _committer(settings.data_dir)


def _committer(data_dir: Path) -> Finding:
    path = data_dir / "committer.lock"
    if path.exists():
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = file.read(_PID_CHARACTERS).strip()
                if _is_ours(holder):
                    return Finding("committer", "ok", f"running, process {holder}")
                cure = f"find the process (`fuser -v {path}` or `lsof {path}`) and stop it: events wait in the stream"
                return Finding("committer", "fail", "committer.lock is held by another program", cure)
    return Finding("committer", "warn", "not running: events wait in the stream", _serve(data_dir))


def check_progress(settings: Settings) -> Iterator[Finding]:
    """Check that commits succeed. Yields nothing if they do, or if no committer runs (see `committer`)."""
    from manymetrics_api.committer_state import STALLED_S, read_state
    from manymetrics_cli.one_machine import stalled_s

    stalled, state = stalled_s(settings.data_dir), read_state(settings.data_dir)
    if state is not None:
        is_long = max(stalled, state.age_s) >= STALLED_S
        error = next(iter(state.error.splitlines()), "")[:_ERROR_CHARACTERS]
        said = f"no commit for {max(stalled, state.age_s):.0f} s, {state.failures} attempts failed: {error}"
        cure = "fix the cause; nothing is lost meanwhile, events wait in the stream"
        yield Finding("progress", "fail" if is_long else "warn", said, cure)
    elif stalled >= STALLED_S and _committer(settings.data_dir).state == "ok":
        said = f"the committer is running, but records have waited for {stalled:.0f} s without a commit"
        yield Finding("progress", "fail", said, "check whether its process is suspended, and the server's log")


def _is_ours(pid: str) -> bool:
    """Return whether a noted process exists, and belongs to ManyMetrics."""
    if not (pid.isascii() and pid.isdecimal() and 0 < int(pid) <= _MAX_PID):
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # a system without /proc
        return not Path("/proc/self/cmdline").exists()
    return b"manymetrics" in words


def check_tables(settings: Settings) -> Iterator[Finding]:
    """Check that the tables are current and complete, and that the books balance and match them."""
    from manymetrics.tables import EVENTS, NAMESPACE, TABLES
    from manymetrics_cli.one_machine import check_not_rolled_back, read_books
    from manymetrics_insights.reader.folder import Folder
    from manymetrics_insights.reader.iceberg import read_table
    from manymetrics_processor.lake.rollback import TableFiles

    if not settings.data_dir.is_dir():
        return
    try:
        check_not_rolled_back(settings.data_dir)
    except SettingsError as error:
        said, _, cure = str(error).partition(". Put back")
        yield Finding("tables", "fail", said, f"put back{cure}")
        return
    state = read_table(Folder(settings.data_dir), EVENTS.name)
    if state is None:
        if TableFiles(settings.data_dir / "warehouse" / NAMESPACE / EVENTS.name).newest() is not None:
            said = "the files exist, but catalog.db doesn't reference them: it is new, or was lost"
            yield Finding("tables", "fail", said, f"{_serve(settings.data_dir)}, which restores them")
            return
        yield Finding("tables", "warn", "not created yet", "the server creates them at its first start")
        return
    for table in TABLES:
        yield from _bad_files(settings.data_dir, table.name)
    books = read_books(settings.data_dir)
    unbalanced = [one.stream for one in books if not one.balanced]
    stored, rows = sum(one.stored for one in books), sum(file.record_count for file in state.files)
    if unbalanced:
        yield Finding(
            "tables", "fail", f"the books of {unbalanced[0]} don't balance", "report this as a bug, with this output"
        )
    elif rows > stored:
        cure = "another program wrote to the table; see its snapshots"
        yield Finding("tables", "warn", f"{rows} rows, but the books count {stored}", cure)
    else:
        erased = f" ({stored - rows} erased since)" if rows < stored else ""
        received = sum(one.received for one in books)
        yield Finding("tables", "ok", f"{received} received, {stored} stored{erased}, in {len(state.files)} files")
    unstorable = sum(one.dead_lettered.get(Reason.UNSTORABLE.value, 0) for one in books)
    if unstorable:
        cure = "see dead_letters; `manymetrics replay --reason unstorable` after a fix"
        is_most = _most_are_unstorable(books, state.snapshots)
        yield Finding("letters", "fail" if is_most else "warn", f"{unstorable} events could not be stored", cure)


def check_complete(settings: Settings) -> Iterator[Finding]:
    """Check up to which time everything received is in the tables. Yields nothing without tables."""
    from datetime import UTC, datetime

    from manymetrics.tables import EVENTS
    from manymetrics_cli.one_machine import stream_state
    from manymetrics_insights.reader.complete_through import complete_through
    from manymetrics_insights.reader.folder import Folder
    from manymetrics_insights.reader.iceberg import read_table

    if not settings.data_dir.is_dir():
        return
    now = datetime.now(UTC)
    state = read_table(Folder(settings.data_dir), EVENTS.name)
    if state is None:
        return
    through, notes = complete_through(state.properties, now, stream_state(settings.data_dir, state.properties))
    if through is None:
        yield Finding("complete", "warn", "; ".join(notes), f"the next commit notes it: {_serve(settings.data_dir)}")
    else:
        said = f"the tables have everything received before {through:%Y-%m-%dT%H:%M:%S.%fZ}"
        yield Finding("complete", "ok", "; ".join([said, *notes]))


def _most_are_unstorable(books: Sequence[StreamBooks], snapshots: Sequence[Snapshot]) -> bool:
    """Return whether over half of recent events were unstorable: of those since the oldest retained snapshot."""
    from manymetrics.books import StreamBooks, parse_books, property_name

    received = lost = 0
    for now in books:
        known = (parse_books(now.stream, one.summary) for one in snapshots if property_name(now.stream) in one.summary)
        then = next(known, now)
        if then.received == now.received:
            then = StreamBooks(stream=now.stream)  # a single commit: count all of it
        received += now.received - then.received
        lost += sum(sign * one.dead_lettered.get(Reason.UNSTORABLE.value, 0) for sign, one in ((1, now), (-1, then)))
    return 2 * lost > received


def _bad_files(data_dir: Path, table: str) -> Iterator[Finding]:
    """Report a table's current files that are missing or have another size. Files of a replaced state may be gone."""
    from manymetrics_insights.reader.folder import Folder
    from manymetrics_insights.reader.iceberg import read_table

    for _ in range(_LOOKS):
        state = read_table(Folder(data_dir), table)
        if state is None:
            return
        bad = [file.path for file in state.files if not _has_size(file.path, file.size)]
        if not bad:
            return
        if Folder(data_dir).metadata_location(table) == state.metadata_location:
            said = f"{len(bad)} of {len(state.files)} files of {table} are missing or damaged: {bad[0]}"
            cure = "restore them; or stop the server, and check `manymetrics recover --dry-run` for an earlier state"
            yield Finding("tables", "fail", said, cure)
            return


def _has_size(path: str, size: int) -> bool:
    try:
        return Path(path).stat().st_size == size
    except OSError:
        return False


def check_geoip(settings: Settings) -> Iterator[Finding]:
    """Check that the GeoIP files are usable. Yields nothing without files: then events have no location."""
    from manymetrics_processor.enrich.geo import GeoIP, geoip_paths

    for state in GeoIP(geoip_paths(settings)).states:
        if state.error:
            cure = "put a file of MaxMind, DB-IP or IPinfo there, or run `manymetrics geoip fetch`"
            yield Finding("geoip", "warn", f"{state.path} can't be used: {state.error}", cure)
        else:
            yield Finding("geoip", "ok", f"{state.path}: {state.version}")


CHECKS: tuple[Check, ...] = (
    check_versions,
    check_data,
    check_disk,
    check_modes,
    check_port,
    check_keys,
    check_stream,
    check_progress,
    check_tables,
    check_complete,
    check_geoip,
)
