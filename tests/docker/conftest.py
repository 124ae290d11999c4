from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docker.engine import Buildah, need_engine


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """An engine for one file of tests; in the end nothing of it is left."""
    need_engine()
    engine = Buildah(tmp_path_factory.mktemp("images"))
    try:
        yield engine
    finally:
        engine.close()
