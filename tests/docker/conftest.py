from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docker.engine import Buildah, need_tools


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """An engine that knows the base, for one file of tests; in the end nothing of it is left."""
    need_tools()
    engine = Buildah(tmp_path_factory.mktemp("images"))
    try:
        engine.make_base()
        yield engine
    finally:
        engine.close()
