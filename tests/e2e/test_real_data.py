"""Real input, the whole way: orders of a shop and edits of an encyclopaedia, as their truth says, to the unit."""

from __future__ import annotations

import json
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

from manymetrics.books import StreamBooks
from manymetrics_cli.one_machine import read_books
from tests.live_server import MANYMETRICS, LiveServer
from tests.real_data import PROJECTS, Figures, figures, read_events, true_figures

A_REQUEST = 100
KEYS = {"retail-orders": "wk_shop", "wiki-edits": "wk_oracle_live"}


def test_the_figures_of_real_data_are_exact_and_sending_it_again_changes_none(
    server: LiveServer, shared_data: Path
) -> None:
    truth = {name: true_figures(shared_data, name) for name in PROJECTS}
    events = sum(figures["events"] for figures in truth.values())

    for name in PROJECTS:
        _send(server, shared_data, name)
    server.settle()
    first = _figures(server)
    books = _books(server)

    assert first == truth
    assert (books.received, books.stored, books.duplicate) == (events + 1, events + 1, 0)  # and the marker

    for name in PROJECTS:
        _send(server, shared_data, name)
    server.settle()
    again = _books(server)

    assert _figures(server) == first
    assert (again.received, again.stored, again.duplicate) == (2 * events + 2, events + 2, events)
    assert again.balanced


def _send(server: LiveServer, folder: Path, name: str) -> None:
    lines = read_events(folder, name)
    for start in range(0, len(lines), A_REQUEST):
        body = b'{"batch":[%s]}' % b",".join(lines[start : start + A_REQUEST])
        assert server.post("/v1/batch", body, KEYS[name]).json() == {"success": True}


def _books(server: LiveServer) -> StreamBooks:
    (books,) = read_books(server.data_dir)
    return books


def _figures(server: LiveServer) -> dict[str, Figures]:
    return {name: figures(partial(_query, server), project) for name, project in PROJECTS.items()}


def _query(server: LiveServer, sql: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [MANYMETRICS, "query", sql, "-o", "ndjson", "--data-dir", server.data_dir], capture_output=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]
