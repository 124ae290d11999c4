"""Keep the views of definitions in Glue equal to the definitions: what to change, and the change.

Only tables with the parameter ``manymetrics_definition`` are touched: these views and no others.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from manymetrics_insights.definitions.models import Definitions
from manymetrics_insights.definitions.views import make_views, view_names
from manymetrics_insights.reader.aws_errors import describe_failure, describe_refusal, error_code
from manymetrics_insights.reader.iceberg import LakeError
from manymetrics_insights.views.athena import TableInput, glue_views

MARK: Final = "manymetrics_definition"
MAX_VIEW: Final = 409_600  # characters; Glue API, TableInput.ViewOriginalText
_PERMISSIONS: Final = (
    "glue:GetTable, GetTables, CreateTable, UpdateTable and DeleteTable on catalog, database and tables"
)
_COMPARED: Final = ("Description", "ViewOriginalText")


class Change(NamedTuple):
    """A view to create, update or delete. ``before``, ``after``: its SQL; None where there is none."""

    kind: Literal["create", "update", "delete"]
    name: str
    before: str | None
    after: str | None
    table: TableInput | None


def plan(glue: Any, database: str, definitions: Definitions) -> list[Change]:  # noqa: ANN401  # boto3 ships no types
    """Return what makes the views in Glue those of the definitions, by name. Raises LakeError."""
    wanted = {table["Name"]: table for table in _tables(definitions, database)}
    try:
        there = {table["Name"]: table for table in _read(glue, database)}
    except ClientError as error:
        if error_code(error) == "EntityNotFoundException":
            raise LakeError(f"Glue has no database {database}: set MANYMETRICS_DATABASE and AWS_REGION.") from error
        raise LakeError(describe_refusal(error, f"read {database} in Glue", _PERMISSIONS)) from error
    except BotoCoreError as error:
        raise LakeError(describe_failure(error)) from error
    if wanted and "person_events" not in there:
        raise LakeError(f"Glue's {database} has no view person_events, which these build on: apply infra/ first.")
    return list(_changes(wanted, there))


def apply(glue: Any, database: str, changes: Sequence[Change]) -> None:  # noqa: ANN401  # as above
    """Make the changes. Raises LakeError."""
    for change in changes:
        try:
            if change.kind == "create":
                glue.create_table(DatabaseName=database, TableInput=change.table)
            elif change.kind == "update":
                glue.update_table(DatabaseName=database, TableInput=change.table)
            else:
                glue.delete_table(DatabaseName=database, Name=change.name)
        except ClientError as error:
            raise LakeError(describe_refusal(error, f"{change.kind} {change.name} in Glue", _PERMISSIONS)) from error
        except BotoCoreError as error:
            raise LakeError(describe_failure(error)) from error


def _tables(definitions: Definitions, database: str) -> Iterator[TableInput]:
    kinds = view_names(definitions)
    for table in glue_views(database, make_views(definitions)):
        kind, name = kinds[table["Name"]]
        if len(table["ViewOriginalText"]) > MAX_VIEW:
            raise LakeError(f"The view of the {kind} {name!r} is longer than Glue takes: define it with fewer parts.")
        yield table | {"Parameters": table["Parameters"] | {MARK: kind}}


def _read(glue: Any, database: str) -> Iterator[TableInput]:  # noqa: ANN401  # as above
    for page in glue.get_paginator("get_tables").paginate(DatabaseName=database):
        yield from page["TableList"]


def _changes(wanted: dict[str, TableInput], there: dict[str, TableInput]) -> Iterator[Change]:
    for name, table in sorted(wanted.items()):
        found = there.get(name)
        if found is None:
            yield Change("create", name, None, sql_of(table), table)
        elif MARK not in found.get("Parameters", {}):
            raise LakeError(f"Glue has a table {name} that no definition made: rename the definition, or the table.")
        elif any(found.get(part) != table.get(part) for part in _COMPARED):
            yield Change("update", name, sql_of(found), sql_of(table), table)
    for name, found in sorted(there.items()):
        if MARK in found.get("Parameters", {}) and name not in wanted:
            yield Change("delete", name, sql_of(found), None, None)


def sql_of(table: TableInput) -> str:
    """Return the SQL of a view as Athena stores it; its text as it is where that can't be read."""
    text = str(table.get("ViewOriginalText", ""))
    try:
        stored = json.loads(base64.b64decode(text.removeprefix("/* Presto View: ").removesuffix(" */")))
        return str(stored["originalSql"])
    except (ValueError, KeyError, TypeError):
        return text
