"""Erase a person from both tables, including old snapshots and files.

A person is a user_id, and the devices whose last user they are (as in the view person_events), including those devices'
rows without a user_id. An id that names nobody (`undefined`, `null`) links nothing: many clients send it. Dead letters
are erased if their bytes hold one of the ids as a JSON string, however escaped, even if they are not valid JSON.
Unreferenced files with such rows that are too young to be removed (a commit or query may use them) are counted in the
receipt.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as IcebergTable

from manymetrics.events import is_placeholder
from manymetrics.tables import DEAD_LETTERS, EVENTS, TABLES, Table
from manymetrics_processor.errors import ConflictError
from manymetrics_processor.lake.lake import Lake, live_files
from manymetrics_processor.lake.maintenance import (
    JOBS_ATTEMPTS,
    ORPHAN_AGE_S,
    Rewritten,
    expire_snapshots,
    orphans,
    remove_orphans,
    stage_rewritten,
    swap,
)
from manymetrics_processor.lake.object_storage import delete_files
from manymetrics_processor.lake.scan import portable, read_file, read_files
from manymetrics_processor.parallel import Spread, in_groups

_ATTEMPTS = 20
_BYTES_AT_ONCE = 1_000_000_000  # rewritten per commit: larger rewrites take too long and lose their race


@dataclass(frozen=True, slots=True)
class Person:
    """The person to erase. ``project_id`` None: in every project. ``linked``: devices, as project and anonymous id."""

    user_id: str | None = None
    anonymous_ids: frozenset[str] = frozenset()
    project_id: str | None = None
    linked: frozenset[tuple[str, str]] = frozenset()

    @property
    def device_ids(self) -> list[str]:
        """Return the anonymous ids that were given or found, sorted."""
        return sorted({*self.anonymous_ids, *(anonymous for _, anonymous in self.linked)})

    @property
    def caution(self) -> str:
        """A warning to show before the erasure; mostly empty."""
        named = sorted(one for one in {self.user_id, *self.anonymous_ids} if one is not None and is_placeholder(one))
        if not named:
            return ""
        who = ", ".join(map(repr, named))
        return f"{who} names nobody: events of every client that sent it will be erased, but no devices"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The result of an erasure from one table. Files are data files, before and after.

    ``files_left``: the number of unreferenced files with such rows that are too young to be removed.
    """

    table: str
    rows_before: int
    rows_erased: int
    files_before: int
    files_rewritten: int
    files_after: int
    snapshots_expired: int
    files_deleted: int
    files_left: int


def with_linked_ids(lake: Lake, person: Person, spread: Spread = map) -> Person:
    """Return the person with the devices whose last user they are."""
    if person.user_id is None:
        return person
    iceberg = lake.load(EVENTS)
    files, target = list(live_files(iceberg)), portable(iceberg)
    seen = frozenset(chain.from_iterable(spread(partial(_find_devices, target, person), files)))
    last: dict[Device, LastUser] = {}
    for found in spread(partial(_last_users, target, seen), files):
        for device, user in found.items():
            last[device] = max(last.get(device, user), user)
    return replace(person, linked=frozenset(device for device, (*_, user) in last.items() if user == person.user_id))


Device = tuple[str, str]
"""Project and anonymous id."""

LastUser = tuple[datetime, str, str]
"""The last sight of a device: when, the message id, and the user."""


def _find_devices(iceberg: IcebergTable, person: Person, file: DataFile) -> set[Device]:
    rows = _links(iceberg, file)
    mask = pc.equal(rows["user_id"], person.user_id)
    if person.project_id is not None:
        mask = pc.and_(mask, pc.equal(rows["project_id"], person.project_id))
    return {device for device, _ in _device_users(rows.filter(mask))}


def _last_users(iceberg: IcebergTable, devices: frozenset[Device], file: DataFile) -> dict[Device, LastUser]:
    rows = _links(iceberg, file)
    ids = {anonymous for _, anonymous in devices}
    last: dict[Device, LastUser] = {}
    for device, user in _device_users(
        rows.filter(pc.or_(_is_in(rows["anonymous_id"], ids), _is_in(rows["previous_id"], ids)))
    ):
        if device in devices:
            last[device] = max(last.get(device, user), user)
    return last


def _links(iceberg: IcebergTable, file: DataFile) -> pa.Table:
    columns = ["project_id", "anonymous_id", "previous_id", "type", "event_time", "message_id", "user_id"]
    rows = read_files(EVENTS, iceberg, [file], columns)
    return rows.filter(pc.is_valid(rows["user_id"]))


def _device_users(rows: pa.Table) -> Iterator[tuple[Device, LastUser]]:
    for project, anonymous, previous, kind, *user in zip(
        *(rows[name].to_pylist() for name in rows.column_names), strict=True
    ):
        if is_placeholder(user[2]):
            continue
        for device in {anonymous, previous if kind == "alias" else None} - {None}:
            if not is_placeholder(device):
                yield (project, device), (user[0], user[1], user[2])


def erase(lake: Lake, person: Person, spread: Spread = map, *, orphan_age_s: float = ORPHAN_AGE_S) -> list[Receipt]:
    """Erase the person, all of whose ids are given. Raises ConflictError if others kept rewriting the same files.

    ``orphan_age_s``: younger files may belong to a commit in progress. Events are erased last: only they link the
    devices to the person, should the erasure be interrupted and run again.
    """
    letters = _erase_from(lake, DEAD_LETTERS, person, spread, orphan_age_s)
    return [_erase_from(lake, EVENTS, person, spread, orphan_age_s), letters]


def count(lake: Lake, person: Person, spread: Spread = map) -> dict[str, int]:
    """Return per table how many rows `erase` would remove."""
    counts = {}
    for table in TABLES:
        iceberg = lake.load(table)
        counts[table.name] = sum(spread(partial(_count, table, portable(iceberg), person), live_files(iceberg)))
    return counts


def _count(table: Table, iceberg: IcebergTable, person: Person, file: DataFile) -> int:
    return int(is_theirs(table, read_files(table, iceberg, [file], _columns(table)), person).sum())


def _erase_from(lake: Lake, table: Table, person: Person, spread: Spread, orphan_age_s: float) -> Receipt:
    files = list(live_files(lake.load(table)))
    rows_before, files_before = sum(file.record_count for file in files), len(files)
    erased, rewritten = _rewrite_without(lake, table, person, spread)
    expired = deleted = 0
    while len(lake.load(table).metadata.snapshots) > 1:  # a concurrent commit adds another
        more, dead = expire_snapshots(lake, table, keep=1)
        delete_files(lake.io, dead)
        expired, deleted = expired + more, deleted + len(dead)
    deleted += remove_orphans(lake, table, orphan_age_s)
    iceberg = lake.load(table)
    young = [one for one, _ in orphans(iceberg) if one.endswith(".parquet")]
    left = sum(spread(partial(_may_hold, table, lake.io, person), young))
    files_after = len(list(live_files(iceberg)))
    return Receipt(table.name, rows_before, erased, files_before, rewritten, files_after, expired, deleted, left)


def _may_hold(table: Table, io: FileIO, person: Person, location: str, *, if_gone: bool = False) -> bool:
    try:
        return bool(is_theirs(table, read_file(table, io, location, _columns(table)), person).any())
    except FileNotFoundError:
        return if_gone
    except pa.ArrowInvalid:  # half written
        return True


def _rewrite_without(lake: Lake, table: Table, person: Person, spread: Spread) -> tuple[int, int]:
    """Rewrite files without the person's rows; returns the numbers of rows removed and of files rewritten."""
    erased = rewritten = 0
    clean: set[str] = set()
    for _ in range(_ATTEMPTS):
        iceberg = lake.load(table)
        files = [file for file in live_files(iceberg) if file.file_path not in clean]
        if not files:
            return erased, rewritten
        found = list(spread(partial(_holds, table, iceberg.io, person), files))
        clean |= {file.file_path for file, holds in zip(files, found, strict=True) if not holds}
        theirs = [file for file, holds in zip(files, found, strict=True) if holds]
        for some in in_groups(theirs, lambda file: file.file_size_in_bytes, _BYTES_AT_ONCE):
            staged = spread(partial(_without, table, portable(iceberg), person), some)
            rewrites = [one for one in staged if one is not None]
            done = swap(lake, table, rewrites, iceberg, "erase", attempts=JOBS_ATTEMPTS)
            clean |= {file.file_path for one in done for file in one.new}
            erased += sum(one.rows_dropped for one in done)
            rewritten += len(done)
    raise ConflictError(f"{table.name}: its files kept changing; run the command again")


def _holds(table: Table, io: FileIO, person: Person, file: DataFile) -> bool:
    """Return whether a file holds rows of the person, including deleted ones, or is missing."""
    return _may_hold(table, io, person, file.file_path, if_gone=True)


def _without(table: Table, iceberg: IcebergTable, person: Person, file: DataFile) -> Rewritten | None:
    """Rewrite one file; None if it was merged and removed meanwhile: its rows are in another file now."""

    def kept(rows: pa.Table) -> pa.Table:
        return rows.filter(pa.array(~is_theirs(table, rows, person)))

    try:
        return stage_rewritten(table, iceberg, [file], kept)
    except FileNotFoundError:
        return None


def _columns(table: Table) -> list[str]:
    ids = ["user_id", "anonymous_id", "previous_id"] if table == EVENTS else ["raw", "raw_encoding", "stamp"]
    return ["project_id", *ids]


def is_theirs(table: Table, rows: pa.Table, person: Person) -> npt.NDArray[np.bool_]:
    """Return which rows of a table belong to the person. Shape (rows,)."""
    if table == DEAD_LETTERS:
        return _letters(rows, person)
    theirs = _events(rows, person)
    if person.project_id is not None:
        theirs = pc.and_(theirs, pc.equal(rows["project_id"], person.project_id))
    return np.asarray(theirs.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _events(rows: pa.Table, person: Person) -> pa.ChunkedArray:
    device = _is_in(rows["anonymous_id"], person.anonymous_ids)
    for project in {project for project, _ in person.linked}:
        linked = _is_in(rows["anonymous_id"], (anonymous for other, anonymous in person.linked if other == project))
        device = pc.or_(device, pc.and_(linked, pc.equal(rows["project_id"], project)))
    users = [person.user_id] if person.user_id is not None else []
    own = pc.or_(_is_in(rows["user_id"], users), _is_in(rows["previous_id"], users))
    return pc.or_(pc.and_(device, pc.is_null(rows["user_id"])), own)


# --- dead letters -----------------------------------------------------------------------------------------

_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL
)
_NUMBER_ID = re.compile(r'"(?:user|anonymous|previous)Id"\s*:\s*(-?[0-9][0-9.eE+-]*)')
_SHORT_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def _letters(rows: pa.Table, person: Person) -> npt.NDArray[np.bool_]:
    """Return which dead letters to erase. A letter without a project may belong to any, so it matches every project."""
    ids: dict[str | None, frozenset[str]] = {}
    found = []
    for letter in rows.select(_columns(DEAD_LETTERS)).to_pylist():
        project = letter["project_id"]
        if project not in ids:
            ids[project] = _ids_in(project, person)
        found.append(bool(ids[project]) and _mentions(letter, ids[project]))
    return np.array(found, dtype=np.bool_)


def _ids_in(project: str | None, person: Person) -> frozenset[str]:
    if project is not None and person.project_id not in {None, project}:
        return frozenset()
    linked = {anonymous for other, anonymous in person.linked if project in {None, other}}
    own = {person.user_id} if person.user_id is not None else set()
    return frozenset({*own, *person.anonymous_ids, *linked} - {""})  # every letter contains an empty string


def _mentions(letter: dict[str, Any], ids: frozenset[str]) -> bool:
    quoted = [f'"{_escaped(one)}"' for one in ids]
    for text in _texts(letter):
        plain = _ESCAPE.sub(_unescaped, text) if "\\" in text else text
        if any(one in plain for one in quoted) or not ids.isdisjoint(_NUMBER_ID.findall(text)):
            return True
    return False


def _texts(letter: dict[str, Any]) -> Iterator[str]:
    """Return the letter's own bytes, and those of its batch's envelope."""
    raw = letter["raw"]
    if raw is not None:
        yield base64.b64decode(raw).decode(errors="replace") if letter["raw_encoding"] == "base64" else raw
    stamp = json.loads(letter["stamp"]) if letter["stamp"] else {}
    for name in ("context", "integrations"):
        if stamp.get(name):
            yield base64.b64decode(stamp[name]).decode(errors="replace")
    if stamp.get("anonymous_id"):  # as a member, so that a number is matched as in an event
        yield f'"anonymousId":{base64.b64decode(stamp["anonymous_id"]).decode(errors="replace")}'


def _escaped(text: str) -> str:
    """Escape as ``_unescaped`` does: only the quote and the backslash are escaped."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _unescaped(match: re.Match[str]) -> str:
    high, low, one, short = match.groups()
    if high:
        return (bytes.fromhex(high) + bytes.fromhex(low)).decode("utf-16-be")
    if one and "d800" <= one.lower() <= "dfff":
        return f"\\\\u{one}"  # a lone surrogate: ids keep it as the text of its escape
    return _escaped(chr(int(one, 16)) if one else _SHORT_ESCAPES.get(short, short))


def _is_in(column: pa.ChunkedArray, values: Iterable[str | None]) -> pa.ChunkedArray:
    return pc.is_in(column, value_set=pa.array(list(values), type=pa.string()))
