"""Commits through pyiceberg that are refused rather than rebased.

pyiceberg moves a losing append onto the new head and commits it, which stored 400 rows of 200 events in a race; so
retries are off on every handle that Lake.load gives. A lost race raises ConflictError, an answer that was lost
CommitStateUnknownError: the caller loads the table again, which tells.
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
    """Add data files, none is fine, and set table properties, in one snapshot. Returns its id.

    Raises CommitNotConfirmedError.
    """
    with conflicts(), _Transaction(iceberg) as transaction:
        with transaction.update_snapshot(snapshot_properties=dict(summary)).merge_append() as append:
            for file in files:
                append.append_data_file(file)
        transaction.set_properties(dict(properties))
    return append.snapshot_id


def rehearse(iceberg: IcebergTable, files: Sequence[DataFile]) -> None:
    """All of an append but its commit: raises what the files' statistics or manifests raise, and leaves nothing."""
    append = _Transaction(iceberg).update_snapshot().merge_append()
    try:
        with append:
            for file in files:
                append.append_data_file(file)
    finally:
        append._clean_all_uncommitted()  # noqa: SLF001  # there is no public way to give an append up


def replace_files(
    iceberg: IcebergTable, gone: Sequence[DataFile], new: Sequence[DataFile], summary: Mapping[str, str]
) -> None:
    """Swap data files in one snapshot. Raises CommitNotConfirmedError."""
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
    """Forget snapshots. Raises CommitNotConfirmedError."""
    with conflicts():
        ExpireSnapshots(_Transaction(iceberg, autocommit=True)).by_ids(list(snapshot_ids)).commit()


class conflicts:  # noqa: N801  # reads as the statement it is
    """Turn pyiceberg's and SQLAlchemy's errors of a commit into those of ``errors``."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, CommitFailedException):
            raise ConflictError(str(error)) from error
        if isinstance(error, CommitStateUnknownException | OperationalError):
            raise CommitStateUnknownError(str(error)) from error


class _Transaction(Transaction):
    """Like pyiceberg's, which copies the table's metadata at each of fifteen looks: half the CPU of a commit."""

    _built: tuple[object, TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        """The metadata after the updates so far; before the first, the table's own, which nobody changes in place."""
        if not self._updates:
            return self._table.metadata
        if self._built is None or self._built[0] is not self._updates:
            self._built = self._updates, super().table_metadata
        return self._built[1]
