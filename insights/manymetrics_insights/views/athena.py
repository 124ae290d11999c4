"""The views as AWS Glue holds those of Athena, for whoever makes them there: `glue_views` gives Glue's own TableInput.

Athena stores a view as a table of type VIRTUAL_VIEW whose text is the SQL with its columns and their types, as JSON in
base64 in a comment. It refuses the view as stale where these types are not what the SQL yields, so they are asked of
DuckDB, over empty tables: the SQL is in the subset that both read alike, and a test has Trino read each.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from manymetrics.tables import NAMESPACE
from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.session import open_session
from manymetrics_insights.views import View

TableInput = dict[str, Any]

OWNER: Final = "manymetrics"  # Athena asks for none; Trino reads no view without
CATALOG: Final = "awsdatacatalog"  # lower case, though the console writes AwsDataCatalog
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


def glue_views(database: str = NAMESPACE) -> list[TableInput]:
    """All views, in the order in which they can be made, for ``CreateTable`` or ``UpdateTable`` in this database."""
    with TemporaryDirectory() as empty:
        session = open_session(Folder(Path(empty)))
        described = {
            view.name: session.connection.execute(f"DESCRIBE {view.name}").fetchall() for view in session.views
        }
    return [_table_input(view, {row[0]: row[1] for row in described[view.name]}, database) for view in session.views]


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
            # Athena refuses a view without: https://github.com/hashicorp/terraform-provider-aws/issues/28517
            "SerdeInfo": {"Name": "-", "SerializationLibrary": "-"},
        },
    }
