"""A person's traits in Athena's engine: the same text as on one machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from manymetrics.tables import NAMESPACE
from manymetrics_insights.views.athena import glue_views
from manymetrics_processor.lake.lake import Lake
from tests.insights.lakes import Lake as Rows
from tests.insights.traits_cases import EXPECTED, identifies
from tests.trino_server import Trino

pytestmark = pytest.mark.jvm


def test_a_persons_traits_are_the_same_text_as_on_one_machine(trino: Trino, lake: Lake) -> None:
    Rows(Path(), lake._catalog).append_events(*identifies())
    for view in glue_views():
        trino.aws.client("glue").create_table(DatabaseName=NAMESPACE, TableInput=view)

    found = trino.ask("SELECT person_id, traits FROM users")

    assert {row["person_id"]: row["traits"] for row in found} == EXPECTED
