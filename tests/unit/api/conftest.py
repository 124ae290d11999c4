"""The API in process: no network, nothing on the disk."""

from collections.abc import Iterator

import pytest

from manymetrics_api.sinks import SinkResult
from tests.in_process import Api


@pytest.fixture(scope="session")
def _shared_api() -> Api:
    return Api()


@pytest.fixture
def api(_shared_api: Api) -> Iterator[Api]:
    """An API with the keys of the corpus and nothing stored. One for all tests, since making one takes 0.1 s."""
    _shared_api.sink.records.clear()
    yield _shared_api
    _shared_api.sink.result = SinkResult.STORED
