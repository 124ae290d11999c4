"""Read YAML with the place of each value: mappings, lists and scalars of YAML 1.2's core schema, nothing else.

Plain scalars are null, true, false, numbers or text: ``no``, ``on`` and dates stay text. Anchors, aliases, tags and
several documents are refused: a few lines of aliases can stand for gigabytes, and definitions can name each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import yaml
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)

MAX_BYTES: Final = 1_000_000  # of a file
MAX_DEPTH: Final = 50
_INT: Final = re.compile(r"[-+]?[0-9]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: Final[dict[str, object]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_MAX_DIGITS: Final = 400  # of a number; Python refuses to read 4,301

Position: TypeAlias = tuple[int, int]
"""Line and column, from 1."""
Keys: TypeAlias = tuple[str | int, ...]


class YamlError(ValueError):
    """A text is not what is read here. ``position``: where."""

    def __init__(self, message: str, position: Position) -> None:
        super().__init__(message)
        self.position = position


@dataclass(frozen=True, slots=True)
class Document:
    """``data``: plain values; None for an empty file. ``positions``: of each value, by its path of keys."""

    data: Any
    positions: dict[Keys, Position]

    def position(self, path: Keys) -> Position:
        """Return where a path is, or the nearest part of it that is there."""
        while path not in self.positions and path:
            path = path[:-1]
        return self.positions.get(path, (1, 1))


def read_yaml(content: bytes) -> Document:
    """Read one document. Raises YamlError."""
    if len(content) > MAX_BYTES:
        raise YamlError(f"the file has {len(content):,} bytes, and {MAX_BYTES:,} are allowed: split it", (1, 1))
    text = _decode(content)
    reader = _Reader(_events(text))
    try:
        return Document(reader.read(), reader.positions)
    except yaml.MarkedYAMLError as error:
        raise _plain(error, text) from None
    except yaml.YAMLError as error:  # of characters that YAML does not have
        at = getattr(error, "position", 0)
        raise YamlError(
            "holds a character that YAML does not allow, such as a control character", _place(text, at)
        ) from None


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace")
        raise YamlError("is not UTF-8: save the file as UTF-8", _place(before, len(before))) from None


def _place(text: str, offset: int) -> Position:
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def _events(text: str) -> Iterator[Event]:
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader  # twenty times as fast
    return iter(yaml.parse(text, Loader=loader))


def _plain(error: yaml.MarkedYAMLError, text: str) -> YamlError:
    mark = error.problem_mark or error.context_mark
    position = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    lines = text.split("\n")
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return YamlError("is indented by a tab: YAML takes spaces", (position[0], line.index("\t") + 1))
    what = " ".join(filter(None, (error.context, error.problem))) or "can't be read"
    return YamlError(f"is not YAML: {what}", position)


def _at(event: Event) -> Position:
    return event.start_mark.line + 1, event.start_mark.column + 1


class _Reader:
    """Builds values of events. Paths are of keys and indexes; a key's position is the key's own."""

    def __init__(self, events: Iterator[Event]) -> None:
        self.events = events
        self.positions: dict[Keys, Position] = {}

    def read(self) -> Any:  # noqa: ANN401  # plain values
        data: Any = None
        documents = 0
        for event in self.events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise YamlError("a second document begins: write one a file, without ---", _at(event))
            elif not isinstance(event, StreamStartEvent | StreamEndEvent | DocumentEndEvent):
                self.positions[()] = _at(event)
                data = self._value(event, ())
        return data

    def _value(self, event: Event, path: Keys) -> Any:  # noqa: ANN401  # plain values
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None) is not None:
            raise YamlError(
                "anchors and aliases (& and *) are not read: define an event or a cohort, and name it", _at(event)
            )
        if len(path) > MAX_DEPTH:
            raise YamlError(f"is nested more than {MAX_DEPTH} deep", _at(event))
        if getattr(event, "tag", None) is not None and not (isinstance(event, ScalarEvent) and event.tag == "!"):
            raise YamlError(f"tags are not read: leave out {event.tag}", _at(event))
        if isinstance(event, MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, SequenceStartEvent):
            return self._list(path)
        return _scalar(event)

    def _mapping(self, path: Keys) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                raise YamlError("a key is a plain text", _at(event))
            self._value(event, ())  # no anchor, no tag
            key, place = event.value, (*path, event.value)
            if event.implicit[0] and key == "<<":
                raise YamlError("merge keys (<<) are not read", _at(event))
            if place in self.positions:
                line, _ = self.positions[place]
                raise YamlError(f"{key!r} is there twice, first in line {line}", _at(event))
            self.positions[place] = _at(event)
            found[key] = self._value(next(self.events), place)
        return found

    def _list(self, path: Keys) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := next(self.events), SequenceEndEvent):
            place = (*path, len(found))
            self.positions[place] = _at(event)
            found.append(self._value(event, place))
        return found


def _scalar(event: ScalarEvent) -> object:
    text: str = event.value
    if not event.implicit[0]:  # quoted, or a block
        return text
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _MAX_DIGITS:
        return text
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
