"""Read the tables from a command: again if maintenance removed a file, until Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    import duckdb

    from manymetrics_insights.reader.session import Session

ATTEMPTS: Final = 3  # sessions opened for one answer, each on a newer snapshot

T = TypeVar("T")


def retry_on_newer(ask: Callable[[], T]) -> T:
    """Retry a read on a newer snapshot if maintenance deleted planned files."""
    for _ in range(ATTEMPTS - 1):
        with suppress(FileNotFoundError):
            return ask()
    return ask()


@contextmanager
def naming_failed_files(session: Session) -> Iterator[None]:
    """Raise what kept DuckDB from a file, in place of its own error."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise (session.failure() or error) from error


def run_interruptibly(connection: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    """Run work on a connection in a thread, since DuckDB ignores Ctrl-C while it executes."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)
        try:
            return running.result()
        except KeyboardInterrupt:
            connection.interrupt()
            raise
