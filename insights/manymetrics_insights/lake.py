"""What the lake on one machine holds now, read without PyIceberg: importing that takes longer than most queries.

    catalog.db --metadata_location--> metadata.json --current snapshot--> manifest list --> manifests --> data files

``read_table`` answers from one snapshot, so its files belong together. It only reads. Maintenance may delete what
an older snapshot named, even between two steps here: then it raises FileNotFoundError, and asking again is right.
The list of files equals what ``Table.scan().plan_files()`` plans; a contract test holds the two together.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import msgspec

from manymetrics.tables import NAMESPACE

if TYPE_CHECKING:
    from fastavro.types import AvroMessage

CATALOG_NAME = "manymetrics"
CATALOG_FILE = "catalog.db"
FILE_SCHEME = "file://"
DATA_MANIFEST = 0  # Iceberg spec, manifest list, `content`; 1 holds delete files
DELETED_ENTRY = 2  # Iceberg spec, manifest entry, `status`

# What is read of a manifest. Without it every file's statistics become Python objects: 10 times the work.
_ENTRY_SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "manifest_entry",
    "fields": [
        {"name": "status", "type": "int"},
        {
            "name": "data_file",
            "type": {
                "type": "record",
                "name": "r2",
                "fields": [
                    {"name": "file_path", "type": "string"},
                    {"name": "record_count", "type": "long"},
                ],
            },
        },
    ],
}


class NoLakeError(Exception):
    """There is no data directory. The message says the cure."""


@dataclass(frozen=True, slots=True)
class Field:
    """A column of the table's current schema; ``type`` as Iceberg writes it, ``struct`` and such for nested ones."""

    id: int
    name: str
    type: str


@dataclass(frozen=True, slots=True)
class DataFile:
    """A live Parquet file: a local path, and its rows before any delete file."""

    path: str
    record_count: int


class Snapshot(msgspec.Struct, frozen=True, rename="kebab"):
    """A commit that has not expired. ``timestamp_ms`` since 1970, UTC."""

    snapshot_id: int
    timestamp_ms: int
    manifest_list: str = ""
    summary: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class TableState:
    """A table as its current snapshot has it; ``snapshots`` oldest first, ``snapshot_id`` None before a first commit.

    Where ``has_deletes``, some rows of ``files`` are gone, and only a reader that honours delete files may read them.
    """

    metadata_path: str
    snapshot_id: int | None
    fields: tuple[Field, ...]
    files: tuple[DataFile, ...] = ()
    has_deletes: bool = False
    properties: dict[str, str] = field(default_factory=dict)
    snapshots: tuple[Snapshot, ...] = ()


class _SchemaField(msgspec.Struct):
    id: int
    name: str
    type: str | dict[str, object]


class _Schema(msgspec.Struct, rename="kebab"):
    schema_id: int
    fields: list[_SchemaField]


class _Metadata(msgspec.Struct, rename="kebab"):
    current_schema_id: int
    schemas: list[_Schema]
    properties: dict[str, str] = {}
    current_snapshot_id: int | None = None
    snapshots: list[Snapshot] = []


def read_table(data_dir: Path, name: str) -> TableState | None:
    """The table as it is now, or None where nothing has made it yet."""
    if not data_dir.is_dir():
        raise NoLakeError(
            f"No data directory at {data_dir}. Start the server first (`make run`, or `manymetrics serve`), "
            "or name the right place with --data-dir or MANYMETRICS_DATA_DIR."
        )
    path = metadata_path(data_dir, name)
    return None if path is None else _read_state(path)


def metadata_path(data_dir: Path, name: str) -> str | None:
    """The file that says what the table is now, or None where there is no such table. Raises sqlite3.Error."""
    location = _metadata_location(data_dir / CATALOG_FILE, name)
    return None if location is None else _local_path(location)


def _metadata_location(catalog: Path, name: str) -> str | None:
    if not catalog.exists():
        return None
    with closing(sqlite3.connect(f"file:{quote(str(catalog))}?mode=ro", uri=True, timeout=10)) as database:
        if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'iceberg_tables'").fetchone() is None:
            return None
        row = database.execute(
            "SELECT metadata_location FROM iceberg_tables"
            " WHERE catalog_name = ? AND table_namespace = ? AND table_name = ?",
            (CATALOG_NAME, NAMESPACE, name),
        ).fetchone()
    return None if row is None else cast("str", row[0])


def _read_state(metadata_path: str) -> TableState:
    metadata = msgspec.json.decode(Path(metadata_path).read_bytes(), type=_Metadata)
    schema = next(schema for schema in metadata.schemas if schema.schema_id == metadata.current_schema_id)
    current = next((s for s in metadata.snapshots if s.snapshot_id == metadata.current_snapshot_id), None)
    files, has_deletes = ((), False) if current is None else _read_files(current)
    return TableState(
        metadata_path=metadata_path,
        snapshot_id=None if current is None else current.snapshot_id,
        fields=tuple(Field(column.id, column.name, _type_name(column.type)) for column in schema.fields),
        files=files,
        has_deletes=has_deletes,
        properties=metadata.properties,
        snapshots=tuple(metadata.snapshots),
    )


def _read_files(snapshot: Snapshot) -> tuple[tuple[DataFile, ...], bool]:
    manifests = list(_read_avro(_local_path(snapshot.manifest_list)))
    live = [manifest for manifest in manifests if _may_be_live(manifest)]
    data = [manifest["manifest_path"] for manifest in live if manifest["content"] == DATA_MANIFEST]
    files = tuple(
        DataFile(_local_path(entry["data_file"]["file_path"]), entry["data_file"]["record_count"])
        for path in data
        for entry in _read_avro(_local_path(path), _ENTRY_SCHEMA)
        if entry["status"] != DELETED_ENTRY
    )
    return files, len(data) < len(live)


def _may_be_live(manifest: dict[str, Any]) -> bool:
    """A manifest that only says which files were removed holds none. The counts may be absent: then it may."""
    added, existing = manifest.get("added_files_count"), manifest.get("existing_files_count")
    return added is None or existing is None or added + existing > 0


def _read_avro(path: str, schema: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    import fastavro

    with Path(path).open("rb") as file:
        records: Iterator[AvroMessage] = fastavro.reader(file, reader_schema=schema)
        yield from cast("Iterator[dict[str, Any]]", records)


def _type_name(iceberg_type: str | dict[str, object]) -> str:
    return iceberg_type if isinstance(iceberg_type, str) else str(iceberg_type["type"])


def _local_path(location: str) -> str:
    """PyIceberg writes the path after ``file://`` as it is, without percent escapes."""
    return location.removeprefix(FILE_SCHEME)
