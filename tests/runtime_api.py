"""AWS Lambda's Runtime API (2018-06-01) on this machine: drives the real awslambdaric, which Lambda runs too.

    with RuntimeApi("manymetrics_api.lambda_handler.handler", {"MANYMETRICS_STREAM": "events"}, cwd=folder) as function:
        first = function.invoke(payload)  # starts a process, as a cold start does
        again = function.invoke(payload)  # the same process
        function.kill()                   # the next invocation starts another
        function.provision()              # or this does, as provisioned concurrency

The process's environment is Lambda's and what is given, nothing of ours. A process that ends, is killed or takes too
long is an error of its invocation, named as Lambda names it, and the next invocation starts another: so what redelivers
on errors, as an event source mapping does, needs to look at ``error`` alone.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tests.conftest import ROOT
from tests.local_http import read_body

_NEXT, _INIT_ERROR = "/2018-06-01/runtime/invocation/next", "/2018-06-01/runtime/init/error"
_ANSWERS = "/2018-06-01/runtime/invocation/"  # <request id>/response and <request id>/error
_LOOK_S = 0.05  # how soon a process that ended is noticed
# Before the command: root without its power over files, so that what is read-only is so for the tests' root too.
UNPRIVILEGED = ("setpriv", "--inh-caps=-all", "--bounding-set=-all") if os.geteuid() == 0 else ()


@dataclass(frozen=True, slots=True)
class Invocation:
    """What came of an event: ``response`` is what the handler returned, or ``error`` has errorType and errorMessage.

    ``wall_s`` and ``cpu_s`` (of the process, all its threads) are from the event's arrival to its answer; a cold one's
    are from the start of the process. ``cpu_s`` is 0 where the process ended.
    """

    response: Any
    error: dict[str, Any] | None
    cold: bool
    wall_s: float
    cpu_s: float


def install_client(python: Path, folder: Path) -> None:
    """What Lambda brings along in /var/runtime, for a Python that has no awslambdaric of its own."""
    pip = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--only-binary", ":all:", "--compile-bytecode"]
    target = ["--python", str(python), "--target", str(folder)]
    lock = ["--constraint", str(ROOT / "requirements-dev.lock")]
    subprocess.run([*pip, *target, *lock, "awslambdaric"], check=True)


class RuntimeApi:
    """One environment of a function at a time. Everything but ``kill`` is called from one thread.

    ``cwd`` is the folder of the code, as /var/task is; ``python`` must find awslambdaric, in its own packages or by a
    PYTHONPATH in ``environ``; ``prefix`` stands before the command (UNPRIVILEGED, or a limit). ``timeout_s`` is the
    function's own; ``init_timeout_s`` is how long a process may take to ask for its first event. ``log`` is the file
    that its output goes to, else one that is gone with it.
    """

    def __init__(
        self,
        handler: str,
        environ: Mapping[str, str],
        cwd: Path,
        timeout_s: float = 30.0,
        *,
        python: str = sys.executable,
        prefix: Sequence[str] = (),
        init_timeout_s: float = 60.0,
        log: Path | None = None,
    ) -> None:
        self.timeout_s, self.init_timeout_s = timeout_s, init_timeout_s
        self._command = [*prefix, python, "-m", "awslambdaric", handler]
        self._environ = {**_lambda_environ(handler, cwd, python), **environ}
        self._cwd = cwd
        self._log = tempfile.TemporaryFile() if log is None else log.open("w+b")  # noqa: SIM115  # closed by close
        self._environment: _Environment | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._environment is not None, "no process runs: invoke starts one"
        return self._environment.process.pid

    @property
    def runs(self) -> bool:
        """Whether the next invocation is a warm one."""
        return self._environment is not None and self._environment.process.poll() is None

    @property
    def log(self) -> str:
        """All that the processes have written, as CloudWatch would show it."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def cpu_s(self) -> float:
        """What the process that runs now has used so far, all its threads: exact, unlike /proc's steps of 10 ms."""
        return _cpu_s(self.pid)

    def invoke(self, event: object) -> Invocation:
        """Hand the function an event, and wait for what comes of it."""
        environment = self._environment
        cold = environment is None or environment.process.poll() is not None
        if environment is None or cold:
            environment = self._start()
        done = environment.invoke(event, self.timeout_s, self.init_timeout_s)
        if environment.process.poll() is not None:
            self._end()
        cpu_s = max(0.0, done.cpu_s - (0 if cold else done.cpu_before_s))
        wall_s = done.at - (environment.began_at if cold else done.handed_at)
        return Invocation(done.response, done.error, cold, wall_s, cpu_s)

    def provision(self) -> None:
        """Have a process that waits for its first event: an invocation of it is a warm one."""
        if not self.runs:
            self._start().wait_until_ready(self.init_timeout_s)

    def kill(self) -> None:
        """Kill -9 the process, as Lambda does where memory or time is over; from any thread, at any time."""
        environment = self._environment
        if environment is not None and environment.process.poll() is None:
            environment.process.kill()
            environment.process.wait()

    def close(self) -> None:
        """Kill the process and close its log."""
        self._end()
        self._log.close()

    def _start(self) -> _Environment:
        self._end()
        self._environment = _Environment(self._command, self._environ, self._cwd, self._log.fileno())
        return self._environment

    def _end(self) -> None:
        environment, self._environment = self._environment, None
        if environment is not None:
            environment.end()


@dataclass(slots=True)
class _Pending:
    """An event on its way; what is learnt of it is filled in by the server's threads."""

    body: bytes
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    handed: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    handed_at: float = 0.0
    at: float = 0.0
    cpu_before_s: float = 0.0
    cpu_s: float = 0.0
    response: Any = None
    error: dict[str, Any] | None = None


class _Environment:
    """A process and the API that it alone talks to: an event can't go to one that is gone."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], cwd: Path, log: int) -> None:
        self._todo: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._pending: _Pending | None = None
        self._is_ready = threading.Event()
        self._init_error: dict[str, Any] | None = None
        self._timeout_s = 0.0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.began_at = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**environ, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_port}"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def invoke(self, event: object, timeout_s: float, init_timeout_s: float) -> _Pending:
        self._timeout_s = timeout_s
        pending = self._pending = _Pending(json.dumps(event).encode())
        self._todo.put(pending)
        if not self._wait(pending.handed, pending, init_timeout_s):
            self._fail(pending, "Sandbox.Timedout", f"Init took longer than {init_timeout_s} seconds")
        elif not self._wait(pending.over, pending, timeout_s):
            self._fail(pending, "Sandbox.Timedout", f"Task timed out after {timeout_s:.2f} seconds")
        return pending

    def wait_until_ready(self, timeout_s: float) -> None:
        """Until the process asks for an event, as it does once its code is loaded."""
        until = time.perf_counter() + timeout_s
        while not self._is_ready.wait(_LOOK_S):
            assert self.process.poll() is None, f"the process ended with {self.process.returncode}: {self._init_error}"
            assert time.perf_counter() < until, f"no process is ready within {timeout_s} s"

    def _wait(self, event: threading.Event, pending: _Pending, timeout_s: float) -> bool:
        """Whether it came to that, or to the end of the process."""
        until = time.perf_counter() + timeout_s
        while not event.wait(_LOOK_S):
            if self.process.poll() is not None and not event.wait(_LOOK_S):  # what it said last may be on its way
                self._died(pending)
                return True
            if time.perf_counter() > until:
                return False
        return True

    def _died(self, pending: _Pending) -> None:
        code = self.process.returncode
        how = f"signal: {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        error = {"errorType": "Runtime.ExitError", "errorMessage": f"Runtime exited with error: {how}"}
        pending.error = self._init_error or error
        pending.handed_at = pending.handed_at or time.perf_counter()
        pending.at = time.perf_counter()
        pending.over.set()

    def _fail(self, pending: _Pending, kind: str, message: str) -> None:
        self.process.kill()
        self.process.wait()
        self._died(pending)
        pending.error = {"errorType": kind, "errorMessage": message}

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._todo.put(None)
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def next_event(self) -> tuple[bytes, dict[str, str]] | None:
        """What /next answers; None once the environment ends."""
        self._is_ready.set()
        pending = self._todo.get()
        if pending is None:
            return None
        pending.cpu_before_s, pending.handed_at = _cpu_s(self.process.pid), time.perf_counter()
        pending.handed.set()
        return pending.body, {
            "Lambda-Runtime-Aws-Request-Id": pending.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + self._timeout_s) * 1_000)),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-west-1:123456789012:function:function",
            "Lambda-Runtime-Trace-Id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0",
        }

    def told(self, path: str, body: bytes) -> bool:
        """What the process posts: a response, an error, an error while it started."""
        pending = self._pending
        if path == _INIT_ERROR:
            self._init_error = json.loads(body)
            return True
        if pending is None or path not in {f"{_ANSWERS}{pending.request_id}/{kind}" for kind in ("response", "error")}:
            return False
        pending.cpu_s, pending.at = _cpu_s(self.process.pid), time.perf_counter()
        if path.endswith("/error"):
            pending.error = json.loads(body)
        else:
            pending.response = json.loads(body)
        pending.over.set()
        return True


def _handler_of(environment: _Environment) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm, wbufsize = True, -1  # else each answer waits 40 ms for an acknowledgement

        def do_GET(self) -> None:  # named by http.server
            found = environment.next_event() if self.path == _NEXT else None
            if found is None:
                self._send(404, b"", {})
            else:
                self._send(200, *found)

        def do_POST(self) -> None:  # named by http.server
            known = environment.told(self.path, read_body(self))
            self._send(202 if known else 404, b'{"status":"OK"}', {})

        def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {
                **headers,
                "content-type": "application/json",
                "content-length": str(len(body)),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # the process was killed
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Nothing."""

    return Handler


def _lambda_environ(handler: str, cwd: Path, python: str) -> dict[str, str]:
    """What Lambda sets, and what differs here: where the code is, and Python."""
    return {
        "_HANDLER": handler,
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_LAMBDA_FUNCTION_NAME": "function",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/function",
        "AWS_LAMBDA_LOG_STREAM_NAME": "2026/01/01/[$LATEST]0",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "LAMBDA_TASK_ROOT": str(cwd),
        "LANG": "en_US.UTF-8",
        "PATH": f"{Path(python).parent}:/usr/local/bin:/usr/bin:/bin",
        "TZ": ":UTC",
    }


def _cpu_s(pid: int) -> float:
    """By the clock that Linux has for each process (clock_getcpuclockid(3)); 0 where it is gone."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0
