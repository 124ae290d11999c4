"""sample/queries.sql, from the saved queries of the module, each with its name.

python -m tests.infra.write_queries
"""

from __future__ import annotations

from tests.infra.terraform import MODULE, ROOT

QUERIES = sorted((MODULE / "queries").glob("*.sql"))
FILE = ROOT / "sample" / "queries.sql"
_HEAD = (
    "-- A dozen questions to begin with, for Athena and `manymetrics query`. In Athena, each is a saved query already."
)


def render() -> str:
    """The file as it should be."""
    texts = (f"-- {query.stem}: {query.read_text().strip().removeprefix('-- ')};" for query in QUERIES)
    return "\n\n".join([_HEAD, *texts]) + "\n"


if __name__ == "__main__":
    FILE.write_text(render())
