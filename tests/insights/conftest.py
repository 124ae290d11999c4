from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from manymetrics_cli.main import main
from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.session import open_session
from tests.insights.lakes import Lake, Row, make_lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return make_lake(tmp_path / "data")


@pytest.fixture
def rows_of(lake: Lake) -> Callable[[str], list[Row]]:
    """Rows of a statement, as a list of dicts."""

    def ask(sql: str) -> list[Row]:
        connection = open_session(Folder(lake.data_dir)).connection
        connection.execute(sql)
        names = [column[0] for column in connection.description or ()]
        return [dict(zip(names, row, strict=True)) for row in connection.fetchall()]

    return ask


@pytest.fixture
def query(lake: Lake, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``manymetrics query`` over the lake: exit status, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["query", *arguments, "--data-dir", str(lake.data_dir)])
        return status, *capfd.readouterr()

    return run
