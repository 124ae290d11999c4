"""Real input, the whole way: orders of a shop and edits of an encyclopaedia, as their truth says, to the unit."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

from manymetrics.local import read_books
from manymetrics_processor.ledger import StreamBooks
from tests.live_server import MANYMETRICS, LiveServer

A_REQUEST = 100
FILES = {"retail-orders": "wk_shop", "wiki-edits": "wk_oracle_live"}
PROJECTS = {"retail-orders": "shop", "wiki-edits": "oracle"}


def test_the_figures_of_real_data_are_exact_and_sending_it_again_changes_none(
    server: LiveServer, shared_data: Path
) -> None:
    truth = json.loads((shared_data / "truth.json").read_text())
    events = sum(truth[name]["events"] for name in FILES)

    for name, key in FILES.items():
        _send(server, shared_data / f"{name}.ndjson.gz", key)
    server.settle()
    first = {name: _figures(server, PROJECTS[name]) for name in FILES}
    books = _books(server)

    for name in FILES:
        assert first[name] == _expected(truth[name]), name
    assert (books.received, books.stored, books.duplicate) == (events + 1, events + 1, 0)  # and the marker

    for name, key in FILES.items():
        _send(server, shared_data / f"{name}.ndjson.gz", key)
    server.settle()
    again = _books(server)

    assert {name: _figures(server, PROJECTS[name]) for name in FILES} == first
    assert (again.received, again.stored, again.duplicate) == (2 * events + 2, events + 2, events)
    assert again.balanced


def _send(server: LiveServer, path: Path, key: str) -> None:
    lines = gzip.decompress(path.read_bytes()).splitlines()
    for start in range(0, len(lines), A_REQUEST):
        body = b'{"batch":[%s]}' % b",".join(lines[start : start + A_REQUEST])
        assert server.post("/v1/batch", body, key).json() == {"success": True}


def _books(server: LiveServer) -> StreamBooks:
    (books,) = read_books(server.data_dir)
    return books


def _query(server: LiveServer, sql: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [MANYMETRICS, "query", sql, "-o", "ndjson", "--data-dir", server.data_dir], capture_output=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _figures(server: LiveServer, project: str) -> dict[str, object]:
    of_project = f"from person_events where project_id = '{project}' and event != 'Marker'"
    day, person = "cast(event_time as date)", "person_kind || person_id"
    revenue = "cast(json_extract_scalar(properties, '$.revenue') as decimal(18, 3))"
    totals = _query(
        server,
        f"""select count(*) as events, count(distinct {person}) as persons,
            coalesce(sum({revenue}), 0) * 1000 as thousandths {of_project}""",
    )[0]
    by_event = _query(server, f"select event, count(*) as n {of_project} group by event")
    by_day = _query(
        server, f"select {day} as day, count(*) as n, count(distinct {person}) as persons {of_project} group by 1"
    )
    again = _query(
        server,
        f"""select count(*) as n from
            (select {person} {of_project} group by 1 having count(distinct {day}) >= 2)""",
    )[0]
    return {
        "events": totals["events"],
        "persons": totals["persons"],
        "by_event": {row["event"]: row["n"] for row in by_event},
        "revenue_thousandths": int(float(totals["thousandths"])),
        "events_by_day": {row["day"]: row["n"] for row in by_day},
        "active_persons_by_day": {row["day"]: row["persons"] for row in by_day},
        "persons_active_on_2_or_more_days": again["n"],
    }


def _expected(truth: dict[str, object]) -> dict[str, object]:
    names = (
        "events",
        "persons",
        "by_event",
        "revenue_thousandths",
        "events_by_day",
        "active_persons_by_day",
        "persons_active_on_2_or_more_days",
    )
    return {name: truth[name] for name in names}
