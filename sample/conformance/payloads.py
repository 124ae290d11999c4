"""Records the payloads that AWS passes to a function, and redacts them so that they can be committed.

The echo function receives a placeholder for the write key. The addresses, account, hosts and ids of AWS are replaced by
examples; ``redacted`` raises if anything is left that looks like one.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import socket
from collections.abc import Mapping
from typing import Any

from sample.conformance.probe import NotRunError, ProbeFailedError, Run
from sample.conformance.world import Request

STAND_IN_KEY = "wk_conformance"
IPV4, IPV6, ACCOUNT = "203.0.113.7", "2001:db8::7", "123456789012"
_AUTHORIZATION = "Basic " + base64.b64encode(f"{STAND_IN_KEY}:".encode()).decode()
_EXAMPLES = {
    "accountId": ACCOUNT,
    "apiId": "abcdefghij",
    "domainName": "abcdefghij.execute-api.eu-west-1.amazonaws.com",
    "domainPrefix": "abcdefghij",
    "host": "abcdefghij.execute-api.eu-west-1.amazonaws.com",
    "requestId": "request",
    "time": "01/Jan/2026:00:00:00 +0000",
    "timeEpoch": 1_767_225_600_000,
    "x-amzn-trace-id": "Root=1-00000000-000000000000000000000000",
    "x-amzn-tls-cipher-suite": "TLS_AES_128_GCM_SHA256",
}
_HOST = re.compile(r"\b[a-z0-9]{8,40}\.(?:execute-api|lambda-url)\.([a-z0-9-]+)\.(?:amazonaws\.com|on\.aws)\b")
_LEFT = (
    (re.compile(r"(?<!\d)\d{12}(?!\d)"), "an account number"),
    (re.compile(r"wk_\w+"), "a write key"),
    (re.compile(r"\bA[KS]IA[A-Z0-9]{12,}"), "an access key"),
)
_ADDRESS = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7})(?![\w.:])")


def record(
    run: Run,
    name: str,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes,
    answered: int | None = None,
    *,
    ingress: str | None = None,
    family: socket.AddressFamily = socket.AF_UNSPEC,
) -> dict[str, Any]:
    """Send the same request to the echo function, through one ingress or all; record and return the last payload.

    ``answered``: the status that the API's own function returned for the request.
    """
    if not run.doors.echo:
        raise NotRunError("AWS did not allow the probes to create the echo function, which shows the payloads")
    payload: dict[str, Any] = {}
    for one, url in run.doors.echo.items():
        if ingress not in {None, one} or (family is socket.AF_INET6 and one != "http_api"):
            continue
        given = {"authorization": _AUTHORIZATION, **headers}
        answer = run.world.send(Request(method, url, target, given, body, family))
        until = run.world.clock() + 120
        while answer.status in {403, 404, 429, 500, 503} and run.world.clock() < until:  # not propagated yet
            run.world.sleep(3)
            answer = run.world.send(Request(method, url, target, given, body, family))
        if answer.status != 200:
            raise ProbeFailedError(f"The echo behind the {one} returned {answer.status} for {method} {target}")
        payload = json.loads(answer.body)
        run.payloads.append({"name": name, "ingress": one, "answered": answered, "payload": payload})
    return payload


def redacted(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy to commit. Raises ValueError with the kind of data if something private may be left."""
    clean: dict[str, Any] = _clean(dict(recorded))
    text = json.dumps(clean)
    for pattern, kind in _LEFT:
        if set(pattern.findall(text)) - {ACCOUNT, STAND_IN_KEY}:
            raise ValueError(f"{recorded['name']} would contain {kind}")
    for found in _addresses(text):
        if found not in {IPV4, IPV6}:
            raise ValueError(f"{recorded['name']} would contain an address")
    return clean


def _clean(value: Any) -> Any:  # noqa: ANN401  # of JSON
    if isinstance(value, Mapping):
        return {key: _EXAMPLES.get(key) or _clean(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_clean(one) for one in value]
    if not isinstance(value, str):
        return value
    text = _HOST.sub(r"abcdefghij.execute-api.eu-west-1.amazonaws.com", value)
    for address in _addresses(text):
        text = text.replace(address, IPV6 if ":" in address else IPV4)
    return text


def _addresses(text: str) -> list[str]:
    """Return IP addresses in a text, longest first, so that none is treated as part of another."""
    found = set()
    for one in _ADDRESS.findall(text):
        try:
            ipaddress.ip_address(one)
        except ValueError:
            continue
        found.add(one)
    return sorted(found, key=len, reverse=True)
