"""CPU per request of the product's server beside reference servers.

Wall time on a shared machine says little, and CPU time alone drifts with the neighbours. So each server runs in its own
process, all of them on one core and the load on another; rounds are interleaved (A B C A B C); a ratio compares two
servers within a round, and its median over the rounds is what counts.

    server CPU  user and system time of all the process's threads, from Linux's /proc/<pid>/stat
    request     one that was answered 2xx; anything else ends the bench
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from tests.bench.apps import APPS
from tests.bench.load import drive
from tests.bench.payloads import http_request
from tests.bench.process import cpu_seconds, resident_mb
from tests.bench.report import Bar, Part

SIZES = (1, 20, 100)  # events a request
CONNECTIONS = 8
ROUNDS = 7
ROUND_S = 0.4
WARM_UP_S = 0.3
DISTINCT_REQUESTS = 64

REFERENCE = "codec"
BARS: tuple[tuple[str, str, int, float, Literal["at most", "at least"]], ...] = (
    ("product", "codec", 1, 1.05, "at most"),
    ("product", "codec", 20, 1.05, "at most"),
    ("product", "codec", 100, 1.05, "at most"),
    ("product", "floor", 1, 1.2, "at most"),
    ("product", "floor", 20, 2.0, "at most"),
    ("tutorial", "product", 20, 5.0, "at least"),
    ("durable", "sqlite", 20, 1.25, "at most"),
)

Round = dict[tuple[str, int], float]


@dataclass(frozen=True, slots=True)
class Server:
    name: str
    port: int
    pid: int


def measure(scratch: Path) -> Part:
    """Start every server, load them in turn, compare."""
    requests = {size: [http_request(n * size, size) for n in range(DISTINCT_REQUESTS)] for size in SIZES}
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        servers = [stack.enter_context(_running(name, cores[-1], scratch)) for name in APPS]
        os.sched_setaffinity(0, {cores[0]})
        stack.callback(os.sched_setaffinity, 0, cores)
        for server in servers:
            for size in SIZES:
                drive(server.port, requests[size], seconds=WARM_UP_S, connections=CONNECTIONS)
        rounds = [_round(servers, requests) for _ in range(ROUNDS)]
        held_mb = {server.name: resident_mb(server.pid) for server in servers}
    return _part(rounds, held_mb)


@contextmanager
def _running(name: str, core: int, scratch: Path) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        descriptor = listening.fileno()
        command = [sys.executable, "-m", "tests.bench.serve", name, str(descriptor), str(core), str(scratch / name)]
        process = subprocess.Popen(command, pass_fds=[descriptor])
        try:
            yield Server(name, listening.getsockname()[1], process.pid)
        finally:
            process.terminate()
            process.wait(timeout=10)


def _round(servers: list[Server], requests: dict[int, list[bytes]]) -> Round:
    """CPU microseconds a request, by server and events a request."""
    costs: Round = {}
    for size in SIZES:
        for server in servers:
            before_s = cpu_seconds(server.pid)
            answered = drive(server.port, requests[size], seconds=ROUND_S, connections=CONNECTIONS)
            costs[server.name, size] = (cpu_seconds(server.pid) - before_s) * 1e6 / answered
    return costs


def _part(rounds: list[Round], held_mb: dict[str, float]) -> Part:
    def cost(name: str, size: int) -> float:
        return median(costs[name, size] for costs in rounds)

    def ratio(name: str, other: str, size: int) -> float:
        return median(costs[name, size] / costs[other, size] for costs in rounds)

    part = Part(
        "HTTP: server CPU a request",
        (
            "server",
            *(f"us, {size} events" for size in SIZES),
            "us an event at 20",
            *(f"x {REFERENCE} at {size}" for size in SIZES),
            "MB resident",
        ),
    )
    for name in APPS:
        us = [cost(name, size) for size in SIZES]
        ratios = [ratio(name, REFERENCE, size) for size in SIZES]
        part.rows.append((name, *us, cost(name, 20) / 20, *ratios, held_mb[name]))
        part.figures |= {f"{name} us a request of {size}": value for size, value in zip(SIZES, us, strict=True)}
        least = [min(costs[name, size] for costs in rounds) for size in SIZES]  # what neighbours disturbed least
        part.figures |= {f"{name} us a request of {size}, least": us for size, us in zip(SIZES, least, strict=True)}
    part.bars = [
        Bar(f"{name} / {other}, {size} events", ratio(name, other, size), limit, side)
        for name, other, size, limit, side in BARS
    ]
    return part
