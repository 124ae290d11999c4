"""The Iceberg tables and the commit protocol.

A commit must refuse to be rebased: pyiceberg silently moves a losing append onto the new head and commits it, which
stored 400 rows of 200 events in a race. So retries are off on every handle, and the caller reloads, looks at the
watermark again and decides anew (``commit``). Every commit makes a snapshot, even one without rows, since only the
snapshot makes two commits conflict.

Files that were staged for a commit that failed are never deleted here: the failure may be a lost answer, and the
commit may have landed. ``maintain`` removes them once they are old.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, NamespaceAlreadyExistsError, TableAlreadyExistsError
from pyiceberg.manifest import DataFile, ManifestEntryStatus
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import StaticTable, Transaction
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.sorting import NullOrder, SortField, SortOrder
from pyiceberg.table.update.snapshot import ExpireSnapshots
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import IcebergType, IntegerType, LongType, NestedField, StringType, TimestampType
from sqlalchemy.exc import OperationalError

from manymetrics.tables import NAMESPACE, TABLES, Column, Table
from manymetrics_processor.ledger import StreamBooks, books_of, encode, property_name

MAX_ATTEMPTS = 12
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.02, 1.0
OPERATION = "manymetrics.operation"  # in a snapshot's summary: ingest | compact | erase

_ICEBERG_TYPES: dict[str, IcebergType] = {
    "string": StringType(),
    "timestamp": TimestampType(),
    "int": IntegerType(),
    "long": LongType(),
}


class ConflictError(Exception):
    """Somebody else committed first, or the answer was lost: look at the table again."""


class CommitContentionError(Exception):
    """A commit lost every race. The batch is untouched: deliver it again."""


class ForeignTableError(Exception):
    """Where a table should be made, there are the files of another. The message says the cure."""


class Plan(NamedTuple):
    """What to commit: staged files (none is fine) and the books after it."""

    files: Sequence[DataFile]
    books: StreamBooks


def local_catalog(data_dir: Path) -> Catalog:
    """The catalogue of one machine: SQLite, with the tables in a folder beside it."""
    from pyiceberg.catalog.sql import SqlCatalog

    data_dir.mkdir(parents=True, exist_ok=True)
    home = data_dir.resolve()
    return SqlCatalog(
        "manymetrics", uri=f"sqlite:///{quote(str(home))}/catalog.db", warehouse=f"file://{home}/warehouse"
    )


class Lake:
    """The tables of one catalogue."""

    def __init__(self, catalog: Catalog, sleep: Callable[[float], None] = time.sleep) -> None:
        self._catalog = catalog
        self._sleep = sleep

    def ensure_tables(self) -> None:
        """Create what isn't there, and add columns that a newer version brought. Safe in a race."""
        with contextlib.suppress(NamespaceAlreadyExistsError):
            self._catalog.create_namespace(NAMESPACE)
        for table in TABLES:
            if not self._catalog.table_exists((NAMESPACE, table.name)):
                self._create(table)
            self._add_missing_columns(table)

    def load(self, table: Table) -> IcebergTable:
        """A fresh handle, on which commits are never rebased."""
        iceberg = self._catalog.load_table((NAMESPACE, table.name))
        iceberg.metadata.properties["commit.retry.num-retries"] = "0"  # this handle only: foreign writers keep theirs
        return iceberg

    def commit(
        self, table: Table, stream: str, plan: Callable[[IcebergTable, StreamBooks], Plan | None]
    ) -> tuple[StreamBooks, int | None]:
        """Commit what ``plan`` makes of the table's present state; it is asked again after each lost race.

        Returns the stream's books and the new snapshot's id (None where there was nothing to commit).
        Raises CommitContentionError.
        """
        for attempt in range(MAX_ATTEMPTS):
            iceberg = self.load(table)
            books = current_books(iceberg, stream)
            planned = plan(iceberg, books)
            if planned is None:
                return books, None
            try:
                return planned.books, self._append(iceberg, planned)
            except ConflictError:
                self._sleep(random.uniform(0, min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt)))  # noqa: S311  # jitter
        raise CommitContentionError(f"{table.name}: lost {MAX_ATTEMPTS} races")

    def replace_files(
        self, iceberg: IcebergTable, gone: Sequence[DataFile], new: Sequence[DataFile], operation: str
    ) -> None:
        """Swap data files in one snapshot. Raises ConflictError, also where one of ``gone`` is no longer live."""
        live = {file.file_path for file in live_files(iceberg)}
        if any(file.file_path not in live for file in gone):
            raise ConflictError("a file was replaced by somebody else")
        summary = {OPERATION: operation}
        with (
            _conflicts(),
            _Transaction(iceberg) as transaction,
            transaction.update_snapshot(snapshot_properties=summary).overwrite() as overwrite,
        ):
            for file in gone:
                overwrite.delete_data_file(file)
            for file in new:
                overwrite.append_data_file(file)

    def expire(self, iceberg: IcebergTable, snapshot_ids: Sequence[int]) -> bool:
        """Forget snapshots. False where somebody else committed meanwhile: it can be tried again at any time."""
        try:
            with _conflicts():
                ExpireSnapshots(_Transaction(iceberg, autocommit=True)).by_ids(list(snapshot_ids)).commit()
        except ConflictError:
            return False
        return True

    def _append(self, iceberg: IcebergTable, planned: Plan) -> int:
        key, value = property_name(planned.books.stream), encode(planned.books)
        summary = {OPERATION: "ingest", key: value}
        with _conflicts(), _Transaction(iceberg) as transaction:
            with transaction.update_snapshot(snapshot_properties=summary).merge_append() as append:
                for file in planned.files:
                    append.append_data_file(file)
            transaction.set_properties({key: value})
        return append.snapshot_id

    def _create(self, table: Table) -> None:
        known = _newest_metadata(self._catalog, table)
        try:
            if known is not None:  # the catalogue is new, the table isn't: an empty one here would end its files
                self._catalog.register_table((NAMESPACE, table.name), known)
                return
            self._catalog.create_table(
                (NAMESPACE, table.name),
                schema=iceberg_schema(table),
                partition_spec=_partition_spec(table),
                sort_order=_sort_order(table),
                properties=_properties(table),
            )
        except TableAlreadyExistsError:
            return

    def _add_missing_columns(self, table: Table) -> None:
        for _ in range(MAX_ATTEMPTS):
            iceberg = self.load(table)
            names = {field.name for field in iceberg.schema().fields}
            missing = [column for column in table.columns if column.name not in names]
            if not missing:
                return
            with contextlib.suppress(ConflictError), _conflicts(), iceberg.update_schema() as update:
                for column in missing:
                    update.add_column(column.name, _ICEBERG_TYPES[column.type], column.doc)
        raise CommitContentionError(f"{table.name}: lost {MAX_ATTEMPTS} races to add a column")


class _Transaction(Transaction):
    """As pyiceberg's, which builds the table's metadata anew at each of fifteen looks: half the CPU of a commit."""

    _built: tuple[object, TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        """The metadata after the updates so far."""
        if self._built is None or self._built[0] is not self._updates:
            self._built = self._updates, super().table_metadata
        return self._built[1]


class _conflicts:  # noqa: N801  # reads as the statement it is
    """Turn what says "not committed, or who knows" into ConflictError; the caller's reload tells which."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, CommitFailedException | OperationalError):
            raise ConflictError(str(error)) from error


def _newest_metadata(catalog: Catalog, table: Table) -> str | None:
    """The newest metadata in the folder where a local catalogue makes the table; None where there is none."""
    warehouse = catalog.properties.get("warehouse", "")
    if not warehouse.startswith("file://"):
        return None
    home = f"{warehouse}/{NAMESPACE}/{table.name}"
    files = Path(home.removeprefix("file://"), "metadata").glob("*.metadata.json")
    newest = max(files, key=lambda path: (int(path.name.partition("-")[0]), path.stat().st_mtime_ns), default=None)
    if newest is None:
        return None
    location = f"file://{newest}"
    if StaticTable.from_metadata(location).location() != home:
        raise ForeignTableError(f"{home} holds a table that was copied there: remove it, or put its catalogue back")
    return location


def current_books(iceberg: IcebergTable, stream: str) -> StreamBooks:
    """The stream's books: the table property, or the newest snapshot that holds them, whichever is further.

    The property survives expiry and foreign writers; the summary survives somebody who unsets the property.
    """
    books = books_of(stream, iceberg.metadata.properties)
    key = property_name(stream)
    for snapshot in ancestors(iceberg):
        summary = snapshot.summary.additional_properties if snapshot.summary else {}
        if key in summary:
            return max(books, books_of(stream, summary), key=lambda known: known.received)
    return books


def ancestors(iceberg: IcebergTable) -> Iterator[Snapshot]:
    """The current snapshot and those before it, newest first, as far as they are kept."""
    snapshot = iceberg.current_snapshot()
    while snapshot is not None:
        yield snapshot
        parent = snapshot.parent_snapshot_id
        snapshot = iceberg.metadata.snapshot_by_id(parent) if parent is not None else None


def live_files(iceberg: IcebergTable) -> Iterator[DataFile]:
    """The data files of the current snapshot."""
    snapshot = iceberg.current_snapshot()
    for manifest in snapshot.manifests(iceberg.io) if snapshot else ():
        for entry in manifest.fetch_manifest_entry(iceberg.io, discard_deleted=True):
            yield entry.data_file


def added_files(iceberg: IcebergTable, snapshot: Snapshot) -> Iterator[DataFile]:
    """The data files that one snapshot added."""
    for manifest in snapshot.manifests(iceberg.io):
        if manifest.added_snapshot_id == snapshot.snapshot_id:
            for entry in manifest.fetch_manifest_entry(iceberg.io, discard_deleted=True):
                if entry.status == ManifestEntryStatus.ADDED and entry.snapshot_id == snapshot.snapshot_id:
                    yield entry.data_file


def iceberg_schema(table: Table) -> Schema:
    """The table's columns as Iceberg's schema; field ids as tables.py says."""
    return Schema(*(_field(number, column) for number, column in enumerate(table.columns, 1)))


def _field(field_id: int, column: Column) -> NestedField:
    return NestedField(field_id, column.name, _ICEBERG_TYPES[column.type], required=column.required, doc=column.doc)


def _partition_spec(table: Table) -> PartitionSpec:
    source = table.column_names.index(table.partition_day_of) + 1
    return PartitionSpec(PartitionField(source, 1000, DayTransform(), f"{table.partition_day_of}_day"))


def _sort_order(table: Table) -> SortOrder:
    at = [table.column_names.index(name) + 1 for name in table.sort]
    return SortOrder(*(SortField(i, IdentityTransform(), null_order=NullOrder.NULLS_FIRST) for i in at))


def _properties(table: Table) -> dict[str, str]:
    metered = (*table.sort, *(column.name for column in table.columns if column.type == "timestamp"))
    return {
        "format-version": "2",  # pyiceberg can't write v3, Athena can't read it
        "comment": table.doc,
        "write.parquet.compression-codec": "zstd",
        "write.parquet.row-group-limit": "50000",
        # A table without maintenance takes 475 ms a commit after 500 snapshots; with it, as long as at first.
        "commit.manifest-merge.enabled": "true",
        "commit.manifest.min-count-to-merge": "20",
        "write.metadata.delete-after-commit.enabled": "true",
        "write.metadata.previous-versions-max": "5",
        "write.metadata.metrics.default": "none",
        **{f"write.metadata.metrics.column.{name}": "truncate(16)" for name in metered},
    }
