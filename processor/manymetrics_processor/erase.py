"""Take a person out of both tables, with their files: no snapshot, file or orphan of these keeps a row of theirs.

A person is a user_id, and the anonymous ids whose last user they are (as the view person_events says): rows without
a user_id go with those. Dead letters go where their bytes hold one of the ids, quoted, whatever is wrong with them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile

from manymetrics.tables import DEAD_LETTERS, EVENTS, TABLES, Table
from manymetrics_processor.lake import ConflictError, Lake, live_files
from manymetrics_processor.maintenance import delete_files, expire_snapshots, read_files, rewrite

_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Person:
    """Whom to erase. ``project_id`` None: in every project."""

    user_id: str | None = None
    anonymous_ids: frozenset[str] = frozenset()
    project_id: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was erased from one table. Files are data files, before and after."""

    table: str
    rows_before: int
    rows_erased: int
    files_before: int
    files_rewritten: int
    files_after: int
    snapshots_expired: int
    files_deleted: int


def with_linked_ids(lake: Lake, person: Person) -> Person:
    """The person with the anonymous ids whose last user they are."""
    if person.user_id is None:
        return person
    columns = ["project_id", "user_id", "anonymous_id", "event_time", "message_id"]
    last: dict[tuple[str, str], tuple[object, str]] = {}
    for file in live_files(lake.load(EVENTS)):
        rows = read_files(EVENTS, [file], columns)
        known = rows.filter(pc.and_(pc.is_valid(rows["user_id"]), pc.is_valid(rows["anonymous_id"])))
        for project, user, anonymous, time, message in zip(*(known[name].to_pylist() for name in columns), strict=True):
            seen = last.get((project, anonymous))
            if seen is None or seen[0] <= (time, message):  # type: ignore[operator]  # both are (time, text)
                last[project, anonymous] = ((time, message), user)
    linked = {
        anonymous
        for (project, anonymous), (_, user) in last.items()
        if user == person.user_id and person.project_id in {None, project}
    }
    return Person(person.user_id, person.anonymous_ids | linked, person.project_id)


def erase(lake: Lake, person: Person) -> list[Receipt]:
    """Erase the person, whose ids are all named. Raises ConflictError where others kept rewriting the same files."""
    return [_erase_from(lake, table, person) for table in TABLES]


def count(lake: Lake, person: Person) -> dict[str, int]:
    """For each table, how many rows `erase` would take."""
    counts = {}
    for table in TABLES:
        files = live_files(lake.load(table))
        counts[table.name] = sum(int(_is_theirs(table, read_files(table, [f]), person).sum()) for f in files)
    return counts


def _erase_from(lake: Lake, table: Table, person: Person) -> Receipt:
    files = list(live_files(lake.load(table)))
    rows_before, files_before = sum(file.record_count for file in files), len(files)
    erased = rewritten = 0
    for _ in range(_ATTEMPTS):
        try:
            for file in files:
                gone = _rewrite_without(lake, table, file, person)
                erased, rewritten = erased + gone, rewritten + bool(gone)
            break
        except ConflictError:  # maintenance merged a file meanwhile: look at the newer ones
            files = list(live_files(lake.load(table)))
    else:
        raise ConflictError(f"{table.name}: its files kept changing; run the command again")
    expired = deleted = 0
    while len(lake.load(table).metadata.snapshots) > 1:  # a commit in between makes another
        more, dead = expire_snapshots(lake, table, keep=1)
        delete_files(dead)
        expired, deleted = expired + more, deleted + len(dead)
    files_after = len(list(live_files(lake.load(table))))
    return Receipt(table.name, rows_before, erased, files_before, rewritten, files_after, expired, deleted)


def _rewrite_without(lake: Lake, table: Table, file: DataFile, person: Person) -> int:
    columns = _columns(table)
    if not _is_theirs(table, read_files(table, [file], columns), person).any():
        return 0

    def without(rows: pa.Table) -> pa.Table:
        return rows.filter(pa.array(~_is_theirs(table, rows, person)))

    before, after = rewrite(lake, table, [file], without, "erase")
    return before - after


def _columns(table: Table) -> list[str]:
    ids = ["user_id", "anonymous_id", "previous_id"] if table is EVENTS else ["raw"]
    return ["project_id", *ids]


def _is_theirs(table: Table, rows: pa.Table, person: Person) -> npt.NDArray[np.bool_]:
    theirs = _events(rows, person) if table is EVENTS else _letters(rows, person)
    if person.project_id is not None:
        project = pc.equal(rows["project_id"], person.project_id)
        theirs = pc.and_(theirs, pc.fill_null(project, table is DEAD_LETTERS))
    return np.asarray(theirs.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _events(rows: pa.Table, person: Person) -> pa.ChunkedArray:
    anonymous = pc.and_(_is_in(rows["anonymous_id"], person.anonymous_ids), pc.is_null(rows["user_id"]))
    users = [person.user_id] if person.user_id is not None else []
    own = pc.or_(_is_in(rows["user_id"], users), _is_in(rows["previous_id"], users))
    return pc.or_(anonymous, own)


def _letters(rows: pa.Table, person: Person) -> pa.ChunkedArray:
    ids = {*person.anonymous_ids, *([person.user_id] if person.user_id is not None else [])}
    found = pa.chunked_array([pa.array([False] * rows.num_rows)])
    for one in ids:
        for quoted in {json.dumps(one), json.dumps(one, ensure_ascii=False)}:
            found = pc.or_(found, pc.fill_null(pc.match_substring(rows["raw"], quoted), fill_value=False))
        if one.isdecimal():  # a number, bare
            bare = pc.match_substring_regex(rows["raw"], rf'"(user|anonymous|previous)Id"\s*:\s*{one}\b')
            found = pc.or_(found, pc.fill_null(bare, fill_value=False))
    return found


def _is_in(column: pa.ChunkedArray, values: Iterable[str | None]) -> pa.ChunkedArray:
    return pc.is_in(column, value_set=pa.array(list(values), type=pa.string()))
