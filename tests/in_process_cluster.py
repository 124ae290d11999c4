"""A cluster of one process, for tests of what the jobs do; that they do it on a real one is for tests/spark."""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from manymetrics_processor.jobs.cluster import Cluster, Kept


class InProcessCluster(Cluster):
    """Items and results are pickled, as on the way to a worker."""

    width = 2

    def __init__(self) -> None:
        pass

    def map(self, function: Callable[[Any], Any], items: Iterable[Any], /) -> list[Any]:
        return [_travelled(function(_travelled(item))) for item in items]

    def gather(
        self,
        parts: Callable[[Any], Iterable[tuple[int, Any]]],
        together: Callable[[int, list[Any]], Any],
        items: Iterable[Any],
        count: int,
    ) -> list[Any]:
        return KeptInProcess([_travelled(item) for item in items]).gather(parts, together, count)

    def keep(self, function: Callable[[Any], Iterable[Any]], items: Sequence[Any]) -> Kept[Any]:
        return KeptInProcess([_travelled(made) for item in items for made in function(_travelled(item))])

    def share(self, value: Any) -> Any:  # noqa: ANN401  # as the real one
        return SimpleNamespace(value=_travelled(value), destroy=lambda: None)


class KeptInProcess(Kept[Any]):
    def __init__(self, made: list[Any]) -> None:
        self._made = made

    def map(self, function: Callable[[Any], Any]) -> list[Any]:
        return [_travelled(function(one)) for one in self._made]

    def gather(
        self,
        parts: Callable[[Any], Iterable[tuple[int, Any]]],
        together: Callable[[int, list[Any]], Any],
        count: int,
    ) -> list[Any]:
        gathered: dict[int, list[Any]] = defaultdict(list)
        for one in self._made:
            for number, part in parts(one):
                assert 0 <= number < count
                gathered[number].append(_travelled(part))
        return [_travelled(together(number, some)) for number, some in gathered.items()]

    def forget(self) -> None:
        self._made = []


def _travelled(value: Any) -> Any:  # noqa: ANN401  # whatever is sent
    return pickle.loads(pickle.dumps(value))  # noqa: S301  # our own
