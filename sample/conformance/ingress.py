"""Probes the ingresses: routes, compressed bodies, IPv6, and many simultaneous first requests."""

from __future__ import annotations

import base64
import gzip
import json
import secrets
import socket
import string
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from manymetrics_api.routes import ROUTES
from sample.conformance.athena import wait_for_count
from sample.conformance.payloads import STAND_IN_KEY, record
from sample.conformance.probe import NotRunError, ProbeFailedError, Run
from sample.conformance.world import Answer, Request

AT_ONCE = 100
NEW_HOST_S, AGAIN_S = 120.0, 3.0  # a new name, permission or role takes time to propagate
CONTENT_TYPES = (
    "application/json",
    "application/json; charset=utf-8",
    "text/plain",
    "text/plain;charset=UTF-8",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "application/gzip",
    "",
)
_FIELDS: Mapping[str, Mapping[str, str]] = {
    "track": {"event": "Conformance"},
    "group": {"groupId": "conformance"},
    "alias": {"previousId": "conformance-device"},
}


def routes(run: Run) -> list[str]:
    """Each route works, with and without extra slashes, through each ingress; each accepted event becomes one row."""
    user, wrong, sent, count = f"routes-{run.id}", list[str](), 0, 0
    for ingress, url in run.doors.api.items():
        for method, path, expected, events in _cases(run, user):
            answer = _post(run, url, path, _event_for(path, user)) if method == "POST" else _get(run, url, method, path)
            count += 1
            sent += events
            if answer.status != expected:
                shown = path.replace(run.outputs.write_key, STAND_IN_KEY)
                wrong.append(f"{ingress}: {method} {shown} returned {answer.status} instead of {expected}")
    for target in ("//v1/track", "/v1/track/?a=1&a=2&b=%2F", "/v1//batch"):
        record(run, f"path {target}", "POST", target, {"content-type": "application/json"}, _event_for(target, user))
    if wrong:
        raise ProbeFailedError("\n".join(wrong))
    wait_for_count(run, f"SELECT count(*) FROM events WHERE user_id = '{user}'", sent)  # noqa: S608  # our own id
    return [
        f"{count} requests through {len(run.doors.api)} ingresses returned what is documented",
        f"{sent} rows, one each",
    ]


def _cases(run: Run, user: str) -> list[tuple[str, str, int, int]]:
    """Return method, path, expected status, and number of stored events."""
    cases = []
    for route in (path.decode() for path in ROUTES):
        stored = 0 if ROUTES[route.encode()].discard else 1
        cases.append(("POST", route, 200, stored))
        cases += [("POST", form, 200, stored) for form in (f"/{route}", f"{route}/") if not route.endswith("/")][:1]
    pixel = _base64url({"writeKey": run.outputs.write_key, "userId": user, "event": "Pixel"})
    return [
        *cases,
        ("POST", "/v1//track", 200, 1),
        ("POST", "/v1/track//", 200, 1),
        ("GET", f"/v1/pixel/track?data={pixel}", 200, 1),
        ("GET", f"/v1/projects/{run.outputs.write_key}/settings", 200, 0),
        ("GET", f"/sourceConfig/?writeKey={run.outputs.write_key}", 200, 0),
        ("GET", "/healthz", 200, 0),
        ("GET", "/readyz", 200, 0),
        ("GET", "/docs", 200, 0),
        ("GET", "/openapi.json", 200, 0),
        ("GET", "/metrics", 404, 0),
        ("GET", "/wp-login.php", 404, 0),
        ("POST", "/v1/%74rack", 404, 0),
    ]


def _base64url(event: Mapping[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(event).encode()).decode().rstrip("=")


def _event_for(path: str, user: str) -> bytes:
    """Build an event for the path."""
    route = ROUTES.get(path.partition("?")[0].replace("//", "/").encode())
    kind = (route.default_type if route else None) or "track"
    event = {
        "type": kind,
        "userId": user,
        "messageId": _message_id(),
        **_FIELDS.get(kind, {}),
    }  # one row if sent again
    return json.dumps({"batch": [event]} if route and route.batch else event).encode()


def _message_id() -> str:
    """Return an id of letters: digits might look like an account number in recorded payloads."""
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(20))


def encodings(run: Run) -> list[str]:
    """A gzip body of each Content-Type is stored if it arrives as base64, else refused with `encoding_lost`."""
    seen, wrong = [], []
    for ingress in run.doors.api:
        by_form: dict[str, list[str]] = {"base64": [], "text": []}
        for kind in CONTENT_TYPES:
            form, answer = _compressed(run, ingress, kind)
            by_form[form].append(kind or "(none)")
            if not _is_expected(form, answer):
                wrong.append(f"{ingress}, {kind or 'no Content-Type'}: arrives as {form}, returned {_shown(answer)}")
        seen += [f"{ingress}: as {form}: {', '.join(kinds)}" for form, kinds in by_form.items() if kinds]
    if wrong:
        raise ProbeFailedError("\n".join([*wrong, *seen]))
    return [*seen, "bodies that arrive as text return 415 encoding_lost, the rest 200"]


def _compressed(run: Run, ingress: str, kind: str) -> tuple[str, Answer]:
    body = gzip.compress(json.dumps({"event": "Gzip", "userId": f"gzip-{run.id}"}).encode(), mtime=0)
    headers = {"content-encoding": "gzip", **({"content-type": kind} if kind else {})}
    answer = _post(run, run.doors.api[ingress], "/v1/track", body, headers)
    payload = record(
        run, f"gzip of {kind or 'no type'}", "POST", "/v1/track", headers, body, answer.status, ingress=ingress
    )
    return "base64" if payload.get("isBase64Encoded") else "text", answer


def _is_expected(form: str, answer: Answer) -> bool:
    return answer.status == 200 if form == "base64" else answer.status == 415 and b"encoding_lost" in answer.body


def ipv6(run: Run) -> list[str]:
    """An event sent over IPv6 has the sender's address in its row."""
    user, url = f"ipv6-{run.id}", run.doors.api["http_api"]
    try:
        answer = _post(run, url, "/v1/track", _event_for("/v1/track", user), family=socket.AF_INET6)
    except socket.gaierror as error:
        raise ProbeFailedError(f"The HTTP API has no IPv6 address, though it is dualstack: {error}") from error
    except OSError as error:
        raise NotRunError(f"This machine has no IPv6 ({error}): run the probe on one that does") from error
    if answer.status != 200:
        raise ProbeFailedError(f"returned {_shown(answer)}")
    headers = {"content-type": "application/json"}
    payload = record(run, "ipv6", "POST", "/v1/track", headers, _event_for("/v1/track", user), family=socket.AF_INET6)
    address = str(payload["requestContext"]["http"]["sourceIp"])
    if ":" not in address:
        raise ProbeFailedError("The gateway's sourceIp is not an IPv6 address")
    found = f"SELECT count(*) FROM events WHERE user_id = '{user}' AND context_ip LIKE '%:%'"  # noqa: S608  # our own id
    wait_for_count(run, found, 1)
    return ["sourceIp is an IPv6 address, and so is context_ip of the row"]


def cold_starts(run: Run) -> list[str]:
    """A hundred simultaneous first requests each return 200, if necessary after a retry, and become one row each."""
    limit = int(run.world.client("lambda").get_account_settings()["AccountLimit"]["ConcurrentExecutions"])
    if limit < AT_ONCE:
        raise NotRunError(
            f"This account can run {limit} functions at once: request a higher quota from AWS, which is free"
        )
    user, gate = f"cold-{run.id}", threading.Barrier(AT_ONCE)
    url, began = run.doors.api["http_api"], [0.0] * AT_ONCE

    def one(number: int) -> tuple[list[int], float]:
        event = {"event": "Cold", "userId": user, "messageId": f"{user}-{number}"}
        gate.wait()
        began[number] = run.world.clock()
        statuses: list[int] = []
        while len(statuses) < 10:
            statuses.append(_send_once(run, url, "/v1/track", json.dumps(event).encode()).status)
            if statuses[-1] not in {429, 502, 503, 504}:
                break
            run.world.sleep(AGAIN_S)
        return statuses, run.world.clock() - began[number]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = list(pool.map(one, range(AT_ONCE)))
    first, last = (Counter(statuses[at] for statuses, _ in done) for at in (0, -1))
    took = sorted(seconds for _, seconds in done)
    seen = [
        f"responses to the first attempt: {_counted(first)}",
        f"seconds until the last response: median {took[AT_ONCE // 2]:.2f}, longest {took[-1]:.2f}",
    ]
    if last != Counter({200: AT_ONCE}):
        raise ProbeFailedError("\n".join([f"final responses: {_counted(last)}", *seen]))
    wait_for_count(run, f"SELECT count(*) FROM events WHERE user_id = '{user}'", AT_ONCE)  # noqa: S608  # our own id
    return [*seen, f"{AT_ONCE} rows"]


def _counted(statuses: Counter[int]) -> str:
    return ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))


def _post(
    run: Run,
    url: str,
    path: str,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    family: socket.AddressFamily = socket.AF_UNSPEC,
) -> Answer:
    """Send, and retry for a while on responses of a new host or permission."""
    until = run.world.clock() + NEW_HOST_S
    while True:
        answer = _send_once(run, url, path, body, headers, family)
        if answer.status not in {403, 429, 503} or run.world.clock() > until:
            return answer
        run.world.sleep(AGAIN_S)


def _send_once(
    run: Run,
    url: str,
    path: str,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    family: socket.AddressFamily = socket.AF_UNSPEC,
) -> Answer:
    key = base64.b64encode(f"{run.outputs.write_key}:".encode()).decode()
    given = {"content-type": "application/json"} if headers is None else headers
    return run.world.send(Request("POST", url, path, {"authorization": f"Basic {key}", **given}, body, family))


def _get(run: Run, url: str, method: str, path: str) -> Answer:
    return run.world.send(Request(method, url, path))


def _shown(answer: Answer) -> str:
    return f"{answer.status} {answer.body[:200].decode(errors='replace')}"


def send_events(run: Run, events: Sequence[Mapping[str, object]]) -> None:
    """Send one batch through the HTTP API. Raises ProbeFailedError if it isn't accepted."""
    answer = _post(run, run.doors.api["http_api"], "/v1/batch", json.dumps({"batch": events}).encode())
    if answer.status != 200:
        raise ProbeFailedError(f"a batch returned {_shown(answer)}")
