"""``manymetrics definitions``: check, list, render and push what the files of ``MANYMETRICS_DEFINITIONS`` define."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Final

from manymetrics.settings import Settings, SettingsError
from manymetrics_cli.data_dir import add_data_dir
from manymetrics_cli.definitions_source import VARIABLE, load_definitions
from manymetrics_cli.help_text import KeepExamples
from manymetrics_cli.progress import showing_progress
from manymetrics_cli.question_sql import question_sql
from manymetrics_cli.reading import naming_failed_files, run_interruptibly
from manymetrics_cli.rows_output import CommandError, write_rows
from manymetrics_cli.table_source import WAREHOUSE_VARIABLE, describe_reading_failure, find_source

if TYPE_CHECKING:
    from manymetrics_insights.definitions.glue import Change
    from manymetrics_insights.definitions.models import Definitions
    from manymetrics_insights.definitions.read import Loaded

_EXAMPLES: Final = """\
examples:
  export MANYMETRICS_DEFINITIONS=definitions
  manymetrics definitions check
  manymetrics definitions list
  manymetrics definitions sql Bought
  manymetrics definitions push --yes
  manymetrics definitions --schema > definitions.schema.json
"""
_KINDS: Final = {"event": "events", "cohort": "cohorts", "insight": "insights"}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``definitions``."""
    parser = subparsers.add_parser(
        "definitions",
        help="check and list defined events, cohorts and saved insights",
        description=(
            "Events, cohorts, internal users, bots, URL rules, saved insights and boards are defined in the YAML files "
            f"of a folder or S3 prefix, which {VARIABLE} names: docs/definitions.md."
        ),
        epilog=_EXAMPLES,
        formatter_class=KeepExamples,
    )
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of a file, for editors")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    check = actions.add_parser("check", help="name what is wrong, what was never seen, and what counts nothing")
    add_data_dir(check)
    check.set_defaults(data_dir=None)  # None: not given, so MANYMETRICS_WAREHOUSE takes precedence
    actions.add_parser("list", help="list all definitions")
    sql = actions.add_parser("sql", help="print the SQL of an event, a cohort or a saved insight")
    sql.add_argument("name", metavar="NAME", help="its name, or kind and name, as in cohort:Buyers")
    add_data_dir(sql)
    sql.set_defaults(data_dir=None)
    push = actions.add_parser("push", help="write events and cohorts as views to AWS Glue; shows the changes first")
    push.add_argument("--yes", action="store_true", help="make the changes; without it, they are only shown")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run an action. Returns 0; 1 for definitions that are wrong, or a failure. Raises SettingsError."""
    if not args.schema and args.action is None:
        raise SettingsError("an action is missing: check, list, sql or push; see `manymetrics definitions --help`")
    try:
        return _run(args)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        print(message, file=sys.stderr)
        return 1


def _run(args: argparse.Namespace) -> int:
    if args.schema:
        from manymetrics_insights.definitions.models import definitions_schema

        print(json.dumps(definitions_schema(), indent=2, ensure_ascii=False))
        return 0
    loaded = load_definitions()
    if loaded is None:
        raise SettingsError(f"there are no definitions: set {VARIABLE} to their folder, or to s3://bucket/prefix")
    if args.action == "check":
        return _check(args, loaded)
    if args.action == "list":
        write_rows(sys.stdout, "table", ["kind", "name", "file", "what"], list(_listed(loaded)))
        return 0
    if args.action == "sql":
        print(_sql(args, loaded.definitions))
        return 0
    return _push(args, loaded.definitions)


def _message(error: Exception) -> str | None:
    """Return the message for the user; None for an error that only a bug can cause."""
    import duckdb

    from manymetrics_insights.definitions.read import DefinitionsError
    from manymetrics_insights.questions.models import QuestionError
    from manymetrics_insights.reader.formats import escape_controls

    if isinstance(error, DefinitionsError):  # whose lines begin with the file
        text = escape_controls(str(error), keep="\n")
        return text if error.problems else f"manymetrics definitions: {text}"
    if isinstance(error, QuestionError | duckdb.Error):
        return f"manymetrics definitions: {escape_controls(str(error).partition('LINE 1')[0].strip())}"
    described = describe_reading_failure(error)
    return None if described is None else f"manymetrics definitions: {described}"


def _check(args: argparse.Namespace, loaded: Loaded) -> int:
    """Print warnings on standard output, as errors are: ``file:line:column: path: message``."""
    from manymetrics_insights.definitions.check import warnings
    from manymetrics_insights.reader.formats import escape_controls
    from manymetrics_insights.reader.session import open_session

    count = sum(1 for _ in _listed(loaded))
    try:
        source = find_source(args.data_dir)
    except SettingsError as error:
        print(f"{count} definitions: no errors. They were not compared with events: {error}")
        return 0
    session = open_session(source)
    with closing(session.connection), naming_failed_files(session), showing_progress(sys.stderr, "counting"):
        found = run_interruptibly(session.connection, lambda: list(warnings(loaded, session.connection)))
    for warning in found:
        print(escape_controls(str(warning)))
    print(f"{count} definitions: no errors, {len(found)} warning{'' if len(found) == 1 else 's'}")
    return 0


def _listed(loaded: Loaded) -> Iterator[tuple[str, str, str, str]]:
    from manymetrics_insights.definitions.views import view_name

    definitions = loaded.definitions
    for name, matcher in definitions.events.items():
        what = definitions.descriptions.get(name) or matcher.title
        yield "event", name, _file(loaded, "events", name), f"{what} (view {view_name('event', name)})"
    for name in definitions.cohorts:
        yield "cohort", name, _file(loaded, "cohorts", name), f"view {view_name('cohort', name)}"
    if definitions.internal is not None:
        yield "internal", "", _file(loaded, "internal"), "internal users"
    for place, _ in enumerate(definitions.bots):
        yield "bots", "", _file(loaded, "bots", place), f"rule {place + 1}"
    for place, rule in enumerate(definitions.paths):
        yield "paths", rule.name, _file(loaded, "paths", place), rule.pattern
    for name, question in definitions.insights.items():
        yield "insight", name, _file(loaded, "insights", name), question.insight
    for name, board in definitions.boards.items():
        yield "board", name, _file(loaded, "boards", name), board.title


def _file(loaded: Loaded, *path: str | int) -> str:
    file, (line, _) = loaded.where(path)
    return f"{file}:{line}"


def _sql(args: argparse.Namespace, definitions: Definitions) -> str:
    from manymetrics_insights.definitions.inline import inline
    from manymetrics_insights.definitions.views import make_view

    kind, name = _find(args.name, definitions)
    if kind == "insight":
        return question_sql(inline(definitions.insights[name], definitions), find_source(args.data_dir))
    return make_view(definitions, kind, name).sql


def _find(wanted: str, definitions: Definitions) -> tuple[str, str]:
    """Return kind and name. Raises CommandError."""
    from manymetrics_insights.questions.base import nearest

    known = [(kind, name) for kind, field in _KINDS.items() for name in getattr(definitions, field)]
    found = [(kind, name) for kind, name in known if wanted in {name, f"{kind}:{name}"}]
    if len(found) > 1:
        raise CommandError(
            f"There are several {wanted!r}: write {' or '.join(f'{kind}:{name}' for kind, name in found)}."
        )
    if not found:
        raise CommandError(
            f"There is no event, cohort or insight {wanted!r}{nearest(wanted, [name for _, name in known])}"
        )
    return found[0]


def _push(args: argparse.Namespace, definitions: Definitions) -> int:
    if not os.environ.get(WAREHOUSE_VARIABLE):
        raise CommandError(f"push writes views to AWS Glue: set {WAREHOUSE_VARIABLE} to the tables' location.")
    from manymetrics_insights.definitions import glue
    from manymetrics_insights.reader.s3 import glue_source

    database = Settings.read(os.environ).database
    client = glue_source(os.environ[WAREHOUSE_VARIABLE], database, os.environ).glue
    changes = glue.plan(client, database, definitions)
    for change in changes:
        _show(change)
    counts = ", ".join(
        f"{sum(one.kind == kind for one in changes)} to {kind}" for kind in ("create", "update", "delete")
    )
    if not changes:
        print(f"The views in Glue's {database} are those of the definitions.")
    elif args.yes:
        glue.apply(client, database, changes)
        print(f"Done in Glue's {database}: {counts}.")
    else:
        print(f"Views in Glue's {database}: {counts}. Nothing was changed: add --yes to do it.")
    return 0


def _show(change: Change) -> None:
    from manymetrics_insights.reader.formats import escape_controls

    print(f"{change.kind} {change.name}")
    before, after = (change.before or "").splitlines(), (change.after or "").splitlines()
    if change.kind == "update":
        for line in list(difflib.unified_diff(before, after, lineterm="", n=1))[2:]:
            print(f"  {escape_controls(line)}")
