"""What a file of definitions holds, as models: events, cohorts, bots, URL rules, insights and boards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Self, TypeAlias

from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError, field_validator, model_validator

from manymetrics_insights.questions.base import Model, Name, Text
from manymetrics_insights.questions.filters import (
    AnyCohort,
    AnyFilter,
    AnyOf,
    Cohort,
    Condition,
    Filters,
    Matcher,
    check_of_row,
)
from manymetrics_insights.questions.models import AnyQuestion, Question, UrlRule, UrlRules, plain_errors

KINDS: Final = ("events", "cohorts", "internal", "bots", "paths", "insights", "boards")
CLICKED: Final = "Element Clicked"  # what the browser SDK's autocapture sends


class Clicked(Model):
    """A click that autocapture told of: an element by its selector, text, or both, on a page."""

    selector: Name | None = Field(
        default=None, description="Its last parts, as in `button.buy` or `form#signup > button.buy`."
    )
    text: Text | None = Field(default=None, description="The element's text.")
    path: Text | None = Field(default=None, description="The page's path.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.selector is None and self.text is None and self.path is None:
            raise ValueError("takes at least one of selector, text and path")
        return self

    def to_filters(self) -> tuple[AnyFilter, ...]:
        """Return what the properties of such a click pass."""
        found: list[AnyFilter] = []
        if self.selector is not None:
            found.append(
                AnyOf(
                    any=(
                        Condition.model_validate({"property": ["selector"], "is": self.selector}),
                        Condition.model_validate({"property": ["selector"], "ends_with": f" > {self.selector}"}),
                    )
                )
            )
        if self.text is not None:
            found.append(Condition.model_validate({"property": ["text"], "is": self.text}))
        if self.path is not None:
            found.append(Condition.model_validate({"column": "context_page_path", "is": self.path}))
        return tuple(found)


class ClickedEvent(Model):
    """An event that is a click."""

    clicked: Clicked
    where: Filters = ()
    description: Text | None = None

    def to_matcher(self) -> Matcher:
        """Return it as the matcher that a question has."""
        return Matcher(event=CLICKED, where=(*self.clicked.to_filters(), *self.where))


class MatchedEvent(Matcher):
    """An event by any other matcher."""

    description: Text | None = None

    def to_matcher(self) -> Matcher:
        """Return it as the matcher that a question has."""
        return Matcher(**{name: getattr(self, name) for name in Matcher.model_fields})


def _event_kind(data: object) -> str:
    is_click = isinstance(data, ClickedEvent) or (isinstance(data, dict) and "clicked" in data)
    return "(clicked)" if is_click else "(matched)"


DefinedEvent: TypeAlias = Annotated[
    Annotated[ClickedEvent, Tag("(clicked)")] | Annotated[MatchedEvent, Tag("(matched)")], Discriminator(_event_kind)
]


class BoardText(Model):
    """Words between insights."""

    text: Text


def _item_kind(data: object) -> str:
    return "(insight)" if isinstance(data, str) else "(text)"


class Board(Model):
    """Insights on one page."""

    title: Name
    description: Text | None = None
    insights: Annotated[
        tuple[
            Annotated[
                Annotated[Name, Tag("(insight)")] | Annotated[BoardText, Tag("(text)")], Discriminator(_item_kind)
            ],
            ...,
        ],
        Field(
            min_length=1,
            max_length=100,
            strict=False,
            description="Names of insights, with texts between: {text: ...}.",
        ),
    ]


class File(Model):
    """One file. All files of a folder are one set of definitions."""

    events: dict[Name, DefinedEvent] = Field(default={}, description="Names for events, usable wherever an event is.")
    cohorts: dict[Name, Cohort] = Field(default={}, description="Names for groups of persons.")
    internal: Cohort | None = Field(default=None, description="Who counts as internal.")
    bots: Filters = Field(default=(), description="Rows that pass one of these are of bots, besides those detected.")
    paths: UrlRules = Field(default=(), description="Names for paths in the insight `paths`; the first that matches.")
    insights: dict[Name, Question] = Field(default={}, description="Saved questions.")
    boards: dict[Name, Board] = Field(default={}, description="Insights on one page, in order.")

    @field_validator("bots")
    @classmethod
    def _of_rows(cls, rules: Filters) -> Filters:
        for place, rule in enumerate(rules):
            check_of_row(rule, place)
        return rules


_ADAPTER: Final = TypeAdapter(File)
_TAGS: Final = frozenset({"(clicked)", "(matched)", "(insight)", "(text)", "[key]"})


@dataclass(frozen=True, slots=True)
class Definitions:
    """All definitions of a folder, by name. The default: none."""

    events: Mapping[str, Matcher] = field(default_factory=dict)
    cohorts: Mapping[str, AnyCohort] = field(default_factory=dict)
    internal: AnyCohort | None = None
    bots: tuple[AnyFilter, ...] = ()
    paths: tuple[UrlRule, ...] = ()
    insights: Mapping[str, AnyQuestion] = field(default_factory=dict)
    boards: Mapping[str, Board] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)
    """What events are, by name."""


NONE: Final = Definitions()


def parse_file(data: object) -> tuple[File, list[tuple[list[str | int], str]]]:
    """Read the plain values of one file; also return path and message of what is wrong, and then an empty file."""
    if data is None:
        return File(), []
    if not isinstance(data, dict):
        return File(), [([], f"takes a mapping of {', '.join(KINDS)}")]
    try:
        return _ADAPTER.validate_python(data), []
    except ValidationError as error:
        return File(), plain_errors(data, error, _TAGS)
    except RecursionError:
        return File(), [([], "is nested too deep")]


def definitions_schema() -> dict[str, Any]:
    """Return the JSON Schema of a file, for editors."""
    return _ADAPTER.json_schema(by_alias=True, mode="validation") | {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Definitions of ManyMetrics",
    }
