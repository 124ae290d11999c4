"""What a snapshot's questions share: the narrow copy gives the files' answers, answers are kept, a commit ends both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from manymetrics_insights.asking import snapshot as snapshots
from manymetrics_insights.asking.ask import answer, make_context
from manymetrics_insights.asking.snapshot import NARROW, Snapshot, open_snapshot
from manymetrics_insights.questions.models import parse_question
from manymetrics_insights.reader.folder import Folder
from tests.insights.lakes import NOON, Lake, Row, make_lake
from tests.insights.oracle.questions import make_questions
from tests.insights.oracle.worlds import make_world

NOW = datetime(2027, 6, 1)
STICKINESS = parse_question({"insight": "stickiness", "from": "2026-03-14", "to": "2026-03-16", "project": "shop"})


def read_nothing(_properties: object) -> None:
    """No local stream."""


@pytest.fixture
def shop(tmp_path: Path) -> Lake:
    lake = make_lake(tmp_path / "data")
    rows: list[Row] = [{"event": "A", "user_id": f"u{number}"} for number in range(5)]
    lake.append_events(*rows)
    return lake


@pytest.fixture
def shared(shop: Lake) -> Iterator[Snapshot]:
    opened = open_snapshot(Folder(shop.data_dir), read_nothing)
    with closing(opened.session.connection):
        yield opened


def test_the_narrow_copy_gives_the_answers_of_the_files(tmp_path: Path) -> None:
    worlds = [make_world(seed) for seed in range(300, 304)]
    lake = make_lake(tmp_path / "data")
    lake.append_events(*(row for world in worlds for row in world.rows))
    shared = open_snapshot(Folder(lake.data_dir), read_nothing)
    copied = 0
    with closing(shared.session.connection) as connection:
        shared.prepare(connection)
        context = make_context(shared.session, NOW, read_nothing)
        for world in worlds:
            for asked in make_questions(world.seed, world)[::2]:
                question = parse_question(asked)
                by_copy, by_files = shared.answer(question, NOW, connection), answer(question, shared.session, context)

                assert (by_copy.rows, by_copy.ignored, by_copy.sql) == (by_files.rows, by_files.ignored, by_files.sql)
                assert NARROW.relation not in by_copy.sql
                copied += 1
    assert copied >= 40


def test_the_copy_is_made_for_the_second_question_once_commits_rest(
    shared: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = shared.session.connection

    def tables() -> int:
        return len(connection.execute("SELECT 1 FROM duckdb_tables() WHERE database_name = 'warm'").fetchall())

    for asked in range(3):
        shared.forget_answers()
        shared.answer(STICKINESS, NOW, connection)
        assert tables() == 0, f"copied {asked} questions after a commit of just now"
    monkeypatch.setattr(snapshots, "QUIET_FOR_S", 0)
    shared.forget_answers()

    assert [row[1] for row in shared.answer(STICKINESS, NOW, connection).rows] == [5, 0]
    assert tables() == 2


def test_an_answer_is_kept_until_time_alone_may_change_it(shared: Snapshot) -> None:
    connection = shared.session.connection
    open_day = parse_question({"insight": "trends", "last": "2d", "project": "shop", "series": [{"any": True}]})
    noon = NOON + timedelta(hours=2)

    first = shared.answer(open_day, noon, connection)
    again = shared.answer(open_day, noon + timedelta(seconds=30), connection)
    tomorrow = shared.answer(open_day, noon + timedelta(days=1), connection)

    assert (again.rows, again.complete_through) == (first.rows, first.complete_through)
    assert [row[2] for row in tomorrow.rows] == ["2026-03-14", "2026-03-15"]


def test_a_commit_ends_a_snapshot(shop: Lake, shared: Snapshot) -> None:
    assert shared.is_current()

    shop.append_events({"event": "A", "user_id": "another"})

    assert not shared.is_current()
