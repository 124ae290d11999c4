"""Map the arguments of ``manymetrics trends``, ``funnel`` and the other short forms to a question's JSON object.

    arguments --argparse, with OPTIONS--> namespace --make_question--> {"insight": "funnel", "steps": [...], ...}

Only what was given becomes a field, so the defaults are the question's own. An event, filter or breakdown that begins
with ``{`` is JSON, and ``--json`` adds any field: nothing that a question can say is out of reach.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from manymetrics_cli.rows_output import FORMAT_OF_ENDING, file_name

Json = dict[str, Any]
ReadQuestion = Callable[[str], object]
"""Reads the JSON of a file, or of standard input for ``-``."""

COUNTING: Final = ("trends", "funnel", "retention", "lifecycle", "stickiness", "sessions", "paths")
SHORT_FORMS: Final = (*COUNTING, "persons", "timeline")
FILTER_HELP: Final = """\
filters:
  properties.plan=pro          also !=, *= (contains), ^= (starts with), $= (ends with), =~ (regular expression)
  properties.total>=20         also <, <=, >; == compares as a number
  properties.plan in pro,free
  properties.total between 10 and 20
  properties.coupon is set     also: is not set
  cohort:buyers
  not FILTER
  In place of properties: traits.plan, or a column, such as geo_country. Keys with dots or spaces: properties."a.b".
events:
  "Order Completed"  any  page:/pricing  type:identify  definition:bought  event:any
  An event, a filter or a breakdown may be JSON too: '{"any_of": [{"event": "A"}, {"page": "/b"}]}'
"""

_INTERVALS: Final = ("hour", "day", "week", "month", "quarter")
_POPULATIONS: Final = ("exclude", "include", "only")
_MATCHER_KINDS: Final = ("event", "page", "type", "definition")
_OF_EVENTS: Final = ("events", "persons", "sessions", "events_per_person", "first_ever")  # measures of no property
_WHOLE_CELLS: Final = frozenset({"step", "n", "days"})  # key columns of answers that hold whole numbers

_KEY: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|((?:(?![*^$]=)[^\s.=<>!"])+)')
_OPERATOR: Final = re.compile(
    r"\s*(?P<sign>==|!=|<=|>=|=~|\*=|\^=|\$=|=|<|>)(?P<value>.*)"
    r"|\s+(?P<word>in|between)\s+(?P<values>.*)"
    r"|\s+is\s+(?P<unset>not\s+)?set\s*",
    re.DOTALL | re.IGNORECASE,
)
_SIGNS: Final = {"=": "is", "!=": "is_not", "*=": "contains", "^=": "starts_with", "$=": "ends_with", "=~": "matches"}


class Option(NamedTuple):
    """One option. ``field``: of the question. ``many``: it may be given several times, and makes a list."""

    name: str
    field: str
    help: str
    parse: Callable[[str], object] = str
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    many: bool = False
    flag: bool = False


def parse_subject(text: str) -> Json:
    """Parse ``properties.a.b``, ``traits.a`` or the name of a column."""
    if text.lstrip().startswith("{"):
        return _object(text)
    subject, rest = _subject(text.strip())
    if rest:
        raise argparse.ArgumentTypeError(f'{text!r}: {rest!r} is unexpected; keys with spaces: properties."a b"')
    return subject


def parse_property(text: str) -> list[str]:
    """Parse the path of a property, with or without ``properties.`` before it."""
    path, rest = _path(text.strip())
    if rest or not path:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a property: write it as in properties.total or properties."a b"'
        )
    return path[1:] if path[0] == "properties" and len(path) > 1 else path


def parse_filter(text: str) -> Json:
    """Parse a filter, such as ``properties.plan=pro``."""
    text = text.strip()
    if text.startswith("{"):
        return _object(text)
    if text[:4].lower() == "not ":
        return {"not": parse_filter(text[4:])}
    if text.startswith("cohort:"):
        return {"cohort": text.removeprefix("cohort:")}
    subject, rest = _subject(text)
    operator = _OPERATOR.fullmatch(rest)
    if operator is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} has no operator: write it as in properties.plan=pro, properties.total>=20, "
            "properties.plan in pro,free or properties.plan is set"
        )
    return subject | _condition(operator)


def parse_matcher(text: str) -> Json:
    """Parse an event: its name, ``any``, or a kind before a colon, such as ``page:/pricing``."""
    if text.lstrip().startswith("{"):
        return _object(text)
    if text == "any":
        return {"any": True}
    kind, colon, rest = text.partition(":")
    return {kind: rest} if colon and kind in _MATCHER_KINDS else {"event": text}


def parse_measure(text: str) -> Json:
    """Parse a measure, with what it is of: ``persons``, ``sum:properties.total``, ``active:28``."""
    measure, colon, of = text.partition(":")
    if not colon:
        return {"measure": measure}
    return {
        "measure": measure,
        **({"trailing": _whole(of)} if measure == "active" else {"property": parse_property(of)}),
    }


def parse_brackets(text: str) -> list[list[int]]:
    """Parse spans of periods, such as ``0,1-3,4-7``."""
    spans = [span.partition("-") for span in text.split(",")]
    return [[_whole(low), _whole(high if dash else low)] for low, dash, high in spans]


def parse_attribution(text: str) -> object:
    """Parse ``first``, ``last``, or the number of a step."""
    return {"step": int(text)} if text.isdecimal() else text


def parse_order_by(text: str) -> Json:
    """Parse ``events`` or ``sum:properties.total``."""
    return parse_measure(text)


def parse_cell(text: str) -> tuple[str, object]:
    """Parse one key column and its value, such as ``step=2`` or ``segment=DE``."""
    column, equals, value = text.partition("=")
    if not equals or not column:
        raise argparse.ArgumentTypeError(f"{text!r} is not a cell's column and value: write it as in step=2")
    return column, _whole(value) if column in _WHOLE_CELLS else value


def parse_object(text: str) -> Json:
    """Parse a JSON object."""
    return _object(text)


def _subject(text: str) -> tuple[Json, str]:
    path, rest = _path(text)
    if not path:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing: write properties.KEY, traits.KEY or a column")
    if len(path) == 1:
        return {"column": path[0]}, rest
    kinds = {"properties": "property", "traits": "trait"}
    if path[0] not in kinds:
        raise argparse.ArgumentTypeError(
            f'{text!r}: write properties.KEY, traits.KEY or a column (a key with dots: properties."a.b")'
        )
    return {kinds[path[0]]: path[1:]}, rest


def _path(text: str) -> tuple[list[str], str]:
    """Return the keys at the start of the text, and what follows."""
    path: list[str] = []
    at = 0
    while (key := _KEY.match(text, at)) is not None:
        path.append(key[2] if key[1] is None else re.sub(r"\\(.)", r"\1", key[1]))
        at = key.end()
        if text[at : at + 1] != ".":
            break
        at += 1
    return path, text[at:]


def _condition(operator: re.Match[str]) -> Json:
    if operator["sign"] is not None:
        return _comparison(operator["sign"], operator["value"].strip())
    if operator["word"] is None:
        return {"is_set": operator["unset"] is None}
    if operator["word"].lower() == "in":
        return {"in": [value.strip() for value in operator["values"].split(",")]}
    low, *high = re.split(r"\s+and\s+", operator["values"], maxsplit=1, flags=re.IGNORECASE)
    if not high:
        raise argparse.ArgumentTypeError("between takes two values: write it as in `between 10 and 20`")
    return {"between": [_value(low), _value(high[0])]}


def _comparison(sign: str, value: str) -> Json:
    if sign in _SIGNS:
        return {_SIGNS[sign]: value}
    return {"is" if sign == "==" else sign: _value(value)}


def _value(text: str) -> object:
    """Return a number, true or false if the text is one in JSON, else the text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float | str) else text


def _object(text: str) -> Json:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object")
    return value


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


_RANGE: Final = (
    Option("--from", "from", "first local day, such as 2026-09-05", metavar="DATE"),
    Option(
        "--to", "to", "the local day after the last one; or a file for the rows, such as rows.csv", metavar="DATE|FILE"
    ),
    Option("--last", "last", "whole local days up to today, in place of --from and --to (default: 30d)", metavar="30d"),
    Option("--zone", "zone", "time zone of days and hours, such as Europe/London (default: UTC)", metavar="ZONE"),
    Option("--week-start", "week_start", "first day of a week (default: monday)", choices=("monday", "sunday")),
    Option("--project", "project", "may be left out where there is only one", metavar="ID"),
    Option("--where", "where", "only events that pass; all of several", parse_filter, metavar="FILTER", many=True),
    Option("--internal", "internal", "internal users (default: include)", choices=_POPULATIONS),
    Option("--bots", "bots", "bots (default: exclude)", choices=_POPULATIONS),
    Option("--as-of", "as_of", "as if only what was received up to this time were there", metavar="TIME"),
)
_BY: Final = (
    Option(
        "--by",
        "by",
        "break down by properties.KEY, traits.KEY or a column; up to three",
        parse_subject,
        metavar="PATH",
        many=True,
    ),
    Option("--limit", "limit", "segments shown, the rest is (other) (default: 10)", _whole, metavar="N"),
)
_INTERVAL: Final = Option("--interval", "interval", "length of a bucket", choices=_INTERVALS)

OPTIONS: Final[Mapping[str, tuple[Option, ...]]] = {
    "trends": (
        Option(
            "--measure",
            "measure",
            "events, persons, sessions, events_per_person, sum, average, median, p90, min, max, distinct, first_ever "
            "or active; with a property, as in sum:properties.total, or days, as in active:28; once for all events, or "
            "once for each (default: events)",
            parse_measure,
            metavar="MEASURE",
            many=True,
        ),
        Option("--property", "property", "what is measured, as in properties.total", parse_property, metavar="PATH"),
        Option("--trailing", "trailing", "days of active: 1, 7, 28 or 30", _whole, metavar="DAYS"),
        Option("--label", "label", "name of a series; once for each event", metavar="TEXT", many=True),
        Option("--formula", "formulas", "arithmetic over the series, as in 'A / B'", metavar="FORMULA", many=True),
        _INTERVAL,
        Option("--compare", "compare", "the same before", choices=("previous", "year")),
        Option("--cumulative", "cumulative", "running totals", flag=True),
        Option("--moving", "moving", "average of so many buckets", _whole, metavar="N"),
        *_BY,
    ),
    "funnel": (
        Option("--within", "window", "from the first step to the last (default: 7d)", metavar="7d"),
        Option("--order", "order", "order of the steps (default: loose)", choices=("loose", "strict", "any")),
        Option("--count", "count", "what is counted (default: persons)", choices=("persons", "sessions")),
        Option("--reentry", "reentry", "which entry of a person counts (default: best)", choices=("best", "first")),
        Option(
            "--exclude",
            "exclude",
            "must not happen between the first and the last step; other steps as JSON: "
            '\'{"event": "X", "after": 1, "before": 2}\'',
            parse_matcher,
            metavar="EVENT",
            many=True,
        ),
        Option("--exclusion", "exclusion", "what an excluded event does (default: stop)", choices=("stop", "drop")),
        Option("--hold", "hold", "a property that is equal on all steps", parse_property, metavar="PATH"),
        Option(
            "--attribution",
            "attribution",
            "step whose value --by takes: first (default), last or its number",
            parse_attribution,
            metavar="STEP",
        ),
        Option("--by-time", "by_time", "also break down by the time of the entry", choices=_INTERVALS),
        *_BY,
    ),
    "retention": (
        Option("--born", "born", "what begins it (default: any)", parse_matcher, metavar="EVENT"),
        Option("--return", "return", "what counts as coming back (default: any)", parse_matcher, metavar="EVENT"),
        Option(
            "--born-is",
            "born_is",
            "which event begins it (default: in_range)",
            choices=("in_range", "ever", "recurring"),
        ),
        _INTERVAL,
        Option("--periods", "periods", "how many periods follow (default: 14)", _whole, metavar="N"),
        Option(
            "--period", "period", "calendar (default) or rolling: 24 h from the event", choices=("calendar", "rolling")
        ),
        Option("--when", "when", "when a return counts (default: on)", choices=("on", "on_or_after", "on_or_before")),
        Option("--brackets", "brackets", "spans of periods, as in 0,1-3,4-7", parse_brackets, metavar="SPANS"),
        Option("--min-times", "min_times", "how many returns count as one (default: 1)", _whole, metavar="N"),
        Option("--mean", "mean", "also the mean of all cohorts", choices=("weighted",)),
        *_BY,
    ),
    "lifecycle": (
        _INTERVAL,
        Option("--new", "new", "new is the first active, or the first of all events", choices=("active", "created")),
    ),
    "stickiness": (),
    "sessions": (
        Option("--source", "source", "what ends a session: a gap (default), or the SDK", choices=("gap", "sdk")),
        Option("--gap", "gap", "the longest pause within a session (default: 30m)", metavar="30m"),
        Option("--cut-at-midnight", "cut_at_midnight", "a session ends at midnight", flag=True),
        Option("--converted", "converted", "what counts as converted", parse_matcher, metavar="EVENT"),
        _INTERVAL,
        Option("--detail", "detail", "one row a session", flag=True),
        Option(
            "--by",
            "by",
            "break down by entry_page, exit_page, source, campaign, browser, os, device or country",
            parse_subject,
            metavar="COLUMN",
            many=True,
        ),
        _BY[1],
    ),
    "paths": (
        Option("--unit", "unit", "whose ways (default: session)", choices=("session", "person")),
        Option("--within", "window", "of persons: how long after the start (default: 7d)", metavar="7d"),
        Option("--nodes", "nodes", "what a way is made of (default: both)", choices=("pages", "events", "both")),
        Option("--start", "start", "ways from this event on", parse_matcher, metavar="EVENT"),
        Option("--end", "end", "ways that lead to this event", parse_matcher, metavar="EVENT"),
        Option("--depth", "depth", "nodes of a way, up to 7 (default: 5)", _whole, metavar="N"),
        Option("--limit", "limit", "nodes of a step, the rest is (other) (default: 10)", _whole, metavar="N"),
    ),
    "persons": (
        Option(
            "--cell", "cell", "key column and value of the cell, as in step=2", parse_cell, "COLUMN=VALUE", many=True
        ),
        Option("--figure", "figure", "the column that counts persons (default: the first)", metavar="COLUMN"),
        Option("--order-by", "order_by", "events, or as in sum:properties.total", parse_order_by, metavar="MEASURE"),
        Option("--limit", "limit", "how many persons (default: all)", _whole, metavar="N"),
        Option("--project", "project", "may be left out where there is only one", metavar="ID"),
    ),
    "timeline": (
        Option("--kind", "person_kind", "kind of the id (default: user)", choices=("user", "anonymous")),
        Option("--before", "before", "only events before this time", metavar="TIME"),
        Option("--limit", "limit", "how many events (default: 100)", _whole, metavar="N"),
        Option("--zone", "zone", "time zone (default: UTC)", metavar="ZONE"),
        Option("--project", "project", "may be left out where there is only one", metavar="ID"),
    ),
}
_NUMBERED: Final = {"trends": ("--series-where", "series"), "funnel": ("--step-where", "step")}
_NAMED: Final = {"retention": (("--born-where", "born"), ("--return-where", "return"))}
_EVENTS: Final[Mapping[str, tuple[str, str]]] = {  # insights that take events by position
    "trends": ("*", "events to count, one series each (default: any)"),
    "funnel": ("+", "the steps, 2 to 10"),
    "lifecycle": ("?", "what counts as active (default: any)"),
    "stickiness": ("?", "what counts as active (default: any)"),
}
_JSON_OPTION: Final = Option("--json", "json", "more fields of the question, as JSON", parse_object, metavar="OBJECT")


def options_of(insight: str) -> tuple[Option, ...]:
    """Return all options of a short form that are fields of the question."""
    return (*OPTIONS[insight], *(_RANGE if insight in COUNTING else ()))


def add_question_arguments(parser: argparse.ArgumentParser, insight: str) -> None:
    """Add the arguments of a short form."""
    if insight in _EVENTS:
        nargs, text = _EVENTS[insight]
        parser.add_argument("events", nargs=nargs, type=parse_matcher, metavar="EVENT", help=text)
    if insight == "persons":
        parser.add_argument("of", metavar="QUESTION.json", help="the question, or its answer; - reads standard input")
    if insight == "timeline":
        parser.add_argument("person_id", metavar="PERSON_ID", help="as in the column person_id")
    for option in (*options_of(insight), _JSON_OPTION):
        _add(parser, option)
    if insight in _NUMBERED:
        name, what = _NUMBERED[insight]
        help_text = f"only events of that {what} that pass, counted from 1; all of several"
        parser.add_argument(name, dest="where_of", nargs=2, action="append", metavar=("N", "FILTER"), help=help_text)
    for name, what in _NAMED.get(insight, ()):
        help_text = f"only events of --{what} that pass; all of several"
        dest = f"{what}_where"
        parser.add_argument(name, dest=dest, type=parse_filter, action="append", metavar="FILTER", help=help_text)


class _DayOrFile(argparse.Action):
    """``--to 2026-10-05`` is the end of the range, ``--to rows.csv`` or ``--to ./rows`` a file, as in ``query``."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        value: Any,  # noqa: ANN401  # as the base class
        _name: str | None = None,
    ) -> None:
        if os.sep in value or Path(value).suffix.lower() in FORMAT_OF_ENDING:
            namespace.to = file_name(value)
        else:
            setattr(namespace, self.dest, value)


def _add(parser: argparse.ArgumentParser, option: Option) -> None:
    dest = _dest(option)
    if option.name == "--to":
        parser.add_argument("--to", dest=dest, action=_DayOrFile, metavar=option.metavar, help=option.help)
        parser.set_defaults(to=None)
        return
    if option.flag:
        parser.add_argument(option.name, dest=dest, action="store_true", default=None, help=option.help)
        return
    parser.add_argument(
        option.name,
        dest=dest,
        type=option.parse,
        choices=option.choices,
        action="append" if option.many else "store",
        metavar=option.metavar,
        help=option.help.replace("%", "%%"),
    )


def _dest(option: Option) -> str:
    return f"of_{option.field}"  # apart from the command's own arguments


def make_question(insight: str, args: argparse.Namespace, read: ReadQuestion) -> Json:
    """Make the question's JSON object. Raises ArgumentTypeError for arguments that don't fit together."""
    given = {option.field: getattr(args, _dest(option)) for option in options_of(insight)}
    fields = {name: value for name, value in given.items() if value is not None}
    make = {"trends": _trends, "funnel": _funnel, "retention": _retention, "persons": _persons}.get(insight)
    if make is not None:
        fields = make(args, fields)
    elif insight in _EVENTS and args.events is not None:
        fields["event"] = args.events
    elif insight == "timeline":
        fields["person_id"] = args.person_id
    if insight == "sessions" and "by" in fields:
        fields["by"] = [by.get("column", by) if isinstance(by, dict) else by for by in fields["by"]]
    if insight == "persons":
        fields = {"of": question_of(read(args.of)), **fields}
    return {"insight": insight, **fields, **(getattr(args, _dest(_JSON_OPTION)) or {})}


def question_of(data: object) -> object:
    """Return the question of an answer; a question as it is."""
    return data["question"] if isinstance(data, dict) and "question" in data and "rows" in data else data


def _trends(args: argparse.Namespace, fields: Json) -> Json:
    series = [dict(matcher) for matcher in args.events or [{"any": True}]]
    measures, labels = fields.pop("measure", []), fields.pop("label", [])
    of: Json = {name: fields.pop(name) for name in ("property", "trailing") if name in fields}
    for one, measure in zip(series, _spread("--measure", measures, series), strict=False):
        one.update(measure)
    for name, value in of.items():
        for one in [one for one in series if _takes(one, name)] or series:  # no series: the question is refused
            one[name] = value
    if len(labels) > len(series):
        raise argparse.ArgumentTypeError(f"--label: there are {len(labels)}, but {len(series)} events")
    for one, label in zip(series, labels, strict=False):
        one["label"] = label
    _filter_numbered(series, args.where_of, "--series-where")
    return {"series": series, **fields}


def _takes(series: Json, name: str) -> bool:
    """Return whether ``--property`` or ``--trailing`` is for this one of several series."""
    measure = series.get("measure", "events")
    takes = measure == "active" if name == "trailing" else measure not in {*_OF_EVENTS, "active"}
    return takes and name not in series


def _spread(name: str, values: Sequence[Json], series: Sequence[Json]) -> Sequence[Json]:
    """Return one value for each: the same for all if there is one."""
    if len(values) == 1:
        return [values[0]] * len(series)
    if len(values) not in {0, len(series)}:
        raise argparse.ArgumentTypeError(f"{name}: give one, or one for each of the {len(series)} events")
    return values


def _funnel(args: argparse.Namespace, fields: Json) -> Json:
    steps = [dict(matcher) for matcher in args.events]
    _filter_numbered(steps, args.where_of, "--step-where")
    if "hold" in fields:
        fields["hold"] = {"property": fields["hold"]}
    return {"steps": steps, **fields}


def _retention(args: argparse.Namespace, fields: Json) -> Json:
    for name in ("born", "return"):
        filters = getattr(args, f"{name}_where")
        if filters:
            fields[name] = _filtered(fields.get(name, {"any": True}), filters)
    return fields


def _persons(_args: argparse.Namespace, fields: Json) -> Json:
    return fields | ({"cell": dict(fields["cell"])} if "cell" in fields else {})


def _filter_numbered(matchers: list[Json], filters: Sequence[Sequence[str]] | None, name: str) -> None:
    for number, text in filters or ():
        if not (number.isdecimal() and 1 <= int(number) <= len(matchers)):
            raise argparse.ArgumentTypeError(f"{name}: {number!r} is not a number from 1 to {len(matchers)}")
        place = int(number) - 1
        matchers[place] = _filtered(matchers[place], [parse_filter(text)])


def _filtered(matcher: Json, filters: Sequence[Json]) -> Json:
    return matcher | {"where": [*matcher.get("where", []), *filters]}
