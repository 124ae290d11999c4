"""An answer's rows as Parquet: the types are those of the columns, not of the rows that happen to be there."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from manymetrics_cli.insight_rows import write_parquet

RETENTION = ("segment", "cohort", "size", "n", "returned", "rate", "mature")


def written(path: Path, columns: tuple[str, ...], *rows: tuple[object, ...]) -> tuple[list[str], list[list[object]]]:
    write_parquet(columns, rows, path / "rows.parquet")
    table = pq.read_table(path / "rows.parquet")
    assert table.column_names == list(columns)
    return [str(field.type) for field in table.schema], [list(row.values()) for row in table.to_pylist()]


@pytest.mark.parametrize(
    "rows",
    [
        [(None, "2026-03-01", 4, 0, 4, 1, True), (None, "2026-03-01", 4, 1, None, None, False)],
        [("DE", "2026-03-01", 4, 0, 3, 0.75, True)],
        [],
    ],
    ids=["whole shares", "shares", "no rows"],
)
def test_columns_have_one_type(tmp_path: Path, rows: list[tuple[object, ...]]) -> None:
    types, found = written(tmp_path, RETENTION, *rows)

    assert types == ["string", "string", "int64", "int64", "int64", "double", "bool"]
    assert found == [list(row) for row in rows]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, None], "int64"),
        ([1, Decimal("10.5")], "decimal128(38, 9)"),
        ([1, 0.5, None], "double"),
        ([0.5, Decimal("10.5")], "double"),
        ([None], "double"),
    ],
)
def test_values_are_whole_exact_or_doubles(tmp_path: Path, values: list[object], kind: str) -> None:
    types, found = written(tmp_path, ("series", "value"), *[("A", value) for value in values])

    assert types == ["string", kind]
    assert [row[1] for row in found] == values


def test_several_breakdowns_are_a_json_array(tmp_path: Path) -> None:
    types, found = written(tmp_path, ("segment", "persons"), (["DE", None, "é"], 1))

    assert (types, found) == (["string", "int64"], [['["DE", null, "é"]', 1]])


def test_flags_and_counts_of_one_name_differ_by_question(tmp_path: Path) -> None:
    detail, _ = written(tmp_path, ("person_id", "engaged"), ("u1", True))
    total, _ = written(tmp_path, ("bucket", "engaged"), ("2026-03-01", 7))

    assert (detail[1], total[1]) == ("bool", "int64")
