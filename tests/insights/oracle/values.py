"""JSON texts and their values: what a value's text is, and when it is a number."""

from __future__ import annotations

import json
import re
from decimal import ROUND_HALF_UP, Context, Decimal

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_LIMIT = Decimal("1e15")
_PLACES = Decimal("1e-9")
_EXACT = Context(prec=400)


class NumberText(str):
    """A number as it is written in the JSON text."""

    __slots__ = ()


def parse(text: object) -> object:
    """The value of a JSON text, numbers as ``NumberText``; None where it is malformed or absent."""
    if not isinstance(text, str):
        return None
    try:
        return json.loads(text, parse_int=NumberText, parse_float=NumberText, parse_constant=_refuse)
    except ValueError:
        return None


def _refuse(name: str) -> object:
    raise ValueError(name)


def value_at(value: object, path: list[str]) -> object:
    """The value at a path of object keys; None where there is none."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def text(value: object) -> str | None:
    """The text of a value; None for what counts as not set: null, objects and arrays."""
    if value is None or isinstance(value, dict | list):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def number(value: str | None) -> Decimal | None:
    """The number that a value's text is, in DECIMAL(38,9); None where it is none."""
    if value is None or not _NUMBER.fullmatch(value):
        return None
    exact = Decimal(value)
    if abs(exact) >= _LIMIT:
        return None
    return rounded(exact)


def rounded(exact: Decimal) -> Decimal:
    """To nine decimals, half away from zero; zero has no sign."""
    return exact.quantize(_PLACES, rounding=ROUND_HALF_UP, context=_EXACT) + 0


def digits12(value: float) -> float:
    """A double as answers hold it: 12 significant digits."""
    return float(f"{value:.12g}") + 0.0
