"""What a request may cost: CPU by counted byte, relative to a normal batch, before and after its key is known."""

from collections.abc import Iterator

import pytest

from tests.bench.amplification_http import Api, Input, inputs, search

INPUTS = list(inputs(300_000))


@pytest.fixture(scope="module")
def bench() -> Iterator[Api]:
    api = Api()
    yield api
    api.close()


@pytest.mark.parametrize("sent", INPUTS, ids=[sent.name for sent in INPUTS])
def test_no_input_costs_many_times_a_normal_batch(bench: Api, sent: Input) -> None:
    ratio = min(bench.ratio(sent) for _ in range(3))

    assert ratio <= sent.limit


def test_a_search_for_dear_bodies_finds_none(bench: Api) -> None:
    over: list[str] = []

    def note(sent: Input, ratio: float) -> None:
        if ratio > sent.limit and bench.ratio(sent) > sent.limit:  # the least of more runs
            over.append(f"{ratio:.1f} times: {sent.name}")

    search(bench, 150, 100_000, note)

    assert over == []
