"""The tables of infra/README.md, from what variables and outputs say of themselves.

python -m tests.infra.write_readme
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.infra.terraform import MODULE

README = MODULE / "README.md"
_BLOCK = r'(?ms)^{kind} "(\w+)" \{{\n(.*?)^\}}'
_BETWEEN = r"(?s)(<!-- {name} -->\n).*?(<!-- end -->)"


class Block(NamedTuple):
    """A variable or an output. ``default`` is None where one must be given."""

    name: str
    description: str
    type: str
    default: str | None


def variables() -> list[Block]:
    """In the order of variables.tf."""
    return list(_blocks("variable", (MODULE / "variables.tf").read_text()))


def outputs() -> list[Block]:
    """In the order of outputs.tf."""
    return list(_blocks("output", (MODULE / "outputs.tf").read_text()))


def render(readme: str) -> str:
    """The README with its tables as they should be."""
    must = [f"| `{one.name}` | {one.type} | {_default(one)} | {one.description} |" for one in variables()]
    made = [f"| `{one.name}` | {one.description} |" for one in outputs()]
    readme = _put(readme, "variables", ["| variable | type | default | what it is |", "|---|---|---|---|", *must])
    return _put(readme, "outputs", ["| output | what it is |", "|---|---|", *made])


def _blocks(kind: str, source: str) -> Iterator[Block]:
    for name, body in re.findall(_BLOCK.format(kind=kind), source):
        arguments = dict(re.findall(r"(?ms)^  (description|type|default) += (.*?)$(?=\n  \w|\n\n|\n*\Z)", body))
        description = arguments.get("description", "").strip('"').replace('\\"', '"')
        yield Block(name, description, _type(arguments.get("type", "")), arguments.get("default"))


def _type(text: str) -> str:
    """An object by its fields, each with its default."""
    if not text.startswith("object"):
        return f"`{text}`"
    fields = re.findall(r"^ +(\w+) += (?:optional\()?(\w+(?:\(\w+\))?)(?:, ([^)]+))?\)?$", text, re.MULTILINE)
    return "<br>".join(f"`{name}` {kind}" + (f" = {default}" if default else "") for name, kind, default in fields)


def _default(one: Block) -> str:
    return "**required**" if one.default is None else f"`{one.default}`"


def _put(readme: str, name: str, lines: list[str]) -> str:
    table = "\n".join(lines) + "\n"
    return re.sub(_BETWEEN.format(name=name), lambda found: found[1] + table + found[2], readme)


if __name__ == "__main__":
    README.write_text(render(README.read_text()))
