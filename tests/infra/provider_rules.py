"""Whether a version of the provider takes what is written, and tells what is read. In words; nothing is well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

from tests.infra.hcl import Body, Read, Source
from tests.infra.provider_schema import Block, Schema


def refused(source: Source, schema: Schema) -> list[str]:
    """What would be an error."""
    gone = sorted(({one.type for one in source.written} | {read.type for read in source.reads}) - schema.types)
    found = [f"no {type_}" for type_ in gone]
    for one in source.written:
        if one.type not in gone:
            found += (f"{one.address}: {wrong}" for wrong in _misfits(one.body, schema.of(one.type)))
    for read in sorted(source.reads):
        if read.type not in gone and not _is_told(read.path, schema.of(read.type)):
            found.append(f"{read.type} tells no {'.'.join(read.path)}")
    return found


def deprecated(source: Source, names: Mapping[str, AbstractSet[str]]) -> list[str]:
    """What would be a warning, by name, written or read. A name in a block is a path: rule.prefix."""
    used = {Read(one.type, path) for one in source.written for path in _paths(one.body)} | source.reads
    return sorted({f"{type_}.{'.'.join(path)}" for type_, path in used if ".".join(path) in names.get(type_, ())})


def _misfits(body: Body, block: Block) -> Iterator[str]:
    for name in sorted(body.arguments):
        if name not in block.arguments:
            yield f"no argument {name}"
        elif block.arguments[name].block:
            yield f"{name} is a block"
    for name, inner in body.blocks:
        argument = block.arguments.get(name)
        if argument is None or argument.block is None:
            yield f"no block {name}"
        else:
            yield from (f"{name}: {wrong}" for wrong in _misfits(inner, argument.block))
    given = {*body.arguments, *(name for name, _ in body.blocks)}
    yield from (f"wants {name}" for name, one in block.arguments.items() if one.required and name not in given)


def _is_told(path: tuple[str, ...], block: Block | None) -> bool:
    """What a map or a string holds is nobody's to say."""
    return not path or block is None or (path[0] in block.readable and _is_told(path[1:], block.readable[path[0]]))


def _paths(body: Body) -> Iterator[tuple[str, ...]]:
    yield from ((name,) for name in body.arguments)
    for name, inner in body.blocks:
        yield (name,)
        yield from ((name, *path) for path in _paths(inner))
