"""Commit through pyiceberg without rebasing: a lost race fails instead.

pyiceberg rebases a losing append onto the new head, which stored 400 rows of 200 events in a race; so retries are off
on every handle of Lake.load. A lost race raises ConflictError, a lost response CommitStateUnknownError: the caller
reloads the table to find out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table import Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update.snapshot import ExpireSnapshots
from sqlalchemy.exc import OperationalError

from manymetrics_processor.errors import CommitStateUnknownError, ConflictError


def append(
    iceberg: IcebergTable, files: Sequence[DataFile], summary: Mapping[str, str], properties: Mapping[str, str]
) -> int:
    """Add data files (or none) and set table properties, in one snapshot. Returns its id.

    Raises CommitNotConfirmedError.
    """
    with conflicts(), _Transaction(iceberg) as transaction:
        with transaction.update_snapshot(snapshot_properties=dict(summary)).merge_append() as append:
            for file in files:
                append.append_data_file(file)
        transaction.set_properties(dict(properties))
    return append.snapshot_id


def rehearse(iceberg: IcebergTable, files: Sequence[DataFile]) -> None:
    """Run an append without the commit: raises errors of the files' statistics or manifests, and leaves no files."""
    append = _Transaction(iceberg).update_snapshot().merge_append()
    try:
        with append:
            for file in files:
                append.append_data_file(file)
    finally:
        append._clean_all_uncommitted()  # noqa: SLF001  # there is no public API to abort an append


def replace_files(
    iceberg: IcebergTable, gone: Sequence[DataFile], new: Sequence[DataFile], summary: Mapping[str, str]
) -> None:
    """Replace data files in one snapshot. Raises CommitNotConfirmedError."""
    with (
        conflicts(),
        _Transaction(iceberg) as transaction,
        transaction.update_snapshot(snapshot_properties=dict(summary)).overwrite() as overwrite,
    ):
        for file in gone:
            overwrite.delete_data_file(file)
        for file in new:
            overwrite.append_data_file(file)


def expire(iceberg: IcebergTable, snapshot_ids: Sequence[int]) -> None:
    """Expire snapshots. Raises CommitNotConfirmedError."""
    with conflicts():
        ExpireSnapshots(_Transaction(iceberg, autocommit=True)).by_ids(list(snapshot_ids)).commit()


class conflicts:  # noqa: N801  # used like a statement
    """Convert pyiceberg's and SQLAlchemy's commit errors to those of ``errors``."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, CommitFailedException):
            raise ConflictError(str(error)) from error
        if isinstance(error, CommitStateUnknownException | OperationalError):
            raise CommitStateUnknownError(str(error)) from error


class _Transaction(Transaction):
    """Caches the metadata, which pyiceberg copies at each of fifteen accesses: half the CPU of a commit."""

    _built: tuple[object, TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        """Return the metadata after the updates so far; before the first, the table's own, never changed in place."""
        if not self._updates:
            return self._table.metadata
        if self._built is None or self._built[0] is not self._updates:
            self._built = self._updates, super().table_metadata
        return self._built[1]
