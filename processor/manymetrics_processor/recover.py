"""Bring the catalogue of one machine back to the newest state that the tables' files have.

Nothing else is changed: what the stream still holds past that state is committed by the next start of the server.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import StaticTable
from sqlalchemy import text

from manymetrics.tables import TABLES
from manymetrics_processor.lake import Lake, live_files
from manymetrics_processor.storage import stored_file


@dataclass(frozen=True, slots=True)
class Recovered:
    """The result for one table: its metadata file before and after, None for none, and the rows that it has then."""

    table: str
    was_at: str | None
    is_at: str | None
    rows: int


def recover(catalog: SqlCatalog, *, dry_run: bool = False) -> tuple[list[Recovered], dict[str, StaticTable]]:
    """Register the newest state of each table whose files are all there.

    Also returns those states, by table. Raises ForeignTableError.
    """
    lake, report, states = Lake(catalog), list[Recovered](), dict[str, StaticTable]()
    for table in TABLES:
        name, was_at = (lake.database, table.name), _location(catalog, lake.database, table.name)
        newest = next((state for state in lake.states(table) if _is_whole(state)), None)
        if newest is None:
            report.append(Recovered(table.name, was_at, None, 0))
            continue
        is_at = newest.metadata_location
        if is_at != was_at and not dry_run:
            if not catalog.namespace_exists(lake.database):
                catalog.create_namespace(lake.database)
            if was_at is not None:
                catalog.drop_table(name)  # the catalogue's row alone: its files stay
            catalog.register_table(name, is_at)
        states[table.name] = newest
        report.append(Recovered(table.name, was_at, is_at, sum(file.record_count for file in live_files(newest))))
    return report, states


def _is_whole(state: StaticTable) -> bool:
    try:
        return all(stored_file(state.io, file.file_path) is not None for file in live_files(state))
    except (OSError, ValueError):  # a manifest that is gone, or damaged
        return False


def _location(catalog: SqlCatalog, database: str, name: str) -> str | None:
    """Where the catalogue has a table, whether or not that can be read."""
    query = text(
        "select metadata_location from iceberg_tables where table_namespace = :database and table_name = :name"
    )
    with catalog.engine.connect() as connection:
        found: str | None = connection.execute(query, {"database": database, "name": name}).scalar()
    return found
