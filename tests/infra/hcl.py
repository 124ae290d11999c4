"""Terraform as it is written: each resource with its arguments and blocks, and what its expressions read of others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import hcl2
from hcl2.utils import SerializationOptions

_AS = SerializationOptions(with_comments=False, strip_string_quotes=True)
_BLOCK = "__is_block__"
_OF_TERRAFORM = {"connection", "count", "depends_on", "for_each", "lifecycle", "provider", "provisioner", _BLOCK}
_NAMES = r"(?:\[[^\[\]]*\]|\.\*|\.\w+)*"
_REFERENCE = re.compile(rf"(one\()?(?<![\w.-])((?:data\.)?aws_\w+)\.\w+({_NAMES})(?:\)({_NAMES}))?")
_LOOP = re.compile(r"\bfor\s+(?:\w+\s*,\s*)?(\w+)\s+in\s+(.+?)\s:\s", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Body:
    """What stands between braces. A block's name comes as often as the block; a dynamic one counts as what it makes."""

    arguments: frozenset[str]
    blocks: tuple[tuple[str, Body], ...]


class Written(NamedTuple):
    """A resource, data source or provider. Its type is that of an address: aws_sns_topic, data.aws_region, provider."""

    address: str
    type: str
    body: Body


class Read(NamedTuple):
    """An attribute that an expression reads, as a path of names. The path of a whole resource is empty."""

    type: str
    path: tuple[str, ...]


class Source(NamedTuple):
    """All of a folder."""

    written: tuple[Written, ...]
    reads: frozenset[Read]


@cache
def read_folder(folder: Path) -> Source:
    """All that lies in it, which Terraform takes as one."""
    return read_source("\n".join(path.read_text() for path in sorted(folder.glob("*.tf"))))


def read_source(text: str) -> Source:
    file = hcl2.loads(text, serialization_options=_AS)
    written = list(_written(file))
    local = {name: value for block in file.get("locals", []) for name, value in block.items()}
    reads = {read for said in _texts(file) for read in (*_references(said), *_of_loops(said, local))}
    reads |= {Read(one.type, (name,)) for one, values in written for name in _ignored(values)}
    return Source(tuple(one for one, _ in written), frozenset(reads))


def _written(file: Mapping[str, Any]) -> Iterator[tuple[Written, Mapping[str, Any]]]:
    for kind, before in (("resource", ""), ("data", "data.")):
        for block in file.get(kind, []):
            for type_, named in block.items():
                if type_.startswith("aws_"):
                    for name, values in named.items():
                        yield Written(f"{before}{type_}.{name}", before + type_, _body(values)), values
    for block in file.get("provider", []):
        for name, values in block.items():
            yield Written(f"provider.{name}", "provider", _body(values)), values


def _body(values: Mapping[str, Any]) -> Body:
    blocks = [(name, _body(one)) for name, one in _blocks(values)]
    names = {name for name, _ in blocks} | _OF_TERRAFORM | {"dynamic"}
    return Body(frozenset(values.keys() - names), tuple(blocks))


def _blocks(values: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, value in values.items():
        if name == "dynamic":
            for made, said in (one for labelled in value for one in labelled.items()):
                yield made, said["content"][0]
        elif name not in _OF_TERRAFORM and isinstance(value, list):
            yield from ((name, one) for one in value if isinstance(one, dict) and _BLOCK in one)


def _ignored(values: Mapping[str, Any]) -> Iterator[str]:
    """What a lifecycle names of its own resource."""
    for lifecycle in values.get("lifecycle", []):
        yield from (re.sub(r"\W", "", name) for name in lifecycle.get("ignore_changes", []))


def _texts(value: object) -> Iterator[str]:
    """Every expression."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from (name, *_texts(one))


def _references(said: str) -> Iterator[Read]:
    for one, type_, path, after in _REFERENCE.findall(said):
        yield Read(type_, _names(path + (after if one else "")))


def _of_loops(said: str, local: Mapping[str, object]) -> Iterator[Read]:
    """What `for` reads of each of some whole resources, which may stand in a local."""
    for variable, over in _LOOP.findall(said):
        named = [text for name in re.findall(r"\blocal\.(\w+)$", over) for text in _texts(local.get(name))]
        types = {read.type for text in (over, *named) for read in _references(text) if not read.path}
        for path in re.findall(rf"(?<![\w.]){variable}((?:\.\w+)+)", said):
            yield from (Read(type_, _names(path)) for type_ in types)


def _names(path: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\.(\w+)", re.sub(r"\[[^\]]*\]", "", path)))
