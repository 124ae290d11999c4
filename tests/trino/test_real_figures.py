"""Real input in Glue and S3, asked by Athena's engine: the figures are as their truth says, to the unit."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from manymetrics.tables import NAMESPACE
from manymetrics_insights.questions.models import parse_question
from manymetrics_insights.sql.render import render
from manymetrics_insights.sql.scope import Scope
from manymetrics_insights.views.athena import glue_views
from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.lake import Lake
from tests.aws_path import query
from tests.integration.micro_batches import NOW, SHARD, STREAM, packed
from tests.real_data import PROJECTS, figures, read_events, true_figures
from tests.trino_server import Trino

pytestmark = pytest.mark.jvm

A_RECORD, A_BATCH = 100, 100
LATER = datetime(2026, 1, 1)
BY_DAY = parse_question(
    {"insight": "trends", "from": "2010-12-01", "to": "2015-11-02"}
    | {"series": [{"any": True}, {"any": True, "measure": "persons"}]}
)


def test_athenas_engine_finds_the_figures_of_real_data_however_often_it_is_delivered(
    trino: Trino, lake: Lake, shared_data: Path
) -> None:
    records = _records(shared_data)
    truth = {name: true_figures(shared_data, name) for name in PROJECTS}
    for view in glue_views():
        trino.aws.client("glue").create_table(DatabaseName=NAMESPACE, TableInput=view)
    window = Window()
    for start in [*range(0, len(records), A_BATCH), *range(0, len(records), A_BATCH + 1)]:
        pipeline.run(records[start : start + A_BATCH], STREAM, lake, window)

    assert {name: figures(trino.ask, project) for name, project in PROJECTS.items()} == truth
    assert {name: figures(partial(query, trino.aws), project) for name, project in PROJECTS.items()} == truth
    for name, project in PROJECTS.items():
        rows = trino.ask(render(BY_DAY, Scope(project, LATER, LATER)).sql)
        for series, figure in {"A": "events_by_day", "B": "active_persons_by_day"}.items():
            by_day = {str(row["bucket"]): row["value"] for row in rows if row["series"] == series and row["value"]}
            assert by_day == truth[name][figure]


def _records(folder: Path) -> list[StreamRecord]:
    bodies = [
        packed([*events[start : start + A_RECORD]], project_id=project)
        for name, project in PROJECTS.items()
        for events in [read_events(folder, name)]
        for start in range(0, len(events), A_RECORD)
    ]
    return [StreamRecord(SHARD, sequence, body, NOW) for sequence, body in enumerate(bodies, 1)]
