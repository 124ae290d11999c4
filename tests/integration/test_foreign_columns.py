"""What others did to the table, its columns and its texts, is there after files were rewritten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.table import Table as IcebergTable
from pyiceberg.types import NestedField, StringType, StructType

from manymetrics.tables import EVENTS
from manymetrics_cli.main import main
from manymetrics_processor.decode.batch import decode
from manymetrics_processor.lake.lake import Lake, live_files
from manymetrics_processor.lake.maintenance import maintain, stage_rewritten, swap
from tests.integration.micro_batches import STREAM, append_as_older_processor, make_lake, record, rows, track


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return make_lake(tmp_path)


def append(iceberg: IcebergTable, number: int, **theirs: object) -> None:
    """Rows of another engine, which knows every column."""
    data = decode([record(number, track(f"m{number}"))], STREAM).events.table
    schema = iceberg.schema().as_arrow()
    columns = {field.name: data[field.name] if field.name in data.column_names else None for field in schema}
    arrays = [
        pa.array([theirs.get(field.name)], type=field.type) if columns[field.name] is None else columns[field.name]
        for field in schema
    ]
    iceberg.append(pa.table(arrays, schema=schema))


def rewritten(lake: Lake) -> list[dict[str, Any]]:
    iceberg = lake.load(EVENTS)
    staged = stage_rewritten(EVENTS, iceberg, list(live_files(iceberg)))
    assert swap(lake, EVENTS, [staged], iceberg, "compact")
    return seen(lake)


def seen(lake: Lake) -> list[dict[str, Any]]:
    """As any other Iceberg reader sees the rows."""
    found: list[dict[str, Any]] = lake.load(EVENTS).scan().to_arrow().to_pylist()
    return sorted(found, key=lambda row: str(row["message_id"]))


def they_rename(iceberg: IcebergTable) -> None:
    with iceberg.update_schema() as update:
        update.add_column("note", StringType())
    append(iceberg, 1, note="keep")
    with iceberg.update_schema() as update:
        update.rename_column("note", "remark")


def they_use_odd_names(iceberg: IcebergTable) -> None:
    with iceberg.update_schema() as update:
        update.add_column("my-col", StringType())
    append(iceberg, 1, **{"my-col": "v"})


def they_rename_a_nested_field(iceberg: IcebergTable) -> None:
    with iceberg.update_schema() as update:
        update.add_column("i", StructType(NestedField(100, "x", StringType(), required=False)))
    append(iceberg, 1, i={"x": "keep"})
    with iceberg.update_schema() as update:
        update.rename_column("i.x", "z")


def they_drop_and_add(iceberg: IcebergTable) -> None:
    with iceberg.update_schema() as update:
        update.add_column("note", StringType())
    append(iceberg, 1, note="secret")
    with iceberg.update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("note")
    with iceberg.update_schema() as update:
        update.add_column("note", StringType())


def they_add_a_file_without_ids(iceberg: IcebergTable) -> None:
    with iceberg.update_schema() as update:
        update.add_column("note", StringType())
    schema = iceberg.schema().as_arrow()
    data = decode([record(1, track("m1"))], STREAM).events.table
    columns = {name: data[name] for name in data.column_names} | {"note": pa.array(["keep"])}
    plain = pa.schema([field.remove_metadata() for field in schema])
    path = f"{iceberg.location().removeprefix('file://')}/data/theirs.parquet"
    pq.write_table(pa.table([columns[field.name] for field in plain], schema=plain), path)
    iceberg.add_files([f"file://{path}"])


@pytest.mark.parametrize(
    "change",
    [they_rename, they_use_odd_names, they_rename_a_nested_field, they_drop_and_add, they_add_a_file_without_ids],
)
def test_a_column_of_others_holds_what_it_held(lake: Lake, change: Callable[[IcebergTable], None]) -> None:
    append_as_older_processor(lake, 0, "m0", "{}")
    change(lake.load(EVENTS))
    append(lake.load(EVENTS), 2)
    before = seen(lake)

    assert rewritten(lake) == before


@pytest.mark.parametrize("context", ['{"groupId":"g"', '{"groupId":"\\ud800"}', f'{{"a":{"[" * 2_000},"groupId":1}}'])
def test_a_context_that_is_no_json_stops_neither_maintenance_nor_an_erasure(
    lake: Lake, tmp_path: Path, context: str
) -> None:
    for number in range(2):
        append_as_older_processor(lake, number, f"m{number}", context)

    reports = maintain(lake, keep_snapshots=1, older_than_s=0)
    erased = main(["erase", "--user-id", "nobody", "--yes", "--data-dir", str(tmp_path)])

    assert len(reports) == 2
    assert erased == 0
    assert [row["context"] for row in rewritten(lake)] == [context] * 2
    assert len(rows(lake)) == 2
