from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest

from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.session import open_session
from tests.insights.lakes import make_lake
from tests.insights.oracle import by_hand
from tests.insights.oracle.engine import Engine
from tests.insights.oracle.ground import Question
from tests.insights.oracle.people import Row


@pytest.fixture(autouse=True, scope="session")
def _the_engine_answers_alike(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have the engine answer all that is asked by hand, too."""
    lake = make_lake(tmp_path_factory.mktemp("by_hand") / "data")
    lake.append_events({})
    engine = Engine(open_session(Folder(lake.data_dir)))

    def check(question: Question, rows: list[Row], complete_through: datetime) -> None:
        question = {"project": "p"} | question
        engine.put(rows)
        difference = engine.differ(question, rows, complete_through)
        if difference is not None:
            pytest.fail(str(difference), pytrace=False)

    by_hand.CHECKS.append(check)
    yield
    by_hand.CHECKS.remove(check)
