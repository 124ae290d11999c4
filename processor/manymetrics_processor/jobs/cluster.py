"""Spark as the jobs use it: work on many items at once, and things brought together that belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from pyspark import SparkConf, SparkContext, StorageLevel

T = TypeVar("T")
R = TypeVar("R")


class Cluster:
    """Functions and items are pickled; results come to this process."""

    def __init__(self, context: SparkContext) -> None:
        self._context = context

    @property
    def width(self) -> int:
        """How many items it works on at once, at present."""
        return int(self._context.defaultParallelism)

    def map(self, function: Callable[[T], R], items: Iterable[T], /) -> list[R]:
        """Like the builtin, a task an item."""
        given = list(items)
        return self._context.parallelize(given, len(given)).map(function).collect() if given else []

    def gather(
        self,
        parts: Callable[[T], Iterable[tuple[int, Any]]],
        together: Callable[[int, list[Any]], R],
        items: Iterable[T],
        count: int,
    ) -> list[R]:
        """Gather what ``parts`` makes of the items by its number (below ``count``), in no order."""
        given = list(items)
        made = self._context.parallelize(given, len(given)).flatMap(parts) if given else self._context.emptyRDD()
        return _gathered(made, together, count)

    def keep(self, function: Callable[[T], Iterable[R]], items: Sequence[T]) -> Kept[R]:
        """Results that stay on the cluster's disks; those of a worker that is lost are made again."""
        made = self._context.parallelize(items, max(1, len(items))).flatMap(function)
        return Kept(made.persist(StorageLevel.DISK_ONLY))

    def share(self, value: Any) -> Any:  # noqa: ANN401  # Spark's
        """A value that many tasks look at, sent to each worker but once: ``.value`` there, ``.destroy()`` here."""
        return self._context.broadcast(value)


class Kept(Generic[T]):
    """The result of ``Cluster.keep``."""

    def __init__(self, made: Any) -> None:  # noqa: ANN401  # an RDD
        self._made = made

    def map(self, function: Callable[[T], R]) -> list[R]:
        """In the order of the items that they were made of."""
        found: list[R] = self._made.map(function).collect()
        return found

    def gather(
        self, parts: Callable[[T], Iterable[tuple[int, Any]]], together: Callable[[int, list[Any]], R], count: int
    ) -> list[R]:
        """Like ``Cluster.gather``."""
        return _gathered(self._made.flatMap(parts), together, count)

    def forget(self) -> None:
        """Give the disks back."""
        self._made.unpersist()


@contextmanager
def cluster(name: str) -> Iterator[Cluster]:
    """The cluster that ``spark-submit`` gave this process, or this machine's cores."""
    # What comes to this process is bounded by how much is committed at once.
    conf = SparkConf().setAppName(name).set("spark.driver.maxResultSize", "0")
    context = SparkContext.getOrCreate(conf)
    context.setLogLevel("ERROR")
    try:
        yield Cluster(context)
    finally:
        context.stop()


def _gathered(made: Any, together: Callable[[int, list[Any]], R], count: int) -> list[R]:  # noqa: ANN401  # an RDD
    def of_partition(number: int, pairs: Iterator[tuple[int, Any]]) -> Iterator[R]:
        parts = [part for _, part in pairs]
        if parts:
            yield together(number, parts)

    found: list[R] = made.partitionBy(max(1, count), int).mapPartitionsWithIndex(of_partition).collect()
    return found
