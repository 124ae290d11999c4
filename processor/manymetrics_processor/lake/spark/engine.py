"""The Spark engine: write rows to data files and commit them, with Iceberg's Java library in Spark's JVM.

``stage`` writes with Iceberg's Spark writer without committing, as Iceberg's own rewrite does.

``append`` is a compare-and-swap. Iceberg's Java transactions rebase a losing append onto the new head, and their
validations miss commits without files, although those move the books. So the new metadata is built here, on exactly the
metadata that the caller has read, and passed to ``TableOperations.commit``, which Glue accepts only if the table's
metadata location and version are unchanged. Nothing is ever rebased.

A lost or inconclusive response raises CommitStateUnknownError. The commit's files are not deleted then: the session's
catalog never deletes files (``s3.delete-enabled``), since Iceberg treats some of those responses as failures and would
delete the metadata that the table uses. Old metadata is deleted here, after a commit that is known to have landed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any
from uuid import uuid4

import pyarrow as pa
from py4j.protocol import Py4JError, Py4JJavaError
from pyiceberg.table import Table as IcebergTable
from pyspark.sql import SparkSession

from manymetrics.tables import Table
from manymetrics_processor.decode.batch import Rows
from manymetrics_processor.errors import CommitStateUnknownError, ConflictError, RetryableError
from manymetrics_processor.lake.object_storage import delete_files
from manymetrics_processor.lake.spark.session import CATALOG, is_running

_MAX_LOADS = 5
_CONFLICT = "org.apache.iceberg.exceptions.CommitFailedException"
_NOT_FOUND = "org.apache.iceberg.exceptions.NotFoundException"
_MOST_CAUSES = 20
# Errors of the machine, the network or AWS. Spark wraps a task's error in its own, with the original as cause.
_OF_STORAGE = (
    "java.io.",
    "java.net.",
    "java.lang.OutOfMemoryError",
    "java.util.concurrent.TimeoutException",
    "org.apache.http.",
    "org.apache.iceberg.exceptions.RuntimeIOException",
    "org.apache.iceberg.exceptions.NotFoundException",
    "org.apache.iceberg.exceptions.NoSuchTableException",
    "org.apache.iceberg.exceptions.CommitFailedException",
    "org.apache.iceberg.exceptions.ServiceUnavailableException",
    "software.amazon.awssdk.",
)
_REFUSED = ("org.apache.iceberg.exceptions.ForbiddenException", "org.apache.iceberg.exceptions.NotAuthorizedException")


class EngineLostError(RetryableError):
    """The JVM is gone, and a commit may have landed. Exit this process; a new one finds out by the watermark."""


class JavaStorageError(RetryableError, OSError):
    """Spark or Iceberg can't access the storage. Nothing was committed."""


class SparkEngine:
    """Stages and appends through a session of ``session.start_session``. Not thread-safe.

    ``start`` creates the session when the first batch needs it: that takes seconds, and Lambda aborts and repeats an
    init after ten. Creating and maintaining tables needs no session.
    """

    def __init__(self, start: Callable[[], SparkSession]) -> None:
        self._start = start
        self._handles: dict[str, tuple[str, Any]] = {}  # by table: metadata location, and Iceberg's Java table
        self._deleting_io: Any = None

    def is_alive(self) -> bool:
        """Like ``Engine.is_alive``; waits for a JVM that is about to exit."""
        return "_session" not in vars(self) or is_running(self._session)

    @cached_property
    def _session(self) -> SparkSession:
        return self._start()

    @cached_property
    def _jvm(self) -> Any:  # noqa: ANN401  # a Java object, here and below
        return self._session._jvm  # noqa: SLF001  # pyspark's only access to Java

    @cached_property
    def _catalog(self) -> Any:  # noqa: ANN401
        state: Any = self._session._jsparkSession.sessionState()  # noqa: SLF001  # as above
        return state.catalogManager().catalog(CATALOG).icebergCatalog()

    @cached_property
    def _table_cache(self) -> Any:  # noqa: ANN401
        return _table_cache(self._session)

    def stage(self, table: Table, iceberg: IcebergTable, rows: Rows) -> Sequence[Any]:
        """Write the rows, in their order, to new files, one per day, which are not yet part of the table.

        Raises JavaStorageError, EngineLostError, and Py4JJavaError for errors that the rows may have caused.
        """
        if not len(rows.day):
            return []
        with _java_errors(JavaStorageError):
            return self._stage(table, iceberg, rows)

    def try_out(self, table: Table, iceberg: IcebergTable, rows: Rows) -> None:
        """Like ``Engine.try_out``; the manifests it writes remain until they are removed as orphans."""
        files: Sequence[Any] = []
        try:
            files = self.stage(table, iceberg, rows)
            with _java_errors(JavaStorageError):
                self._applied(self._handle(table, iceberg), files, {})
        finally:
            delete_files(iceberg.io, [str(file.location()) for file in files])

    def _stage(self, table: Table, iceberg: IcebergTable, rows: Rows) -> Sequence[Any]:
        target = self._handle(table, iceberg)
        targets = self._table_cache
        written: Any = self._jvm.org.apache.iceberg.spark.FileRewriteCoordinator.get()
        key = uuid4().hex
        targets.add(key, target)
        try:
            self._write(rows.table, key, iceberg.metadata.default_sort_order_id)
            return list(written.fetchNewFiles(target, key))
        finally:
            targets.remove(key)
            written.clearRewrite(target, key)

    def append(
        self,
        table: Table,
        iceberg: IcebergTable,
        files: Sequence[Any],
        summary: Mapping[str, str],
        properties: Mapping[str, str],
    ) -> int:
        """Commit files (or none) on the exact state of ``iceberg``. Returns the new snapshot's id.

        Raises CommitNotConfirmedError; EngineLostError if the JVM is gone; and as ``stage`` for failures before the
        commit request.
        """
        with _java_errors(CommitStateUnknownError):
            handle = self._handle(table, iceberg)
            operations = handle.operations()
            base = operations.current()
            _check_is(base, iceberg)
            snapshot = self._applied(handle, files, summary)
            _check_is(operations.current(), iceberg)
        with _java_errors(CommitStateUnknownError, may_have_landed=True):
            metadata = (
                self._jvm.org.apache.iceberg.TableMetadata.buildFrom(base)
                .setBranchSnapshot(snapshot, "main")
                .setProperties(self._java_map(properties))
                .build()
            )
            operations.commit(base, metadata)
            self._remove_old_metadata(handle, base, metadata)
            return int(snapshot.snapshotId())

    def _applied(self, handle: Any, files: Sequence[Any], summary: Mapping[str, str]) -> Any:  # noqa: ANN401  # Java's
        """Make the snapshot to commit. Reloads the table from the catalog, and writes the manifests on that state."""
        update = handle.newAppend()  # merges small manifests, by the table's properties
        for file in files:
            update.appendFile(file)
        for key, value in summary.items():
            update.set(key, value)
        return update.apply()

    def _remove_old_metadata(self, handle: Any, base: Any, metadata: Any) -> None:  # noqa: ANN401  # Java's
        """Remove old metadata as ``write.metadata.delete-after-commit.enabled`` would; ignores failures."""
        io, catalog_util = handle.io(), self._jvm.org.apache.iceberg.CatalogUtil
        properties = self._jvm.java.util.HashMap(io.properties())
        properties.put("s3.delete-enabled", "true")
        with contextlib.suppress(Py4JJavaError):
            if self._deleting_io is None:
                self._deleting_io = catalog_util.loadFileIO(io.getClass().getName(), properties, None)
            catalog_util.deleteRemovedMetadataFiles(self._deleting_io, base, metadata)

    def _handle(self, table: Table, iceberg: IcebergTable) -> Any:  # noqa: ANN401  # Java's
        """Return Iceberg's Java table: the cached one if it has the state of ``iceberg``, else a new one."""
        location, handle = self._handles.get(table.name, ("", None))
        if location != iceberg.metadata_location:
            handle = self._load(iceberg)
            location = str(handle.operations().current().metadataFileLocation())
            self._handles[table.name] = location, handle
        return handle

    def _load(self, iceberg: IcebergTable) -> Any:  # noqa: ANN401  # Java's
        """Load the table; retry if more than five commits, whose metadata is kept, happen between Glue and S3."""
        identifier = self._jvm.org.apache.iceberg.catalog.TableIdentifier.parse(".".join(iceberg.name()))
        for _ in range(_MAX_LOADS - 1):
            try:
                return self._catalog.loadTable(identifier)
            except Py4JJavaError as error:
                if _java_classes(error)[0] != _NOT_FOUND:
                    raise
        return self._catalog.loadTable(identifier)

    def _write(self, data: pa.Table, key: str, sort_order_id: int) -> None:
        options = {"use-table-distribution-and-ordering": "false", "output-sort-order-id": str(sort_order_id)}
        frame = self._session.createDataFrame(data).coalesce(1)
        frame.write.format("iceberg").options(**options).mode("append").save(key)

    def _java_map(self, values: Mapping[str, str]) -> Any:  # noqa: ANN401  # Java's
        java = self._jvm.java.util.HashMap()
        for key, value in values.items():
            java.put(key, value)
        return java


def _table_cache(session: SparkSession) -> Any:  # noqa: ANN401  # Java's
    """Call the static ``SparkTableCache.get()``, found by its signature.

    There is also an instance method ``get``, and py4j takes the first by that name, which depends on the class archive.
    """
    gateway: Any = session.sparkContext._gateway  # noqa: SLF001  # pyspark's only access to Java
    lang = gateway.jvm.java.lang
    kind = lang.Class.forName("org.apache.iceberg.spark.SparkTableCache")
    return kind.getMethod("get", gateway.new_array(lang.Class, 0)).invoke(None, gateway.new_array(lang.Object, 0))


@contextlib.contextmanager
def _java_errors(storage: type[RetryableError], *, may_have_landed: bool = False) -> Iterator[None]:
    """Convert Java's exceptions to those of ``stage`` and ``append``: ``storage`` for errors of the machine or AWS.

    After a commit request, only a rejection proves that the commit did not land.
    """
    try:
        yield
    except Py4JJavaError as error:
        kinds = _java_classes(error)
        if kinds[0] == _CONFLICT:
            raise ConflictError(str(error.java_exception)) from error
        if kinds[0] in _REFUSED:
            raise JavaStorageError(str(error.java_exception)) from error
        if may_have_landed or any(kind.startswith(_OF_STORAGE) for kind in kinds):
            raise storage(str(error.java_exception)) from error
        raise
    except (Py4JError, ConnectionError, TimeoutError, EOFError) as error:
        raise EngineLostError(str(error)) from error


def _java_classes(error: Py4JJavaError) -> list[str]:
    """Return the class names of the exception and its causes, outermost first."""
    classes: list[str] = []
    exception = error.java_exception
    while exception is not None and len(classes) < _MOST_CAUSES:
        classes.append(str(exception.getClass().getName()))
        exception = exception.getCause()
    return classes


def _check_is(metadata: Any, iceberg: IcebergTable) -> None:  # noqa: ANN401  # Java's
    if metadata.metadataFileLocation() != iceberg.metadata_location:
        raise ConflictError("another process committed first")
