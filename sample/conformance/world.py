"""The environment of a conformance run: AWS, HTTP, time, and local commands. Tests inject others."""

from __future__ import annotations

import difflib
import http.client
import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 30.0


class ConformanceError(Exception):
    """The run can't continue. The message has the reason and the fix."""


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request whose path is sent unchanged. ``family``: AF_INET6 forces IPv6."""

    method: str
    url: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    family: socket.AddressFamily = socket.AF_UNSPEC


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class World:
    """``environ``: of commands that use AWS. ``untold``: arguments that this AWS doesn't report to Terraform."""

    client: Callable[[str], Any]
    send: Callable[[Request], Answer]
    environ: Mapping[str, str]
    folder: Path  # where Terraform runs
    build: Path  # where the state, the marker and the report are kept
    init_arguments: tuple[str, ...] = ()
    untold: Mapping[str, frozenset[str]] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    remade: Callable[[str], World] | None = None  # the same in another region

    def at(self, region: str) -> World:
        """Return this world in a region."""
        return self if self.remade is None else self.remade(region)


def make_world(region: str) -> World:
    """Return the real one, with this machine's credentials. Raises ConformanceError for an unknown region."""
    session = boto3.Session(region_name=region)
    known = session.get_available_regions("lambda")
    if region not in known:
        near = difflib.get_close_matches(region, known, 1) or ["us-east-1"]
        raise ConformanceError(f"AWS has no region {region}: did you mean --region {near[0]}?")
    environ = {**os.environ, "AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    return World(session.client, send, environ, ROOT / "sample", ROOT / "build" / "aws-conformance", remade=make_world)


def send(request: Request) -> Answer:
    """Send a request. Raises OSError if the host can't be reached with that family."""
    target = urlsplit(request.url)
    host, is_tls = target.hostname or "", target.scheme == "https"
    found = socket.getaddrinfo(host, target.port or (443 if is_tls else 80), request.family, socket.SOCK_STREAM)
    plain = _connect(found)
    connection = http.client.HTTPConnection(host, timeout=TIMEOUT_S)
    connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host) if is_tls else plain
    try:
        connection.request(request.method, request.path, request.body or None, dict(request.headers))
        response = connection.getresponse()
        return Answer(response.status, response.read())
    except http.client.HTTPException as error:
        raise OSError(f"{host} closed the connection: {error!r}") from error
    finally:
        connection.close()


def _connect(addresses: list[Any]) -> socket.socket:
    failed: OSError | None = None
    for family, kind, protocol, _, address in addresses:
        one = socket.socket(family, kind, protocol)
        one.settimeout(TIMEOUT_S)
        try:
            one.connect(address)
        except OSError as error:
            one.close()
            failed = error
        else:
            return one
    raise failed or OSError("no address")
