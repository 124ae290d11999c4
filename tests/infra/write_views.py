"""infra/views.json: the views as Glue holds those of Athena, for the module to make.

python -m tests.infra.write_views
"""

from __future__ import annotations

import json

from manymetrics_insights.athena import glue_views
from tests.infra.terraform import MODULE

VIEWS = MODULE / "views.json"


def render() -> str:
    """The file as it should be: what differs from view to view."""
    views = {
        view["Name"]: {
            "description": view["Description"],
            "original_text": view["ViewOriginalText"],
            "columns": [
                {"name": column["Name"], "type": column["Type"], "comment": column["Comment"]}
                for column in view["StorageDescriptor"]["Columns"]
            ],
        }
        for view in glue_views()
    }
    return json.dumps(views, indent=1) + "\n"


if __name__ == "__main__":
    VIEWS.write_text(render())
