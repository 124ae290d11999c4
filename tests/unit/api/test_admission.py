"""What all requests together may hold: bytes of bodies, and turns of large ones."""

import asyncio
import gzip
import resource
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest

from manymetrics.events import ClientGoneError
from manymetrics.refusals import CLIENT_GONE
from manymetrics_api import admission, intake
from manymetrics_api.admission import SMALL_BODY_BYTES, WORKERS, BodyBytes, LargeBodies, OverloadedError
from manymetrics_api.collect import MAX_STORING_BYTES
from manymetrics_api.http_protocol import max_connections
from manymetrics_api.intake import Draft, accept, find_key_in_header
from manymetrics_api.keys import KeyTable
from tests.in_process import EVENT, KEYS, Api, basic
from tests.unit.api.test_routes import error_of

LARGE = b'{"batch":[%s],"pad":"%s"}' % (EVENT, b" " * (SMALL_BODY_BYTES + 1))
Message = MutableMapping[str, Any]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(within())


async def settle() -> None:
    """Let all tasks go on that can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Sent:
    """A request whose body comes part by part, as the test hands them over."""

    def __init__(self, api: Api, *, address: str = "203.0.113.7", path: str = "/v1/batch", **headers: str) -> None:
        self._parts: asyncio.Queue[Message] = asyncio.Queue()
        self.answer: list[Message] = []
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in (headers or basic("wk_shop:")).items()],
            "client": (address, 1),
        }
        self.task = asyncio.create_task(api.app(scope, self._parts.get, self._send))

    async def _send(self, message: Message) -> None:
        self.answer.append(message)

    def part(self, body: bytes, *, more: bool = True) -> None:
        self._parts.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def go_away(self) -> None:
        self._parts.put_nowait({"type": "http.disconnect"})

    @property
    def status(self) -> int | None:
        return self.answer[0]["status"] if self.answer else None

    def header(self, name: bytes) -> bytes | None:
        return dict(self.answer[0]["headers"]).get(name)


@pytest.fixture
def hot() -> Api:
    return Api(hot=True)


def test_unfinished_bodies_are_bounded_and_who_sends_most_is_asked_to_come_again(hot: Api) -> None:
    hot.app.collector.bodies = bodies = BodyBytes(most_large=2_000_000)

    async def flood() -> None:
        real = Sent(hot, address="198.51.100.1")
        real.part(LARGE[:-10])
        await settle()
        many = [Sent(hot) for _ in range(20)]
        for sent in many:
            sent.part(b" " * 400_000)
            await settle()
            assert bodies.held <= 2_000_000
        assert [sent.status for sent in many].count(503) == 16
        refused = next(sent for sent in many if sent.status)
        assert refused.header(b"retry-after") == b"1"
        assert refused.header(b"connection") == b"close"

        before = [sent.status for sent in many].count(503)
        real.part(b" " * 400_000)  # for which there is room once one of the many is refused
        await settle()
        assert [sent.status for sent in many].count(503) == before + 1
        real.part(LARGE[-10:], more=False)
        await real.task
        assert real.status == 200
        for sent in many:
            sent.go_away()
        await asyncio.gather(*(sent.task for sent in many))
        assert bodies.held == 0

    run(flood)
    assert hot.stored() == [EVENT]


def test_bodies_that_wait_for_a_turn_come_again_for_another_sender(hot: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    hot.app.collector.bodies = bodies = BodyBytes(most_large=2_000_000)
    gate, read = threading.Event(), intake.accept

    def slowly(draft: Draft, **more: Any) -> Any:  # noqa: ANN401  # as accept
        gate.wait(10)
        return read(draft, **more)

    monkeypatch.setattr(intake, "accept", slowly)

    async def flood() -> None:
        many = [Sent(hot) for _ in range(7)]  # two have a thread, and five wait
        for sent in many:
            sent.part(LARGE, more=False)
            await settle()
        other = Sent(hot, address="198.51.100.1", **basic("wk_blog:"))
        other.part(LARGE + b" " * 300_000, more=False)
        await settle()
        assert [sent.status for sent in (*many, other)] == [None] * 5 + [503] * 2 + [None]
        assert many[-1].header(b"retry-after") == b"1"
        assert bodies.held <= 2_000_000
        gate.set()
        await asyncio.gather(*(sent.task for sent in (*many, other)))
        assert [sent.status for sent in (*many, other)] == [200] * 5 + [503] * 2 + [200]
        assert bodies.held == 0
        assert hot.app.collector._large is not None
        assert counts(hot.app.collector._large) == (0, 0, 0)

    run(flood)


def test_small_bodies_have_bytes_of_their_own(hot: Api) -> None:
    hot.app.collector.bodies = bodies = BodyBytes(most_small=1_000_000, most_large=1_000_000)

    async def flood() -> None:
        large = [Sent(hot) for _ in range(3)]
        for sent in large:
            sent.part(b" " * 500_000)
        await settle()
        assert [sent.status for sent in large] == [None, None, 503]
        small = Sent(hot)
        small.part(b'{"batch":[%s]' % EVENT)
        small.part(b"}", more=False)
        await small.task
        assert small.status == 200
        many = [Sent(hot) for _ in range(12)]
        for sent in many:
            sent.part(b" " * 100_000)
        await settle()
        assert [sent.status for sent in many].count(503) == 2
        for sent in (*large, *many):
            sent.go_away()
        await asyncio.gather(*(sent.task for sent in (*large, *many)))
        assert bodies.held == 0

    run(flood)


def test_a_reader_that_is_cancelled_by_the_server_is_not_answered(hot: Api) -> None:
    async def cancel() -> None:
        sent = Sent(hot)
        sent.part(b" " * 1_000)
        await settle()
        sent.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sent.task
        assert sent.answer == []
        assert hot.app.collector.bodies.held == 0

    run(cancel)


class Gate:
    """Turns that don't end until the test says so."""

    def __init__(self, most_at_once: int = 4, most_waiting: int = 64) -> None:
        self.bodies = LargeBodies(most_at_once, most_waiting)
        self.ran: list[str] = []
        self.open = threading.Event()

    def send(self, name: str, owner: str, client: intake.Client | None = None) -> asyncio.Task[None]:
        return asyncio.create_task(self._turn(name, owner, client))

    async def _turn(self, name: str, owner: str, client: intake.Client | None) -> None:
        async with self.bodies.turn(owner, client) as turn:
            await turn.run(lambda: self._work(name))

    def _work(self, name: str) -> None:
        self.open.wait(10)
        self.ran.append(name)


def counts(bodies: LargeBodies) -> tuple[int, int, int]:
    """With a thread, with a turn, and waiting for one."""
    return bodies._working, bodies._held, bodies._waiting


class Waiting:
    disconnected = False


def test_large_bodies_take_turns_by_owner() -> None:
    gate = Gate(most_at_once=1)

    async def flood() -> None:
        tasks = [gate.send(f"flood {number}", "flood") for number in range(6)]
        await settle()
        tasks += [gate.send("a", "a"), gate.send("b", "b"), gate.send("a again", "a")]
        await settle()
        gate.open.set()
        await asyncio.gather(*tasks)

    run(flood)
    assert gate.ran[:6] == ["flood 0", "flood 1", "a", "b", "flood 2", "a again"]
    assert gate.ran[6:] == ["flood 3", "flood 4", "flood 5"]


def test_so_many_wait_and_of_more_the_newest_of_who_has_most_comes_again() -> None:
    gate = Gate(most_at_once=1, most_waiting=3)

    async def flood() -> None:
        flood = [gate.send(f"flood {number}", "flood") for number in range(4)]
        await settle()
        other = gate.send("other", "other")
        await settle()
        gate.open.set()
        results = await asyncio.gather(*flood, other, return_exceptions=True)
        assert [type(result) for result in results] == [type(None)] * 3 + [OverloadedError, type(None)]

    run(flood)
    assert gate.ran == ["flood 0", "flood 1", "other", "flood 2"]


def test_who_waits_too_long_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_WAIT_S", 0.01)
    gate = Gate(most_at_once=1)

    async def flood() -> None:
        first = gate.send("first", "a")
        await settle()
        late = gate.send("late", "b")
        with pytest.raises(OverloadedError):
            await late
        gate.open.set()
        await first
        await gate.send("next", "b")

    run(flood)
    assert gate.ran == ["first", "next"]


def test_what_waits_for_a_client_that_is_gone_is_dropped() -> None:
    gate, gone, stays = Gate(most_at_once=1), Waiting(), Waiting()

    async def flood() -> None:
        first = gate.send("first", "a")
        await settle()
        tasks = [gate.send("gone", "a", gone), gate.send("cancelled", "a"), gate.send("stays", "a", stays)]
        await settle()
        gone.disconnected = True
        tasks[1].cancel()
        await settle()
        gate.open.set()
        results = await asyncio.gather(first, *tasks, return_exceptions=True)
        assert isinstance(results[1], ClientGoneError)
        assert isinstance(results[2], asyncio.CancelledError)

    run(flood)
    assert gate.ran == ["first", "stays"]
    assert counts(gate.bodies) == (0, 0, 0)


@pytest.mark.parametrize("is_granted_first", [True, False], ids=["granted, then cancelled", "cancelled, then granted"])
def test_a_turn_that_is_granted_and_cancelled_at_once_is_given_back(*, is_granted_first: bool) -> None:
    bodies = LargeBodies(most_at_once=1)

    async def flood() -> None:
        leave = asyncio.Event()

        async def hold() -> None:
            async with bodies.turn("a", None):
                await leave.wait()

        first = asyncio.create_task(hold())
        await settle()
        waiting = asyncio.create_task(hold())
        await settle()
        assert counts(bodies) == (1, 1, 1)
        leave.set()
        if is_granted_first:
            await asyncio.sleep(0)  # the first ends in this step, and the other has not gone on yet
            assert counts(bodies) == (1, 1, 0)
        waiting.cancel()
        await asyncio.gather(first, waiting, return_exceptions=True)
        assert waiting.cancelled()

    run(flood)
    assert counts(bodies) == (0, 0, 0)


def test_a_turn_ends_when_its_events_are_stored_and_its_thread_before_that() -> None:
    async def hold() -> None:
        bodies, entered = LargeBodies(most_at_once=WORKERS + 1), asyncio.Semaphore(0)
        leave = asyncio.Event()

        async def one() -> None:
            async with bodies.turn("a", None) as turn:
                await turn.run(lambda: None)
                entered.release()
                await leave.wait()

        tasks = [asyncio.create_task(one()) for _ in range(WORKERS + 3)]
        for _ in range(WORKERS + 1):
            await entered.acquire()
        await settle()
        assert entered.locked()
        leave.set()
        await asyncio.gather(*tasks)

    run(hold)


def test_a_flood_of_large_bodies_is_no_matter_for_small_ones_nor_for_another_key(
    hot: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, order, read = threading.Event(), [], intake.accept

    def slowly(draft: Draft, **more: Any) -> Any:  # noqa: ANN401  # as accept
        if draft.in_thread:
            gate.wait(10)
            order.append(draft.key.project if draft.key else None)
        return read(draft, **more)

    monkeypatch.setattr(intake, "accept", slowly)

    async def flood() -> None:
        many = [Sent(hot) for _ in range(WORKERS + 5)]
        for sent in many:
            sent.part(LARGE, more=False)
        await settle()
        small = Sent(hot)
        small.part(b'{"batch":[%s]}' % EVENT, more=False)
        await small.task
        assert small.status == 200
        other = Sent(hot, **basic("wk_blog:"))
        other.part(LARGE, more=False)
        many[-1].go_away()
        await settle()
        gate.set()
        await asyncio.gather(other.task, *(sent.task for sent in many))
        assert other.status == 200
        assert [sent.status for sent in many] == [200] * (WORKERS + 4) + [408]

    run(flood)
    assert order.index("blog") <= WORKERS + 1
    assert len(order) == WORKERS + 5


def test_a_client_that_goes_while_its_body_is_read_costs_no_further_step(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Waiting()

    def inflate(_body: bytes, _most: int) -> bytes:
        client.disconnected = True
        return b"{}"

    monkeypatch.setattr(intake, "_inflate", inflate)
    monkeypatch.setattr(intake, "split_batch", pytest.fail)
    headers = {name.encode(): value.encode() for name, value in basic("wk_shop:").items()}
    draft = Draft(gzip.compress(b"{}"), headers, KeyTable(KEYS), True, None, None, in_thread=True, client=client)  # noqa: FBT003  # as intake makes it

    assert find_key_in_header(draft) is None
    assert accept(draft, received_at=0, request_id="r", ip=None) is CLIENT_GONE


def test_small_bodies_that_wait_to_be_stored_are_bounded(hot: Api) -> None:
    hot.app.collector._storing = MAX_STORING_BYTES - 10

    assert error_of(hot.post("/v1/track")) == (503, "overloaded")
    hot.app.collector._storing = 0
    assert hot.post("/v1/track").status == 200
    assert hot.app.collector._storing == 0


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "most"),
    [
        (1_024, 1_024, None, 768),
        (1_024, 4_096, 4_096, 3_840),
        (1_024, resource.RLIM_INFINITY, 65_536, 65_280),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, 65_280),
        (256, 256, None, 128),
    ],
)
def test_connections_are_limited_by_file_descriptors_whose_limit_is_raised(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int | None, most: int
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _which, limits: asked.append(limits))

    assert max_connections.__wrapped__() == most
    assert asked == ([(raised, hard)] if raised else [])
