"""One Trino for all tests here, over one Glue and S3, in which each file or test makes the tables anew."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from manymetrics_processor.lake.lake import Lake
from tests.glue_lake import glue_lake
from tests.strict_moto import strict_moto
from tests.trino_server import Trino, trino_server


@pytest.fixture(scope="session")
def trino(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trino]:
    with strict_moto() as aws, trino_server(aws, tmp_path_factory.mktemp("trino")) as running:
        yield running


@pytest.fixture
def lake(trino: Trino) -> Iterator[Lake]:
    """Empty tables."""
    with glue_lake(trino.aws) as made:
        yield made
