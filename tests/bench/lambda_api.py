"""CPU of the API's Lambda function beside the plainest tracker on Lambda, and of its cold start.

Each handler runs in a process of its own, with API Gateway's payloads; the stream is a stub in another. What counts is
the CPU time of the handler's process, all its threads, the stream's calls among it. The plain tracker takes an event a
request, so an event costs it the same in any number. Rounds are interleaved (A B A B); a ratio compares two within a
round, and its median over the rounds is what counts.

Lambda's runtime client (awslambdaric) costs both the same an invocation: what is left of the ratio with it is shown,
and has no bar, since nobody who writes a handler can change it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from manymetrics_api.lambda_handler import Payload
from tests.bench.payloads import WRITE_KEY, http_request
from tests.bench.report import Bar, Part
from tests.bench.stream_stub import stream_stub
from tests.conftest import ROOT
from tests.gateway_payloads import http_api
from tests.runtime_api import RuntimeApi
from tests.strict_moto import CREDENTIALS, REGION

ROUNDS = 9
INVOCATIONS = {1: 150, 20: 100, 100: 50}  # a round, by events a request
DISTINCT_REQUESTS = 32
WARM_UP = 40
STARTS = 9

HANDLERS = ("manymetrics_api.lambda_handler.handler", "tests.bench.seed_handler.handler")
BARS = {1: 2.5, 20: 30, 100: 80}
HEAVY = "import fastapi, pydantic, mangum, boto3"
START_BAR = 0.25


Invoke = Callable[[int, int], float]  # CPU seconds of so many invocations, each with so many events
Round = dict[int, tuple[float, float]]  # microseconds an event of both, by events a request


def measure(scratch: Path) -> Part:
    """Both handlers in turn, the same with awslambdaric, then both starts."""
    requests = {
        size: [_payload(http_request(number * size, size)) for number in range(DISTINCT_REQUESTS)]
        for size in INVOCATIONS
    }
    (scratch / "payloads.json").write_text(json.dumps(requests))
    with ExitStack() as stack:
        environ = _environ(stack.enter_context(stream_stub()))
        alone, with_runtime = (
            _rounds(*(stack.enter_context(running(handler, environ, scratch, requests)) for handler in HANDLERS))
            for running in (_alone, _with_runtime)
        )
        starts = [_start_ms(environ, code) for _ in range(STARTS) for code in _STARTS]
    return _part(alone, with_runtime, starts)


@contextmanager
def _alone(handler: str, environ: dict[str, str], scratch: Path, _: dict[int, list[Payload]]) -> Iterator[Invoke]:
    command = [sys.executable, "-m", "tests.bench.invoke", handler, str(scratch / "payloads.json")]
    with (scratch / f"{handler}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdin is not None
    assert process.stdout is not None
    to, of = process.stdin, process.stdout

    def invoke(size: int, times: int) -> float:
        print(size, times, file=to, flush=True)
        return float(of.readline())

    try:
        yield invoke
    finally:
        process.kill()
        process.communicate()


@contextmanager
def _with_runtime(
    handler: str, environ: dict[str, str], scratch: Path, requests: dict[int, list[Payload]]
) -> Iterator[Invoke]:
    with RuntimeApi(handler, environ, ROOT, log=scratch / f"{handler}.runtime.log") as function:

        def invoke(size: int, times: int) -> float:
            before_s = function.cpu_s() if function.runs else 0.0
            for number in range(times):
                done = function.invoke(requests[size][number % DISTINCT_REQUESTS])
                if done.error is not None or done.response["statusCode"] != 200:
                    raise RuntimeError(f"the bench measures what is stored, and this was not: {done}")
            return function.cpu_s() - before_s

        yield invoke


def _rounds(product: Invoke, plain: Invoke) -> list[Round]:
    for invoke in (product, plain):
        invoke(1, WARM_UP)
    return [
        {
            size: (
                product(size, times) * 1e6 / (times * size),
                plain(1, INVOCATIONS[1]) * 1e6 / INVOCATIONS[1],
            )
            for size, times in INVOCATIONS.items()
        }
        for _ in range(ROUNDS)
    ]


def _payload(request: bytes) -> Payload:
    head, _, body = request.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    method, target, _ = line.split()
    return http_api(method, target, dict(one.split(": ", 1) for one in lines), body)


def _environ(stream: str) -> dict[str, str]:
    settings = {"MANYMETRICS_STREAM": "events", "MANYMETRICS_WRITE_KEYS": f"{WRITE_KEY}:bench"}
    return {**CREDENTIALS, "AWS_DEFAULT_REGION": REGION, "AWS_ENDPOINT_URL": stream, **settings}


_STARTS = ("import manymetrics_api.lambda_handler", HEAVY, "")


def _start_ms(environ: dict[str, str], code: str) -> float:
    """CPU of a new process that runs that: with the function's name, the handler makes all it answers with."""
    whole = {**environ, "PATH": os.environ["PATH"], "AWS_LAMBDA_FUNCTION_NAME": "function"}
    process = subprocess.Popen([sys.executable, "-c", code], env=whole)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{code!r} failed")
    return (used.ru_utime + used.ru_stime) * 1e3


def _part(alone: list[Round], with_runtime: list[Round], starts: list[float]) -> Part:
    part = Part("Lambda: the API's CPU", ("", "product", "plain tracker", "x less"))
    for rounds, suffix in ((alone, ""), (with_runtime, ", awslambdaric counted")):
        for size, limit in BARS.items():
            product, plain = (median(costs[size][which] for costs in rounds) for which in (0, 1))
            less = median(costs[size][1] / costs[size][0] for costs in rounds)
            part.rows.append((f"us an event, {size} a request{suffix}", product, plain, less))
            part.figures |= {f"{name} us an event of {size}{suffix}": us for name, us in _both(product, plain)}
            if not suffix:
                part.bars.append(Bar(f"plain tracker / product an event, {size} a request", less, limit, "at least"))
    each = [starts[number :: len(_STARTS)] for number in range(len(_STARTS))]
    product, heavy, bare = (median(times) for times in each)
    part.rows.append(("ms to start, Python itself not counted", product - bare, "", ""))
    part.rows.append((f"ms to {HEAVY}", heavy - bare, "", ""))
    part.figures |= {"product ms to start": product, "ms to import the heavy four": heavy, "ms of Python itself": bare}
    ratio = median((mine - none) / (theirs - none) for mine, theirs, none in zip(*each, strict=True))
    part.bars.append(Bar("start / import of FastAPI, pydantic, Mangum and boto3", ratio, START_BAR))
    return part


def _both(product: float, plain: float) -> tuple[tuple[str, float], tuple[str, float]]:
    return ("product", product), ("plain tracker", plain)
