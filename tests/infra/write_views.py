"""infra/views.json: what the module makes views of as Glue holds those of Athena, in its own database.

python -m tests.infra.write_views
"""

from __future__ import annotations

import base64
import json
from typing import Any

from manymetrics_insights.views.athena import glue_views
from tests.infra.terraform import MODULE

VIEWS = MODULE / "views.json"


def render() -> str:
    """The file as it should be: what differs from view to view."""
    views = {
        view["Name"]: {
            "description": view["Description"],
            "sql": said_to_athena(view["ViewOriginalText"])["originalSql"],
            "columns": [
                {"name": glue["Name"], "type": glue["Type"], "sql_type": athena["type"], "comment": glue["Comment"]}
                for glue, athena in zip(
                    view["StorageDescriptor"]["Columns"],
                    said_to_athena(view["ViewOriginalText"])["columns"],
                    strict=True,
                )
            ],
        }
        for view in glue_views()
    }
    return json.dumps(views, indent=1) + "\n"


def said_to_athena(original_text: str) -> dict[str, Any]:
    """What a view's text holds."""
    said: dict[str, Any] = json.loads(
        base64.b64decode(original_text.removeprefix("/* Presto View: ").removesuffix(" */"))
    )
    return said


if __name__ == "__main__":
    VIEWS.write_text(render())
