"""The bench compares servers that do take its requests; it is run too seldom to find out otherwise."""

from pathlib import Path

import httpx
import pytest

from tests.bench.apps import APPS
from tests.bench.payloads import event_bytes, http_request
from tests.bench.report import Bar


@pytest.mark.anyio
@pytest.mark.parametrize("size", [1, 20])
@pytest.mark.parametrize("name", sorted(APPS.keys() - {"durable"}))  # what differs in `durable` is its own test's
async def test_each_server_of_the_bench_answers_as_the_product(name: str, size: int, tmp_path: Path) -> None:
    head, _, body = http_request(0, size).partition(b"\r\n\r\n")
    request_line, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)

    transport = httpx.ASGITransport(APPS[name](tmp_path))
    async with httpx.AsyncClient(transport=transport, base_url="http://bench") as client:
        answer = await client.post(request_line.split()[1], content=body, headers=headers)

    assert (answer.status_code, answer.json()) == (200, {"success": True})


def test_the_events_of_the_bench_are_the_same_in_each_run_and_about_a_kilobyte() -> None:
    assert http_request(7, 20) == http_request(7, 20)
    assert 900 < len(event_bytes(7)) < 1_300
    assert event_bytes(7) != event_bytes(1_007)


@pytest.mark.parametrize(("value", "passed"), [(1.25, True), (1.26, False)])
def test_a_bar_is_met_up_to_its_limit(value: float, passed: bool) -> None:
    assert Bar("x", value, 1.25).passed is passed
    assert Bar("x", -value, -1.25, "at least").passed is passed
