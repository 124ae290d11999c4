"""Answer questions in a process of its own, with lower priority, so that ingestion does not wait.

    Insights.submit (the server) --pipe--> run_worker (the process) --threads--> Snapshot --> answer as JSON

Each question runs on a cursor of its own, so that one can be cancelled without the others. If the process dies, the
questions it had fail, and the next one starts it again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final

from manymetrics_insights.reader.complete_through import StreamState

log = logging.getLogger("manymetrics.insights")
AT_ONCE: Final = 4  # questions that run at the same time; further ones wait
TIME_LIMIT_S: Final = 60.0
NICENESS: Final = 10
ATTEMPTS: Final = 3  # sessions opened for one question, each on a newer snapshot
ReadStream = Callable[[Any], StreamState | None]


class InsightFailedError(Exception):
    """The question is valid, but was not answered. The message names the cure and shows no SQL."""


class RefusedQuestionError(Exception):
    """The question is not valid. ``errors``: path and message of each error."""

    def __init__(self, errors: list[tuple[list[str | int], str]]) -> None:
        super().__init__("; ".join(message for _, message in errors))
        self.errors = errors


@dataclass(slots=True)
class Insights:
    """The server's end. ``source`` and ``read_stream`` go to the process, so they must be picklable."""

    source: Any
    read_stream: ReadStream
    _process: BaseProcess | None = None
    _pipe: Connection | None = None
    _waiting: dict[int, Future[bytes]] = field(default_factory=dict)
    _numbers: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def submit(self, question: object) -> tuple[int, Future[bytes]]:
        """Ask a question, as JSON has it. Returns its number and the answer's JSON.

        The future raises RefusedQuestionError or InsightFailedError.
        """
        future: Future[bytes] = Future()
        with self._lock:
            pipe = self._running()
            self._numbers += 1
            number = self._numbers
            self._waiting[number] = future
            try:
                pipe.send((number, "ask", question))
            except (OSError, ValueError):
                self._waiting.pop(number)
                future.set_exception(InsightFailedError("the insights process ended: ask again"))
        return number, future

    def cancel(self, number: int) -> None:
        """Stop a question that nobody waits for any more."""
        with self._lock:
            future = self._waiting.pop(number, None)
            if future is not None and self._pipe is not None:
                future.cancel()
                with contextlib.suppress(OSError):
                    self._pipe.send((number, "cancel", None))

    def close(self) -> None:
        """End the process."""
        with self._lock:
            process, pipe = self._process, self._pipe
            self._process = self._pipe = None
        if pipe is not None:
            pipe.close()
        if process is not None:
            process.terminate()
            process.join(5)

    def _running(self) -> Connection:
        """Return the pipe to the process; start it if it isn't running."""
        if self._process is None or self._pipe is None or not self._process.is_alive():
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            process = context.Process(
                target=run_worker, args=(theirs, self.source, self.read_stream), name="insights", daemon=True
            )
            process.start()
            theirs.close()
            self._process, self._pipe = process, ours
            threading.Thread(target=self._receive, args=(ours,), name="insights", daemon=True).start()
        return self._pipe

    def _receive(self, pipe: Connection) -> None:
        while True:
            try:
                number, kind, content = pipe.recv()
            except (EOFError, OSError):
                break
            with self._lock:
                future = self._waiting.pop(number, None)
            if future is None or not future.set_running_or_notify_cancel():
                continue
            if kind == "answer":
                future.set_result(content)
            elif kind == "refused":
                future.set_exception(RefusedQuestionError(content))
            else:
                future.set_exception(InsightFailedError(content))
        with self._lock:
            if self._pipe is not pipe:
                return
            self._process = self._pipe = None
            lost, self._waiting = list(self._waiting.values()), {}
        for future in lost:
            future.set_exception(InsightFailedError("the insights process ended: ask again"))


def run_worker(pipe: Connection, source: Any, read_stream: ReadStream) -> None:  # noqa: ANN401  # a Source
    """Answer until the server's end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends it
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    worker = _Worker(pipe, source, read_stream)
    with contextlib.suppress(EOFError, OSError):
        while True:
            number, kind, question = pipe.recv()
            if kind == "ask":
                worker.begin(number, question)
            else:
                worker.cancel(number)
    os._exit(0)  # a question may still run, and nobody waits for it


class _Worker:
    def __init__(self, pipe: Connection, source: Any, read_stream: ReadStream) -> None:  # noqa: ANN401  # a Source
        self._pipe = pipe
        self._source = source
        self._read_stream = read_stream
        self._threads = ThreadPoolExecutor(AT_ONCE, "question")
        self._cursors: dict[int, Any] = {}
        self._begun: dict[int, Future[None]] = {}
        self._cancelled: set[int] = set()
        self._snapshot: Any = None
        self._definitions: Any = None
        self._opening = threading.Lock()
        self._sending = threading.Lock()

    def begin(self, number: int, question: object) -> None:
        self._begun[number] = self._threads.submit(self._answer, number, question)

    def cancel(self, number: int) -> None:
        begun = self._begun.get(number)
        if begun is not None and begun.cancel():  # was still waiting
            self._begun.pop(number, None)
            return
        self._cancelled.add(number)
        cursor = self._cursors.get(number)
        if cursor is not None:
            cursor.interrupt()

    def _answer(self, number: int, question: object) -> None:
        from manymetrics_insights.questions.models import QuestionError

        try:
            content: Any = self._asked(number, question)
            kind = "answer"
        except QuestionError as error:
            kind, content = "refused", error.errors
        except Exception as error:  # noqa: BLE001  # of one question, told to whoever asked
            kind, content = "failed", self._failure(number, error)
        self._begun.pop(number, None)
        self._cursors.pop(number, None)
        self._cancelled.discard(number)
        with self._sending, contextlib.suppress(OSError):
            self._pipe.send((number, kind, content))

    def _asked(self, number: int, question: object) -> bytes:
        import duckdb

        from manymetrics_insights.asking.ask import now_utc
        from manymetrics_insights.definitions.inline import inline
        from manymetrics_insights.questions.models import parse_question

        parsed = inline(parse_question(question), self._known())
        for attempts_left in reversed(range(ATTEMPTS)):
            now = now_utc()
            snapshot = self._current()
            cursor = snapshot.session.connection.cursor()
            self._cursors[number] = cursor
            limit = threading.Timer(TIME_LIMIT_S, self._time_out, [number])
            limit.daemon = True
            limit.start()
            try:
                return bytes(snapshot.answer(parsed, now, cursor).to_json())
            except duckdb.Error as error:
                failure = snapshot.session.failure()
                if isinstance(failure, FileNotFoundError) and attempts_left:
                    self._forget(snapshot)
                    continue
                raise failure or error from error
            finally:
                limit.cancel()
                cursor.close()
        raise AssertionError("unreachable")

    def _known(self) -> Any:  # noqa: ANN401  # Definitions
        from manymetrics_insights.definitions.watched import WatchedDefinitions

        with self._opening:
            if self._definitions is None:
                self._definitions = WatchedDefinitions(os.environ)
        return self._definitions.current()

    def _time_out(self, number: int) -> None:
        cursor = self._cursors.get(number)
        if cursor is not None:
            cursor.interrupt()

    def _current(self) -> Any:  # noqa: ANN401  # a Snapshot
        """Return the newest snapshot; whoever still asks the former one keeps it alive."""
        from manymetrics_insights.asking.snapshot import open_snapshot

        with self._opening:
            if self._snapshot is None or not self._snapshot.is_current():
                self._snapshot = open_snapshot(self._source, self._read_stream)
            return self._snapshot

    def _forget(self, snapshot: object) -> None:
        with self._opening:
            if self._snapshot is snapshot:
                self._snapshot = None

    def _failure(self, number: int, error: Exception) -> str:
        import duckdb

        from manymetrics_insights.definitions.read import DefinitionsError
        from manymetrics_insights.reader.iceberg import LakeError

        if isinstance(error, DefinitionsError):
            return f"the definitions are wrong, see `manymetrics definitions check`: {str(error).splitlines()[0]}"
        if isinstance(error, duckdb.InterruptException):
            if number in self._cancelled:
                return "cancelled"
            return f"took longer than {TIME_LIMIT_S:.0f} s: ask about a shorter range, or fewer segments"
        if isinstance(error, duckdb.OutOfMemoryException):
            return "there is not enough memory for this question: ask about a shorter range, or fewer segments"
        if isinstance(error, LakeError | FileNotFoundError):
            return str(error)
        log.error(json.dumps({"event": "insight_failed", "error": type(error).__name__}))
        return "internal error; see the server's log"
