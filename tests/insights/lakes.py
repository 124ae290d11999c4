"""Real Iceberg tables in a folder, made by PyIceberg from the contract, for tests to fill."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform
from pyiceberg.types import IcebergType, IntegerType, LongType, NestedField, StringType, TimestampType

from manymetrics.tables import DEAD_LETTERS, EVENTS, NAMESPACE, TABLES, ColumnType, Table

if TYPE_CHECKING:
    from pyiceberg.table import Table as IcebergTable

Row = dict[str, object]

NOON = datetime(2026, 3, 14, 12)
_TYPES: dict[ColumnType, IcebergType] = {
    "string": StringType(),
    "timestamp": TimestampType(),
    "int": IntegerType(),
    "long": LongType(),
}
_LINEAGE = {"_stream": "test", "_shard": "0", "_sequence": "1", "_position": 0}


@dataclass(slots=True)
class Lake:
    """The tables of ``data_dir``. Each ``append`` is one commit."""

    data_dir: Path
    catalog: Catalog
    _rows: int = field(default=0)

    def table(self, name: str) -> IcebergTable:
        return self.catalog.load_table((NAMESPACE, name))

    def append(self, name: str, rows: list[Row]) -> None:
        table = self.table(name)
        table.append(pa.Table.from_pylist(rows, schema=table.schema().as_arrow()))

    def append_events(self, *fields: Row) -> None:
        self.append("events", [self._event(some) for some in fields])

    def append_dead_letters(self, *fields: Row) -> None:
        self.append("dead_letters", [self._dead_letter(some) for some in fields])

    def _event(self, fields: Row) -> Row:
        self._rows += 1
        times = {"event_time": fields.get("received_at", NOON), "received_at": fields.get("event_time", NOON)}
        required = {"message_id": f"m{self._rows:06}", "project_id": "shop", "type": "track", **times, **_LINEAGE}
        return dict.fromkeys(EVENTS.column_names) | required | fields

    def _dead_letter(self, fields: Row) -> Row:
        self._rows += 1
        required = {
            "dead_letter_id": f"d{self._rows}",
            "project_id": "shop",
            "received_at": NOON,
            "stage": "event",
            "reason": "invalid_json",
            "raw_encoding": "utf-8",
            "replayable": 1,
            **_LINEAGE,
        }
        return dict.fromkeys(DEAD_LETTERS.column_names) | required | fields


def make_lake(data_dir: Path, catalog: Catalog | None = None) -> Lake:
    """Both tables, empty, in a catalog of the folder or in another one."""
    if catalog is None:
        (data_dir / "warehouse").mkdir(parents=True)
        uri, warehouse = f"sqlite:///{quote(str(data_dir))}/catalog.db", f"file://{data_dir}/warehouse"
        catalog = SqlCatalog("manymetrics", uri=uri, warehouse=warehouse)
    catalog.create_namespace(NAMESPACE)
    for table in TABLES:
        _create(catalog, table)
    return Lake(data_dir, catalog)


def _create(catalog: Catalog, table: Table) -> None:
    fields = [
        NestedField(place, column.name, _TYPES[column.type], required=column.required, doc=column.doc)
        for place, column in enumerate(table.columns, 1)
    ]
    day_of = table.column_names.index(table.partition_day_of) + 1
    catalog.create_table(
        (NAMESPACE, table.name),
        schema=Schema(*fields),
        partition_spec=PartitionSpec(PartitionField(day_of, 1000, DayTransform(), f"{table.partition_day_of}_day")),
        properties={"format-version": "2"},
    )
