"""``insights/README.md`` from what the tables and views say of themselves.

python -m manymetrics_insights.views.readme > insights/README.md
"""

from __future__ import annotations

import sys
from typing import Final

from manymetrics.tables import TABLES, Table, markdown
from manymetrics_insights.views import View, read_views
from manymetrics_insights.views.portable import PATTERNS

_INTRO: Final = """\
# Insights

Two tables and seven views. The same SQL runs on Athena (Trino) and in `manymetrics query` (DuckDB), over the tables of
one machine or, where `MANYMETRICS_WAREHOUSE` is set, over those in AWS Glue (database `MANYMETRICS_DATABASE`) and S3.

After `make run` the program is `.venv/bin/manymetrics`; `. .venv/bin/activate` finds it by its name.

    manymetrics query --tables
    manymetrics query --describe users
    manymetrics query "SELECT event, COUNT(*) AS events FROM events GROUP BY event ORDER BY events DESC"
    manymetrics query "SELECT * FROM users" --to users.csv

`-o` is `table`, `csv`, `json`, `ndjson` or `parquet`; without it the ending of `--to` says which. `-` reads the SQL
from standard input, `--file` from a file: several statements run one after the other, as `table` or `ndjson`. Only
what reads is taken. A query sees the newest commit as it starts, and needs no server.

On AWS it takes the region and credentials as every AWS tool does, and may `glue:GetTable` (on catalogue, database and
tables), `s3:GetObject`, and `kms:Decrypt` where a key of yours encrypts them. From a checkout, `pip install '.[query]'`
is enough. Rows that Athena deleted are left out, before OPTIMIZE too. Of files it fetches what the query needs: name
the columns, and ask for a span of `received_at` where you can. `--data-dir` asks the tables of one machine all the
same.

- Times are UTC, without a zone. The local day of one:
  `CAST(event_time AT TIME ZONE 'UTC' AT TIME ZONE 'Europe/London' AS DATE)`.
- `event_time` is when it happened, `received_at` when it came in. Late events are in the day when they happened.
- One `message_id` can be two rows: an event that came with a browser key and one that came with a server key are never
  taken for each other. `key_kind` tells them apart: count rows, or (`project_id`, `key_kind`, `message_id`).
- JSON columns are text: `json_extract_scalar(properties, '$.price')` is text too, and null where there is none.
- To run on both: `CAST(x AS DOUBLE) / y`, since a division of whole numbers differs, and no `QUALIFY`, `::`, `->>` or
  `GROUP BY ALL`. `manymetrics query` answers them, with a note on standard error. [Patterns](#sql-for-both-engines) for
  arrays, dates and days are below.
- Characters that could drive a terminal are escaped in tables, in `json` and `ndjson` as JSON escapes them (the values
  are the same), and in CSV on a terminal.
- In CSV, null is empty and empty text is `""`; text that a spreadsheet would take for a formula starts with `'`.

Made by `python -m manymetrics_insights.views.readme > insights/README.md`.
"""


def render() -> str:
    """The whole file."""
    return "\n".join([_INTRO, _patterns(), *map(_table_section, TABLES), *map(_view_section, read_views())])


def _patterns() -> str:
    """The SQL that tests run on both engines."""
    patterns = "".join(f"\n{purpose}\n\n```sql\n{sql}\n```\n" for purpose, sql in PATTERNS.items())
    return f"## SQL for both engines\n{patterns}"


def _table_section(table: Table) -> str:
    return f"## Table `{table.name}`\n\n{table.doc}\n\n{markdown(table)}"


def _view_section(view: View) -> str:
    inherited = view.widens.column_names if view.widens else ()
    rows = "".join(f"| `{column}` | {doc} |\n" for column, doc in view.columns.items() if column not in inherited)
    first = f"All columns of `{view.widens.name}`, and:\n\n" if view.widens else ""
    return f"## View `{view.name}`\n\n{view.doc}\n\n{first}| column | what |\n|---|---|\n{rows}"


if __name__ == "__main__":
    sys.stdout.write(render())
