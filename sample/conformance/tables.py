"""Probes the tables: views and saved queries, a failed batch, erase, maintenance."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from manymetrics_insights.views import read_views
from sample.conformance.athena import ask, wait_for_count
from sample.conformance.commands import erase, query, replay
from sample.conformance.ingress import send_events
from sample.conformance.probe import ProbeFailedError, Run

GIVEN_UP_WITHIN_S = 900.0
SETTLED_WITHIN_S = 180.0
LOOK_EVERY_S = 10.0


def views_and_queries(run: Run) -> list[str]:
    """Each view and saved query returns the same rows in Athena as in DuckDB on the same tables."""
    user = f"shop-{run.id}"
    send_events(run, _shop(user))
    wait_for_count(run, f"SELECT count(*) FROM events WHERE user_id = '{user}'", len(_shop(user)))  # noqa: S608  # our own id
    questions = {f"view {view.name}": f"SELECT * FROM {view.name}" for view in read_views()}  # noqa: S608  # our own names
    saved = {f"query {name}": sql for name, sql in _saved_queries(run)}
    wrong, rows = [], 0
    for name, sql in {**questions, **saved}.items():
        in_athena, in_duckdb = ask(run, sql), query(run, sql)
        rows += len(in_athena)
        difference = _difference(in_athena, in_duckdb)
        if difference:
            wrong.append(f"{name}: {difference}")
    if not saved:
        wrong.append(f"The workgroup {run.outputs.athena_workgroup} has no saved queries")
    if wrong:
        raise ProbeFailedError("\n".join(wrong))
    return [f"{len(questions)} views and {len(saved)} saved queries: the same {rows} rows in Athena and in DuckDB"]


def _shop(user: str) -> list[dict[str, Any]]:
    """Build events with a result for each saved query."""
    place = {"path": "/tea", "url": "https://example.com/tea"}
    context = {"page": place, "sessionId": 1, "campaign": {"source": "mail", "name": "spring"}}
    return [
        {"type": "page", "userId": user, "context": context},
        {
            "type": "track",
            "event": "Added to Cart",
            "userId": user,
            "properties": {"product": "Teapot", "price": 29.5},
        },
        {"type": "track", "event": "Order Completed", "userId": user, "properties": {"total": 29.5}},
        {"type": "track", "event": "Error", "userId": user, "properties": {"name": "TypeError", "message": "x"}},
        {
            "type": "track",
            "event": "Web Vitals",
            "userId": user,
            "properties": {"pageLoadId": "1", "report": 1, "lcpRating": "good"},
        },
        {"type": "identify", "userId": user, "anonymousId": f"{user}-device", "traits": {"plan": "pro", "größe": "ü"}},
        {"type": "alias", "userId": user, "previousId": f"{user}-before"},
    ]


def _saved_queries(run: Run) -> Iterator[tuple[str, str]]:
    athena = run.world.client("athena")
    for page in athena.get_paginator("list_named_queries").paginate(WorkGroup=run.outputs.athena_workgroup):
        for one in page["NamedQueryIds"]:
            found = athena.get_named_query(NamedQueryId=one)["NamedQuery"]
            yield found["Name"], found["QueryString"]


def _difference(athena: list[dict[str, str | None]], duckdb: list[dict[str, Any]]) -> str:
    """Describe the differences, ignoring the order of rows; empty if there are none."""
    if len(athena) != len(duckdb):
        return f"{len(athena)} rows in Athena, {len(duckdb)} in DuckDB"
    if athena and list(athena[0]) != list(duckdb[0]):
        return f"columns {list(athena[0])} in Athena, {list(duckdb[0])} in DuckDB"
    kinds = {name: {type(row[name]) for row in duckdb} for name in (duckdb[0] if duckdb else {})}
    one = Counter(_plain(row, kinds) for row in athena)
    other = Counter(_plain(row, kinds) for row in duckdb)
    if one == other:
        return ""
    return f"values differ: only Athena has {[*(one - other)][:1]}, only DuckDB {[*(other - one)][:1]}"


def _plain(row: Mapping[str, Any], kinds: Mapping[str, set[type]]) -> tuple[str, ...]:
    return tuple(_cell(value, kinds[name]) for name, value in row.items())


def _cell(value: Any, kinds: set[type]) -> str:  # noqa: ANN401  # of either engine
    """Normalize a value: numbers by value, times without trailing zeros. ``kinds``: the column's types in DuckDB."""
    if value is None:
        return "null"
    if isinstance(value, bool) or kinds & {bool}:
        return str(value).lower()
    if kinds & {int, float}:
        number = float(value)
        return f"{number:.9g}" if math.isfinite(number) else str(number)
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True)
    text = str(value)
    if len(text) >= 19 and text[4:5] == text[7:8] == "-" and text[10:11] in {" ", "T"}:
        try:
            return datetime.fromisoformat(text.removesuffix(" UTC").removesuffix("Z")).replace(tzinfo=None).isoformat()
        except ValueError:
            return text
    return text


def failed_batch(run: Run) -> list[str]:
    """A batch that the processor can't commit goes to S3 immediately, and `manymetrics replay` stores its events."""
    user = f"given-up-{run.id}"
    with _failing_processor(run):
        before = _given_up(run)
        send_events(run, [{"type": "track", "event": "Given up", "userId": user, "messageId": user}])
        new = _wait_until_given_up(run, before)
    report = replay(run, run.outputs.failures_location)
    again = replay(run, run.outputs.failures_location)
    if report["stored"] < 1 or again["stored"]:
        raise ProbeFailedError(f"replay reported {report}, and the second time {again}")
    wait_for_count(run, f"SELECT count(*) FROM events WHERE user_id = '{user}'", 1)  # noqa: S608  # our own id
    return [f"{len(new)} object in the failures bucket, {report['stored']} event stored by replay, none by the second"]


@contextmanager
def _failing_processor(run: Run) -> Iterator[None]:
    """Run the processor without its warehouse and retries, until the block ends; then restore both."""
    compute, function = run.world.client("lambda"), f"{run.name}-processor"
    right = compute.get_function_configuration(FunctionName=function)["Environment"]["Variables"]
    [mapping] = compute.list_event_source_mappings(FunctionName=function)["EventSourceMappings"]

    def put(variables: Mapping[str, str], retries: int) -> None:
        compute.update_function_configuration(FunctionName=function, Environment={"Variables": dict(variables)})
        compute.get_waiter("function_updated_v2").wait(FunctionName=function)
        compute.update_event_source_mapping(UUID=mapping["UUID"], MaximumRetryAttempts=retries)
        until = run.world.clock() + SETTLED_WITHIN_S
        while compute.get_event_source_mapping(UUID=mapping["UUID"])["State"] != "Enabled":
            if run.world.clock() > until:
                raise ProbeFailedError(
                    f"The event source mapping isn't enabled {SETTLED_WITHIN_S:.0f} s after a change"
                )
            run.world.sleep(LOOK_EVERY_S)

    try:
        put({**right, "MANYMETRICS_WAREHOUSE": "conformance://no-warehouse"}, 0)
        yield
    finally:
        put(right, mapping["MaximumRetryAttempts"])


def _given_up(run: Run) -> set[str]:
    place = urlsplit(run.outputs.failures_location)
    pages = run.world.client("s3").get_paginator("list_objects_v2")
    return {
        one["Key"]
        for page in pages.paginate(Bucket=place.netloc, Prefix=place.path.lstrip("/"))
        for one in page.get("Contents", [])
    }


def _wait_until_given_up(run: Run, before: set[str]) -> set[str]:
    until = run.world.clock() + GIVEN_UP_WITHIN_S
    while not (new := _given_up(run) - before):
        if run.world.clock() > until:
            raise ProbeFailedError(
                f"No object in {run.outputs.failures_location} {GIVEN_UP_WITHIN_S:.0f} s after a batch failed"
            )
        run.world.sleep(LOOK_EVERY_S)
    return new


def erase_person(run: Run) -> list[str]:
    """The erase job erases one person from the tables and failed batches, and nobody else."""
    gone, stays = f"erase-{run.id}", f"stay-{run.id}"
    send_events(run, [{"type": "track", "event": "E", "userId": user} for user in (gone, gone, stays)])
    counts = f"SELECT count(*) FROM events WHERE user_id IN ('{gone}', '{stays}')"  # noqa: S608  # our own ids
    wait_for_count(run, counts, 3)
    receipt = erase(run, gone)
    erased = sum(table["rows_erased"] for table in receipt["tables"])
    [left] = ask(run, f"SELECT count(*) AS n FROM events WHERE user_id = '{gone}'")  # noqa: S608  # our own id
    [others] = ask(run, f"SELECT count(*) AS n FROM events WHERE user_id = '{stays}'")  # noqa: S608  # our own id
    if (left["n"], others["n"], erased) != ("0", "1", 2):
        raise ProbeFailedError(f"{left['n']} rows are left, {others['n']} of another person; the receipt has {erased}")
    return [f"{erased} rows were erased, those of others remain", f"not reached: {'; '.join(receipt['not_reached'])}"]


def maintenance(run: Run) -> list[str]:
    """Both schedules are enabled and target the processor; a run changes files, but no rows."""
    events = run.world.client("events")
    for kind in ("hourly", "daily"):
        rule = events.describe_rule(Name=f"{run.name}-maintain-{kind}")
        targets = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
        if rule["State"] != "ENABLED" or [one["Arn"].rpartition(":")[2] for one in targets] != [
            f"{run.name}-processor"
        ]:
            raise ProbeFailedError(f"The schedule {rule['Name']} is disabled, or has another target than the processor")
    before = _contents(run)
    done = run.world.client("lambda").invoke(
        FunctionName=f"{run.name}-processor", Payload=json.dumps({"action": "maintain", "orphans": True})
    )
    answer = json.loads(done["Payload"].read())
    if "FunctionError" in done or "tables" not in answer:
        raise ProbeFailedError(f"maintenance failed: {json.dumps(answer)[:500]}")
    if (after := _contents(run)) != before:
        raise ProbeFailedError(f"maintenance changed the rows: {before} before, {after} after")
    return [json.dumps(table) for table in answer["tables"]]


def _contents(run: Run) -> dict[str, str | None]:
    """Count events and message ids."""
    [row] = ask(run, "SELECT count(*) AS events, count(DISTINCT message_id) AS ids FROM events")
    return row
