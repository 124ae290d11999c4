"""Limit the memory and work of all requests together: bytes of bodies, and parsing of large ones.

    BodyBytes   bytes of bodies, from arrival to response, separately for small and large bodies
    LargeBodies turns for parsing large bodies in a few threads, fair by owner

The owner of bytes is an IP address, since no key is known yet; of turns, the write key in Basic, else an IP address.
Past a limit, one request gets 503 with Retry-After: one of the owner who holds or waits for the most.
Not for use across event loops.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

from manymetrics.events import ClientGoneError
from manymetrics_api.intake import Client

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

SMALL_BODY_BYTES = 256_000  # bodies up to this size, inflated, are parsed on the event loop
MAX_SMALL_BODIES_BYTES = 32_000_000  # on the wire, of all requests whose body is small so far
MAX_LARGE_BODIES_BYTES = 64_000_000  # on the wire, of all others
MAX_LARGE_AT_ONCE = 4  # large bodies (at most 20 MB inflated), from parsing until their events are stored
WORKERS = 2  # threads that parse large bodies
MAX_WAITING = 64  # large bodies that wait for a thread
MAX_WAIT_S = 10.0  # per waiting body

Owner = str | None
T = TypeVar("T")


class OverloadedError(Exception):
    """The request should be retried later."""


class Body:
    """The bytes of one request's body so far."""

    __slots__ = ("_bytes", "_refused", "owner", "size", "task")

    def __init__(self, pool: BodyBytes, owner: Owner) -> None:
        self._bytes, self.owner = pool, owner
        self.size = 0
        self._refused = False
        self.task: asyncio.Task[object] | None = None  # set while it can be refused

    def add(self, size: int) -> None:
        """Add bytes. Raises OverloadedError if this request is the one to refuse."""
        self._bytes.add(self, size)

    @contextmanager
    def refusable(self) -> Iterator[None]:
        """While open, the request may be refused in favour of another's, which raises OverloadedError inside."""
        task = self.task = asyncio.current_task()
        try:
            yield
        except asyncio.CancelledError:
            if not self._refused or task is None or task.uncancel():
                raise
            raise OverloadedError from None
        finally:
            self.task = None

    def refuse(self) -> bool:
        """Refuse the request; returns whether that was possible."""
        if self.task is None:
            return False
        self._refused = True
        self.task.cancel()
        self.task = None
        return True


class BodyBytes:
    """The bytes of bodies over all connections."""

    def __init__(self, most_small: int = MAX_SMALL_BODIES_BYTES, most_large: int = MAX_LARGE_BODIES_BYTES) -> None:
        self._most = {False: most_small, True: most_large}
        self._held = {False: 0, True: 0}
        self._by_owner: dict[bool, Counter[Owner]] = {False: Counter(), True: Counter()}
        self._bodies: dict[Body, None] = {}  # in order of arrival

    @property
    def held(self) -> int:
        """The total bytes held."""
        return sum(self._held.values())

    @contextmanager
    def body(self, owner: Owner) -> Iterator[Body]:
        """Track a body until its request is answered."""
        body = Body(self, owner)
        self._bodies[body] = None
        try:
            yield body
        finally:
            del self._bodies[body]
            self._count(body, -body.size)

    def add(self, body: Body, size: int) -> None:
        """Like ``Body.add``."""
        self._count(body, size)
        while self._held[is_large := body.size > SMALL_BODY_BYTES] > self._most[is_large]:
            refused = self._newest_of_the_largest(body, is_large=is_large)
            if refused is body or not refused.refuse():
                raise OverloadedError
            self._count(refused, -refused.size)

    def _newest_of_the_largest(self, body: Body, *, is_large: bool) -> Body:
        owners = self._by_owner[is_large]
        largest = max(owners, key=owners.__getitem__)
        if owners[body.owner] == owners[largest]:
            return body
        others = (other for other in reversed(self._bodies) if other.owner == largest and other.task is not None)
        return next((other for other in others if (other.size > SMALL_BODY_BYTES) is is_large), body)

    def _count(self, body: Body, size: int) -> None:
        """Count a body's bytes, moving them from the small to the large ones once it is large."""
        was_large = body.size > SMALL_BODY_BYTES
        self._add(body, was_large, -body.size)
        body.size += size
        self._add(body, body.size > SMALL_BODY_BYTES, body.size)

    def _add(self, body: Body, is_large: bool, size: int) -> None:  # noqa: FBT001  # selects the counter
        self._held[is_large] += size
        by_owner = self._by_owner[is_large]
        by_owner[body.owner] += size
        if not by_owner[body.owner]:
            del by_owner[body.owner]


class LargeBodies:
    """Turns for large bodies, round-robin by owner."""

    def __init__(self, most_at_once: int = MAX_LARGE_AT_ONCE, most_waiting: int = MAX_WAITING) -> None:
        self._most_at_once, self._most_waiting = most_at_once, most_waiting
        self._threads: ThreadPoolExecutor | None = None
        self._working = self._held = self._waiting = 0
        self._queues: OrderedDict[Owner, deque[_Ticket]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, owner: Owner, client: Client | None, body: Body | None = None) -> AsyncIterator[Turn]:
        """Wait for a turn, which lasts until the parsed events are stored. ``body``: may be refused while waiting.

        Raises OverloadedError; and ClientGoneError if the client has disconnected.
        """
        with body.refusable() if body is not None else nullcontext():
            await self._wait(owner, client)
        turn = Turn(self)
        try:
            yield turn
        finally:
            turn.leave_thread()
            self._held -= 1
            self._grant()

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run work in the turn's thread."""
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor

            self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="large-body")
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def leave_thread(self) -> None:
        """Let the next one have the thread."""
        self._working -= 1
        self._grant()

    async def _wait(self, owner: Owner, client: Client | None) -> None:
        if not self._waiting and self._has_room():
            self._take()
            return
        ticket = _Ticket(asyncio.get_running_loop().create_future(), client)
        self._queues.setdefault(owner, deque()).append(ticket)
        self._waiting += 1
        if self._waiting > self._most_waiting:
            self._refuse_one()
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                await ticket.turn
        except BaseException as error:
            self._forget(owner, ticket)
            if isinstance(error, TimeoutError):
                raise OverloadedError from None
            raise

    def _refuse_one(self) -> None:
        """Refuse the newest waiting body of the owner with the most."""
        self._queues[max(reversed(self._queues), key=lambda owner: len(self._queues[owner]))][-1].refuse()

    def _forget(self, owner: Owner, ticket: _Ticket) -> None:
        queue = self._queues.get(owner)
        if ticket.is_granted:  # granted, but timed out or cancelled before it began
            self._working -= 1
            self._held -= 1
            self._grant()
        elif queue is not None and ticket in queue:  # refused, timed out or cancelled
            queue.remove(ticket)
            self._waiting -= 1
            if not queue:
                del self._queues[owner]

    def _has_room(self) -> bool:
        return self._working < WORKERS and self._held < self._most_at_once

    def _take(self) -> None:
        self._working += 1
        self._held += 1

    def _grant(self) -> None:
        while self._queues and self._has_room():
            owner, queue = self._queues.popitem(last=False)
            ticket = queue.popleft()
            self._waiting -= 1
            if queue:
                self._queues[owner] = queue  # the last in the next round
            if ticket.turn.done():
                continue
            if ticket.client is not None and ticket.client.disconnected:
                ticket.turn.set_exception(ClientGoneError())
                continue
            self._take()
            ticket.is_granted = True
            ticket.turn.set_result(None)


class Turn:
    """A large body's turn: a thread for parsing, and memory for the result until it is stored."""

    def __init__(self, bodies: LargeBodies) -> None:
        self._bodies = bodies
        self._has_thread = True

    async def run(self, work: Callable[[], T]) -> T:
        """Run the work in the thread, once. Raises what the work raises."""
        try:
            return await self._bodies.in_thread(work)
        finally:
            self.leave_thread()

    def leave_thread(self) -> None:
        """Let the next one have the thread."""
        if self._has_thread:
            self._has_thread = False
            self._bodies.leave_thread()


class _Ticket:
    """A waiting body."""

    __slots__ = ("client", "is_granted", "turn")

    def __init__(self, turn: asyncio.Future[None], client: Client | None) -> None:
        self.turn, self.client = turn, client
        self.is_granted = False

    def refuse(self) -> None:
        if not self.turn.done():
            self.turn.set_exception(OverloadedError())
