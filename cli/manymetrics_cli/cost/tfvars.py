"""Terraform's variables from a .tfvars or .tfvars.json file, and the stack that they describe.

The reader takes what a .tfvars file of this project needs: ``name = value`` with text, numbers, true, false, null,
lists of those, and objects of those (also of lists, not of objects). What else HCL has (heredocs, templates, functions,
objects in objects) is an error that names its line, never passed over. Values that a bill can't be made of are errors
too; a variable that has no price is handed back, for the bill to name it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, cast, get_args

from manymetrics_cli.cost.stack import Architecture, Engine, Ingress, Mode, Stack

Value = str | float | bool | list[Any] | dict[str, Any] | None

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\r\n]+|(?:\#|//)[^\n]*|/\*.*?\*/)
    |(?P<text>"(?:[^"\\\n]|\\.)*")
    |(?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.]))
    |(?P<name>[A-Za-z_][\w-]*)
    |(?P<mark>[={}\[\],:])""",
    re.VERBOSE | re.DOTALL,
)
_WORDS: Final[Mapping[str, bool | None]] = {"true": True, "false": False, "null": None}
_MODES: Final = {"PROVISIONED": "provisioned", "ON_DEMAND": "on_demand"}  # as AWS spells them


class TfvarsError(Exception):
    """What can't be read, where, and what would be read."""


class _Token(NamedTuple):
    kind: str
    text: str
    line: int
    ends_line: bool  # a new line, or the file's end, comes next


def read_tfvars(path: Path) -> dict[str, Value]:
    """The variables of a file. Raises TfvarsError."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise TfvarsError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TfvarsError(f"{path} is not UTF-8") from error
    if path.suffix == ".json":
        return _read_json(path, text)
    return _Reader(path.name, text).variables()


def _read_json(path: Path, text: str) -> dict[str, Value]:
    try:
        values = json.loads(text, object_pairs_hook=_each_once)
    except ValueError as error:  # of json, or of _each_once
        raise TfvarsError(f"{path.name} is no JSON that is read here: {error}") from error
    if not isinstance(values, dict):
        raise TfvarsError(f"{path.name} is no JSON object of variables")
    return values


def _each_once(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError(f"one of {', '.join(values)} is there twice")
    return values


class _Reader:
    def __init__(self, name: str, text: str) -> None:
        self._name, self._at = name, 0
        self._tokens = list(self._split(text))

    def _split(self, text: str) -> Iterator[_Token]:
        at, line = 0, 1
        found: _Token | None = None
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                self._refuse(line, f"{text[at:].splitlines()[0][:40]!r}")
            kind, part, at = str(match.lastgroup), match[0], match.end()
            if kind == "space":
                if found is not None and ("\n" in part or at == len(text)):
                    found = found._replace(ends_line=True)
            else:
                if found is not None:
                    yield found
                found = _Token(kind, part, line, at == len(text))
            line += part.count("\n")
        if found is not None:
            yield found

    def _refuse(self, line: int, what: str) -> NoReturn:
        raise TfvarsError(
            f"{self._name}, line {line}: can't read {what}. Only `name = value` is read, with text, numbers, true, "
            "false, null, lists and objects of them; for the rest, give a .tfvars.json file"
        )

    def _next(self, *wanted: str) -> _Token:
        if self._at == len(self._tokens):
            self._refuse(self._tokens[-1].line if self._tokens else 1, "the file's end")
        token = self._tokens[self._at]
        if token.kind not in wanted and token.text not in wanted:
            self._refuse(token.line, repr(token.text))
        self._at += 1
        return token

    def _is_next(self, text: str) -> bool:
        return self._at < len(self._tokens) and self._tokens[self._at].text == text

    def variables(self) -> dict[str, Value]:
        values: dict[str, Value] = {}
        while self._at < len(self._tokens):
            name = self._next("name")
            self._next("=")
            if name.text in values:
                self._refuse(name.line, f"a second {name.text}")
            values[name.text] = self._value(may_hold=("{", "["))
            last = self._tokens[self._at - 1]
            if not last.ends_line:
                self._refuse(last.line, f"what follows {last.text!r} on its line")
        return values

    def _value(self, may_hold: tuple[str, ...]) -> Value:
        token = self._next("text", "number", "name", *may_hold)
        if token.text == "{":
            return self._object()
        if token.text == "[":
            return self._list()
        if token.kind == "text":
            if re.search(r"[$%]\{", token.text):
                self._refuse(token.line, f"the template {token.text}")
            try:
                return str(json.loads(token.text))
            except json.JSONDecodeError:
                self._refuse(token.line, token.text)
        if token.kind == "number":
            return float(token.text)
        if token.text not in _WORDS:
            self._refuse(token.line, f"the expression {token.text!r}")
        return _WORDS[token.text]

    def _list(self) -> list[Value]:
        values: list[Value] = []
        while not self._is_next("]"):
            values.append(self._value(may_hold=()))
            if not self._is_next("]"):
                self._next(",")
        self._next("]")
        return values

    def _object(self) -> dict[str, Value]:
        values: dict[str, Value] = {}
        while not self._is_next("}"):
            name = self._next("name", "text")
            self._next("=", ":")
            key = name.text.strip('"')
            if key in values:
                self._refuse(name.line, f"a second {key}")
            values[key] = self._value(may_hold=("[",))
            if self._is_next(","):
                self._next(",")
            elif not self._is_next("}") and not self._tokens[self._at - 1].ends_line:
                self._refuse(self._tokens[self._at - 1].line, "two values without a comma or a new line between them")
        self._next("}")
        return values


_NUMBERS: Final[Mapping[str, tuple[str, float, float]]] = {  # variable: field of the stack, least, most
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


def stack_of(variables: Mapping[str, Value]) -> tuple[Stack, list[str]]:
    """The stack, and the variables that have no price here. A null is a variable's default. Raises TfvarsError."""
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
        raise TfvarsError("what a stream on demand costs that keeps more than 24 hours is not known here")
    return stack, without_price


def _flat(variables: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    for name, value in variables.items():
        if name in _OBJECTS and isinstance(value, dict):
            yield from ((f"{name}.{inner}", cast("Value", of_it)) for inner, of_it in value.items())
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
    if not isinstance(value, str):
        raise TfvarsError(f"{name} is {value!r}, and must be text")
    return "pays_for_key", not value  # a key that was there before is not of this bill
