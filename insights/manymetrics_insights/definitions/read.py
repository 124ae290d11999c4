"""Read the definitions of a folder, or of a prefix in S3: all its *.yaml and *.yml files, as one set.

files -> values with their places -> models -> merged -> names resolved -> Definitions, or what is wrong, by place
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from manymetrics.tables import TABLES
from manymetrics_insights.definitions.inline import Inliner
from manymetrics_insights.definitions.models import Definitions, File, parse_file
from manymetrics_insights.definitions.views import view_name
from manymetrics_insights.definitions.yaml_nodes import MAX_BYTES, Document, Keys, Position, YamlError, read_yaml
from manymetrics_insights.questions.base import nearest
from manymetrics_insights.questions.models import show_path
from manymetrics_insights.views import VIEW_NAMES

VARIABLE: Final = "MANYMETRICS_DEFINITIONS"
ENDINGS: Final = (".yaml", ".yml")
MAX_FILES: Final = 1_000
_NAMED: Final = ("events", "cohorts", "insights", "boards")
_TABLES: Final = tuple(table.name for table in TABLES)
_Found = dict[Keys, tuple["Source", Keys]]


class Problem(NamedTuple):
    """What is wrong, and where. ``path``: as text, empty for the file itself."""

    file: str
    position: Position
    path: str
    message: str

    def __str__(self) -> str:
        line, column = self.position
        return ": ".join(filter(None, (f"{self.file}:{line}:{column}", self.path, self.message)))


class DefinitionsError(ValueError):
    """Definitions can't be used. ``problems``: at least one, in order of files and lines."""

    def __init__(self, problems: list[Problem] | str) -> None:
        self.problems = [] if isinstance(problems, str) else sorted(problems)
        super().__init__(problems if isinstance(problems, str) else "\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was read."""

    name: str
    document: Document
    file: File


@dataclass(frozen=True, slots=True)
class Loaded:
    """Definitions, and where each is. ``places``: by kind and name, such as ``("events", "Bought")``."""

    definitions: Definitions
    places: Mapping[Keys, tuple[Source, Keys]] = field(repr=False)

    def where(self, path: Keys) -> tuple[str, Position]:
        """Return file and position of a part of a definition."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                source, within = self.places[path[:length]]
                return source.name, source.document.position((*within, *path[length:]))
        return "", (1, 1)


def load(location: str, environ: Mapping[str, str]) -> Loaded:
    """Read and check all definitions. ``location``: a folder or ``s3://bucket/prefix``. Raises DefinitionsError."""
    if not location.startswith("s3://"):
        return merge(_read_folder(location))
    from manymetrics_insights.definitions.read_s3 import S3Error, read_objects  # boto3 is an extra

    try:
        return merge(read_objects(location, environ, ENDINGS, MAX_FILES))
    except S3Error as error:
        raise DefinitionsError(f"{VARIABLE}: {error}") from error


def merge(files: Mapping[str, bytes]) -> Loaded:
    """Merge files by name, and check them. Raises DefinitionsError."""
    problems: list[Problem] = []
    sources = list(_parse(files, problems))
    places: _Found = {}
    for source in sources:
        _place(source, places, problems)
    definitions = _merged([source.file for source in sources])
    loaded = Loaded(definitions, places)
    if not problems:  # else a name may be unknown only since its file can't be read
        problems += _check_names(loaded)
    if problems:
        raise DefinitionsError(problems)
    return loaded


def _parse(files: Mapping[str, bytes], problems: list[Problem]) -> Iterator[Source]:
    for name in sorted(files):
        try:
            document = read_yaml(files[name])
        except YamlError as error:
            problems.append(Problem(name, error.position, "", str(error)))
            continue
        file, errors = parse_file(document.data)
        for path, message in errors:
            hint = nearest(str(path[-1]), File.model_fields) if len(path) == 1 and message == "unknown field" else ""
            problems.append(Problem(name, document.position(tuple(path)), show_path(path), message + hint))
        yield Source(name, document, file)


def _place(source: Source, places: _Found, problems: list[Problem]) -> None:
    """Note where each definition is; one that is there already is a problem."""
    found: list[tuple[Keys, Keys]] = [
        ((kind, name), (kind, name)) for kind in _NAMED for name in getattr(source.file, kind)
    ]
    if source.file.internal is not None:
        found.append((("internal",), ("internal",)))
    for kind in ("bots", "paths"):
        first = sum(1 for key in places if key[0] == kind)
        found += [((kind, first + place), (kind, place)) for place in range(len(getattr(source.file, kind)))]
    for key, within in found:
        if key in places:
            other, place = places[key]
            line, column = other.document.position(place)
            problems.append(
                Problem(
                    source.name,
                    source.document.position(within),
                    show_path(list(within)),
                    f"is defined in {other.name}:{line}:{column} too",
                )
            )
        else:
            places[key] = source, within


def _merged(files: list[File]) -> Definitions:
    events = {name: event for file in files for name, event in file.events.items()}
    return Definitions(
        events={name: event.to_matcher() for name, event in events.items()},
        cohorts={name: cohort for file in files for name, cohort in file.cohorts.items()},
        internal=next((file.internal for file in files if file.internal is not None), None),
        bots=tuple(rule for file in files for rule in file.bots),
        paths=tuple(rule for file in files for rule in file.paths),
        insights={name: question for file in files for name, question in file.insights.items()},
        boards={name: board for file in files for name, board in file.boards.items()},
        descriptions={name: event.description for name, event in events.items() if event.description is not None},
    )


def _check_names(loaded: Loaded) -> Iterator[Problem]:
    """Yield what is wrong with names: unknown ones, and those that stand for themselves."""
    definitions = loaded.definitions
    parts: list[tuple[Keys, Any]] = [
        *((("events", name), event) for name, event in definitions.events.items()),
        *((("cohorts", name), cohort) for name, cohort in definitions.cohorts.items()),
        *((("insights", name), question) for name, question in definitions.insights.items()),
    ]
    if definitions.internal is not None:
        parts.append((("internal",), definitions.internal))
    for key, part in parts:
        inliner = Inliner(definitions)
        kind, name = key[0], key[-1]
        if kind == "events":
            inliner.enter("event", str(name))
        elif kind == "cohorts":
            inliner.enter("cohort", str(name))
        inliner.part(part, ())
        for path, message in inliner.errors:
            yield _problem(loaded, (*key, *path), message)
    yield from _check_views(loaded)
    for kind in ("bots", "paths"):
        if len(getattr(definitions, kind)) > 100:
            yield _problem(loaded, (kind, 100), "there are more than 100, over all files")
    for name, board in definitions.boards.items():
        for place, item in enumerate(board.insights):
            if isinstance(item, str) and item not in definitions.insights:
                message = f"there is no insight {item!r}{nearest(item, definitions.insights)}"
                yield _problem(loaded, ("boards", name, "insights", place), message)


def _check_views(loaded: Loaded) -> Iterator[Problem]:
    views: dict[str, str] = dict.fromkeys((*VIEW_NAMES, *_TABLES), "a table or view of ManyMetrics")
    for kind in ("event", "cohort"):
        for name in getattr(loaded.definitions, f"{kind}s"):
            view = view_name(kind, name)
            if view in views:
                yield _problem(loaded, (f"{kind}s", name), f"its view {view} is that of {views[view]} too: rename one")
            views.setdefault(view, repr(name))


def _problem(loaded: Loaded, path: Keys, message: str) -> Problem:
    file, position = loaded.where(path)
    return Problem(file, position, show_path(list(path)), message)


def _read_folder(location: str) -> dict[str, bytes]:
    folder = Path(location)
    try:
        if not folder.is_dir():
            what = "is a file: name its folder" if folder.exists() else "is not there"
            raise DefinitionsError(f"{VARIABLE}: {location} {what}.")
        found = [path for path in sorted(folder.iterdir()) if path.suffix in ENDINGS and path.is_file()]
        if len(found) > MAX_FILES:
            raise DefinitionsError(f"{VARIABLE}: {location} has more than {MAX_FILES:,} YAML files.")
        return {str(path): _start(path) for path in found}
    except OSError as error:
        raise DefinitionsError(
            f"{VARIABLE}: {error.filename or location} can't be read: {error.strerror or error}."
        ) from error


def _start(path: Path) -> bytes:
    """Read a file, or of one that is too large just enough to refuse it."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)
