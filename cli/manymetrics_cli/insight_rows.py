"""Write an answer's rows as Parquet, with a type for each column that does not depend on which rows there are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa

_SHARES: Final = frozenset({"rate", "from_previous", "from_first"})
_FLAGS: Final = frozenset({"incomplete", "mature"})
_COUNTS: Final = frozenset(
    {
        *("step", "persons", "dropped", "immature", "size", "n", "returned", "new", "returning", "resurrecting"),
        *("dormant", "active", "days", "sessions", "bounced", "engaged", "converted", "pages", "events", "count"),
    }
)


def write_parquet(columns: Sequence[str], rows: Sequence[Sequence[object]], path: Path) -> None:
    """Write the rows. Times and dates stay text, as in the other formats; several breakdowns are a JSON array."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = [_array(column, [row[place] for row in rows]) for place, column in enumerate(columns)]
    pq.write_table(pa.Table.from_arrays(arrays, names=list(columns)), path, compression="zstd")


def _array(column: str, values: Sequence[object]) -> pa.Array:
    import pyarrow as pa

    kind = _type(column, values)
    if pa.types.is_string(kind):
        return pa.array([_text(value) for value in values], kind)
    if pa.types.is_floating(kind):
        return pa.array([None if value is None else float(value) for value in values], kind)  # type: ignore[arg-type]  # numbers
    return pa.array(values, kind)


def _type(column: str, values: Sequence[object]) -> Any:  # noqa: ANN401  # pyarrow ships no types
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool} or (not kinds and column in _FLAGS):
        return pa.bool_()
    if column == "value" and kinds <= {int, Decimal} and kinds:
        return pa.decimal128(38, 9) if Decimal in kinds else pa.int64()
    if column == "value" or column in _SHARES or column.endswith("_s"):
        return pa.float64()
    return pa.int64() if column in _COUNTS and kinds <= {int} else pa.string()


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
