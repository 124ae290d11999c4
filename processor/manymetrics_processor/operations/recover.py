"""Bring the catalogue of one machine to the newest state that the tables' files have.

`recover` does so when it is asked, and looks at every file; ``adopt_newer`` at a start, for the one commit that may
have written its metadata and ended before the catalogue named it. What the stream holds past that state is committed by
the next start of the server.
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
    """The result for one table: its metadata file before and after, None for none, and the rows that it has then.

    ``rows_of_newest``: of the newest state that can be read; None where its files don't tell. ``bad_files``: the files
    of newer states that are missing or damaged, or of this one where none is whole. ``set_aside``: the metadata files
    of newer states, which are renamed.
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
        """Whether rows are no longer there that a newer state had, or can't be read."""
        return not self.is_whole or (self.rows_of_newest or 0) > self.rows


def recover(
    catalog: SqlCatalog, seen: Mapping[str, Version] | None = None, *, dry_run: bool = False
) -> tuple[list[Recovered], dict[str, StaticTable]]:
    """Register the newest state of each table whose files are all there, and set newer ones aside.

    Where no state is whole, the newest that can be read. ``seen``: which states the stream was committed to, by table.
    Also returns those states, by table. Raises ForeignTableError.
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
            catalog.drop_table((lake.database, table.name))  # nothing is left of it: the next start makes a new one
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
    """Make the catalogue name what a commit wrote on top of what it names, where all of that is there.

    The files of a commit are on the disk before the catalogue names it. Where it doesn't, the process ended in between,
    or both databases were put back by one commit. To take that commit for done is right either way: its books say what
    it holds. Only for who holds the committer's lock, before anything is taken into the stream. ``home``: the folder of
    the tables.
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
    """The files of a state's current snapshot that are missing, or not as they were written."""
    snapshot = state.current_snapshot()
    if snapshot is None:
        return []
    try:
        manifests = snapshot.manifests(state.io)
    except Exception:  # noqa: BLE001  # whatever a damaged file makes of its reader
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
    except Exception:  # noqa: BLE001  # whatever a damaged file makes of its reader
        total = snapshot.summary.additional_properties.get("total-records") if snapshot.summary else None
        return int(total) if total is not None else None


def _newer(lake: Lake, table: Table, chosen: StaticTable | None) -> tuple[list[str], list[str]]:
    """The metadata files with a higher number than that of ``chosen``, and which of them can't be read."""
    number = metadata_number(chosen.metadata_location) if chosen is not None else -1
    found = [one for one, _ in list_files(lake.io, f"{lake.home(table)}/metadata") if one.endswith(".metadata.json")]
    newer = sorted(one for one in found if metadata_number(one) > number)
    return newer, [one for one in newer if read_metadata(lake.io, one) is None]


def _path(lake: Lake, location: str) -> Path:
    return Path(locate(lake.io, location)[1])


def _row(catalog: SqlCatalog, database: str, name: str) -> tuple[str, str | None] | None:
    """Where the catalogue has a table, and had it one commit before, whether or not that can be read."""
    query = text(
        "select metadata_location, previous_metadata_location from iceberg_tables "
        "where catalog_name = :catalog and table_namespace = :database and table_name = :name"
    )
    with catalog.engine.connect() as connection:
        names = {"catalog": catalog.name, "database": database, "name": name}
        found = connection.execute(query, names).one_or_none()
    return (found[0], found[1]) if found is not None else None


def _point(catalog: SqlCatalog, name: tuple[str, str], was_at: str | None, is_at: str) -> None:
    """Make the catalogue name another state of a table, in one step; not where somebody has moved it meanwhile."""
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
