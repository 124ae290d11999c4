"""What a request may cost: CPU by counted byte, relative to a normal batch, before and after its key is known."""

from collections.abc import Iterator

import pytest

from tests.bench.amplification_http import Api, Input, inputs, search

INPUTS = list(inputs(300_000))
TRIES = 10  # a busy machine only adds to the CPU that is measured, so one within the limit tells


def least_ratio(bench: Api, sent: Input) -> float:
    least = float("inf")
    for _ in range(TRIES):
        least = min(least, bench.ratio(sent))
        if least <= sent.limit:
            break
    return least


@pytest.fixture(scope="module")
def bench() -> Iterator[Api]:
    api = Api()
    yield api
    api.close()


@pytest.mark.parametrize("sent", INPUTS, ids=[sent.name for sent in INPUTS])
def test_no_input_costs_many_times_a_normal_batch(bench: Api, sent: Input) -> None:
    assert least_ratio(bench, sent) <= sent.limit


def test_a_search_for_dear_bodies_finds_none(bench: Api) -> None:
    over: list[str] = []

    def note(sent: Input, ratio: float) -> None:
        if ratio > sent.limit and (least := least_ratio(bench, sent)) > sent.limit:
            over.append(f"{least:.1f} times: {sent.name}")

    search(bench, 150, 100_000, note)

    assert over == []
