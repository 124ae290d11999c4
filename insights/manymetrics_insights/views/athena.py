"""Athena's views as AWS Glue stores them: `glue_views` returns them as Glue's TableInput.

Athena stores a view as a table of type VIRTUAL_VIEW whose text is the SQL with its columns and their types, as JSON in
base64 in a comment. It rejects the view as stale if these types differ from those of the SQL's result, so DuckDB
determines them, over empty tables: the SQL is in the subset common to both, and a test has Trino read each view.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from manymetrics.tables import NAMESPACE
from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.session import open_session
from manymetrics_insights.views import View, read_views

TableInput = dict[str, Any]

OWNER: Final = "manymetrics"  # not needed by Athena; Trino reads no view without it
CATALOG: Final = "awsdatacatalog"  # lower case, though the console shows AwsDataCatalog
MAX_COMMENT: Final = 255  # characters; Glue API, Column.Comment

# DuckDB's type: Athena's in SQL, and Glue's. Iceberg's timestamps are microseconds; a bare `timestamp` would mean 3.
_TYPES: Final = {
    "VARCHAR": ("varchar", "string"),
    "TIMESTAMP": ("timestamp(6)", "timestamp"),
    "DATE": ("date", "date"),
    "INTEGER": ("integer", "int"),
    "BIGINT": ("bigint", "bigint"),
    "DOUBLE": ("double", "double"),
}


def glue_views(database: str = NAMESPACE, views: Sequence[View] | None = None) -> list[TableInput]:
    """Return all views, in the order in which they can be created, for ``CreateTable`` or ``UpdateTable``.

    ``views``: others than ManyMetrics' own, which may build on these.
    """
    with TemporaryDirectory() as empty, closing(open_session(Folder(Path(empty)), more=views or ()).connection) as duck:
        wanted = read_views() if views is None else views
        described = {view.name: duck.execute(f"DESCRIBE {view.name}").fetchall() for view in wanted}
    return [_table_input(view, {row[0]: row[1] for row in described[view.name]}, database) for view in wanted]


def _table_input(view: View, types: dict[str, str], database: str) -> TableInput:
    stored = {
        "originalSql": view.sql,
        "catalog": CATALOG,
        "schema": database,
        "columns": [{"name": name, "type": _TYPES[kind][0]} for name, kind in types.items()],
    }
    encoded = base64.b64encode(json.dumps(stored, separators=(",", ":")).encode()).decode()
    return {
        "Name": view.name,
        "Description": view.doc,
        "Owner": OWNER,
        "TableType": "VIRTUAL_VIEW",
        "Parameters": {"presto_view": "true", "comment": "Presto View"},
        "ViewOriginalText": f"/* Presto View: {encoded} */",
        "ViewExpandedText": "/* Presto View */",
        "PartitionKeys": [],
        "StorageDescriptor": {
            "Columns": [
                {"Name": name, "Type": _TYPES[kind][1], "Comment": view.columns[name][:MAX_COMMENT]}
                for name, kind in types.items()
            ],
            "Location": "",
            # Athena rejects a view without it: https://github.com/hashicorp/terraform-provider-aws/issues/28517
            "SerdeInfo": {"Name": "-", "SerializationLibrary": "-"},
        },
    }
