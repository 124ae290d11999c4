"""A way to AWS on which calls fail, and on which a test may act before a call is passed on and before it is answered.

A call is named as AWS names it (``UpdateTable``, ``PutRecords``); one of S3 by its method (``PUT``). What is passed on
can be looked at.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPMessage
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import urlsplit

from tests.kinesis_stub import THROTTLED
from tests.local_http import read_body, serving, url_of

Fault = Literal["reset", "lost", "cut", "error after", "unavailable", "throttled", "third", "refused"]
"""What becomes of a call.

reset        not done, and the connection is closed
lost         done, and the connection is closed without an answer
cut          done, and the connection is closed after half of the answer
error after  done, and answered 500
unavailable  not done, and answered 503
throttled    not done, and answered 400; of PutRecords: answered 200, and each record is throttled
refused      of PutRecords: answered 200, and each record is refused
third        of PutRecords: each third record of all calls is throttled, the others are done
"""
_REFUSALS: dict[Fault, str] = {"third": THROTTLED, "throttled": THROTTLED, "refused": "InternalFailure"}
_OF_A_CONNECTION = {"expect", "transfer-encoding", "content-length", "connection", "date", "server"}


class Passed(NamedTuple):
    """A request that was passed on, and the status of its answer. ``headers``: by their names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int


class Calls:
    """All calls of one name. Faultless until told otherwise: ``faults`` are used up, ``every`` is for all that follow.

    ``before`` and ``after`` are called with the number of each, counted from 1. ``answers`` has the path and the size
    of each in bytes. Calls of a path that ends in ``forbidden`` are answered 403.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.count = 0
        self.records = itertools.count()  # of PutRecords with the fault "third"
        self.faults: list[Fault | None] = []
        self.every: Fault | None = None
        self.answers: list[tuple[str, int]] = []
        self.forbidden: str | None = None
        self.before: Callable[[int], None] = _nothing
        self.after: Callable[[int], None] = _nothing

    def next(self) -> tuple[int, Fault | None]:
        self.count += 1
        return self.count, self.faults.pop(0) if self.faults else self.every


class FaultyAws:
    """``faulty["UpdateTable"]`` says what becomes of those calls. ``passed`` is told of each that is passed on."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.passed: Callable[[Passed], None] = _ignored
        self.lock = threading.Lock()
        self.connections = set[socket.socket]()
        self._calls = defaultdict[str, Calls](Calls)

    def __getitem__(self, name: str) -> Calls:
        return self._calls[name]

    def reset(self) -> None:
        for calls in self._calls.values():
            calls.reset()

    def drop_connections(self) -> int:
        """Close all of them, as AWS does with those that are idle. Returns how many there were."""
        with self.lock:
            dropped = list(self.connections)
        for connection in dropped:
            with contextlib.suppress(OSError):  # it was closed by itself
                connection.shutdown(socket.SHUT_RDWR)
        return len(dropped)


@contextmanager
def faulty_aws(aws_url: str) -> Iterator[FaultyAws]:
    with serving(_Handler) as server:
        server.faulty = faulty = FaultyAws(url_of(server))  # type: ignore[attr-defined]  # for the handler
        server.to = urlsplit(aws_url).netloc  # type: ignore[attr-defined]  # as above
        yield faulty


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm, wbufsize = True, -1  # else each answer waits 40 ms for an acknowledgement

    @property
    def _faulty(self) -> FaultyAws:
        return cast("FaultyAws", self.server.faulty)  # type: ignore[attr-defined]  # set where the server is made

    def handle(self) -> None:
        with self._faulty.lock:
            self._faulty.connections.add(self.connection)
        try:
            super().handle()
        finally:
            with self._faulty.lock:
                self._faulty.connections.discard(self.connection)

    def handle_expect_100(self) -> bool:
        asked = super().handle_expect_100()
        self.wfile.flush()  # Java waits for this before it sends a body
        return asked

    def _any(self) -> None:
        body = read_body(self)
        faulty = self._faulty
        name = self.headers.get("X-Amz-Target", self.command).rpartition(".")[2]
        with faulty.lock:
            calls = faulty[name]
            number, fault = calls.next()
        calls.before(number)
        if calls.forbidden is not None and self.path.endswith(calls.forbidden):
            self._answer(403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
        elif fault == "reset":
            self.close_connection = True
        elif fault == "unavailable":
            self._answer(503, b'{"__type":"ServiceUnavailableException"}')
        elif name == "PutRecords" and fault is not None and fault in _REFUSALS:
            self._refuse(body, calls, fault)
        elif fault == "throttled":
            self._answer(400, b'{"__type":"ThrottlingException","message":"Rate exceeded"}')
        else:
            status, headers, answer = self._forward(body)
            calls.answers.append((self.path, len(answer)))
            calls.after(number)
            if fault == "lost":
                self.close_connection = True
            elif fault == "error after":
                self._answer(500, b'{"__type":"InternalServiceException"}')
            else:
                self._answer(status, answer, headers, cut=len(answer) // 2 if fault == "cut" else 0)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _any  # noqa: N815  # named by http.server

    def _refuse(self, body: bytes, calls: Calls, fault: Fault) -> None:
        content: dict[str, Any] = json.loads(body)
        refused = [fault != "third" or next(calls.records) % 3 == 2 for _ in content["Records"]]
        taken = [record for record, is_refused in zip(content["Records"], refused, strict=True) if not is_refused]
        done: Iterator[object] = iter(())
        if taken:
            _, _, answer = self._forward(json.dumps({**content, "Records": taken}).encode())
            done = iter(json.loads(answer)["Records"])
        refusal = {"ErrorCode": _REFUSALS[fault], "ErrorMessage": "not now"}
        results = [refusal if is_refused else next(done) for is_refused in refused]
        self._answer(200, json.dumps({"FailedRecordCount": sum(refused), "Records": results}).encode())

    def _forward(self, body: bytes) -> tuple[int, HTTPMessage, bytes]:
        connection = HTTPConnection(self.server.to, timeout=30)  # type: ignore[attr-defined]  # as above
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OF_A_CONNECTION}
        try:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in self.headers.items()}
            self._faulty.passed(Passed(self.command, self.path, named, body, answer.status))
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, body: bytes, headers: HTTPMessage | None = None, *, cut: int = 0) -> None:
        """``cut``: how many bytes of the end don't arrive."""
        self.send_response(status)
        for name, value in headers.items() if headers else [("Content-Type", "application/x-amz-json-1.1")]:
            if name.lower() not in _OF_A_CONNECTION:
                self.send_header(name, value)
        length = headers.get("Content-Length") if headers and self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) - cut])
        self.close_connection = self.close_connection or cut > 0

    def log_message(self, *_arguments: object) -> None:
        return


def _nothing(_number: int) -> None:
    return


def _ignored(_passed: Passed) -> None:
    return
