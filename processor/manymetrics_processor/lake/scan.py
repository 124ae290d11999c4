"""The rows of data files, as they stand: without those that others have deleted since."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, DataFileContent
from pyiceberg.table import Table as IcebergTable

from manymetrics.tables import Table
from manymetrics_processor.decode.arrow import arrow_schema
from manymetrics_processor.lake.lake import delete_manifests
from manymetrics_processor.lake.object_storage import open_parquet

Positions = dict[str, npt.NDArray[np.int64]]
"""For each data file, by its location, which of its rows are deleted."""


class UnreadableDeletesError(Exception):
    """The table holds deletes by value, which neither Athena nor ManyMetrics writes. The message says the cure."""


def read_files(
    table: Table,
    iceberg: IcebergTable,
    files: Iterable[DataFile],
    columns: Sequence[str] | None = None,
    *,
    without: Positions | None = None,
) -> pa.Table:
    """The rows of data files of this snapshot; a column that a file is older than is null.

    ``without``: rows that are left out beside those that are deleted.
    """
    parts = []
    deleted = deleted_positions(iceberg)
    for file in files:
        part = read_file(table, iceberg.io, file.file_path, columns)
        kept = np.ones(part.num_rows, dtype=np.bool_)
        for gone in (deleted, without or {}):
            kept[gone.get(file.file_path, [])] = False
        parts.append(part if kept.all() else part.filter(pa.array(kept)))
    return pa.concat_tables(parts) if parts else _schema(table, columns).empty_table()


def read_file(table: Table, io: FileIO, location: str, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of one file, deleted ones too. Raises FileNotFoundError."""
    schema = _schema(table, columns)
    with open_parquet(io, location) as parquet:
        have = set(parquet.schema_arrow.names)
        rows = parquet.read(columns=[name for name in schema.names if name in have])
    for at, field in enumerate(schema):
        if field.name not in have:
            rows = rows.add_column(at, field, pa.nulls(rows.num_rows, field.type))
    return rows.select(schema.names).cast(schema)


def deleted_positions(iceberg: IcebergTable) -> Positions:
    """Raises UnreadableDeletesError."""
    found: dict[str, list[npt.NDArray[np.int64]]] = {}
    for manifest in delete_manifests(iceberg):
        for entry in manifest.fetch_manifest_entry(iceberg.io, discard_deleted=True):
            if entry.data_file.content != DataFileContent.POSITION_DELETES:
                raise UnreadableDeletesError(
                    f"{iceberg.name()[-1]} holds equality deletes: run `OPTIMIZE` on it in Athena, and try again"
                )
            with open_parquet(iceberg.io, entry.data_file.file_path) as parquet:
                deletes = parquet.read(columns=["file_path", "pos"])
            paths = deletes["file_path"].combine_chunks().dictionary_encode()
            rows = deletes["pos"].to_numpy()
            which = paths.indices.to_numpy()
            for number, path in enumerate(paths.dictionary.to_pylist()):
                found.setdefault(path, []).append(rows[which == number])
    return {path: np.concatenate(parts) for path, parts in found.items()}


def portable(iceberg: IcebergTable) -> IcebergTable:
    """The same state of the table, to be sent to other processes: it can read and stage, and not commit."""
    return IcebergTable(
        iceberg.name(), iceberg.metadata, iceberg.metadata_location, iceberg.io, NoopCatalog("portable")
    )


def _schema(table: Table, columns: Sequence[str] | None) -> pa.Schema:
    schema = arrow_schema(table)
    return schema if columns is None else pa.schema([schema.field(name) for name in columns])
