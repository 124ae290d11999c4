"""Decode micro-batches ahead in worker processes: under backlog, decoding is most of the work.

Workers are started when there is a backlog and stopped after a while without one, so an idle server pays nothing. A
worker exits when this process is gone, for whatever reason, since its pipe closes.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import pickle
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

import pyarrow as pa

from manymetrics_processor.decode.batch import Batch, StreamRecord, decode
from manymetrics_processor.errors import RetryableError

WORKERS = 2
_IDLE_S = 5.0


class DecodeError(RetryableError):
    """A worker exited before its result; decode the batch again."""


class Decoders:
    """A pool that decodes batches and returns them in the same order."""

    def __init__(self, workers: int = WORKERS, clock: Callable[[], float] = time.monotonic) -> None:
        self._count, self._clock = workers, clock
        self._pipes: list[Connection] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._busy: deque[Connection] = deque()
        self._starting: set[Connection] = set()
        self._used_at = 0.0

    @property
    def waiting(self) -> int:
        """Return how many batches are being decoded."""
        return len(self._busy)

    @property
    def has_room(self) -> bool:
        """Return whether a worker is free. One batch each: if both ends were sending, they would deadlock."""
        return len(self._busy) < self._count

    @property
    def are_ready(self) -> bool:
        """Return whether a worker can begin at once. Starts workers if there are none, which takes a second or more."""
        if not self._pipes:
            self._start()
        self._used_at = self._clock()
        try:
            for pipe in [one for one in self._starting if one.poll()]:
                self._hear_start(pipe)
        except DecodeError:
            return False
        return not self._starting

    def put(self, records: Sequence[StreamRecord], stream: str) -> None:
        """Start decoding another batch. Raises DecodeError, like take."""
        if not self._pipes:
            self._start()
        pipe = next(pipe for pipe in self._pipes if pipe not in self._busy)
        try:
            pipe.send((list(records), stream))
        except OSError as error:
            self.close()
            raise DecodeError("a decoder exited while idle") from error
        self._busy.append(pipe)
        self._used_at = self._clock()

    def take(self) -> Batch:
        """Return the oldest batch. Raises DecodeError; then all pending batches are dropped."""
        pipe = self._busy.popleft()
        try:
            if pipe in self._starting:
                self._hear_start(pipe)
            answer = _receive(pipe)
        except (EOFError, OSError) as error:
            self.close()
            raise DecodeError("a decoder exited early") from error
        if isinstance(answer, Batch):
            return answer
        self.close()
        raise DecodeError(str(answer))

    def close_if_idle(self) -> None:
        """Stop the workers after a while without work."""
        if self._pipes and not self._busy and self._clock() - self._used_at > _IDLE_S:
            self.close()

    def close(self) -> None:
        """Stop the workers, and drop their batches."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=2)
            process.kill()
        self._pipes, self._processes = [], []
        self._starting.clear()
        self._busy.clear()

    def _hear_start(self, pipe: Connection) -> None:
        try:
            pipe.recv()
        except (EOFError, OSError) as error:
            self.close()
            raise DecodeError("a decoder exited during its start") from error
        self._starting.discard(pipe)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # this process has threads: a fork would copy their locks
        for number in range(self._count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs,), name=f"decoder-{number}", daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._starting.add(ours)
            self._processes.append(process)


def _send(pipe: Connection, answer: Batch | str) -> None:
    """Send an object, with Arrow's buffers out of band: pickled in band, they would be held twice."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(answer, protocol=5, buffer_callback=buffers.append)
    pipe.send((len(buffers), head))
    for buffer in buffers:
        pipe.send_bytes(buffer.raw())


def _receive(pipe: Connection) -> Batch | str:
    count, head = pipe.recv()
    answer: Batch | str = pickle.loads(head, buffers=[pipe.recv_bytes() for _ in range(count)])  # noqa: S301  # from a child process
    return answer


def _work(pipe: Connection) -> None:
    gc.freeze()
    gc.disable()  # a batch has no garbage and no cycles
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        pipe.send(None)  # ready
        while True:
            records, stream = pipe.recv()
            try:
                answer: Batch | str = decode(records, stream)
            except Exception as error:  # noqa: BLE001  # reported to the parent, which decides
                answer = f"{type(error).__name__} while decoding"
            _send(pipe, answer)
            del records, answer
            pa.default_memory_pool().release_unused()  # the next batch may be much smaller, and others need the memory
