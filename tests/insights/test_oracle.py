"""The engine's answers against those of a plain program, over small random worlds and questions of every option."""

from __future__ import annotations

from pathlib import Path

import pytest

from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.session import open_session
from tests.insights.lakes import make_lake
from tests.insights.oracle.engine import Engine
from tests.insights.oracle.questions import make_questions
from tests.insights.oracle.worlds import make_world
from tests.scale import scaled

WORLDS = scaled(200, 200, 2_000)
QUESTIONS = scaled(3, 7, 21)  # of each world's 21; others in the next world
WORLDS_IN_A_LAKE = 25


@pytest.mark.parametrize("first", range(0, WORLDS, WORLDS_IN_A_LAKE))
def test_answers_are_those_of_a_plain_program(tmp_path: Path, first: int) -> None:
    worlds = [make_world(seed) for seed in range(first, first + WORLDS_IN_A_LAKE)]
    lake = make_lake(tmp_path / "data")
    lake.append_events(*(row for world in worlds for row in world.rows))
    engine = Engine(open_session(Folder(lake.data_dir)))
    engine.hold()

    for world in worlds:
        questions = make_questions(world.seed, world)
        step = len(questions) // QUESTIONS
        for question in questions[world.seed % step :: step]:
            difference = engine.differ(question, world.rows, world.complete_through)
            if difference is not None:
                pytest.fail(f"world {world.seed}\n{engine.shrink(difference, world)}", pytrace=False)
