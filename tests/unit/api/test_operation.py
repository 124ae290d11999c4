"""Health, readiness, metrics, and what is answered when something of ours fails."""

from collections.abc import Sequence

import pytest

from manymetrics.settings import Settings
from manymetrics_api.app import create_app
from manymetrics_api.keys import KeyTable
from manymetrics_api.metrics import Books
from manymetrics_api.sinks import MemorySink, SinkResult
from tests.in_process import EVENT, SHOP, Api, ask, basic, make_app
from tests.unit.api.test_routes import error_of

PIXEL = "/pixel/v1/track?writeKey=wk_shop&userId=u&event=A"


@pytest.mark.parametrize(
    ("result", "error"),
    [(SinkResult.UNAVAILABLE, (503, "stream_unavailable")), (SinkResult.THROTTLED, (429, "throttled"))],
)
def test_nothing_is_acknowledged_that_is_not_stored(api: Api, result: SinkResult, error: tuple[int, str]) -> None:
    api.sink.result = result

    replies = [api.post("/v1/track"), api.post("/v1/batch", b'{"batch":[%s]}' % EVENT), api.ask("GET", PIXEL)]

    assert [error_of(reply) for reply in replies] == [error] * 3
    assert [reply.headers["retry-after"] for reply in replies] == ["1"] * 3
    assert api.stored() == []


def test_a_batch_is_not_acknowledged_when_one_of_its_records_is_not_stored() -> None:
    class HalfSink(MemorySink):
        async def put(self, records: Sequence[bytes]) -> list[SinkResult]:
            return [SinkResult.STORED] * (len(records) - 1) + [SinkResult.UNAVAILABLE]

    event = b'{"type":"track","userId":"u","event":"A","properties":"%s"}' % (b"x" * 400_000)
    body = b'{"batch":[%s]}' % b",".join([event] * 4)

    reply = ask(make_app(HalfSink()), "POST", "/v1/batch", basic("wk_shop:"), body)

    assert error_of(reply) == (503, "stream_unavailable")


def test_a_fault_of_ours_is_a_503_that_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class BrokenSink(MemorySink):
        async def put(self, records: Sequence[bytes]) -> list[SinkResult]:
            raise RuntimeError(f"a secret in {len(records)} records")

    app = make_app(BrokenSink())

    hot = ask(app, "POST", "/v1/track", basic("wk_shop:"), EVENT)

    assert error_of(hot) == (503, "internal")
    assert b"secret" not in hot.body
    assert [record.getMessage() for record in caplog.records] == ["a request failed"]


def test_health_says_that_it_is_alive_and_readiness_whether_it_can_store(api: Api) -> None:
    healthy, ready = api.ask("GET", "/healthz"), api.ask("GET", "/readyz")
    api.sink.result = SinkResult.UNAVAILABLE

    assert (healthy.json(), ready.json()) == ({"status": "ok"}, {"status": "ok"})
    assert api.ask("GET", "/healthz").status == 200
    assert error_of(api.ask("GET", "/readyz")) == (503, "stream_unavailable")


@pytest.mark.parametrize("client", ["127.0.0.1", "::1"])
def test_metrics_answer_loopback(api: Api, client: str) -> None:
    reply = api.ask("GET", "/metrics", {"host": "127.0.0.1:8000"}, client=client)

    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain; version=")
    assert b'manymetrics_requests_total{outcome="ok"}' in reply.body


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        ("203.0.113.7", {}),
        ("203.0.113.7", basic("wk_shop:")),
        ("127.0.0.1", {"x-forwarded-for": "127.0.0.1"}),
        ("127.0.0.1", {"forwarded": "for=127.0.0.1"}),
        ("127.0.0.2", {}),
        ("127.0.0.1", {"host": "rebound.example"}),
    ],
)
def test_metrics_answer_nobody_else(api: Api, client: str, headers: dict[str, str]) -> None:
    reply = api.ask("GET", "/metrics", {"host": "127.0.0.1:8000"} | headers, client=client)

    assert error_of(reply) == (403, "metrics_refused")


def test_with_a_token_metrics_answer_its_bearer_alone() -> None:
    api = Api(settings=Settings(metrics_token="t-1"))

    statuses = [
        api.ask("GET", "/metrics", headers, client=client).status
        for client in ("127.0.0.1", "203.0.113.7")
        for headers in (
            {"authorization": "Bearer t-1"},
            {"authorization": "Bearer t-2"},
            {"authorization": "Bearer \xe9"},
            {},
        )
    ]

    assert statuses == [200, 403, 403, 403] * 2


def test_metrics_tell_the_committed_books() -> None:
    books = Books(received=10, outcomes={"stored": 7, "duplicate": 1, "dead_lettered:too_deep": 2}, pending_records=3)
    app = create_app(settings=Settings(), keys=KeyTable([SHOP]), sink=MemorySink(), read_books=lambda: books)

    lines = ask(app, "GET", "/metrics", {"host": "localhost"}, client="::1").body.decode().splitlines()

    assert [line for line in lines if line.startswith(("manymetrics_events", "manymetrics_stream"))] == [
        "manymetrics_events_received_total 10.0",
        'manymetrics_events_total{outcome="stored",reason=""} 7.0',
        'manymetrics_events_total{outcome="duplicate",reason=""} 1.0',
        'manymetrics_events_total{outcome="dead_lettered",reason="too_deep"} 2.0',
        "manymetrics_stream_pending_records 3.0",
        "manymetrics_stream_lag_seconds 0.0",
    ]
