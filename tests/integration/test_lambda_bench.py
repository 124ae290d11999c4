"""The bench of the Lambda function measures what was stored; it is run too seldom to find out otherwise."""

from pathlib import Path

import pytest

from tests.bench import lambda_api


def test_the_bench_of_lambda_compares_what_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, few in {"ROUNDS": 1, "STARTS": 1, "WARM_UP": 2, "INVOCATIONS": {1: 4, 20: 2, 100: 1}}.items():
        monkeypatch.setattr(lambda_api, name, few)

    part = lambda_api.measure(tmp_path)

    assert [bar.limit for bar in part.bars] == [2.5, 30, 80, 0.25]
    assert all(bar.value > 0 for bar in part.bars)
    assert all(figure > 0 for figure in part.figures.values())
