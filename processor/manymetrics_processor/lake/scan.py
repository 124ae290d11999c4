"""Read rows of data files, without those that others have deleted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import _to_requested_schema, pyarrow_to_schema, schema_to_pyarrow  # to read by field id
from pyiceberg.manifest import DataFile, DataFileContent
from pyiceberg.schema import Schema
from pyiceberg.table import Table as IcebergTable

from manymetrics.tables import Table
from manymetrics_processor.decode.arrow import arrow_schema
from manymetrics_processor.lake.lake import delete_manifests
from manymetrics_processor.lake.object_storage import open_parquet

Positions = dict[str, npt.NDArray[np.int64]]
"""For each data file, by its location, which of its rows are deleted."""


class UnreadableDeletesError(Exception):
    """The table has equality deletes, which neither Athena nor ManyMetrics writes. The message names the fix."""


def read_files(
    table: Table,
    iceberg: IcebergTable,
    files: Iterable[DataFile],
    columns: Sequence[str] | None = None,
    *,
    without: Positions | None = None,
    every_column: bool = False,
) -> pa.Table:
    """Read the rows of data files of this snapshot; columns newer than a file are null.

    ``without``: rows to leave out in addition to deleted ones. ``every_column``: include columns that a newer processor
    or others added to the table.
    """
    schema = _schema(table, columns)
    unknown = _unknown_fields(table, iceberg) if every_column else Schema()
    parts = []
    deleted = deleted_positions(iceberg)
    for file in files:
        part = _read(iceberg.io, file.file_path, schema, unknown)
        kept = np.ones(part.num_rows, dtype=np.bool_)
        for gone in (deleted, without or {}):
            kept[gone.get(file.file_path, [])] = False
        parts.append(part if kept.all() else part.filter(pa.array(kept)))
    return pa.concat_tables(parts) if parts else pa.schema([*schema, *_nullable(unknown)]).empty_table()


def read_file(table: Table, io: FileIO, location: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read all rows of one file, including deleted ones. Raises FileNotFoundError."""
    return _read(io, location, _schema(table, columns))


def _read(io: FileIO, location: str, schema: pa.Schema, unknown: Schema = Schema()) -> pa.Table:  # noqa: B008  # immutable
    """Read a file. ``unknown``: fields outside the contract, matched by id, whatever their name in the file."""
    with open_parquet(io, location) as parquet:
        have = set(parquet.schema_arrow.names)
        rows = parquet.read(columns=[name for name in schema.names if name in have])
        theirs = _read_by_id(parquet, unknown) if unknown.fields else None
    for at, field in enumerate(schema):
        if field.name not in have:
            rows = rows.add_column(at, field, pa.nulls(rows.num_rows, field.type))
    rows = rows.select(schema.names).cast(schema)
    for field in _nullable(unknown):
        if theirs is not None and field.name in theirs.column_names:
            rows = rows.append_column(field, theirs[field.name].cast(field.type))
        else:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows


def _read_by_id(parquet: pq.ParquetFile, fields: Schema) -> pa.Table | None:
    """Read the fields that a file has, in the table's current form: renamed (nested fields too) and promoted."""
    in_file = parquet.schema_arrow
    if not all(b"PARQUET:field_id" in (field.metadata or {}) for field in in_file):  # else match by name
        in_file = pa.schema([field for field in in_file if field.name in fields.column_names])
    file_schema = pyarrow_to_schema(in_file, fields.name_mapping)
    held = file_schema.field_ids & fields.field_ids
    names = [field.name for field in file_schema.fields if field.field_id in held]
    if not names:
        return None
    wanted = Schema(*(field for field in fields.fields if field.field_id in held))
    batches = parquet.read(columns=names).combine_chunks().to_batches() or [
        pa.RecordBatch.from_pylist([], schema=pa.schema([parquet.schema_arrow.field(name) for name in names]))
    ]
    file_part = Schema(*(field for field in file_schema.fields if field.field_id in held))
    return pa.Table.from_batches([_to_requested_schema(wanted, file_part, batch) for batch in batches])


def deleted_positions(iceberg: IcebergTable) -> Positions:
    """Return the deleted positions by file. Raises UnreadableDeletesError."""
    found: dict[str, list[npt.NDArray[np.int64]]] = {}
    for manifest in delete_manifests(iceberg):
        for entry in manifest.fetch_manifest_entry(iceberg.io, discard_deleted=True):
            if entry.data_file.content != DataFileContent.POSITION_DELETES:
                raise UnreadableDeletesError(
                    f"{iceberg.name()[-1]} has equality deletes: run `OPTIMIZE` on it in Athena, and try again"
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
    """Return the same state of the table for use in other processes: it can read and stage, but not commit."""
    return IcebergTable(
        iceberg.name(), iceberg.metadata, iceberg.metadata_location, iceberg.io, NoopCatalog("portable")
    )


def _unknown_fields(table: Table, iceberg: IcebergTable) -> Schema:
    known = set(table.column_names)
    return Schema(*(field for field in iceberg.schema().fields if field.name not in known))


def _nullable(fields: Schema) -> list[pa.Field]:
    """Convert to nullable Arrow fields, since older files lack newer required columns."""
    return [field.with_nullable(True) for field in schema_to_pyarrow(fields)] if fields.fields else []  # noqa: FBT003  # Arrow's signature


def _schema(table: Table, columns: Sequence[str] | None) -> pa.Schema:
    schema = arrow_schema(table)
    return schema if columns is None else pa.schema([schema.field(name) for name in columns])
