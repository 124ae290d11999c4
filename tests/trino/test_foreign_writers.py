"""Others write to our tables: what Athena's DML, OPTIMIZE and VACUUM do, done by its engine between our commits.

The books stay, a batch that comes again and an event that is sent again change nothing, and what they deleted is gone
for our readers too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as IcebergTable

from manymetrics.tables import DEAD_LETTERS, EVENTS, NAMESPACE, Column, Table
from manymetrics_insights.reader.s3 import glue_source
from manymetrics_insights.reader.session import open_session
from manymetrics_processor.decode.arrow import to_arrow
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake import pyiceberg_commits as commits
from manymetrics_processor.lake.arrow_engine import ArrowEngine, stage_day
from manymetrics_processor.lake.lake import Lake
from manymetrics_processor.lake.maintenance import maintain
from manymetrics_processor.operations.erase_tables import Person, erase
from tests.aws_path import WAREHOUSE, query
from tests.glue_lake import another_handle
from tests.integration.micro_batches import STREAM, books, counts, record, rows, track
from tests.trino_server import Row, Trino

pytestmark = pytest.mark.jvm

INSERT = """INSERT INTO events
    (message_id, project_id, type, received_at, event_time, _stream, _shard, _sequence, _position)
    SELECT 'by hand', project_id, type, received_at, event_time, 'hand', 'hand', '1', 0
    FROM events WHERE message_id = 'm1'"""
MERGE = """MERGE INTO events AS t USING (VALUES 'm2', 'm3') AS s (id) ON t.message_id = s.id
    WHEN MATCHED AND s.id = 'm2' THEN DELETE WHEN MATCHED THEN UPDATE SET event = 'Merged'"""
DELETE = "DELETE FROM events WHERE message_id IN ('m1', 'm5')"
UPDATE = "UPDATE events SET event = 'Renamed' WHERE message_id IN ('m2', 'm6')"
OPTIMIZE = "ALTER TABLE events EXECUTE optimize"
OPTIMIZE_MANIFESTS = "ALTER TABLE events EXECUTE optimize_manifests"
EXPIRE = "ALTER TABLE events EXECUTE expire_snapshots(retention_threshold => '0s')"
REMOVE_ORPHANS = "ALTER TABLE events EXECUTE remove_orphan_files(retention_threshold => '0s')"
ADD_COLUMN = "ALTER TABLE events ADD COLUMN note varchar"

WORK = {
    "insert": [INSERT],
    "merge": [MERGE],
    "delete": [DELETE],
    "delete all": ["DELETE FROM events"],
    "update": [UPDATE],
    "optimize": [OPTIMIZE],
    "optimize manifests": [OPTIMIZE_MANIFESTS],
    "expire snapshots": [EXPIRE],
    "remove orphan files": [REMOVE_ORPHANS],
    "add a column": [ADD_COLUMN, "UPDATE events SET note = 'seen' WHERE message_id = 'm3'"],
    "all in turn": [UPDATE, ADD_COLUMN, OPTIMIZE, OPTIMIZE_MANIFESTS, EXPIRE, REMOVE_ORPHANS],
}

BATCH = [
    record(1, track("m1"), track("m2"), b"{}"),
    record(2, track("m3"), track("m4"), track("m1")),
    record(3, track("m5"), day=1),
]
RESENT = record(5, *(track(f"m{number}") for number in range(1, 8)), b"[]", day=1)


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_nothing_is_stored_twice_after_another_engines_work(trino: Trino, lake: Lake, work: list[str]) -> None:
    window = Window()
    pipeline.run(BATCH, STREAM, lake, window)
    pipeline.run([record(4, track("m6"), track("m7"))], STREAM, lake, window)
    before = books(lake)

    for statement in work:
        trino.ask(statement)
    theirs = in_order(trino, EVENTS)

    assert books(lake) == before
    assert ours(lake, EVENTS) == asked(trino, EVENTS) == theirs
    for known in (window, Window()):
        pipeline.run(BATCH, STREAM, lake, known)
        assert books(lake) == before
        assert in_order(trino, EVENTS) == theirs == ours(lake, EVENTS)

    committed = pipeline.run([RESENT], STREAM, lake, window)

    assert in_order(trino, EVENTS) == theirs == ours(lake, EVENTS)
    assert counts(committed.books) == {
        "received": 17,
        "stored": 7,
        "duplicate": 8,
        "dead_lettered:unknown_type": 1,
        "dead_lettered:not_an_object": 1,
    }
    assert in_order(trino, EVENTS) == asked(trino, EVENTS)
    assert in_order(trino, DEAD_LETTERS) == ours(lake, DEAD_LETTERS) == asked(trino, DEAD_LETTERS)


def test_the_query_command_answers_as_athenas_engine_does_after_delete_and_optimize(trino: Trino, lake: Lake) -> None:
    window = Window()
    for number in range(6):
        pipeline.run([record(number, *(track(f"m{number}{place}") for place in range(9)))], STREAM, lake, window)
    sql = "SELECT message_id, event, _position FROM events ORDER BY message_id"

    trino.ask("DELETE FROM events WHERE message_id IN ('m00', 'm18', 'm34', 'm35', 'm36')")
    trino.ask("UPDATE events SET event = 'Renamed' WHERE message_id IN ('m01', 'm50')")
    trino.ask("DELETE FROM events WHERE message_id LIKE 'm4%'")
    merged_on_read = trino.ask('SELECT count(*) AS files FROM "events$files" WHERE content = 1')
    deleted = query(trino.aws, sql), trino.ask(sql)
    trino.ask(OPTIMIZE)
    rewritten = trino.ask('SELECT count(*) AS files FROM "events$files" WHERE content = 1')
    optimized = query(trino.aws, sql), trino.ask(sql)

    assert merged_on_read[0]["files"] >= 3
    assert rewritten == [{"files": 0}]
    assert len(deleted[0]) == 54 - 5 - 9
    assert deleted[0] == deleted[1] == optimized[0] == optimized[1]


@pytest.mark.parametrize("work", [UPDATE, OPTIMIZE, EXPIRE, ADD_COLUMN, MERGE])
def test_a_process_that_starts_after_it_knows_each_id_that_is_still_there(trino: Trino, lake: Lake, work: str) -> None:
    pipeline.run(BATCH, STREAM, lake, Window())
    trino.ask(work)
    there = {row["message_id"] for row in in_order(trino, EVENTS)}

    pipeline.run([RESENT], STREAM, another_handle(trino.aws), Window())

    stored = [row["message_id"] for row in in_order(trino, EVENTS)]
    assert len(stored) == len(set(stored))
    assert set(stored) >= {*there, "m6", "m7"}


def test_only_what_was_deleted_and_rewritten_away_counts_as_new_when_it_is_sent_again(trino: Trino, lake: Lake) -> None:
    window = Window()
    pipeline.run(BATCH, STREAM, lake, window)
    for statement in (DELETE, OPTIMIZE, EXPIRE):
        trino.ask(statement)

    pipeline.run([RESENT], STREAM, lake, window)

    ids = [row["message_id"] for row in in_order(trino, EVENTS)]
    assert sorted(ids) == ["m1", "m2", "m3", "m4", "m5", "m6", "m7"]


def test_a_column_of_ours_that_comes_after_one_of_theirs_is_not_taken_for_it(trino: Trino, lake: Lake) -> None:
    wider = replace(EVENTS, columns=(*EVENTS.columns, Column("ours", "string", "A column of a newer version.")))
    trino.ask(ADD_COLUMN)
    lake._add_missing_columns(wider)
    iceberg = lake.load(EVENTS)
    rows = to_arrow(wider, [row_of(wider, {"message_id": "m1", "ours": "of us"})])
    file = stage_day(wider, iceberg, rows, day=0)

    commits.append(iceberg, [file], {}, {})

    assert trino.ask("SELECT ours, note FROM events") == [{"ours": "of us", "note": None}]


def test_our_maintenance_brings_back_nothing_that_was_deleted_or_changed(trino: Trino, lake: Lake) -> None:
    window = Window()
    for number in range(1, 13):
        pipeline.run([record(number, track(f"m{number}"), track(f"n{number}"))], STREAM, lake, window)
    trino.ask(DELETE)
    trino.ask(UPDATE)
    theirs = in_order(trino, EVENTS)

    maintain(lake, keep_snapshots=1)

    assert len(theirs) == 22
    assert in_order(trino, EVENTS) == theirs == ours(lake, EVENTS)
    assert trino.ask('SELECT count(*) AS files FROM "events$files" WHERE content = 0')[0]["files"] < 13


def test_erasure_finds_the_rows_of_files_that_another_engine_wrote(trino: Trino, lake: Lake) -> None:
    pipeline.run([record(1, track("m1", userId="ann"), track("m2", userId="bob"))], STREAM, lake, Window())
    trino.ask(UPDATE)
    trino.ask("UPDATE events SET event = 'Again' WHERE user_id = 'ann'")

    erase(lake, Person(user_id="ann"))

    assert [(row["message_id"], row["event"]) for row in in_order(trino, EVENTS)] == [("m2", "Renamed")]
    assert ours(lake, EVENTS) == in_order(trino, EVENTS)


@pytest.mark.parametrize("work", [DELETE, UPDATE, OPTIMIZE, INSERT, EXPIRE, ADD_COLUMN])
def test_work_that_lands_between_our_look_and_our_commit_costs_another_look(
    trino: Trino, lake: Lake, work: str
) -> None:
    pipeline.run(BATCH, STREAM, lake, Window())
    meddled = another_handle(trino.aws, Meddler(trino, work))

    committed = pipeline.run([RESENT], STREAM, meddled, Window())

    assert counts(committed.books)["stored"] == 7
    assert ours(lake, EVENTS) == in_order(trino, EVENTS)
    ids = [row["message_id"] for row in in_order(trino, EVENTS)]
    assert len(ids) == len(set(ids))


class Meddler(ArrowEngine):
    """Commits, but lets Trino work on the events before its first try."""

    def __init__(self, trino: Trino, work: str) -> None:
        self._trino, self._work = trino, [work]

    def append(
        self,
        table: Table,
        iceberg: IcebergTable,
        files: Sequence[DataFile],
        summary: Mapping[str, str],
        properties: Mapping[str, str],
    ) -> int:
        if table is EVENTS and self._work:
            self._trino.ask(self._work.pop())
        return super().append(table, iceberg, files, summary, properties)


def ours(lake: Lake, table: Table) -> list[Row]:
    return sorted(rows(lake, table), key=repr)


def asked(trino: Trino, table: Table) -> list[Row]:
    """What DuckDB reads for ``manymetrics query``."""
    session = open_session(glue_source(WAREHOUSE, NAMESPACE, trino.aws.environ))
    found = session.connection.execute(f"SELECT {', '.join(table.column_names)} FROM {table.name}").fetchall()
    return sorted((dict(zip(table.column_names, row, strict=True)) for row in found), key=repr)


def in_order(trino: Trino, table: Table) -> list[Row]:
    """What Trino reads, of the columns that are ours."""
    return sorted(trino.ask(f"SELECT {', '.join(table.column_names)} FROM {table.name}"), key=repr)


def row_of(table: Table, values: dict[str, object]) -> tuple[object, ...]:
    """A row in which what is needed and not given is of the first day."""
    usual = {"string": "", "timestamp": 0, "int": 0, "long": 0}
    return tuple(values.get(one.name, usual[one.type] if one.required else None) for one in table.row_columns)
