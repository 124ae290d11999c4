"""What Spark writes and commits: the same tables as the arrow engine's, and nothing on a state that it wasn't shown."""

from __future__ import annotations

from _collections_abc import dict_items
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.types import StringType
from pyspark.sql import SparkSession

from manymetrics.tables import DEAD_LETTERS, EVENTS, TABLES, Table
from manymetrics_api.sinks import MemorySink
from manymetrics_processor.decode.batch import StreamRecord, decode
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.errors import ConflictError
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.arrow_engine import ArrowEngine
from manymetrics_processor.lake.lake import Lake, live_files
from manymetrics_processor.lake.maintenance import maintain
from manymetrics_processor.lake.object_storage import list_files, open_parquet
from manymetrics_processor.lake.spark.engine import SparkEngine
from tests.events_corpus import read_cases, request_of
from tests.faulty_aws import Calls, Fault
from tests.in_process import ask, make_app
from tests.integration.micro_batches import NOW, STREAM, books, counts, message_ids, record, track
from tests.real_data import PROJECTS, read_events
from tests.spark.conftest import Lakes

pytestmark = [pytest.mark.jvm, pytest.mark.xdist_group("spark")]

SUMMARY, PROPERTIES = {"manymetrics.operation": "ingest"}, {"manymetrics.test": "ours"}


def corpus() -> list[StreamRecord]:
    sink = MemorySink()
    app = make_app(sink)
    for case in read_cases().values():
        ask(app, *request_of(case))
    return [StreamRecord("shard", number, data, NOW) for number, data in enumerate(sink.records, 1)]


def read(lake: Lake, table: Table) -> pa.Table:
    """As pyiceberg reads it, in the order of places."""
    found: pa.Table = lake.load(table).scan().to_arrow()
    return found.sort_by([("_sequence", "ascending"), ("_position", "ascending")])


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_files_of_both_engines_are_alike_in_rows_types_and_what_iceberg_knows_of_them(
    table: Table, lakes: Lakes
) -> None:
    batch = decode(corpus(), STREAM)
    rows = batch.events if table is EVENTS else batch.letters

    def commit(engine: SparkEngine | ArrowEngine) -> tuple[pa.Table, list[Any], list[Any]]:
        iceberg = lakes.arrow.load(table)
        engine.append(table, iceberg, engine.stage(table, iceberg, rows), SUMMARY, {})
        after = lakes.arrow.load(table)
        files = sorted(live_files(after), key=lambda file: file.partition[0])
        schemas = [open_parquet(lakes.arrow.io, file.file_path).schema_arrow for file in files]
        known = [
            (file.partition[0], file.record_count, file.sort_order_id, file.lower_bounds, file.upper_bounds)
            for file in files
        ]
        found = read(lakes.arrow, table)
        after.delete()
        return found, [[(f.name, f.type, f.nullable, f.metadata) for f in one] for one in schemas], known

    by_arrow, by_spark = commit(ArrowEngine()), commit(lakes.engine)

    assert by_spark == by_arrow
    assert by_spark[0].num_rows == rows.table.num_rows > 0


@pytest.mark.parametrize("name", PROJECTS)
def test_real_data_is_the_same_rows_through_either_engine(name: str, lakes: Lakes, shared_data: Path) -> None:
    events = read_events(shared_data, name)[:20_000]
    records = [record(start, *events[start : start + 200]) for start in range(0, len(events), 200)]
    batch = decode(records, STREAM)

    def commit(engine: SparkEngine | ArrowEngine) -> pa.Table:
        iceberg = lakes.arrow.load(EVENTS)
        engine.append(EVENTS, iceberg, engine.stage(EVENTS, iceberg, batch.events), SUMMARY, {})
        found = read(lakes.arrow, EVENTS)
        lakes.arrow.load(EVENTS).delete()
        return found

    by_arrow, by_spark = commit(ArrowEngine()), commit(lakes.engine)

    assert by_spark.equals(by_arrow, check_metadata=True)
    assert by_spark.num_rows == len(events)


def test_a_batch_is_committed_once_however_often_it_comes_and_through_either_engine(lakes: Lakes) -> None:
    batch = [record(1, track("a"), track("b"), b"{}"), record(2, track("a"))]
    for lake in (lakes.spark, lakes.arrow, lakes.spark):
        pipeline.run(batch, STREAM, lake, Window())
    pipeline.run([record(3, track("b"), track("c"))], STREAM, lakes.arrow, Window())
    pipeline.run([record(4, track("c"), track("d"))], STREAM, lakes.spark, Window())

    assert message_ids(lakes.arrow) == ["a", "b", "c", "d"]
    assert read(lakes.arrow, DEAD_LETTERS).num_rows == 1
    assert counts(books(lakes.arrow)) == {
        "received": 8,
        "stored": 4,
        "duplicate": 3,
        "dead_lettered:unknown_type": 1,
    }


def test_a_snapshot_says_all_that_the_arrow_engines_says(lakes: Lakes) -> None:
    for number, lake in enumerate((lakes.arrow, lakes.spark), 1):
        pipeline.run([record(number, track(f"m{number}"))], STREAM, lake, Window())

    by_arrow, by_spark = (snapshot.summary for snapshot in lakes.arrow.load(EVENTS).metadata.snapshots)

    assert by_arrow is not None
    assert by_spark is not None
    assert by_arrow.additional_properties.keys() <= by_spark.additional_properties.keys()
    assert by_spark["total-records"] == "2"
    assert by_spark["added-records"] == "1"


def _append(lakes: Lakes) -> None:
    pipeline.run([record(50, track("theirs"))], STREAM, lakes.arrow, Window())


def _append_nothing(lakes: Lakes) -> None:
    ArrowEngine().append(EVENTS, lakes.arrow.load(EVENTS), [], SUMMARY, {"manymetrics.test": "theirs"})


def _set_a_property(lakes: Lakes) -> None:
    with lakes.arrow.load(EVENTS).transaction() as transaction:
        transaction.set_properties({"manymetrics.test": "theirs"})


def _maintain(lakes: Lakes) -> None:
    maintain(lakes.arrow, keep_snapshots=1)


def _add_a_column(lakes: Lakes) -> None:
    with lakes.arrow.load(EVENTS).update_schema() as update:
        update.add_column("another", StringType())


class _Overtaken(dict[str, str]):
    """A summary during whose reading somebody else commits."""

    def __init__(self, commit: Callable[[], None]) -> None:
        super().__init__(SUMMARY)
        self._commit = commit

    def items(self) -> dict_items[str, str]:
        self._commit()
        return super().items()


BEFORE, BETWEEN, LAST = "before the look", "while the manifests are written", "in the last moment"
CASES = [
    *((commit, BEFORE) for commit in (_append, _append_nothing, _set_a_property, _maintain, _add_a_column)),
    *((commit, at) for commit in (_append_nothing, _set_a_property) for at in (BETWEEN, LAST)),
]


@pytest.mark.parametrize(("commit", "at"), CASES, ids=lambda part: getattr(part, "__name__", part))
def test_any_commit_of_somebody_else_is_a_conflict(
    commit: Callable[[Lakes], None], at: str, lakes: Lakes, glue: Calls
) -> None:
    for number in range(10 if commit is _maintain else 1):
        pipeline.run([record(number, track(f"m{number}"))], STREAM, lakes.arrow, Window())
    iceberg = lakes.arrow.load(EVENTS)
    files = lakes.engine.stage(EVENTS, iceberg, decode([record(60, track("ours"))], STREAM).events)
    summary = SUMMARY
    if at == LAST:
        glue.before = lambda _number: commit(lakes)
    elif at == BETWEEN:
        summary = _Overtaken(lambda: commit(lakes))
    else:
        commit(lakes)
    seen: list[str] = []
    glue.after = lambda _number: seen.append("asked")

    with pytest.raises(ConflictError):
        lakes.engine.append(EVENTS, iceberg, files, summary, PROPERTIES)

    assert bool(seen) == (at == LAST)
    assert "ours" not in message_ids(lakes.arrow)
    assert lakes.arrow.load(EVENTS).properties.get("manymetrics.test") != "ours"
    glue.reset()
    lakes.engine.append(EVENTS, lakes.arrow.load(EVENTS), files, SUMMARY, PROPERTIES)  # and then it goes
    assert "ours" in message_ids(lakes.arrow)


@pytest.mark.parametrize("fault", ["lost", "error after"])
def test_where_nobody_asks_again_a_commit_that_landed_is_readable_and_found(
    fault: Fault, lakes: Lakes, glue: Calls, session: SparkSession
) -> None:
    """As when the SDK has used up its retries: Iceberg takes a 500 for a failure, and would delete the metadata."""
    jvm: Any = session._jvm
    properties = jvm.java.util.HashMap(lakes.engine._catalog.properties())
    jvm.java.lang.System.setProperty("aws.maxAttempts", "1")
    impatient = jvm.org.apache.iceberg.CatalogUtil.loadCatalog(
        "org.apache.iceberg.aws.glue.GlueCatalog", "lake", properties, None
    )
    jvm.java.lang.System.setProperty("aws.maxAttempts", "4")
    lakes.engine._catalog = impatient
    glue.every = fault

    for number in range(3):
        pipeline.run([record(number, track(f"m{number}"))], STREAM, lakes.spark, Window())

    assert glue.count == 3
    assert message_ids(lakes.arrow) == ["m0", "m1", "m2"]


def test_old_metadata_goes_as_the_table_says(lakes: Lakes) -> None:
    for number in range(12):
        pipeline.run([record(number, track(f"m{number}"))], STREAM, lakes.spark, Window())

    folder = f"{lakes.arrow.load(EVENTS).location()}/metadata"
    kept = [location for location, _ in list_files(lakes.arrow.io, folder) if location.endswith(".metadata.json")]
    assert len(kept) <= 1 + 5  # write.metadata.previous-versions-max


def test_a_table_that_was_made_anew_is_found(lakes: Lakes) -> None:
    pipeline.run([record(1, track("a"))], STREAM, lakes.spark, Window())
    lakes.catalog.drop_table(("manymetrics", EVENTS.name))
    for location, _ in list(list_files(lakes.arrow.io, lakes.arrow.home(EVENTS))):
        lakes.arrow.io.delete(location)
    lakes.arrow.ensure_tables()

    pipeline.run([record(1, track("b"))], STREAM, lakes.spark, Window())

    assert message_ids(lakes.arrow) == ["b"]
