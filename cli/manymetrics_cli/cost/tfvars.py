"""Read Terraform variables from a .tfvars or .tfvars.json file, and make the stack that they describe.

Values that can't be priced are errors; variables without a price are returned, so that the bill can name them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast, get_args

from manymetrics_cli.cost.stack import Architecture, Engine, Ingress, Mode, Stack

Value = str | float | bool | list[Any] | dict[str, Any] | None

_MODES: Final = {"PROVISIONED": "provisioned", "ON_DEMAND": "on_demand"}  # as AWS spells them


class TfvarsError(Exception):
    """A file or a value can't be read. The message tells where, and what is accepted."""


def read_tfvars(path: Path) -> dict[str, Value]:
    """Read the variables of a file; an expression stays text, ``${...}``. Raises TfvarsError."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise TfvarsError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TfvarsError(f"{path} is not UTF-8") from error
    return _read_json(path, text) if path.suffix == ".json" else _read_hcl(path, text)


def _read_json(path: Path, text: str) -> dict[str, Value]:
    try:
        values = json.loads(text, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:  # from json, or from _each_once
        raise TfvarsError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise TfvarsError(f"{path.name} is not a JSON object of variables")
    return values


def _each_once(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError(f"duplicate name among {', '.join(values)}")
    return values


def _read_hcl(path: Path, text: str) -> dict[str, Value]:
    try:
        import hcl2
        from lark.exceptions import LarkError, UnexpectedInput
    except ModuleNotFoundError as error:
        raise TfvarsError(
            "reading a .tfvars file needs python-hcl2: pip install '.[cost]' in a checkout, or use a .tfvars.json file"
        ) from error
    try:
        values = hcl2.loads(f"{text}\n")
    except (LarkError, RecursionError) as error:
        where = f", line {error.line}" if isinstance(error, UnexpectedInput) else ""
        raise TfvarsError(f"{path.name}{where}: not a file of variables (`name = value`)") from error
    return {name: _plain(value) for name, value in values.items() if not name.startswith("__")}


def _plain(value: Any) -> Value:  # noqa: ANN401  # python-hcl2's types for any HCL
    """Strip the quotes that python-hcl2 leaves around text."""
    if isinstance(value, dict):
        return {str(_plain(name)): _plain(inner) for name, inner in value.items() if not str(name).startswith("__")}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, str) and value.startswith('"'):
        try:
            return str(json.loads(value))
        except ValueError:
            return value
    if isinstance(value, str) and (number := _NUMBER.fullmatch(value)):  # python-hcl2 reads 1e2 as an expression
        return float(number[1])
    return cast("Value", value)


_NUMBER: Final = re.compile(r"\$\{(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\}")


_NUMBERS: Final[Mapping[str, tuple[str, float, float]]] = {  # variable: field of the stack, minimum, maximum
    "api.memory_mb": ("api_memory_mb", 128, 10_240),
    "processor.memory_mb": ("processor_memory_mb", 128, 10_240),
    "stream.shards": ("shard_count", 1, 10_000),
    "stream.retention_hours": ("stream_retention_hours", 24, 168),
    "batch_window_s": ("window_seconds", 1, 300),
    "lake_version_days": ("lake_version_days", 0, 3_650),
}
_CHOICES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "ingress": ("ingress", get_args(Ingress)),
    "engine": ("engine", get_args(Engine)),
    "api.architecture": ("api_architecture", get_args(Architecture)),
    "processor.architecture": ("processor_architecture", get_args(Architecture)),
    "stream.mode": ("stream_mode", get_args(Mode)),
}
PRICED: Final = (*_CHOICES, *_NUMBERS, "archive_days", "kms_key_arn")
_OBJECTS: Final = ("api", "processor", "stream")


def make_stack(variables: Mapping[str, Value]) -> tuple[Stack, list[str]]:
    """Return the stack, and the variables without a price. A null means the variable's default. Raises TfvarsError."""
    changes: dict[str, Any] = {}
    without_price = []
    for name, value in _flat(variables):
        if name not in PRICED:
            without_price.append(name)
            continue
        if value is None:
            continue
        field, checked = _checked(name, value)
        changes[field] = checked
    stack = replace(Stack(), **changes)
    if stack.stream_mode == "on_demand" and stack.stream_retention_hours > 24:
        raise TfvarsError("the price of an on-demand stream with a retention over 24 hours is not known here")
    return stack, without_price


def _flat(variables: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    for name, value in variables.items():
        if name in _OBJECTS and isinstance(value, dict):
            yield from ((f"{name}.{inner}", cast("Value", of_it)) for inner, of_it in value.items())
        elif name in _OBJECTS and value is not None:
            raise TfvarsError(f"{name} is {value!r}, and must be an object, {name} = {{ ... }}")
        else:
            yield name, value


def _checked(name: str, value: Value) -> tuple[str, str | int | bool]:
    if name in _CHOICES:
        field, allowed = _CHOICES[name]
        chosen = _MODES.get(value, value) if isinstance(value, str) else value
        if chosen not in allowed:
            raise TfvarsError(f"{name} is {value!r}, and must be one of {', '.join(allowed)}")
        return field, str(chosen)
    if name in _NUMBERS:
        field, least, most = _NUMBERS[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise TfvarsError(f"{name} is {value!r}, and must be a number from {least:,} to {most:,}")
        if value != int(value):
            raise TfvarsError(f"{name} is {value!r}, and must be a whole number")
        return field, int(value)
    if name == "archive_days":
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != int(value):
            raise TfvarsError(f"archive_days is {value!r}, and must be a whole number of days, or 0")
        return "archive", value > 0
    if not isinstance(value, str) or value.startswith("${"):
        raise TfvarsError(f"{name} is {value!r}, and must be text")
    return "pays_for_key", not value  # an existing key is not part of this bill
