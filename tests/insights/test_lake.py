"""The reader without PyIceberg plans what PyIceberg plans, and DuckDB reads the same rows from it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.table import Table as IcebergTable
from pyiceberg.types import StringType

from manymetrics.tables import EVENTS, NAMESPACE
from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.iceberg import (
    DataFile,
    LakeError,
    SnapshotExpiredError,
    TableHead,
    TableState,
    read_head,
    read_table,
)
from manymetrics_insights.reader.session import open_session
from tests.insights.lakes import NOON, Lake, Row, make_lake

TARGET = "events"


def append(lake: Lake) -> None:
    for day in range(3):
        lake.append_events(
            *({"event": f"e{n % 3}", "event_time": NOON + timedelta(days=n % 2 + day)} for n in range(6))
        )


def compact(lake: Lake) -> None:
    table = lake.table(TARGET)
    table.overwrite(table.scan().to_arrow())


def delete(lake: Lake) -> None:
    lake.table(TARGET).delete("event == 'e1'")


def delete_a_day(lake: Lake) -> None:
    lake.table(TARGET).delete(f"received_at < '{(NOON + timedelta(days=1)).isoformat()}'")


def expire(lake: Lake) -> None:
    table = lake.table(TARGET)
    old = [snapshot.snapshot_id for snapshot in table.metadata.snapshots][:-1]
    table.maintenance.expire_snapshots().by_ids(old).commit()


def add_column(lake: Lake) -> None:
    with lake.table(TARGET).update_schema() as update:
        update.add_column("country", StringType())
    lake.append_events({"event": "e2", "country": "pt"})


def rename_column(lake: Lake) -> None:
    add_column(lake)
    with lake.table(TARGET).update_schema() as update:
        update.rename_column("country", "region")


def merge_manifests(lake: Lake) -> None:
    with lake.table(TARGET).transaction() as transaction:
        transaction.set_properties({"commit.manifest-merge.enabled": "true", "commit.manifest.min-count-to-merge": "2"})
    append(lake)


STORIES: dict[str, tuple[Callable[[Lake], None], ...]] = {
    "nothing": (),
    "appends": (append,),
    "compaction": (append, compact, append),
    "a delete": (append, delete),
    "a delete of whole files": (append, delete_a_day),
    "a delete of everything": (append, lambda lake: lake.table(TARGET).delete()),
    "expiry": (append, compact, expire, append, delete, expire),
    "an added column": (append, add_column),
    "a renamed column": (append, rename_column),
    "merged manifests": (append, merge_manifests, delete),
}


@pytest.mark.parametrize("story", STORIES.values(), ids=list(STORIES))
def test_the_reader_agrees_with_pyiceberg_after(lake: Lake, story: tuple[Callable[[Lake], None], ...]) -> None:
    for chapter in story:
        chapter(lake)

    state = read_table(Folder(lake.data_dir), TARGET)
    table = lake.table(TARGET)

    assert_plans_alike(state, table)


def assert_plans_alike(state: TableState | None, table: IcebergTable) -> None:
    assert state is not None
    assert set(state.files) == {
        DataFile(task.file.file_path.removeprefix("file://"), task.file.record_count, task.file.file_size_in_bytes)
        for task in table.scan().plan_files()
    }
    assert [(field.id, field.name, field.type) for field in state.fields] == [
        (field.field_id, field.name, str(field.field_type)) for field in table.schema().fields
    ]
    current = table.current_snapshot()
    assert state.snapshot_id == (current.snapshot_id if current else None)
    assert [snapshot.snapshot_id for snapshot in state.snapshots] == [s.snapshot_id for s in table.metadata.snapshots]
    assert state.properties == table.properties
    assert not state.deletes


@pytest.mark.parametrize("story", STORIES.values(), ids=list(STORIES))
def test_a_query_reads_the_rows_that_pyiceberg_reads_after(
    lake: Lake, rows_of: Callable[[str], list[Row]], story: tuple[Callable[[Lake], None], ...]
) -> None:
    for chapter in story:
        chapter(lake)

    expected = lake.table(TARGET).scan().to_arrow().to_pylist()

    assert by_message_id(rows_of("SELECT * FROM events")) == by_message_id(expected)


def test_summaries_of_commits_are_read_oldest_first(lake: Lake) -> None:
    table = lake.table(TARGET)
    for number in (1, 2):
        rows = pa.Table.from_pylist([], schema=table.schema().as_arrow())
        table.append(rows, snapshot_properties={"manymetrics.commit": str(number)})

    state = read_table(Folder(lake.data_dir), TARGET)

    assert state is not None
    assert [snapshot.summary["manymetrics.commit"] for snapshot in state.snapshots] == ["1", "2"]


def test_an_earlier_snapshot_is_read_as_pyiceberg_reads_it(lake: Lake) -> None:
    for story in (append, delete, append, add_column):
        story(lake)
    table = lake.table(TARGET)
    source = Folder(lake.data_dir)

    for snapshot in table.snapshots():
        found = read_table(source, TARGET, snapshot.snapshot_id)

        assert found is not None
        planned = {str(task.file.file_path) for task in table.scan(snapshot_id=snapshot.snapshot_id).plan_files()}
        assert {f"file://{file.path}" for file in found.files} == planned
        assert found.snapshot_id == snapshot.snapshot_id
    newest = table.current_snapshot()
    assert newest is not None
    assert read_head(source, TARGET) == TableHead(newest.snapshot_id, table.properties)


def test_a_snapshot_that_has_expired_is_an_error_of_its_own(lake: Lake) -> None:
    append(lake)
    first = lake.table(TARGET).metadata.current_snapshot_id
    append(lake)
    expire(lake)

    with pytest.raises(SnapshotExpiredError, match=f"^The snapshot {first} has expired"):
        read_table(Folder(lake.data_dir), TARGET, first)


def test_before_the_first_commit_there_is_no_snapshot(lake: Lake, tmp_path: Path) -> None:
    assert read_head(Folder(lake.data_dir), TARGET) == TableHead(None, lake.table(TARGET).properties)
    assert read_head(Folder(lake.data_dir), "none") is None
    with pytest.raises(SnapshotExpiredError):
        read_table(Folder(lake.data_dir), TARGET, 7)
    (tmp_path / "new").mkdir()
    assert read_table(Folder(tmp_path / "new"), TARGET, 7) is None


def test_a_table_that_nothing_has_made_yet_is_none_and_reads_as_empty(tmp_path: Path) -> None:
    assert read_table(Folder(tmp_path), TARGET) is None

    connection = open_session(Folder(tmp_path)).connection

    assert connection.execute("SELECT * FROM events").fetchall() == []
    described = connection.execute("DESCRIBE events").fetchall()
    types = {"string": "VARCHAR", "timestamp": "TIMESTAMP", "int": "INTEGER", "long": "BIGINT"}
    assert [row[:2] for row in described] == [(column.name, types[column.type]) for column in EVENTS.columns]


def test_a_catalog_of_other_tables_has_none_of_ours(lake: Lake) -> None:
    lake.catalog.drop_table((NAMESPACE, TARGET))

    assert read_table(Folder(lake.data_dir), TARGET) is None


def test_no_data_directory_is_an_error_that_names_the_cure(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match=r"make run.*MANYMETRICS_DATA_DIR"):
        read_table(Folder(tmp_path / "elsewhere"), TARGET)


def test_a_data_directory_may_have_a_name_that_sql_and_urls_quote(tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "it's my data, %41")
    lake.append_events({"event": "e0"})

    assert open_session(Folder(lake.data_dir)).connection.execute("SELECT event FROM events").fetchall() == [("e0",)]


def test_a_table_older_than_the_contract_reads_null_in_the_columns_it_lacks(lake: Lake) -> None:
    lake.append_events({"event": "e0", "request_id": "r1"})
    with lake.table(TARGET).update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("request_id")

    rows = open_session(Folder(lake.data_dir)).connection.execute("SELECT event, request_id FROM events").fetchall()

    assert rows == [("e0", None)]


def test_rows_that_a_delete_file_took_away_stay_away(lake: Lake, rows_of: Callable[[str], list[Row]]) -> None:
    lake.append_events({"event": "kept"}, {"event": "deleted"})
    add_position_delete(lake, place=1)

    state = read_table(Folder(lake.data_dir), TARGET)

    assert state is not None
    assert state.deletes
    assert rows_of("SELECT event, key_kind FROM events") == [{"event": "kept", "key_kind": None}]
    assert rows_of("SELECT person_id FROM person_events") == [{"person_id": None}]


def test_files_that_a_manifest_lists_as_deleted_are_not_read(lake: Lake) -> None:
    append(lake)
    delete(lake)
    expected = read_table(Folder(lake.data_dir), TARGET)
    manifests, schema, metadata = read_avro(manifest_list_of(lake))
    claiming = [
        manifest | {"added_files_count": 2**30, "existing_files_count": 2**30, "deleted_files_count": 0}
        for manifest in manifests
    ]

    point_to_manifest_list(lake, write_avro(lake.data_dir / "list.avro", claiming, schema, metadata))
    state = read_table(Folder(lake.data_dir), TARGET)

    assert state is not None
    assert expected is not None
    assert (len(manifests) > 1, state.files) == (True, expected.files)


def test_a_delete_manifest_that_holds_no_live_file_changes_nothing(lake: Lake) -> None:
    lake.append_events({"event": "kept"})
    add_position_delete(lake, place=0)
    manifests, schema, metadata = read_avro(manifest_list_of(lake))
    manifests[-1] |= {"added_files_count": 0, "existing_files_count": 0}

    point_to_manifest_list(lake, write_avro(lake.data_dir / "list.avro", manifests, schema, metadata))
    state = read_table(Folder(lake.data_dir), TARGET)

    assert state is not None
    assert not state.deletes


def manifest_list_of(lake: Lake) -> str:
    snapshot = lake.table(TARGET).current_snapshot()
    assert snapshot is not None
    return snapshot.manifest_list


def by_message_id(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: str(row["message_id"]))


def add_position_delete(lake: Lake, *, place: int) -> None:
    """Delete one row as a merge-on-read writer (Athena, say) does; PyIceberg can't."""
    table = lake.table(TARGET)
    task = next(iter(table.scan().plan_files()))
    folder = lake.data_dir / "warehouse"
    deletes = folder / "deletes.parquet"
    schema = pa.schema(
        [
            pa.field("file_path", pa.string(), nullable=False, metadata={"PARQUET:field_id": "2147483546"}),
            pa.field("pos", pa.int64(), nullable=False, metadata={"PARQUET:field_id": "2147483545"}),
        ]
    )
    pq.write_table(pa.table({"file_path": [task.file.file_path], "pos": [place]}, schema=schema), deletes)
    manifests, list_schema, list_metadata = read_avro(manifest_list_of(lake))
    entries, entry_schema, entry_metadata = read_avro(manifests[0]["manifest_path"])
    entry = entries[0]
    entry["data_file"] |= {"content": 1, "file_path": f"file://{deletes}", "record_count": 1}
    entry["data_file"] |= {"lower_bounds": None, "upper_bounds": None, "file_size_in_bytes": deletes.stat().st_size}
    manifest = write_avro(folder / "deletes.avro", [entry], entry_schema, entry_metadata | {"content": "deletes"})
    size = (folder / "deletes.avro").stat().st_size
    manifests.append(manifests[0] | {"content": 1, "manifest_path": manifest, "manifest_length": size})
    manifest_list = write_avro(folder / "list.avro", manifests, list_schema, list_metadata)
    point_to_manifest_list(lake, manifest_list)


def read_avro(location: str) -> tuple[list[dict[str, Any]], Any, dict[str, str]]:
    with Path(location.removeprefix("file://")).open("rb") as file:
        reader = fastavro.reader(file)
        own = {key: value for key, value in reader.metadata.items() if not key.startswith("avro.")}
        return list(reader), reader.writer_schema, own  # type: ignore[arg-type]


def write_avro(path: Path, records: list[dict[str, Any]], schema: dict[str, Any], metadata: dict[str, str]) -> str:
    with path.open("wb") as file:
        fastavro.writer(file, schema, records, metadata=metadata)
    return f"file://{path}"


def point_to_manifest_list(lake: Lake, manifest_list: str) -> None:
    table = lake.table(TARGET)
    metadata = json.loads(Path(table.metadata_location.removeprefix("file://")).read_text("utf-8"))
    metadata["snapshots"][-1]["manifest-list"] = manifest_list
    path = lake.data_dir / "warehouse" / "00009-deleted.metadata.json"
    path.write_text(json.dumps(metadata), "utf-8")
    with sqlite3.connect(lake.data_dir / "catalog.db") as database:
        database.execute(
            "UPDATE iceberg_tables SET metadata_location = ? WHERE table_name = ?", (f"file://{path}", TARGET)
        )
