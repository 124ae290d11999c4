"""Definitions in questions to a real server: by name, from its copy in memory too, and after they have changed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manymetrics_insights.definitions.watched import FRESH_FOR_S
from tests.live_server import LiveServer, eventually, live_server

SHOP = """\
events:
  Sold: {event: Bought}
cohorts:
  Regulars: {did: {definition: Sold}, at_least: 2}
internal: {column: person_id, is: u-0}
"""
QUESTION: dict[str, Any] = {
    "insight": "trends",
    "last": "1d",
    "series": [{"definition": "Sold", "measure": "persons"}],
    "where": [{"cohort": "Regulars"}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "definitions"
    made.mkdir()
    (made / "shop.yaml").write_text(SHOP)
    return made


@pytest.fixture
def server(tmp_path: Path, folder: Path) -> Iterator[LiveServer]:
    """Five orders of three users; u-2 has one."""
    with live_server(tmp_path / "data", definitions=str(folder)) as server:
        events = [{"type": "track", "event": "Bought", "userId": f"u-{number % 3}"} for number in range(5)]
        server.post("/v1/batch", json.dumps({"batch": events}).encode(), user_agent="Mozilla/5.0 Firefox/140.0")
        eventually(lambda: len(server.rows()) == len(events) or None)
        yield server


def ask(server: LiveServer, question: dict[str, Any]) -> Any:  # noqa: ANN401  # JSON
    return server.client.post("/console/insight", json=question, headers={"x-manymetrics-console": "1"}).json()


def test_names_are_known_to_the_server_and_changes_too(server: LiveServer, folder: Path) -> None:
    # The second and later questions read the copy in memory.
    questions = [
        QUESTION,
        QUESTION | {"internal": "exclude"},
        QUESTION | {"internal": "only"},
        QUESTION | {"where": []},
    ]
    answers = [ask(server, question) for question in questions]

    assert [answer["rows"][0][3] for answer in answers] == [2, 1, 1, 3]
    assert answers[0]["question"]["series"][0]["event"] == "Bought"
    assert ask(server, QUESTION | {"where": [{"cohort": "Regular"}]})["error"] == {
        "path": ["where", 0, "cohort"],
        "message": "there is no cohort 'Regular': did you mean 'Regulars'?",
    }

    (folder / "shop.yaml").write_text(SHOP.replace("at_least: 2", "at_least: 1"))
    time.sleep(FRESH_FOR_S)
    assert eventually(lambda: found if (found := ask(server, QUESTION)["rows"][0][3]) != 2 else None) == 3

    (folder / "shop.yaml").write_text("events: [")
    time.sleep(FRESH_FOR_S)
    broken = eventually(lambda: found.get("error") if "rows" not in (found := ask(server, QUESTION)) else None)
    assert "definitions are wrong" in broken["message"]
