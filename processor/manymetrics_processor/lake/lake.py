"""The Iceberg tables and the commit protocol: load, check the watermark, plan, commit; retry after a lost race.

Every commit makes a snapshot, even one without rows, since only snapshots make two commits conflict: PyIceberg's own
retries stored 400 rows of 200 events in a race (2026-11-25). Writing and committing files is up to the engine:
``pyiceberg_commits`` with Arrow, or Iceberg's Java library in Spark's JVM.

Files staged for a failed commit are never deleted here: the failure may be a lost response to a commit that landed.
``maintain`` removes them when they are old, behind a fence: a snapshot without files, which makes every commit in
progress conflict, and a property that makes it stage its files again.

A table that goes back to an older state is rejected: ``load`` raises RolledBackError.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NamespaceAlreadyExistsError, TableAlreadyExistsError, ValidationError
from pyiceberg.io import FileIO, load_file_io
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntryStatus, ManifestFile
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import StaticTable
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.sorting import NullOrder, SortField, SortOrder
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import IcebergType, IntegerType, LongType, NestedField, StringType, TimestampType

from manymetrics.books import StreamBooks, encode, parse_books, property_name, read_books
from manymetrics.tables import NAMESPACE, TABLES, Column, Table
from manymetrics_processor.decode.batch import Rows
from manymetrics_processor.errors import CommitNotConfirmedError, ConflictError, RetryableError, StoredDataError
from manymetrics_processor.lake import pyiceberg_commits
from manymetrics_processor.lake.arrow_engine import ArrowEngine
from manymetrics_processor.lake.object_storage import list_files
from manymetrics_processor.lake.pyiceberg_commits import conflicts
from manymetrics_processor.lake.rollback import metadata_number

MAX_ATTEMPTS = 12
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.02, 1.0
OPERATION = "manymetrics.operation"  # in a snapshot's summary: ingest | compact | erase | fence
FENCE = "manymetrics.fence"  # a table property: files staged under an earlier fence may have been removed

_ICEBERG_TYPES: dict[str, IcebergType] = {
    "string": StringType(),
    "timestamp": TimestampType(),
    "int": IntegerType(),
    "long": LongType(),
}


class CommitContentionError(RetryableError):
    """A commit lost every race. Nothing was committed: retry the batch."""


class ForeignTableError(RetryableError):
    """A new table's location holds files of another table. The message names the fix."""


class RolledBackError(RetryableError):
    """The catalog shows an older state of a table than was seen before. The message names the fix."""


class Version(NamedTuple):
    """The state of a table in a catalog. ``number`` rises with each commit; -1 if unknown."""

    table_uuid: str
    number: int
    location: str

    @classmethod
    def read(cls, iceberg: IcebergTable) -> Version:
        """Return the version of a loaded table."""
        location = iceberg.metadata_location
        return cls(str(iceberg.metadata.table_uuid), metadata_number(location), location)


@contextlib.contextmanager
def reading_stored(what: str) -> Iterator[None]:
    """Turn errors in reading metadata, manifests or files, which new events can't cause, into StoredDataError."""
    try:
        yield
    except (RetryableError, OSError):
        raise
    except Exception as error:
        raise StoredDataError(f"{what}: its content can't be read ({type(error).__name__}: {error})") from error


def rolled_back(name: str, location: str, seen: str) -> RolledBackError:
    """Make the error for a table that was rolled back."""
    return RolledBackError(
        f"the catalog is older than its tables: {name} is at {location}, and was at {seen}. Restore the newer "
        "catalog, or on one machine stop the server and run `manymetrics recover`"
    )


def read_metadata(io: FileIO, location: str) -> StaticTable | None:
    """Read a state of a table from its metadata file; None if that is missing or damaged."""
    try:
        return StaticTable.from_metadata(location, io.properties)
    except (OSError, ValueError, ValidationError):
        return None


class Plan(NamedTuple):
    """A planned commit: the files staged by the engine, if any, and the books after it."""

    files: Sequence[Any]
    books: StreamBooks


class Engine(Protocol):
    """Turns rows into files, and files into commits. What it stages is opaque to callers."""

    def is_alive(self) -> bool:
        """Return whether the engine can be used for a retry; True also before its first use."""

    def stage(self, table: Table, iceberg: IcebergTable, rows: Rows) -> Sequence[Any]:
        """Write the rows to new files, one per UTC day, which are not yet part of the table."""

    def try_out(self, table: Table, iceberg: IcebergTable, rows: Rows) -> None:
        """Raise what staging and appending these rows would raise. Commits nothing, and leaves no files."""

    def append(
        self,
        table: Table,
        iceberg: IcebergTable,
        files: Sequence[Any],
        summary: Mapping[str, str],
        properties: Mapping[str, str],
    ) -> int:
        """Commit files (or none), a snapshot summary and table properties in one snapshot.

        Only on the exact state of ``iceberg``: raises ConflictError if another commit happened since, and
        CommitStateUnknownError if it is unknown whether the commit landed. Returns the snapshot's id.
        """


def local_catalog(data_dir: Path) -> Catalog:
    """Open the catalog of one machine, in its data directory."""
    from manymetrics_processor.lake.local_catalog import open_catalog  # imports SQLAlchemy, which is not needed on AWS

    return open_catalog(data_dir)


class Lake:
    """The tables of one database of a catalog."""

    def __init__(
        self,
        catalog: Catalog,
        engine: Engine | None = None,
        *,
        database: str = NAMESPACE,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._catalog = catalog
        self.database = database
        """The tables' namespace in the catalog. Those of another are never seen."""
        self._engine = engine or ArrowEngine()
        self._sleep = sleep
        self._seen: dict[str, Version] = {}
        self._expected: set[str] = set()
        self.io: FileIO = load_file_io(catalog.properties)
        """Reads and writes files where the tables are."""

    def using(self, engine: Engine) -> Lake:
        """Return the same tables with another engine."""
        return Lake(self._catalog, engine, database=self.database, sleep=self._sleep)

    def home(self, table: Table) -> str:
        """Return the location of a table, shared with no other."""
        return f"{self._catalog.properties['warehouse']}/{self.database}/{table.name}"

    def ensure_tables(self) -> None:
        """Create missing tables, and add columns of a newer version. Safe to run concurrently."""
        missing = [table for table in TABLES if not self._catalog.table_exists((self.database, table.name))]
        if missing:
            self._ensure_namespace()
        for table in missing:
            self._create(table)
        for table in TABLES:
            self._add_missing_columns(table)

    def load(self, table: Table) -> IcebergTable:
        """Load a table, as a handle on which commits are never rebased. Raises RolledBackError."""
        iceberg = self._catalog.load_table((self.database, table.name))
        self.see(table, Version.read(iceberg))
        iceberg.metadata.properties["commit.retry.num-retries"] = (
            "0"  # on this handle only: other writers keep their setting
        )
        return iceberg

    def see(self, table: Table, version: Version) -> None:
        """Record a state that the table had. Raises RolledBackError if it had a newer one."""
        self._refuse_older(table, version)
        self._seen[table.name] = version

    def _refuse_older(self, table: Table, version: Version) -> None:
        seen = self._seen.get(table.name)
        if seen is None or seen == version:
            return
        if seen.table_uuid != version.table_uuid or seen.number == version.number >= 0:
            is_older = (
                table.name in self._expected
            )  # of several with the same number, only one was committed after the seen state
        else:
            is_older = 0 <= version.number < seen.number
        if is_older:
            raise rolled_back(table.name, version.location, seen.location)

    def expect(self, name: str, version: Version) -> None:
        """Require at least this earlier seen state of a table: ``load`` rejects an older one."""
        self._remember(name, version)
        self._expected.add(name)

    def _remember(self, name: str, version: Version) -> None:
        known = self._seen.get(name)
        if known is None or known.number < version.number:
            self._seen[name] = version

    @property
    def versions(self) -> dict[str, Version]:
        """Return the newest seen state of each table."""
        return dict(self._seen)

    def commit(
        self, table: Table, stream: str, plan: Callable[[IcebergTable, StreamBooks], Plan | None]
    ) -> tuple[StreamBooks, int | None]:
        """Commit the plan that ``plan`` makes for the table's current state; called again after each lost race.

        Returns the stream's books and the new snapshot's id (None if there was nothing to commit).
        Raises CommitContentionError.
        """
        for attempt in range(MAX_ATTEMPTS):
            with reading_stored(table.name):
                iceberg = self.load(table)
                books = current_books(iceberg, stream)
            planned = plan(iceberg, books)
            if planned is None:
                return books, None
            try:
                snapshot_id = self._append(table, iceberg, planned)
                self._remember(table.name, Version.read(iceberg))  # with Arrow, the commit updates the handle
            except CommitNotConfirmedError:
                self._sleep(random.uniform(0, min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt)))  # noqa: S311  # jitter
            else:
                return planned.books, snapshot_id
        raise CommitContentionError(f"{table.name}: lost {MAX_ATTEMPTS} races")

    def stage(self, table: Table, iceberg: IcebergTable, rows: Rows) -> Sequence[Any]:
        """Stage files of these rows for a plan."""
        return self._engine.stage(table, iceberg, rows)

    def try_out(self, table: Table, rows: Rows) -> None:
        """Like ``Engine.try_out``, on the table's current state."""
        if len(rows.day):
            with reading_stored(table.name):
                iceberg = self.load(table)
            self._engine.try_out(table, iceberg, rows)

    def put_fence(self, iceberg: IcebergTable) -> None:
        """Make every commit in progress conflict, and stage its files again.

        Files that the state of ``iceberg`` doesn't reference can be deleted afterwards: no later commit can reference
        them, however long its process was suspended. Raises ConflictError if that state is no longer current.
        """
        pyiceberg_commits.append(iceberg, (), {OPERATION: "fence"}, {FENCE: uuid4().hex})

    def replace_files(
        self, iceberg: IcebergTable, gone: Sequence[DataFile], new: Sequence[DataFile], operation: str
    ) -> None:
        """Replace data files in one snapshot. Raises ConflictError, also if one of ``gone`` is no longer live."""
        live = {file.file_path for file in live_files(iceberg)}
        if any(file.file_path not in live for file in gone):
            raise ConflictError("a file was replaced by another commit")
        pyiceberg_commits.replace_files(iceberg, gone, new, {OPERATION: operation})

    def expire(self, iceberg: IcebergTable, snapshot_ids: Sequence[int]) -> bool:
        """Expire snapshots. Returns False if another commit happened meanwhile: it can be retried at any time."""
        try:
            pyiceberg_commits.expire(iceberg, snapshot_ids)
        except CommitNotConfirmedError:
            return False
        return True

    def _append(self, table: Table, iceberg: IcebergTable, planned: Plan) -> int:
        books = {property_name(planned.books.stream): encode(planned.books)}
        return self._engine.append(table, iceberg, planned.files, {OPERATION: "ingest", **books}, books)

    def _ensure_namespace(self) -> None:
        """Create the namespace if missing. Looks first: on AWS Terraform creates it, and the processor may not."""
        if not self._catalog.namespace_exists(self.database):
            with contextlib.suppress(NamespaceAlreadyExistsError):
                self._catalog.create_namespace(self.database)

    def _create(self, table: Table) -> None:
        known = next(self.states(table, self._seen.get(table.name)), None)
        try:
            if known is not None:  # the catalog is new, the table isn't: an empty table here would orphan its files
                self._refuse_older(table, Version.read(known))
                self._catalog.register_table((self.database, table.name), known.metadata_location)
                self.see(table, Version.read(known))
                return
            if table.name in self._expected:
                raise rolled_back(table.name, "no file", self._seen[table.name].location)
            self._catalog.create_table(
                (self.database, table.name),
                schema=iceberg_schema(table),
                location=self.home(table),
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
            with contextlib.suppress(CommitNotConfirmedError), conflicts(), iceberg.update_schema() as update:
                for column in missing:
                    update.add_column(column.name, _ICEBERG_TYPES[column.type], column.doc)
        raise CommitContentionError(f"{table.name}: lost {MAX_ATTEMPTS} races to add a column")

    def states(
        self, table: Table, seen: Version | None = None, committed: Collection[str] = ()
    ) -> Iterator[StaticTable]:
        """Return the readable states of the table in its folder, newest first.

        A commit that lost its race leaves a metadata file with the winner's number. So files with the number of a state
        known to be committed are left out: ``seen``, ``committed`` (locations), and ancestors of a newer state. Of
        others with the same number, the one with the most events comes first. Raises ForeignTableError.
        """
        states = self._readable_states(table)
        if seen is not None and all(str(one.metadata.table_uuid) != seen.table_uuid for one in states):
            seen = None  # the table was recreated since
        states = [one for one in states if seen is None or not _contradicts(one, seen)]
        known = {*committed, *(entry.metadata_file for one in states for entry in one.metadata.metadata_log)}
        if seen is not None:
            known = {one for one in known if metadata_number(one) != seen.number} | {seen.location}
        numbers = {metadata_number(one) for one in known}
        for state in states:
            location = state.metadata_location
            if location in known or metadata_number(location) not in numbers:
                yield state

    def _readable_states(self, table: Table) -> list[StaticTable]:
        home = self.home(table)
        found: list[tuple[tuple[int, int, float], StaticTable]] = []
        for location, age_s in list_files(self.io, f"{home}/metadata"):
            state = read_metadata(self.io, location) if location.endswith(".metadata.json") else None
            if state is None:
                continue
            if state.location() != home:
                raise ForeignTableError(
                    f"{home} holds a table that was copied there: remove it, or restore its catalog"
                )
            received = sum(books.received for books in read_books(state.metadata.properties))
            found.append(((metadata_number(location), received, -age_s), state))
        return [state for _, state in sorted(found, key=lambda one: one[0], reverse=True)]


def _contradicts(state: StaticTable, seen: Version) -> bool:
    """Return whether a state can't share the history of the seen one: its history has another state of that number."""
    if str(state.metadata.table_uuid) != seen.table_uuid or seen.number < 0:
        return False
    past = [entry.metadata_file for entry in state.metadata.metadata_log]
    return any(metadata_number(one) == seen.number and one != seen.location for one in (*past, state.metadata_location))


def get_fence(iceberg: IcebergTable) -> str:
    """Return the fence under which files for this state of the table are staged."""
    return iceberg.metadata.properties.get(FENCE, "")


def current_books(iceberg: IcebergTable, stream: str) -> StreamBooks:
    """Return the stream's books: from the table property or the newest snapshot that has them, whichever is further.

    The property survives snapshot expiry and other writers; the summary survives the removal of the property.
    """
    books = parse_books(stream, iceberg.metadata.properties)
    key = property_name(stream)
    for snapshot in ancestors(iceberg):
        summary = snapshot.summary.additional_properties if snapshot.summary else {}
        if key in summary:
            return max(books, parse_books(stream, summary), key=lambda known: known.received)
    return books


def ancestors(iceberg: IcebergTable) -> Iterator[Snapshot]:
    """Return the current snapshot and its retained ancestors, newest first."""
    snapshot = iceberg.current_snapshot()
    while snapshot is not None:
        yield snapshot
        parent = snapshot.parent_snapshot_id
        snapshot = iceberg.metadata.snapshot_by_id(parent) if parent is not None else None


def live_files(iceberg: IcebergTable) -> Iterator[DataFile]:
    """Return the data files of the current snapshot. Some of their rows may be deleted: ``scan`` reads the rest."""
    for manifest in _manifests(iceberg, ManifestContent.DATA):
        for entry in manifest.fetch_manifest_entry(iceberg.io, discard_deleted=True):
            yield entry.data_file


def delete_manifests(iceberg: IcebergTable) -> list[ManifestFile]:
    """List the delete manifests, which only other writers create (Athena's DELETE, UPDATE, MERGE)."""
    return _manifests(iceberg, ManifestContent.DELETES)


def _manifests(iceberg: IcebergTable, content: ManifestContent) -> list[ManifestFile]:
    snapshot = iceberg.current_snapshot()
    return [one for one in snapshot.manifests(iceberg.io) if one.content == content] if snapshot else []


def added_files(iceberg: IcebergTable, snapshot: Snapshot) -> Iterator[DataFile]:
    """Return the data files that one snapshot added."""
    for manifest in snapshot.manifests(iceberg.io):
        if manifest.content == ManifestContent.DATA and manifest.added_snapshot_id == snapshot.snapshot_id:
            for entry in manifest.fetch_manifest_entry(iceberg.io, discard_deleted=True):
                if entry.status == ManifestEntryStatus.ADDED and entry.snapshot_id == snapshot.snapshot_id:
                    yield entry.data_file


def iceberg_schema(table: Table) -> Schema:
    """Return the table's Iceberg schema; field ids as in tables.py."""
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
        # Without maintenance, a commit takes 475 ms after 500 snapshots; with it, as long as the first.
        "commit.manifest-merge.enabled": "true",
        "commit.manifest.min-count-to-merge": "20",
        "write.metadata.delete-after-commit.enabled": "true",
        "write.metadata.previous-versions-max": "5",
        "write.metadata.metrics.default": "none",
        **{f"write.metadata.metrics.column.{name}": "truncate(16)" for name in metered},
    }
