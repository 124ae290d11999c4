"""The questions: one model an insight. ``parse_question`` reads one, from any client.

The columns of an answer, and which fields of a question mean what, are described in docs/insights.md.
"""

from __future__ import annotations

import hashlib
import json
from datetime import date
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from manymetrics_insights.questions.base import (
    Duration,
    Interval,
    LastDays,
    LocalDate,
    Model,
    Name,
    Path,
    Population,
    Text,
    Value,
    Zone,
    nearest,
)
from manymetrics_insights.questions.filters import (
    ANY,
    COHORT_TAGS,
    Breakdown,
    Cohort,
    Filters,
    Matcher,
    check_of_row,
    parse_instant,
)
from manymetrics_insights.questions.formulas import parse_formula
from manymetrics_insights.questions.patterns import parse_pattern

Measure = Literal[
    "events", "persons", "sessions", "events_per_person", "sum", "average", "median", "p90", "min", "max", "distinct",
    "first_ever", "active",
]  # fmt: skip
OF_NUMBERS: Final = frozenset({"sum", "average", "median", "p90", "min", "max"})
OF_PROPERTY: Final = OF_NUMBERS | {"distinct"}
LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class QuestionError(ValueError):
    """A question that is not valid. ``errors``: path and message of each thing that is wrong, at least one."""

    def __init__(self, errors: list[tuple[list[str | int], str]]) -> None:
        super().__init__("\n".join(f"{show_path(path)}: {message}" if path else message for path, message in errors))
        self.errors = errors


def show_path(path: list[str | int]) -> str:
    """Return a path as text, as in ``steps[1].event``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


class Ranged(Model):
    """What all questions but that of a timeline share."""

    from_: LocalDate | None = Field(default=None, alias="from", description="First local day. Default: as `last`.")
    to: LocalDate | None = Field(default=None, description="The local day after the last one. Default: tomorrow.")
    last: LastDays | None = Field(
        default=None, description="Whole local days up to today, in place of from and to; 30d."
    )
    zone: Zone = "UTC"
    week_start: Literal["monday", "sunday"] = "monday"
    project: Name | None = Field(default=None, description="May be left out where there is only one.")
    where: Filters = Field(default=(), description="Only events that pass all of these.")
    internal: Population = "include"
    internal_cohort: Cohort | None = Field(
        default=None, description="Who is internal. Default: those of the definitions."
    )
    bots: Population = "exclude"
    bot_rows: Filters | None = Field(
        default=None, description="Rows that pass one of these are of bots too. Default: those of the definitions."
    )
    as_of: str | None = Field(
        default=None, description="Ask as if everything received up to this time were all there is."
    )

    @model_validator(mode="after")
    def _one_range(self) -> Self:
        if self.last is not None and (self.from_ is not None or self.to is not None):
            raise ValueError("takes from and to, or last, not both")
        if self.to is not None and self.from_ is None:
            raise ValueError("to needs from")
        if self.from_ is not None and self.to is not None:
            length = date.fromisoformat(self.to) - date.fromisoformat(self.from_)
            if length.days <= 0:
                raise ValueError(f"to ({self.to}) must be after from ({self.from_}): the day of `to` is not included")
        if self.as_of is not None:
            parse_instant(self.as_of)
        return self

    @field_validator("bot_rows")
    @classmethod
    def _of_rows(cls, rules: Filters | None) -> Filters | None:
        for place, rule in enumerate(rules or ()):
            check_of_row(rule, place)
        return rules


By = Annotated[tuple[Breakdown, ...], Field(max_length=3, strict=False)]
Limit = Annotated[int, Field(ge=1, le=1_000)]


class Series(Matcher):
    """One series: the events of a matcher, measured."""

    measure: Measure = "events"
    property: Path | None = Field(
        default=None, description="What sum, average, median, p90, min, max and distinct measure."
    )
    label: Name | None = None
    trailing: Literal[1, 7, 28, 30] | None = Field(
        default=None, description="For `active`: days, the day itself included."
    )

    @model_validator(mode="after")
    def _fits_measure(self) -> Self:
        if (self.measure in OF_PROPERTY) != (self.property is not None):
            needs = "needs a property" if self.measure in OF_PROPERTY else "takes no property"
            raise ValueError(f"{self.measure} {needs}")
        if (self.measure == "active") != (self.trailing is not None):
            needs = "needs trailing: 1, 7, 28 or 30" if self.measure == "active" else "takes no trailing"
            raise ValueError(f"{self.measure} {needs}")
        return self


class Trends(Ranged):
    """How much, over time."""

    insight: Literal["trends"] = "trends"
    series: Annotated[tuple[Series, ...], Field(min_length=1, max_length=20, strict=False)]
    formulas: Annotated[tuple[Text, ...], Field(max_length=10, strict=False)] = Field(
        default=(), description="Arithmetic over the series by letter, as in `A / B`."
    )
    interval: Interval = "day"
    compare: Literal["previous", "year"] | None = None
    cumulative: bool = False
    moving: Annotated[int, Field(ge=1, le=366)] | None = Field(default=None, description="Average of so many buckets.")
    by: By = ()
    limit: Limit = 10

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for text in self.formulas:
            parse_formula(text, LETTERS[: len(self.series)])
        if self.interval != "day" and any(one.measure == "active" for one in self.series):
            raise ValueError("active counts at each day: interval must be day")
        if self.cumulative and any(one.measure == "active" for one in self.series):
            raise ValueError("cumulative: active has no running total")
        return self


class Step(Matcher):
    """One step of a funnel."""

    label: Name | None = None


class Exclusion(Matcher):
    """Events that must not happen between two steps."""

    after: Annotated[int, Field(ge=1, le=9)] = 1
    before: Annotated[int, Field(ge=2, le=10)] | None = Field(default=None, description="Default: the last step.")


class AtStep(Model):
    """The value at one step."""

    step: Annotated[int, Field(ge=1, le=10)]


class Funnel(Ranged):
    """How many go on from step to step."""

    insight: Literal["funnel"] = "funnel"
    steps: Annotated[tuple[Step, ...], Field(min_length=2, max_length=10, strict=False)]
    window: Duration = "7d"
    order: Literal["loose", "strict", "any"] = "loose"
    count: Literal["persons", "sessions"] = "persons"
    reentry: Literal["best", "first"] = "best"
    exclude: Annotated[tuple[Exclusion, ...], Field(max_length=10, strict=False)] = ()
    exclusion: Literal["stop", "drop"] = "stop"
    hold: Breakdown | None = Field(default=None, description="A value that all steps share.")
    attribution: Literal["first", "last"] | AtStep = "first"
    by_time: Interval | None = None
    by: By = ()
    limit: Limit = 10

    @model_validator(mode="before")
    @classmethod
    def _by_time_as_flag(cls, data: object) -> object:
        if isinstance(data, dict) and isinstance(data.get("by_time"), bool):
            return data | {"by_time": "day" if data["by_time"] else None}
        return data

    @model_validator(mode="after")
    def _fits(self) -> Self:
        count = len(self.steps)
        for place, one in enumerate(self.exclude):
            before = one.before or count
            if not one.after < before <= count:
                raise ValueError(f"exclude[{place}]: after ({one.after}) must be a step before `before` ({before})")
            if self.order == "any" and self.exclusion == "stop" and one.after != 1:
                raise ValueError(f"exclude[{place}]: in any order, an exclusion begins at the first step")
        if isinstance(self.attribution, AtStep) and self.attribution.step > count:
            raise ValueError(f"attribution: there is no step {self.attribution.step}")
        return self


class Retention(Ranged):
    """Who comes back."""

    insight: Literal["retention"] = "retention"
    born: Matcher = ANY
    return_: Matcher = Field(default=ANY, alias="return")
    born_is: Literal["in_range", "ever", "recurring"] = "in_range"
    interval: Interval = "day"
    periods: Annotated[int, Field(ge=0, le=366)] = 14
    period: Literal["calendar", "rolling"] = "calendar"
    when: Literal["on", "on_or_after", "on_or_before"] = "on"
    brackets: (
        Annotated[
            tuple[
                Annotated[
                    tuple[Annotated[int, Field(ge=0, le=3_660)], ...], Field(min_length=2, max_length=2, strict=False)
                ],
                ...,
            ],
            Field(min_length=1, max_length=100, strict=False),
        ]
        | None
    ) = Field(default=None, description="Spans of periods, first and last included, in place of periods and when.")
    min_times: Annotated[int, Field(ge=1, le=1_000)] = 1
    mean: Literal["weighted"] | None = None
    by: By = ()
    limit: Limit = 10

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for place, (low, high) in enumerate(self.brackets or ()):
            if low > high:
                raise ValueError(f"brackets[{place}]: the first period ({low}) must not be after the last ({high})")
        lows = [low for low, _ in self.brackets or ()]
        if len(set(lows)) != len(lows):
            raise ValueError("brackets: two begin with the same period, which names them in the answer")
        return self


class Lifecycle(Ranged):
    """Who is new, stays, comes back, goes."""

    insight: Literal["lifecycle"] = "lifecycle"
    event: Matcher = ANY
    interval: Interval = "week"
    new: Literal["active", "created"] = "active"


class Stickiness(Ranged):
    """On how many days people are active."""

    insight: Literal["stickiness"] = "stickiness"
    event: Matcher = ANY


SESSION_BREAKDOWNS: Final = ("entry_page", "exit_page", "source", "campaign", "browser", "os", "device", "country")


class SessionBreakdown(Model):
    """A value of a session to break down by."""

    column: Literal["entry_page", "exit_page", "source", "campaign", "browser", "os", "device", "country"]


class Sessions(Ranged):
    """Visits: how many, how long, how engaged."""

    insight: Literal["sessions"] = "sessions"
    source: Literal["gap", "sdk"] = "gap"
    gap: Duration = "30m"
    cut_at_midnight: bool = False
    converted: Matcher | None = None
    interval: Interval = "day"
    detail: bool = Field(default=False, description="One row a session.")
    by: Annotated[tuple[SessionBreakdown, ...], Field(max_length=3, strict=False)] = ()
    limit: Annotated[int, Field(ge=1, le=1_000_000)] = 10

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.detail and self.by:
            raise ValueError("detail has one row a session, and no segments: leave out by")
        return self

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, data: object) -> object:
        if isinstance(data, dict) and isinstance(data.get("by"), list):
            return data | {"by": [{"column": one} if isinstance(one, str) else one for one in data["by"]]}
        return data


class UrlRule(Model):
    """Paths that match the pattern are the node ``name``."""

    pattern: Text
    name: Name

    @field_validator("pattern")
    @classmethod
    def _readable(cls, pattern: str) -> str:
        parse_pattern(pattern)
        return pattern


UrlRules = Annotated[tuple[UrlRule, ...], Field(max_length=100, strict=False)]


class Paths(Ranged):
    """Which way people go."""

    insight: Literal["paths"] = "paths"
    unit: Literal["session", "person"] = "session"
    window: Duration | None = Field(default=None, description="For persons: how long after the start; 7d.")
    nodes: Literal["pages", "events", "both"] = "both"
    start: Matcher | None = None
    end: Matcher | None = None
    depth: Annotated[int, Field(ge=1, le=7)] = 5
    limit: Annotated[int, Field(ge=1, le=100)] = 10
    rules: UrlRules | None = Field(
        default=None, description="The first that matches names a path. Default: those of the definitions."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.start is not None and self.end is not None:
            raise ValueError("takes start or end, not both")
        if self.window is not None and self.unit == "session":
            raise ValueError("window is for unit: person")
        return self


class OrderBy(Model):
    """Order persons by what they did in the range of the question, greatest first."""

    measure: Literal["events", "sum", "average", "min", "max"]
    property: Path | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.measure == "events") != (self.property is None):
            raise ValueError(f"{self.measure} {'takes no' if self.measure == 'events' else 'needs a'} property")
        return self


Segment = Annotated[tuple[Text, ...], Field(min_length=2, max_length=3, strict=False)]


class Persons(Model):
    """Who is behind a figure."""

    insight: Literal["persons"] = "persons"
    of: Counting
    cell: dict[str, Value | Segment | None] = Field(default={}, description="Values of the answer's key columns.")
    figure: Name | None = Field(default=None, description="The column that counts persons; the first one by default.")
    order_by: OrderBy | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    project: Name | None = None


class Timeline(Model):
    """Everything that a person did, newest first."""

    insight: Literal["timeline"] = "timeline"
    person_id: Text
    person_kind: Literal["user", "anonymous"] = "user"
    before: str | None = Field(default=None, description="Only events before this time, ISO 8601.")
    limit: Annotated[int, Field(ge=1, le=10_000)] = 100
    project: Name | None = None
    zone: Zone = "UTC"

    @model_validator(mode="after")
    def _time(self) -> Self:
        if self.before is not None:
            parse_instant(self.before)
        return self


COUNTING: Final = (Trends, Funnel, Retention, Lifecycle, Stickiness, Sessions, Paths)
INSIGHTS: Final = (
    "trends",
    "funnel",
    "retention",
    "lifecycle",
    "stickiness",
    "sessions",
    "paths",
    "persons",
    "timeline",
)


def _insight(data: object) -> str | None:
    if isinstance(data, Model):
        return str(getattr(data, "insight", ""))
    return data.get("insight") if isinstance(data, dict) else None


_Counting: TypeAlias = (
    Annotated[Trends, Tag("trends")]
    | Annotated[Funnel, Tag("funnel")]
    | Annotated[Retention, Tag("retention")]
    | Annotated[Lifecycle, Tag("lifecycle")]
    | Annotated[Stickiness, Tag("stickiness")]
    | Annotated[Sessions, Tag("sessions")]
    | Annotated[Paths, Tag("paths")]
)
Counting: TypeAlias = Annotated[_Counting, Discriminator(_insight)]
Question: TypeAlias = Annotated[
    _Counting | Annotated[Persons, Tag("persons")] | Annotated[Timeline, Tag("timeline")], Discriminator(_insight)
]
AnyQuestion: TypeAlias = Trends | Funnel | Retention | Lifecycle | Stickiness | Sessions | Paths | Persons | Timeline
Persons.model_rebuild()
_ADAPTER: Final[TypeAdapter[AnyQuestion]] = TypeAdapter(Question)


def parse_question(data: object) -> AnyQuestion:
    """Read a question from its JSON object. Raises QuestionError."""
    if not isinstance(data, dict):
        raise QuestionError([([], 'a question is a JSON object, as {"insight": "trends", ...}')])
    kind = data.get("insight")
    if kind not in INSIGHTS:
        what = "missing" if kind is None else f"there is no {kind!r}"
        hint = nearest(kind, INSIGHTS) if isinstance(kind, str) else ""
        raise QuestionError([(["insight"], what + (hint or f": one of {', '.join(INSIGHTS)}"))])
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError as error:
        raise QuestionError(plain_errors(data, error)) from None
    except RecursionError:
        raise QuestionError([([], "is nested too deep")]) from None


_TAGS: Final = frozenset({*INSIGHTS, "condition", "cohort", "all", "any", "not", "str", "bool", "int", "float"})
_MESSAGES: Final = {
    "extra_forbidden": "unknown field",
    "missing": "missing",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "tuple_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "string_too_short": "must not be empty",
    "recursion_loop": "is nested too deep",
}
_SCALARS: Final = frozenset({"string_type", "bool_type", "int_type", "float_type"})


def plain_errors(
    data: object, error: ValidationError, tags: frozenset[str] = frozenset()
) -> list[tuple[list[str | int], str]]:
    """Return path and message of each error; one a path, and none that only follows from one within it.

    ``tags``: of unions, which are no part of a path.
    """
    found: dict[tuple[str | int, ...], tuple[str, str]] = {}
    for one in error.errors():
        path = tuple(_path(data, tuple(part for part in one["loc"] if part not in tags)))
        message = _message(one)
        if path in found and {found[path][0], one["type"]} <= _SCALARS:
            message = "must be a text, a number, true or false"
        elif path in found:
            continue
        found[path] = one["type"], message
    return [
        (list(path), message)
        for path, (kind, message) in found.items()
        if kind != "too_short" or not any(other[: len(path)] == path and other != path for other in found)
    ]


def _path(data: object, loc: tuple[str | int, ...]) -> list[str | int]:
    """Return the path within the data: pydantic's also names the members of unions and the validators."""
    path: list[str | int] = []
    current: Any = data
    for place, part in enumerate(loc):
        if part in COHORT_TAGS:
            continue
        is_index = isinstance(current, list | tuple) and isinstance(part, int) and part < len(current)
        if is_index or (isinstance(current, dict) and part in current):
            current = current[part]
        elif place < len(loc) - 1 or not isinstance(current, dict) or part in _TAGS:
            continue
        path.append(part)
    return path


def _message(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"{error['input']!r:.100} is not one of {context['expected']}"
    if kind in _MESSAGES:
        return _MESSAGES[kind]
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        return f"takes a question of {context.get('expected_tags', 'its own kind')}"
    if kind in {"too_short", "too_long"}:
        limit = context.get("min_length" if kind == "too_short" else "max_length")
        return f"takes at {'least' if kind == 'too_short' else 'most'} {limit}, got {context.get('actual_length')}"
    message = str(error["msg"])
    return message[:1].lower() + message[1:]


def question_schema(ref_template: str = "#/$defs/{model}") -> dict[str, Any]:
    """Return the JSON Schema of all questions, for editors and OpenAPI."""
    schema = _ADAPTER.json_schema(by_alias=True, mode="validation", ref_template=ref_template)
    return schema | {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def normal_form(question: AnyQuestion) -> dict[str, Any]:
    """Return the question with each default written out and nothing that is not set."""
    return question.model_dump(mode="json", by_alias=True, exclude_none=True)


def question_hash(question: AnyQuestion) -> str:
    """Return the hash of the normal form but for ``as_of``: SHA-256, hexadecimal."""
    form = normal_form(question)
    for part in (form, form.get("of", {})):
        part.pop("as_of", None)
    text = json.dumps(form, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
