"""AWS Lambda's Runtime API (2018-06-01) on this machine: drives the real awslambdaric, which Lambda runs too.

    with RuntimeApi("manymetrics_api.lambda_handler.handler", {"MANYMETRICS_STREAM": "events"}, cwd=folder) as function:
        first = function.invoke(payload)  # starts a process, as a cold start does
        again = function.invoke(payload)  # the same process
        function.kill()                   # the next invocation starts another
        function.provision()              # or this does, as provisioned concurrency

The process's environment is Lambda's and what is given, nothing of ours. A process that ends, is killed or takes too
long is an error of its invocation, named as Lambda names it, and the next invocation starts another: so what redelivers
on errors, as an event source mapping does, needs to look at ``error`` alone.

Its life is as Lambda documents it (https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html): it
ends after INIT_S seconds if it has not asked for an event by then, and is started again within the invocation and its
timeout, as it is after each invocation that ended it. Only itself is killed, not what it started. Given a control
group, it is frozen, with all that it started, from the time when it asks for an event until there is one.
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
from tests.lambda_sandbox import ControlGroup
from tests.local_http import read_body

_NEXT, _INIT_ERROR = "/2018-06-01/runtime/invocation/next", "/2018-06-01/runtime/init/error"
_ANSWERS = "/2018-06-01/runtime/invocation/"  # <request id>/response and <request id>/error
_LOOK_S = 0.05  # how soon a process that ended is noticed
INIT_S = 10.0
PROVISIONING_S = 130.0  # an init of provisioned concurrency may take so long
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
    PYTHONPATH in ``environ``; ``prefix`` stands before the command (UNPRIVILEGED, ``as_lambda``). ``timeout_s`` is the
    function's own. ``group``: limits its CPU and memory, and freezes it. ``log`` is the file that its output goes to,
    else one that is gone with it. ``init_s``: seconds of the first init; ``killed_inits``: 1 if it took too long.
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
        group: ControlGroup | None = None,
        log: Path | None = None,
    ) -> None:
        self.timeout_s, self.init_s, self.killed_inits = timeout_s, 0.0, 0
        self._group, self._has_begun, self._freezing = group, False, threading.Lock()
        self._command = [*(group.prefix if group else ()), *prefix, python, "-m", "awslambdaric", handler]
        memory = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(group.limit_mb)} if group else {}
        self._environ = {**_lambda_environ(handler, cwd, python), **memory, **environ}
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
        environment, began_at = self._environment, time.perf_counter()
        cold = environment is None or not self.runs
        if environment is None or cold:
            environment = self._start_by_event()
        self._thaw()
        done = environment.invoke(event, self.timeout_s)
        if not environment.wait_until_ready(self.timeout_s):
            self._end()
        self._freeze()
        cpu_s = max(0.0, done.cpu_s - (0 if cold else done.cpu_before_s))
        wall_s = done.at - (began_at if cold else done.handed_at)
        return Invocation(done.response, done.error, cold, wall_s, cpu_s)

    def _start_by_event(self) -> _Environment:
        """Only the first init has a time of its own; each after it takes the function's."""
        environment, is_first, began_at = self._start(), not self._has_begun, time.perf_counter()
        self._has_begun = True
        if is_first and environment.wait_until_ready(INIT_S):
            self.init_s = time.perf_counter() - began_at
        elif is_first and environment.process.poll() is None:
            self.killed_inits += 1
            environment = self._start()
        return environment

    def provision(self) -> None:
        """Have a process that waits for its first event: an invocation of it is a warm one."""
        if not self.runs:
            assert self._start().wait_until_ready(PROVISIONING_S), self.log
            self._has_begun = True
            self._freeze()

    def _freeze(self) -> None:
        with self._freezing:
            if self._group is not None:
                self._group.freeze()

    def _thaw(self) -> None:
        if self._group is not None:
            self._group.thaw()

    def kill(self) -> None:
        """Kill -9 the process, as Lambda does where memory or time is over; from any thread, at any time."""
        environment = self._environment
        if environment is not None and environment.process.poll() is None:
            with self._freezing:  # what is frozen does not end
                self._thaw()
                environment.process.kill()
                environment.process.wait()

    def close(self) -> None:
        """Kill the process and close its log."""
        self._end()
        self._log.close()

    def _start(self) -> _Environment:
        self._end()
        self._thaw()
        self._environment = _Environment(self._command, self._environ, self._cwd, self._log.fileno())
        return self._environment

    def _end(self) -> None:
        environment, self._environment = self._environment, None
        if environment is not None:
            self._thaw()
            environment.end()


@dataclass(slots=True)
class _Pending:
    """An event on its way; what is learnt of it is filled in by the server's threads."""

    body: bytes
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    over: threading.Event = field(default_factory=threading.Event)
    until: float = 0.0  # by time.time
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
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**environ, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_port}"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def invoke(self, event: object, timeout_s: float) -> _Pending:
        """The timeout counts from now, also where the process has yet to ask for its first event."""
        pending = self._pending = _Pending(json.dumps(event).encode(), until=time.time() + timeout_s)
        self._todo.put(pending)
        if not self._wait(pending.over, pending, timeout_s):
            self._fail(pending, "Sandbox.Timedout", f"Task timed out after {timeout_s:.2f} seconds")
        return pending

    def wait_until_ready(self, timeout_s: float) -> bool:
        """Whether the process asks for an event, as it does once its code is loaded and after each answer."""
        until = time.perf_counter() + timeout_s
        while not self._is_ready.wait(_LOOK_S):
            if self.process.poll() is not None or time.perf_counter() > until:
                return False
        return True

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
        self._is_ready.clear()
        pending.cpu_before_s, pending.handed_at = _cpu_s(self.process.pid), time.perf_counter()
        return pending.body, {
            "Lambda-Runtime-Aws-Request-Id": pending.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int(pending.until * 1_000)),
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
