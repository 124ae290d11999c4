"""Two sets of real input, orders of a shop and edits of an encyclopaedia, and the figures that their truth states."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROJECTS = {"retail-orders": "shop", "wiki-edits": "oracle"}

Figures = dict[str, Any]
Ask = Callable[[str], list[dict[str, Any]]]


def read_events(folder: Path, name: str) -> list[bytes]:
    """Each event's JSON, in order."""
    return gzip.decompress((folder / f"{name}.ndjson.gz").read_bytes()).splitlines()


def true_figures(folder: Path, name: str) -> Figures:
    """What ``figures`` must be."""
    truth = json.loads((folder / "truth.json").read_text())[name]
    names = (
        "events",
        "persons",
        "by_event",
        "revenue_thousandths",
        "events_by_day",
        "active_persons_by_day",
        "persons_active_on_2_or_more_days",
    )
    return {figure: truth[figure] for figure in names}


def figures(ask: Ask, project: str) -> Figures:
    """The same figures of a project, in SQL that DuckDB and Athena's engine read alike."""
    of_project = f"from person_events where project_id = '{project}' and event != 'Marker'"
    day, person = "cast(event_time as date)", "person_kind || person_id"
    revenue = "cast(json_extract_scalar(properties, '$.revenue') as decimal(18, 3))"
    [totals] = ask(
        f"""select count(*) as events, count(distinct {person}) as persons,
            coalesce(sum({revenue}), 0) * 1000 as thousandths {of_project}"""
    )
    by_event = ask(f"select event, count(*) as n {of_project} group by event")
    by_day = ask(f"select {day} as day, count(*) as n, count(distinct {person}) as persons {of_project} group by 1")
    [again] = ask(
        f"""select count(*) as n from
            (select {person} {of_project} group by 1 having count(distinct {day}) >= 2)"""
    )
    return {
        "events": totals["events"],
        "persons": totals["persons"],
        "by_event": {row["event"]: row["n"] for row in by_event},
        "revenue_thousandths": int(float(totals["thousandths"])),
        "events_by_day": {str(row["day"]): row["n"] for row in by_day},
        "active_persons_by_day": {str(row["day"]): row["persons"] for row in by_day},
        "persons_active_on_2_or_more_days": again["n"],
    }
