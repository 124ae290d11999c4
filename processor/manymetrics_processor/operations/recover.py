"""Restore the catalog of one machine to the newest state of the tables' files.

`recover` does so on request, and checks every file; ``adopt_newer`` at startup, for the one commit that may have
written its metadata without updating the catalog. Records in the stream past that state are committed at the server's
next start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import StaticTable
from sqlalchemy import text

from manymetrics.tables import TABLES, Table
from manymetrics_processor.lake.lake import Lake, Version, live_files, read_metadata
from manymetrics_processor.lake.object_storage import list_files, locate, stored_file
from manymetrics_processor.lake.rollback import SET_ASIDE, TableFiles, metadata_number


@dataclass(frozen=True, slots=True)
class Recovered:
    """The result for one table: its metadata file before and after (None for none), and its rows afterwards.

    ``rows_of_newest``: of the newest readable state; None if its files don't tell. ``bad_files``: the missing or
    damaged files of newer states, or of this one if no state is complete. ``set_aside``: the metadata files of newer
    states, which are renamed.
    """

    table: str
    was_at: str | None
    is_at: str | None
    rows: int
    rows_of_newest: int | None
    bad_files: tuple[str, ...]
    set_aside: tuple[str, ...]
    is_whole: bool

    @property
    def gives_up_rows(self) -> bool:
        """Return whether rows of a newer state are lost, or can't be read."""
        return not self.is_whole or (self.rows_of_newest or 0) > self.rows


def recover(
    catalog: SqlCatalog, seen: Mapping[str, Version] | None = None, *, dry_run: bool = False
) -> tuple[list[Recovered], dict[str, StaticTable]]:
    """Register the newest complete state of each table, and set newer ones aside.

    If no state is complete, registers the newest readable one. ``seen``: the states the stream was committed to, by
    table. Also returns the registered states, by table. Raises ForeignTableError.
    """
    lake, report, states = Lake(catalog), list[Recovered](), dict[str, StaticTable]()
    for table in TABLES:
        row = _row(catalog, lake.database, table.name)
        found = list(lake.states(table, (seen or {}).get(table.name), [one for one in row or () if one is not None]))
        bad = dict[str, list[str]]()
        chosen = None
        for state in found:
            bad[state.metadata_location] = _bad_files(state)
            if not bad[state.metadata_location]:
                chosen = state
                break
        is_whole = chosen is not None or (row is None and not found)
        chosen = chosen or next(iter(found), None)
        newer, unreadable = _newer(lake, table, chosen)
        was_at = row[0] if row else None
        is_at = chosen.metadata_location if chosen is not None else None
        if chosen is not None:
            states[table.name] = chosen
            if not dry_run:
                _point(catalog, (lake.database, table.name), was_at, chosen.metadata_location)
                for location in newer:
                    path = _path(lake, location)
                    path.rename(path.with_name(path.name.removesuffix(".metadata.json") + SET_ASIDE))
        elif not newer and row is not None and not dry_run:
            catalog.drop_table((lake.database, table.name))  # nothing is left of it: the next start creates a new one
        report.append(
            Recovered(
                table=table.name,
                was_at=was_at,
                is_at=is_at or (was_at if newer else None),
                rows=_rows(chosen) or 0,
                rows_of_newest=_rows(found[0]) if found else None,
                bad_files=tuple(sorted({*(one for some in bad.values() for one in some), *unreadable})),
                set_aside=tuple(newer) if chosen is not None else (),
                is_whole=is_whole,
            )
        )
    return report, states


def adopt_newer(catalog: SqlCatalog, home: Path, tables: Iterable[Table] = TABLES) -> None:
    """Point the catalog at the metadata that a commit wrote on top of its current state, if all its files exist.

    A commit's files are on the disk before the catalog references it. If the catalog doesn't, the process exited in
    between, or both databases were restored from one commit earlier. Adopting the commit is right in both cases, since
    its books tell what it holds. Call it only with the committer's lock held, before the stream accepts records.
    ``home``: the folder of the tables.
    """
    lake = Lake(catalog)
    for table in tables:
        row = _row(catalog, lake.database, table.name)
        if row is None:
            continue
        current = row[0]
        paths = {path.name for path in TableFiles(home / table.name).next_after(str(_path(lake, current)))}
        for state in lake.states(table, committed=[current]):
            if state.metadata_location.rpartition("/")[2] in paths and not _bad_files(state):
                _point(catalog, (lake.database, table.name), current, state.metadata_location)
                break


def _bad_files(state: StaticTable) -> list[str]:
    """Return the files of a state's current snapshot that are missing or have changed."""
    snapshot = state.current_snapshot()
    if snapshot is None:
        return []
    try:
        manifests = snapshot.manifests(state.io)
    except Exception:  # noqa: BLE001  # a damaged file may raise anything in its reader
        return [snapshot.manifest_list]
    bad = []
    for manifest in manifests:
        try:
            entries = manifest.fetch_manifest_entry(state.io, discard_deleted=True)
        except Exception:  # noqa: BLE001  # as above
            bad.append(manifest.manifest_path)
            continue
        for file in (entry.data_file for entry in entries):
            stored = stored_file(state.io, file.file_path)
            if stored is None or stored.size != file.file_size_in_bytes:
                bad.append(file.file_path)
    return bad


def _rows(state: StaticTable | None) -> int | None:
    snapshot = state.current_snapshot() if state is not None else None
    if state is None or snapshot is None:
        return 0
    try:
        return sum(file.record_count for file in live_files(state))
    except Exception:  # noqa: BLE001  # a damaged file may raise anything in its reader
        total = snapshot.summary.additional_properties.get("total-records") if snapshot.summary else None
        return int(total) if total is not None else None


def _newer(lake: Lake, table: Table, chosen: StaticTable | None) -> tuple[list[str], list[str]]:
    """Return the metadata files with a higher number than that of ``chosen``, and the unreadable ones among them."""
    number = metadata_number(chosen.metadata_location) if chosen is not None else -1
    found = [one for one, _ in list_files(lake.io, f"{lake.home(table)}/metadata") if one.endswith(".metadata.json")]
    newer = sorted(one for one in found if metadata_number(one) > number)
    return newer, [one for one in newer if read_metadata(lake.io, one) is None]


def _path(lake: Lake, location: str) -> Path:
    return Path(locate(lake.io, location)[1])


def _row(catalog: SqlCatalog, database: str, name: str) -> tuple[str, str | None] | None:
    """Return a table's current and previous metadata location in the catalog, even if they can't be read."""
    query = text(
        "select metadata_location, previous_metadata_location from iceberg_tables "
        "where catalog_name = :catalog and table_namespace = :database and table_name = :name"
    )
    with catalog.engine.connect() as connection:
        names = {"catalog": catalog.name, "database": database, "name": name}
        found = connection.execute(query, names).one_or_none()
    return (found[0], found[1]) if found is not None else None


def _point(catalog: SqlCatalog, name: tuple[str, str], was_at: str | None, is_at: str) -> None:
    """Point the catalog at another state of a table, atomically, unless it has changed meanwhile."""
    if is_at == was_at:
        return
    if was_at is None:
        if not catalog.namespace_exists(name[0]):
            catalog.create_namespace(name[0])
        catalog.register_table(name, is_at)
        return
    change = text(
        "update iceberg_tables set metadata_location = :is_at, previous_metadata_location = null "
        "where catalog_name = :catalog and table_namespace = :database and table_name = :name "
        "and metadata_location = :was_at"
    )
    with catalog.engine.begin() as connection:
        values = {"catalog": catalog.name, "database": name[0], "name": name[1], "is_at": is_at, "was_at": was_at}
        connection.execute(change, values)
