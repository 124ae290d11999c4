"""Filters, matchers and cohorts: which events and persons a question is about.

An operator is true or false, never unknown: on an absent or null value all are false, except ``is_not`` and
``is_set: false``. Objects and arrays count as not set.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator

from manymetrics.tables import EVENTS, Column
from manymetrics_insights.questions.base import LastDays, Model, Name, Path, Text, Value, nearest
from manymetrics_insights.questions.patterns import parse_pattern

EventType = Literal["track", "identify", "page", "screen", "group", "alias"]
PERSON_COLUMNS: Final = ("person_id", "person_kind")
OPERATORS: Final = {
    "is_": "is",
    "is_not": "is_not",
    "in_": "in",
    "contains": "contains",
    "starts_with": "starts_with",
    "ends_with": "ends_with",
    "matches": "matches",
    "is_set": "is_set",
    "less": "<",
    "at_most": "<=",
    "more": ">",
    "at_least": ">=",
    "between": "between",
}
_ORDERED: Final = frozenset({"less", "at_most", "more", "at_least", "between"})
_COLUMNS: Final[dict[str, Column]] = {column.name: column for column in EVENTS.columns}


def column_type(name: str) -> str:
    """Return the contract's type of a column of ``person_events``."""
    return _COLUMNS[name].type if name in _COLUMNS else "string"


class Subject(Model):
    """One value of an event: a property, a column of ``person_events``, or a trait of the person."""

    property: Path | None = Field(default=None, description="Keys of `properties`, outermost first.")
    column: Name | None = Field(default=None, description="A column of the view person_events.")
    trait: Path | None = Field(
        default=None, description="Keys of the person's traits: the latest value that is not null."
    )

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        if (self.property is not None) + (self.column is not None) + (self.trait is not None) != 1:
            raise ValueError("takes exactly one of property, column and trait")
        if self.column is not None and self.column not in PERSON_COLUMNS:
            column = _COLUMNS.get(self.column)
            if column is None:
                hint = nearest(self.column, [*_COLUMNS, *PERSON_COLUMNS])
                raise ValueError(
                    f"there is no column {self.column!r}{hint or ': see `manymetrics query --describe person_events`'}"
                )
            if column.json:
                raise ValueError(f'{self.column} holds JSON: name a key of it, as in {{"property": ["plan"]}}')
        return self


def is_time(subject: Subject) -> bool:
    """Return whether it is a column of timestamps."""
    return subject.column is not None and column_type(subject.column) == "timestamp"


class Breakdown(Subject):
    """A value to break down by."""

    @model_validator(mode="after")
    def _no_time(self) -> Self:
        if is_time(self):
            raise ValueError(f"{self.column} is a time: group by it with `interval`")
        return self


class Condition(Subject):
    """A subject and one operator."""

    is_: Value | None = Field(default=None, alias="is")
    is_not: Value | None = None
    in_: Annotated[tuple[Value, ...], Field(min_length=1, max_length=1_000, strict=False)] | None = Field(
        default=None, alias="in"
    )
    contains: Text | None = None
    starts_with: Text | None = None
    ends_with: Text | None = None
    matches: Text | None = Field(default=None, description="A regular expression, unanchored; see docs/insights.md.")
    is_set: bool | None = None
    less: Value | None = Field(default=None, alias="<")
    at_most: Value | None = Field(default=None, alias="<=")
    more: Value | None = Field(default=None, alias=">")
    at_least: Value | None = Field(default=None, alias=">=")
    between: Annotated[tuple[Value, ...], Field(min_length=2, max_length=2, strict=False)] | None = None

    @model_validator(mode="after")
    def _one_operator(self) -> Self:
        given = [name for name in OPERATORS if name in self.model_fields_set]
        if len(given) != 1:
            raise ValueError(f"takes exactly one operator of {', '.join(OPERATORS.values())}")
        if getattr(self, given[0]) is None:
            raise ValueError(f'{OPERATORS[given[0]]} takes no null: write "is_set": false')
        if self.matches is not None:
            parse_pattern(self.matches)
        if given[0] in _ORDERED:
            self._check_order(given[0])
        if is_time(self):
            self._check_time(given[0])
        return self

    @property
    def operator(self) -> str:
        """The name of the operator's field."""
        return next(name for name in OPERATORS if name in self.model_fields_set)

    def _check_order(self, operator: str) -> None:
        value = getattr(self, operator)
        values = value if operator == "between" else (value,)
        if any(isinstance(one, bool) for one in values) or len({isinstance(one, str) for one in values}) > 1:
            raise ValueError(f"{OPERATORS[operator]} takes numbers, or texts")

    def _check_time(self, operator: str) -> None:
        if operator == "is_set":
            return
        if operator not in _ORDERED:
            raise ValueError(f"{self.column} is a time: compare it with <, <=, >, >=, between or is_set")
        value = getattr(self, operator)
        for one in value if operator == "between" else (value,):
            parse_instant(one)


def parse_instant(value: object) -> datetime:
    """Return an ISO 8601 time as naive UTC. Raises ValueError."""
    try:
        time = datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError(f"{value!r} is not a time: write it as in 2026-09-05T10:00:00Z") from None
    if time.tzinfo is not None:
        time = (time - (time.utcoffset() or time - time)).replace(tzinfo=None)
    return time


def _named(data: object) -> str:
    return "(name)" if isinstance(data, str) else "(condition)"


class InCohort(Model):
    """Persons of a cohort: a defined one by its name, or its condition itself."""

    cohort: Annotated[Annotated[Name, Tag("(name)")] | Annotated[Cohort, Tag("(condition)")], Discriminator(_named)]


class AllOf(Model):
    """True if all are; of none, true."""

    all: Annotated[tuple[Filter, ...], Field(max_length=100, strict=False)]


class AnyOf(Model):
    """True if one is; of none, false."""

    any: Annotated[tuple[Filter, ...], Field(max_length=100, strict=False)]


class Not(Model):
    """The opposite."""

    not_: Filter = Field(alias="not")


def _filter_kind(data: object) -> str:
    if isinstance(data, Model):
        return {InCohort: "cohort", AllOf: "all", AnyOf: "any", Not: "not"}.get(type(data), "condition")
    if isinstance(data, dict):
        return next((kind for kind in ("cohort", "all", "any", "not") if kind in data), "condition")
    return "condition"


Filter: TypeAlias = Annotated[
    Annotated[InCohort, Tag("cohort")]
    | Annotated[AllOf, Tag("all")]
    | Annotated[AnyOf, Tag("any")]
    | Annotated[Not, Tag("not")]
    | Annotated[Condition, Tag("condition")],
    Discriminator(_filter_kind),
]
AnyFilter: TypeAlias = InCohort | AllOf | AnyOf | Not | Condition
Filters = Annotated[tuple[Filter, ...], Field(max_length=100, strict=False)]


def check_of_row(rule: AnyFilter, place: int = 0) -> None:
    """Raise ValueError for a filter that needs more than one row: a trait, a cohort or a person."""
    if isinstance(rule, AllOf | AnyOf):
        for one in rule.all if isinstance(rule, AllOf) else rule.any:
            check_of_row(one, place)
    elif isinstance(rule, Not):
        check_of_row(rule.not_, place)
    elif isinstance(rule, InCohort) or rule.trait is not None or rule.column in PERSON_COLUMNS:
        raise ValueError(
            f"rule {place + 1}: a bot is told by its row: name a property or a column, no person, trait or cohort"
        )


class Matcher(Model):
    """Events of one kind, that pass all filters of ``where``."""

    event: Name | None = Field(default=None, description="Track events of this name.")
    page: Text | None = Field(default=None, description="Page events of this path.")
    type: EventType | None = Field(default=None, description="Events of this type.")
    definition: Name | None = Field(default=None, description="Events of this definition.")
    any: Literal[True] | None = Field(
        default=None, description="Active events: track, page and screen that the person did."
    )
    any_of: Annotated[tuple[Matcher, ...], Field(min_length=1, max_length=50, strict=False)] | None = None
    where: Filters = ()

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = ("event", "page", "type", "definition", "any", "any_of")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"takes exactly one of {', '.join(kinds)}")
        return self

    @property
    def title(self) -> str:
        """How answers name it."""
        if self.any_of is not None:
            return " or ".join(one.title for one in self.any_of)
        return self.event or self.page or self.type or self.definition or ("" if self.page is not None else "any event")


class Did(Model):
    """Persons who did something at least so many times."""

    did: Matcher
    at_least: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    last: LastDays | None = Field(
        default=None, description="Whole local days up to that of complete-through; all time without it."
    )


class DidNot(Model):
    """Persons who did not do something."""

    did_not: Matcher
    last: LastDays | None = None


class FirstDid(Model):
    """Persons who did something for the first time ever in the last days."""

    first_did: Matcher
    last: LastDays | None = None


class OfPerson(Condition):
    """Persons with a trait, an id or a kind that passes."""

    @model_validator(mode="after")
    def _no_event(self) -> Self:
        if self.property is not None or (self.column is not None and self.column not in PERSON_COLUMNS):
            raise ValueError(
                "a cohort is made of persons: name a trait, or the column person_id or person_kind; events go into "
                "did, did_not or first_did"
            )
        return self


class AllOfCohorts(Model):
    """Persons for whom all are true; of none, everybody."""

    all: Annotated[tuple[Cohort, ...], Field(max_length=100, strict=False)]


class AnyOfCohorts(Model):
    """Persons for whom one is true; of none, nobody."""

    any: Annotated[tuple[Cohort, ...], Field(max_length=100, strict=False)]


class NotCohort(Model):
    """Persons for whom it is not true."""

    not_: Cohort = Field(alias="not")


_COHORT_KINDS: Final[dict[str, type[Model]]] = {
    "did": Did,
    "did_not": DidNot,
    "first_did": FirstDid,
    "cohort": InCohort,
    "all": AllOfCohorts,
    "any": AnyOfCohorts,
    "not": NotCohort,
}


COHORT_TAGS: Final = frozenset({*(f"({kind})" for kind in _COHORT_KINDS), "(person)", "(name)", "(condition)"})


def _cohort_kind(data: object) -> str:
    if isinstance(data, Model):
        return next((f"({kind})" for kind, model in _COHORT_KINDS.items() if type(data) is model), "(person)")
    if isinstance(data, dict):
        return next((f"({kind})" for kind in _COHORT_KINDS if kind in data), "(person)")
    return "(person)"


Cohort: TypeAlias = Annotated[
    Annotated[Did, Tag("(did)")]
    | Annotated[DidNot, Tag("(did_not)")]
    | Annotated[FirstDid, Tag("(first_did)")]
    | Annotated[InCohort, Tag("(cohort)")]
    | Annotated[AllOfCohorts, Tag("(all)")]
    | Annotated[AnyOfCohorts, Tag("(any)")]
    | Annotated[NotCohort, Tag("(not)")]
    | Annotated[OfPerson, Tag("(person)")],
    Discriminator(_cohort_kind),
]
"""Who belongs to a cohort: a condition on a person, as of complete-through."""
AnyCohort: TypeAlias = Did | DidNot | FirstDid | InCohort | AllOfCohorts | AnyOfCohorts | NotCohort | OfPerson

for _model in (InCohort, AllOf, AnyOf, Not, Matcher, Did, DidNot, FirstDid, AllOfCohorts, AnyOfCohorts, NotCohort):
    _model.model_rebuild()

ANY: Final = Matcher(any=True)
