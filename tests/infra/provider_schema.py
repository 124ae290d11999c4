"""What version 6 of the AWS provider takes and tells, as the classes say that HashiCorp made of its schema for npm.

A type is a file of JavaScript there, much the same for every type: a map names each argument as Terraform does, and
says what is a block; what may be left out has a method that resets it; what may be read has a getter. It tells no
deprecations: those are written here. Of 6.25 it was made last (December 2025), so what came or went since is not in it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

HOME = Path(sys.prefix) / "schema"
TYPES = "types.txt"
_PART = re.compile(r"(?m)^(?:function|class) (\w+)")
_ARGUMENT = re.compile(r"(?m)^ +(\w+): \{\n +value: (.*),\n +isBlock: (true|false),$")
_FIELD = re.compile(r"(?:this\._|struct\.)(\w+)")
_NESTED = re.compile(r"(?<![\w.])(\w+)ToHclTerraform")
_SCALAR = re.compile(r"Attribute\('(\w+)'\)")
_OBJECT = re.compile(r'new (\w+?)(?:OutputReference|MapList|List|Map)\(this, "(\w+)"')
_MAP = re.compile(r'new cdktf\.\w+\(this, "(\w+)"')

# By the source of 6.48, read 2026-11-28, of the types that are used here.
DEPRECATED: Mapping[str, frozenset[str]] = {
    "aws_cloudwatch_event_rule": frozenset({"is_enabled"}),
    "aws_iam_role": frozenset({"inline_policy", "managed_policy_arns"}),
    "aws_s3_bucket": frozenset({
        "acceleration_status", "acl", "cors_rule", "grant", "lifecycle_rule", "logging", "object_lock_configuration",
        "policy", "replication_configuration", "request_payer", "server_side_encryption_configuration", "versioning",
        "website", "website_domain", "website_endpoint",
    }),
    "aws_s3_bucket_lifecycle_configuration": frozenset({"expected_bucket_owner", "id", "rule.prefix"}),
    "aws_s3_bucket_server_side_encryption_configuration": frozenset({"expected_bucket_owner"}),
    "data.aws_partition": frozenset({"id"}),
    "data.aws_region": frozenset({"id", "name"}),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Block:
    """A type, or a block in one: its arguments by name, and what may be read, with what that consists of."""

    arguments: Mapping[str, Argument]
    readable: Mapping[str, Block | None]


@dataclass(frozen=True, slots=True)
class Argument:
    """``block``: what stands between its braces, if it is one."""

    required: bool
    block: Block | None


@dataclass(frozen=True)
class Schema:
    """Of the types that ``make schema`` found in use, and the names of all there are."""

    folder: Path = HOME

    @cached_property
    def types(self) -> frozenset[str]:
        """As in an address, and ``provider`` itself."""
        return frozenset(self._read(TYPES).split())

    def version(self) -> str:
        """Of the provider."""
        return self._read("aws_s3_bucket.js").partition("providerVersion: '")[2].partition("'")[0]

    def of(self, type_: str) -> Block:
        return block_of(self._read(f"{type_}.js"))

    def _read(self, name: str) -> str:
        if not self.folder.is_dir():
            pytest.skip(f"no {self.folder} (make schema)")
        file = self.folder / name
        assert file.is_file(), f"no {file} any more or not yet: make schema"
        return file.read_text()


def folder_of(type_: str) -> str:
    """What the package calls a type."""
    return type_.replace("data.aws_", "data_aws_").removeprefix("aws_").replace("_", "-")


@cache
def block_of(text: str) -> Block:
    """The type that a file of the package is about."""
    _, *parts = _PART.split(text)
    classes = dict(zip(parts[::2], parts[1::2], strict=True))
    [name] = re.findall(r"(?m)^(\w+)\.tfResourceType = ", text)
    return _block(classes, classes[name], classes[name].partition("synthesizeHclAttributes()")[2])


def _block(parts: Mapping[str, str], told: str, taken: str) -> Block:
    """``told``: the class that is read. ``taken``: the code that writes the arguments."""
    arguments = {}
    for name, value, is_block in _ARGUMENT.findall(taken):
        [field], nested = _FIELD.findall(value), _NESTED.findall(value) if is_block == "true" else []
        required = bool(told) and f"\n    reset{_capital(field)}() {{" not in told
        arguments[name] = Argument(required, _nested(parts, nested[0]) if nested else None)
    readable: dict[str, Block | None] = dict.fromkeys(_SCALAR.findall(told) + _MAP.findall(told))
    readable |= {name: _nested(parts, class_) for class_, name in _OBJECT.findall(told)}
    return Block(arguments, readable)


def _nested(parts: Mapping[str, str], name: str) -> Block:
    told = parts.get(f"{_capital(name)}OutputReference", "")  # the provider's own blocks can't be read
    return _block(parts, told, parts[f"{name[0].lower()}{name[1:]}ToHclTerraform"])


def _capital(name: str) -> str:
    return name[0].upper() + name[1:]
