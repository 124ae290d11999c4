"""Columns that tables gained: older tables, and older processors at the same tables."""

from __future__ import annotations

import json
from typing import Any

import pytest

from manymetrics.tables import DEAD_LETTERS, EVENTS
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.lake import Lake, live_files
from manymetrics_processor.lake.maintenance import stage_rewritten, swap
from tests.contract.conftest import Store
from tests.integration.micro_batches import OLDER_EVENTS, STREAM, append_as_older_processor, record, rows, track

ADDED = ("context_device_brand", "context_group_id")
CONTEXT = {"device": {"brand": "Acme", "model": "X1"}, "groupId": "g-1", "other": 1}
LEFT = {"device": {"brand": "Acme"}, "groupId": "g-1", "other": 1}  # by an older processor


def rewrite(lake: Lake, table: Any) -> None:  # noqa: ANN401  # Table
    iceberg = lake.load(EVENTS)
    staged = stage_rewritten(table, iceberg, list(live_files(iceberg)))
    assert swap(lake, table, [staged], iceberg, "compact")


@pytest.fixture
def old_tables(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Tables as the version before the columns made them."""
    name = "older"
    with monkeypatch.context() as before:
        before.setattr("manymetrics_processor.lake.lake.TABLES", (OLDER_EVENTS, DEAD_LETTERS))
        lake = store.beside(name)
    assert lake.load(EVENTS).schema().column_names == list(OLDER_EVENTS.column_names)
    return Store(lake, lambda: store.beside(name), store.beside)


def test_the_columns_that_tables_were_made_without_are_the_last() -> None:
    assert tuple(column.name for column in EVENTS.columns if column.added) == ADDED
    assert EVENTS.column_names[54:56] == ADDED


def test_an_older_table_gains_the_columns_and_nothing_is_lost(old_tables: Store) -> None:
    append_as_older_processor(old_tables.lake, 1, "a", json.dumps(LEFT))

    newer = old_tables.another()
    pipeline.run([record(2, track("b", context=CONTEXT))], STREAM, newer, Window())
    append_as_older_processor(old_tables.another(), 3, "c", json.dumps(LEFT))  # it is still running

    found = {row["message_id"]: (*(row[name] for name in ADDED), row["context"]) for row in rows(newer)}
    old = (None, None, json.dumps(LEFT))
    assert found == {"a": old, "b": ("Acme", "g-1", '{"other":1}'), "c": old}


def test_files_that_are_rewritten_have_the_values_in_the_columns(old_tables: Store) -> None:
    append_as_older_processor(old_tables.lake, 1, "a", json.dumps(LEFT))
    append_as_older_processor(old_tables.lake, 2, "b", json.dumps({"device": {"brand": 7}, "groupId": ["g"]}))
    newer = old_tables.another()
    pipeline.run([record(3, track("c", context=CONTEXT))], STREAM, newer, Window())

    rewrite(newer, EVENTS)

    found = {row["message_id"]: (*(row[name] for name in ADDED), row["context"]) for row in rows(newer)}
    moved = ("Acme", "g-1", '{"other":1}')
    assert found == {"a": moved, "b": ("7", None, '{"groupId":["g"]}'), "c": moved}


def test_an_older_processor_that_rewrites_files_keeps_columns_that_it_does_not_know(store: Store) -> None:
    pipeline.run([record(1, track("a", context=CONTEXT)), record(2, track("b"))], STREAM, store.lake, Window())
    before = rows(store.lake)

    rewrite(store.lake, OLDER_EVENTS)

    assert rows(store.lake) == before
    assert before[0]["context_group_id"] == "g-1"
