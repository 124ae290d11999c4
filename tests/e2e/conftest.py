"""One running server for all tests of a file."""

from collections.abc import Iterator

import pytest

from tests.live_server import LiveServer, live_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """`manymetrics serve` with the keys of the corpus and of the oracle; slow bodies are given up after 2 s."""
    with live_server(tmp_path_factory.mktemp("server") / "data", body_timeout_s="2") as running:
        yield running
