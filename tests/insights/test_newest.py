"""The newest rows of one browser: of one project, parameterised, bounded."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.recent_rows import MOST_ROWS, newest_rows
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from tests.integration.micro_batches import STREAM, make_lake, record, track

TODAY = datetime(2025, 11, 24)


def test_rows_are_those_of_one_browser_and_project_newest_first(tmp_path: Path) -> None:
    lake = make_lake(tmp_path)
    hers: dict[str, Any] = {"anonymous_id": b'"a-1"'}
    records = [
        record(1, track("1"), track("2", anonymousId="a-2"), **hers),
        record(2, track("3", properties={"n": 1}), track("4"), day=1, **hers),
        record(3, track("5"), project_id="shop 2", **hers),
    ]
    pipeline.run(records, STREAM, lake, Window())

    rows = newest_rows(Folder(tmp_path), "shop", "a-1", TODAY)

    assert [row["message_id"] for row in rows] == ["4", "3", "1"]
    assert (rows[1]["properties"], rows[1]["_position"]) == ('{"n":1}', 0)
    assert rows[2]["received_at"] == "2025-11-24 13:13:20.000"
    assert "previous_id" not in rows[0]
    assert [row["message_id"] for row in newest_rows(Folder(tmp_path), "shop", "a-1", TODAY + timedelta(days=1))] == [
        "4",
        "3",
    ]


def test_an_anonymous_id_is_a_value_and_never_sql(tmp_path: Path) -> None:
    pipeline.run([record(1, track("1", anonymousId="a"))], STREAM, make_lake(tmp_path), Window())

    assert newest_rows(Folder(tmp_path), "shop", "' OR true --", TODAY) == []


def test_there_are_never_more_than_a_page_shows(tmp_path: Path) -> None:
    events = [track(str(number), anonymousId="a") for number in range(MOST_ROWS + 5)]
    pipeline.run([record(1, *events)], STREAM, make_lake(tmp_path), Window())

    rows = newest_rows(Folder(tmp_path), "shop", "a", TODAY)

    assert [row["_position"] for row in rows] == list(range(MOST_ROWS + 4, 4, -1))


def test_before_the_first_table_there_are_none(tmp_path: Path) -> None:
    assert newest_rows(Folder(tmp_path), "shop", "a", TODAY) == []
