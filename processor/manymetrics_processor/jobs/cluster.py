"""The jobs' interface to Spark: map over items in parallel, and group results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from pyspark import SparkConf, SparkContext, StorageLevel

T = TypeVar("T")
R = TypeVar("R")


class Cluster:
    """Runs functions on the cluster. Functions and items are pickled; results return to this process."""

    def __init__(self, context: SparkContext) -> None:
        self._context = context

    @property
    def width(self) -> int:
        """Return how many items are processed in parallel at present."""
        return int(self._context.defaultParallelism)

    def map(self, function: Callable[[T], R], items: Iterable[T], /) -> list[R]:
        """Like the builtin, one task per item."""
        given = list(items)
        return self._context.parallelize(given, len(given)).map(function).collect() if given else []

    def gather(
        self,
        parts: Callable[[T], Iterable[tuple[int, Any]]],
        together: Callable[[int, list[Any]], R],
        items: Iterable[T],
        count: int,
    ) -> list[R]:
        """Group the results of ``parts`` by their number (below ``count``), in no particular order."""
        given = list(items)
        made = self._context.parallelize(given, len(given)).flatMap(parts) if given else self._context.emptyRDD()
        return _gathered(made, together, count)

    def keep(self, function: Callable[[T], Iterable[R]], items: Sequence[T]) -> Kept[R]:
        """Keep results on the cluster's disks; those of a lost worker are recomputed."""
        made = self._context.parallelize(items, max(1, len(items))).flatMap(function)
        return Kept(made.persist(StorageLevel.DISK_ONLY))

    def share(self, value: Any) -> Any:  # noqa: ANN401  # Spark's
        """Broadcast a value, sent to each worker only once: ``.value`` there, ``.destroy()`` here."""
        return self._context.broadcast(value)


class Kept(Generic[T]):
    """The result of ``Cluster.keep``."""

    def __init__(self, made: Any) -> None:  # noqa: ANN401  # an RDD
        self._made = made

    def map(self, function: Callable[[T], R]) -> list[R]:
        """Map over the kept results, in the order of their items."""
        found: list[R] = self._made.map(function).collect()
        return found

    def gather(
        self, parts: Callable[[T], Iterable[tuple[int, Any]]], together: Callable[[int, list[Any]], R], count: int
    ) -> list[R]:
        """Like ``Cluster.gather``."""
        return _gathered(self._made.flatMap(parts), together, count)

    def forget(self) -> None:
        """Free the disk space."""
        self._made.unpersist()


@contextmanager
def cluster(name: str) -> Iterator[Cluster]:
    """Return the cluster of ``spark-submit``, or this machine's cores."""
    # The size of results in this process is bounded by the size of a commit.
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
