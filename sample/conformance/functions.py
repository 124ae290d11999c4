"""Probes the functions' starts and memory, from Lambda's log lines."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sample.conformance.payloads import IPV4
from sample.conformance.probe import ProbeFailedError, Run

INIT_LIMIT_MS = 10_000  # Lambda stops an init then, and repeats it as part of the invocation
MEMORY_SHARE = 0.9
LOGGED_WITHIN_S, LOOK_EVERY_S = 180.0, 10.0
API_SIZES = (1, 20, 100)  # events per request, as in `manymetrics cost --measured`
_WARM_REQUESTS = 10
_REPORT = re.compile(r"REPORT RequestId: \S+\s+(.*)")
_FIELD = re.compile(r"([A-Z][\w ]+?): ([\d.]+) (?:ms|MB)")


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one invocation. ``init_ms``: None for a warm one."""

    duration_ms: float
    memory_mb: int
    most_memory_mb: int
    init_ms: float | None


def starts(run: Run) -> list[str]:
    """Both functions start within Lambda's limit and below their memory; the JVM uses its class archive."""
    since = int((time.time() - 6 * 3_600) * 1_000)
    seen, wrong = [], []
    for function, found in (
        ("processor", _reports(run, "processor", since)),
        ("api", api_reports(run)[1]),
    ):
        inits = sorted(one.init_ms for one in found if one.init_ms is not None)
        if not inits:
            wrong.append(f"{function}: no start in the log")
            continue
        most, limit = max(one.most_memory_mb for one in found), found[0].memory_mb
        seen.append(
            f"{function}: {len(inits)} starts, {inits[0]:.0f} to {inits[-1]:.0f} ms; at most {most} of {limit} MB; "
            f"longest invocation {max(one.duration_ms for one in found):.0f} ms"
        )
        if inits[-1] >= INIT_LIMIT_MS:
            wrong.append(f"{function}: a start took {inits[-1]:.0f} ms")
        if most > MEMORY_SHARE * limit:
            wrong.append(f"{function}: {most} of {limit} MB are used: increase its memory")
    if any(True for _ in _messages(run, "processor", since, '"without its class archive"')):
        wrong.append("processor: the JVM doesn't use its class archive, so each start takes twice as long")
    if any("Status: timeout" in line for line in _messages(run, "processor", since, '"INIT_REPORT"')):
        wrong.append(f"processor: a start was stopped after {INIT_LIMIT_MS / 1e3:.0f} s, and repeated")
    if wrong:
        raise ProbeFailedError("\n".join([*wrong, *seen]))
    return [*seen, "every JVM used its class archive"]


def api_reports(run: Run) -> tuple[dict[int, list[Report]], list[Report]]:
    """Return the API's reports of warm requests by number of events, and all reports.

    Temporarily enables their logging, only for $LATEST, which the gateway doesn't call; a changed configuration also
    starts a new environment.
    """
    compute, function = run.world.client("lambda"), f"{run.name}-api"
    right = compute.get_function_configuration(FunctionName=function).get("LoggingConfig")
    since = int(time.time() * 1_000)
    asked: dict[str, int] = {}
    try:
        if right is not None:
            _put_logging(run, function, {**right, "SystemLogLevel": "INFO"})
        for size in API_SIZES:
            for _ in range(_WARM_REQUESTS):
                done = compute.invoke(FunctionName=function, Payload=json.dumps(_payload(run, size)))
                answer = json.loads(done["Payload"].read())
                if "FunctionError" in done or answer["statusCode"] != 200:
                    raise ProbeFailedError(f"the API's function returned {json.dumps(answer)[:500]}")
                asked[done["ResponseMetadata"]["RequestId"]] = size
        found = _wait_for_reports(run, since)
    finally:
        if right is not None:
            _put_logging(run, function, right)
    by_size: dict[int, list[Report]] = {size: [] for size in API_SIZES}
    for request, report in found:
        if request in asked and report.init_ms is None:
            by_size[asked[request]].append(report)
    return by_size, [report for _, report in found]


def _put_logging(run: Run, function: str, logging: Mapping[str, str]) -> None:
    compute = run.world.client("lambda")
    compute.update_function_configuration(FunctionName=function, LoggingConfig=dict(logging))
    compute.get_waiter("function_updated_v2").wait(FunctionName=function)


def _payload(run: Run, events: int) -> dict[str, Any]:
    """Build a batch of so many events, as passed by the gateway."""
    key = base64.b64encode(f"{run.outputs.write_key}:".encode()).decode()
    event = {"type": "track", "event": "Timed", "userId": f"timed-{run.id}"}
    batch = [{**event, "properties": {"number": number, "text": "x" * 400}} for number in range(events)]
    http = {"method": "POST", "path": "/v1/batch", "protocol": "HTTP/1.1", "sourceIp": IPV4, "userAgent": "-"}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/v1/batch",
        "rawQueryString": "",
        "headers": {"authorization": f"Basic {key}", "content-type": "application/json"},
        "requestContext": {"http": http, "stage": "$default"},
        "body": json.dumps({"batch": batch}),
        "isBase64Encoded": False,
    }


def _wait_for_reports(run: Run, since: int) -> list[tuple[str, Report]]:
    """Wait for the API's reports, which appear in the logs some seconds later."""
    until = run.world.clock() + LOGGED_WITHIN_S
    while True:
        found = list(_api_reports(run, since))
        if len(found) >= len(API_SIZES) * _WARM_REQUESTS or run.world.clock() > until:
            return found
        run.world.sleep(LOOK_EVERY_S)


def _api_reports(run: Run, since: int) -> Iterator[tuple[str, Report]]:
    for message in _messages(run, "api", since, '"platform.report"'):
        told = json.loads(message)
        if told.get("type") != "platform.report":
            continue
        record, metrics = told["record"], told["record"]["metrics"]
        yield (
            record["requestId"],
            Report(
                metrics["durationMs"],
                metrics["memorySizeMB"],
                metrics["maxMemoryUsedMB"],
                metrics.get("initDurationMs"),
            ),
        )


def _reports(run: Run, function: str, since: int) -> list[Report]:
    lines = _messages(run, function, since, '"REPORT RequestId"')
    return [report for line in lines for report in read_report(line)]


def read_report(message: str) -> Iterator[Report]:
    """Parse Lambda's line in the format Text."""
    found = _REPORT.search(message)
    if found:
        told = {name.strip(): float(number) for name, number in _FIELD.findall(found[1])}
        yield Report(
            told["Duration"], int(told["Memory Size"]), int(told["Max Memory Used"]), told.get("Init Duration")
        )


def _messages(run: Run, function: str, since: int, pattern: str) -> Iterator[str]:
    pages = run.world.client("logs").get_paginator("filter_log_events")
    for page in pages.paginate(
        logGroupName=f"/aws/lambda/{run.name}-{function}", startTime=since, filterPattern=pattern
    ):
        for one in page["events"]:
            if pattern.strip('"') in one["message"]:
                yield one["message"]
