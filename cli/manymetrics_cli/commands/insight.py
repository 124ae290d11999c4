"""``manymetrics insight`` and its short forms, such as ``trends`` and ``funnel``: ask a question, show the answer.

    arguments or JSON -> question -> one SQL text -> rows -> table and chart, CSV, JSON, NDJSON or Parquet

``--verify`` asks an old answer's question of the same snapshot again; ``--diff`` compares two answers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from manymetrics.settings import Settings
from manymetrics_cli.data_dir import add_data_dir
from manymetrics_cli.definitions_source import known_definitions
from manymetrics_cli.help_text import KeepExamples
from manymetrics_cli.insight_arguments import (
    COUNTING,
    FILTER_HELP,
    SHORT_FORMS,
    add_question_arguments,
    make_question,
    question_of,
)
from manymetrics_cli.progress import Tell, showing_progress
from manymetrics_cli.question_sql import question_sql, read_stream
from manymetrics_cli.reading import naming_failed_files, retry_on_newer, run_interruptibly
from manymetrics_cli.rows_output import (
    BINARY,
    CommandError,
    add_output,
    check_target,
    choose_format,
    open_target,
    write_binary,
    write_rows,
)
from manymetrics_cli.table_source import WAREHOUSE_VARIABLE, describe_reading_failure, find_source

if TYPE_CHECKING:
    from manymetrics_insights.asking.answer import Answer
    from manymetrics_insights.asking.athena import Progress
    from manymetrics_insights.asking.compare import Change
    from manymetrics_insights.questions.models import AnyQuestion
    from manymetrics_insights.reader.iceberg import Source

ENGINES: Final = ("duckdb", "athena")
REFUSED: Final = 2  # exit status of a question that is not valid
EXPIRED: Final = 3  # exit status of --verify where the snapshot is gone
MAX_SHOWN: Final = 2_000  # rows of a table for people; more are written as they are

_HELP: Final = {
    "trends": "count events, persons or sums over time",
    "funnel": "show how many go on from step to step",
    "retention": "show who comes back",
    "lifecycle": "show who is new, stays, comes back or goes",
    "stickiness": "show on how many days people are active",
    "sessions": "show visits: how many, how long, how engaged",
    "paths": "show where people go next",
    "persons": "list who is behind a figure of an answer",
    "timeline": "show everything that a person did",
}
_EXAMPLES: Final = {
    "insight": """\
examples:
  manymetrics insight question.json
  MANYMETRICS_DEFINITIONS=definitions manymetrics insight orders
  manymetrics funnel "Product Viewed" "Order Completed" -o json > answer.json
  manymetrics insight --verify answer.json
  manymetrics insight --diff monday.json tuesday.json
  echo '{"insight": "stickiness", "last": "30d"}' | manymetrics insight - -o csv
  manymetrics insight --schema > question.schema.json
""",
    "trends": """\
examples:
  manymetrics trends "Order Completed" --measure persons --by properties.country --last 30d --interval day
  manymetrics trends "Order Completed" --measure sum:properties.total --interval week --compare previous
  manymetrics trends any --measure active:28 --zone Europe/London
  manymetrics trends "Order Completed" "Product Viewed" --measure persons --formula "A / B"
""",
    "funnel": """\
examples:
  manymetrics funnel "Product Viewed" "Order Completed" --within 7d --from 2026-09-05 --to 2026-10-05
  manymetrics funnel page:/pricing "Signed Up" --step-where 2 properties.plan=pro --by channel
""",
    "retention": """\
examples:
  manymetrics retention --born "Signed Up" --return any --interval week
  manymetrics retention --born-is ever --brackets 0,1-3,4-7 --mean weighted
""",
    "lifecycle": """\
examples:
  manymetrics lifecycle --interval week --last 90d
""",
    "stickiness": """\
examples:
  manymetrics stickiness "Order Completed" --last 30d
""",
    "sessions": """\
examples:
  manymetrics sessions --by source --converted "Order Completed"
  manymetrics sessions --detail --where "channel=Organic Search" --to sessions.csv
""",
    "paths": """\
examples:
  manymetrics paths --start page:/pricing --nodes pages --depth 4
  manymetrics paths --end "Order Completed"
""",
    "persons": """\
examples:
  manymetrics funnel "Product Viewed" "Order Completed" -o json | manymetrics persons - --cell step=2 --figure dropped
  manymetrics persons question.json --cell bucket=2026-09-05 --order-by sum:properties.total --limit 20
""",
    "timeline": """\
examples:
  manymetrics timeline u-42 --limit 20
  manymetrics timeline 7f3c... --kind anonymous --before 2026-10-05T00:00:00Z
""",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``insight`` and its short forms."""
    _add_insight(subparsers)
    for name in SHORT_FORMS:
        parser = subparsers.add_parser(
            name,
            help=_HELP[name],
            description=f"{_HELP[name].capitalize()}. A short form of `manymetrics insight`: docs/insights.md defines "
            "each term.",
            epilog=f"{_EXAMPLES[name]}{FILTER_HELP if name not in {'persons', 'timeline'} else ''}",
            formatter_class=KeepExamples,
        )
        add_question_arguments(parser, name)
        _add_shared(parser, to=name not in COUNTING)  # those have a --to of their own
        parser.set_defaults(command=name, schema=False, verify=None, diff=None)


def _add_insight(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "insight",
        help="ask a question: trends, funnels, retention, sessions, paths, ...",
        description=(
            "Ask a question, written as a JSON object. Each answer names the question, its SQL, the snapshot it was "
            "asked of, and the time up to which everything received is in it."
        ),
        epilog=_EXAMPLES["insight"],
        formatter_class=KeepExamples,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    question = "a question, or the name of a saved one; - reads standard input"
    what.add_argument("question", nargs="?", metavar="QUESTION.json", help=question)
    what.add_argument("--schema", action="store_true", help="print the JSON Schema of questions")
    what.add_argument(
        "--verify",
        metavar="ANSWER.json",
        help="ask again of the same snapshot: 0 if sql, columns and rows are equal, 1 if not, 3 if it has expired",
    )
    what.add_argument("--diff", nargs=2, metavar=("A.json", "B.json"), help="show which cells differ; 1 if any")
    _add_shared(parser)
    parser.set_defaults(command="insight")


def _add_shared(parser: argparse.ArgumentParser, *, to: bool = True) -> None:
    add_output(parser, to=to)
    parser.add_argument("--sql", action="store_true", help="print the SQL instead of asking")
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="duckdb",
        help="who answers: duckdb (default), or athena, in the workgroup MANYMETRICS_ATHENA_WORKGROUP",
    )
    add_data_dir(parser)
    parser.set_defaults(run=run, data_dir=None)  # None: not given, so MANYMETRICS_WAREHOUSE takes precedence


def run(args: argparse.Namespace) -> int:
    """Ask. Returns 0; 2 for a question that is refused, 1 for a failure, 3 for a snapshot that has expired.

    Raises SettingsError if there are no tables.
    """
    try:
        status = _run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python reports an error at exit
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        refused, messages = _messages(error)
        if not messages:
            raise
        for message in messages:
            print(f"manymetrics {args.command}: {message}", file=sys.stderr)
        return REFUSED if refused else 1
    return status


def _run(args: argparse.Namespace) -> int:
    if args.schema:
        return _print_schema()
    if args.to is not None:
        check_target(args.to, args.data_dir)
    args.output = choose_format(args.output, args.to)
    if args.output == "parquet" and args.to is None and sys.stdout.isatty():
        raise CommandError(BINARY)
    if args.diff is not None:
        return _diff(args, *map(_read_answer, args.diff))
    if args.verify is not None:
        return _verify(args, _read_answer(args.verify))
    question = _question(args)
    if args.sql:
        with open_target(args.to, args.data_dir) as target:
            target.write(f"{question_sql(question, find_source(args.data_dir))}\n")
        return 0
    with showing_progress(sys.stderr, f"asking {args.engine}") as tell:
        answer = _ask(args, question, tell)
    _write(args, answer)
    return 0


def _print_schema() -> int:
    from manymetrics_insights.questions.models import question_schema

    print(json.dumps(question_schema(), indent=2, ensure_ascii=False))
    return 0


def _question(args: argparse.Namespace) -> AnyQuestion:
    """Return what is asked, with the definitions in it: an answer's question doesn't change when they do."""
    from manymetrics_insights.definitions.inline import inline
    from manymetrics_insights.questions.models import parse_question

    definitions = known_definitions()
    if args.command != "insight":
        return inline(parse_question(make_question(args.command, args, _read_json)), definitions)
    if definitions is None or args.question == "-" or os.path.exists(args.question):  # noqa: PTH110  # of any length
        return inline(parse_question(question_of(_read_json(args.question))), definitions)
    if args.question not in definitions.insights:
        from manymetrics_insights.questions.base import nearest

        hint = nearest(args.question, definitions.insights)
        raise RefusedInputError(f"there is neither a file nor a saved insight {args.question!r}{hint}")
    return inline(definitions.insights[args.question], definitions)


def _read_json(name: str) -> object:
    """Read the JSON of a file, or of standard input for ``-``. Raises RefusedInputError."""
    where, text = _read(name)
    try:
        return json.loads(text.decode("utf-8-sig"))
    except ValueError as error:  # of JSON, or of UTF-8
        raise RefusedInputError(f"{where} is not JSON: {error}") from error


def _read_answer(name: str) -> dict[str, Any]:
    from manymetrics_insights.asking.compare import AnswerError, read_answer

    where, text = _read(name)
    try:
        return read_answer(text)
    except AnswerError as error:
        raise RefusedInputError(f"{where}: {error}") from error


def _read(name: str) -> tuple[str, bytes]:
    if name == "-":
        return "standard input", sys.stdin.buffer.read()
    try:
        return name, Path(name).read_bytes()
    except OSError as error:
        raise CommandError(f"{name} can't be read: {error.strerror}.") from error


class RefusedInputError(Exception):
    """A file is not what the command takes."""


def _messages(error: Exception) -> tuple[bool, list[str]]:
    """Return whether the question was refused, and the messages; none for an error that only a bug can cause."""
    from manymetrics_insights.asking.compare import AnswerError
    from manymetrics_insights.definitions.read import DefinitionsError
    from manymetrics_insights.questions.models import QuestionError, show_path
    from manymetrics_insights.reader.formats import escape_controls

    if isinstance(error, DefinitionsError):
        return True, [escape_controls(line) for line in str(error).splitlines()]
    if isinstance(error, QuestionError):
        said = ((show_path(path), message) for path, message in error.errors)
        return True, [escape_controls(f"{path}: {message}" if path else message) for path, message in said]
    if isinstance(error, argparse.ArgumentTypeError | AnswerError | RefusedInputError):
        return True, [escape_controls(str(error))]
    message = _failure(error)
    return False, [] if message is None else [message]


def _failure(error: Exception) -> str | None:
    """Return the message of a failure, never with SQL; None for an error that only a bug can cause."""
    import duckdb

    if isinstance(error, duckdb.OutOfMemoryException):
        return "There is not enough memory for this question: ask about a shorter range, or fewer segments."
    if isinstance(error, duckdb.Error):
        return f"DuckDB can't answer: {str(error).partition('LINE 1')[0].splitlines()[0]}"
    return describe_reading_failure(error)


def _write(args: argparse.Namespace, answer: Answer) -> None:
    from manymetrics_cli.insight_rows import write_parquet
    from manymetrics_insights.reader.formats import escape_json

    if args.output == "parquet":
        write_binary(args.to, args.data_dir, lambda part: write_parquet(answer.columns, answer.rows, part))
    else:
        with open_target(args.to, args.data_dir) as target:
            if args.output == "json":
                text = answer.to_json().decode()
                target.write(f"{escape_json(text) if target.isatty() else text}\n")
            elif args.output == "table" and target.isatty() and len(answer.rows) <= MAX_SHOWN:
                _show(answer, target)
            else:
                write_rows(target, args.output, answer.columns, answer.rows)
    sys.stdout.flush()
    _print_notes(answer, with_summary=args.output == "table")


def _show(answer: Answer, target: IO[str]) -> None:
    from manymetrics_cli.insight_tables import show  # rich takes 50 ms to import

    show(str(answer.question["insight"]), answer.columns, answer.rows, target)


def _print_notes(answer: Answer, *, with_summary: bool) -> None:
    """Print on standard error what the rows alone don't say."""
    from manymetrics_insights.reader.formats import escape_controls

    if answer.ignored:
        print(f"note: {answer.ignored:,} values are no numbers, and were ignored", file=sys.stderr)
    for note in answer.notes:
        print(f"note: {escape_controls(note)}", file=sys.stderr)
    if with_summary:
        print(f"({', '.join(_summary(answer))})", file=sys.stderr)


def _summary(answer: Answer) -> Iterator[str]:
    from manymetrics_insights.asking.answer import show_time

    count = len(answer.rows)
    yield f"{count:,} row{'' if count == 1 else 's'}"
    if answer.complete_through is not None:
        yield f"complete through {show_time(answer.complete_through)}"
    yield f"{answer.ms:,.0f} ms"
    if answer.bytes_read:
        yield f"{answer.bytes_read:,} bytes read"
    if answer.price:
        yield f"${answer.price:.4f}"


def _diff(args: argparse.Namespace, before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    from manymetrics_insights.asking.compare import changes

    asked, again = before["question"], after["question"]
    if asked["insight"] != again["insight"]:
        raise RefusedInputError(f"one answer is of {asked['insight']}, the other of {again['insight']}")
    fields = sorted(name for name in {*asked, *again} if asked.get(name) != again.get(name))
    if fields:
        print(f"note: the questions differ in {', '.join(fields)}", file=sys.stderr)
    return _write_changes(args, list(changes(before, after)))


def _write_changes(args: argparse.Namespace, found: Sequence[Change]) -> int:
    """Write one row a cell that differs. Returns 1 if there are any."""
    keys = list(dict.fromkeys(name for change in found for name in change.key))
    columns = [*keys, "column", "before", "after"]
    rows = [[*(change.key.get(key) for key in keys), change.column, change.before, change.after] for change in found]
    if args.output == "parquet":
        raise CommandError("Differences are written as table, csv, json or ndjson.")
    with open_target(args.to, args.data_dir) as target:
        if found or args.output != "table":
            write_rows(target, args.output, columns, rows)
    if args.output == "table":
        sys.stdout.flush()
        print(f"({len(found)} cell{'' if len(found) == 1 else 's'} differ)", file=sys.stderr)
    return 1 if found else 0


def _ask(args: argparse.Namespace, question: AnyQuestion, tell: Tell) -> Answer:
    if args.engine == "athena":
        return _ask_athena(question, _source_on_aws(args), tell)
    source = find_source(args.data_dir)
    return retry_on_newer(lambda: _ask_duckdb(question, source))


def _ask_duckdb(
    question: AnyQuestion, source: Source, snapshot: int | None = None, through: datetime | None = None
) -> Answer:
    """Ask of the newest snapshot, or of another one of the events, then complete through ``through``, naive UTC."""
    from manymetrics_insights.asking.ask import answer, make_context, now_utc
    from manymetrics_insights.reader.session import open_session

    now = now_utc()
    session = open_session(source, snapshot=snapshot)
    with closing(session.connection), naming_failed_files(session):
        context = make_context(session, now, lambda properties: read_stream(source, properties))
        if through is not None:
            context = replace(context, complete_through=through)
        return run_interruptibly(session.connection, lambda: answer(question, session, context))


def _source_on_aws(args: argparse.Namespace) -> Source:
    if args.data_dir is not None or not os.environ.get(WAREHOUSE_VARIABLE):
        raise CommandError(f"Athena reads the tables on AWS: set {WAREHOUSE_VARIABLE}, and leave out --data-dir.")
    return find_source(None)


def _ask_athena(question: AnyQuestion, source: Source, tell: Tell) -> Answer:
    from manymetrics_cli.cost.prices import read_prices
    from manymetrics_insights.asking import athena
    from manymetrics_insights.asking.ask import now_utc
    from manymetrics_insights.asking.ask_athena import ask_athena

    settings = Settings.read(os.environ)
    client = athena.make_client(os.environ)
    limits = athena.Limits(usd_per_tb=read_prices().athena_scanned.of(1024))

    def progress(seen: Progress) -> None:
        tell(f"Athena: {seen.state.lower()}, {seen.bytes_scanned:,} bytes read")

    def run_sql(sql: str) -> athena.AthenaResult:
        return athena.run(
            sql,
            workgroup=settings.athena_workgroup,
            database=settings.database,
            client=client,
            progress=progress,
            limits=limits,
        )

    return ask_athena(question, source, now_utc(), run_sql)


def _verify(args: argparse.Namespace, saved: Mapping[str, Any]) -> int:
    from manymetrics_insights.asking.compare import changes, is_same, read_answer

    with showing_progress(sys.stderr, "asking again"):
        again, expired = _ask_again(saved, find_source(args.data_dir))
    found = read_answer(again.to_json())
    if expired:
        print(f"note: the snapshot {saved['snapshot']} has expired; compared with {again.snapshot}", file=sys.stderr)
        _write_changes(args, list(changes(saved, found)))
        return EXPIRED
    if is_same(saved, found):
        print(f"the same: sql, columns and {len(found['rows']):,} rows of snapshot {again.snapshot}", file=sys.stderr)
        return 0
    if saved["sql"] != found["sql"]:
        print("note: the SQL differs: the answer was made by another version", file=sys.stderr)
    _write_changes(args, list(changes(saved, found)))
    return 1


def _ask_again(saved: Mapping[str, Any], source: Source) -> tuple[Answer, bool]:
    """Ask as of the saved snapshot and complete-through, or of the newest snapshot if it has expired.

    Returns the answer, and whether it has. An answer of Athena is asked of DuckDB: the rows are the same.
    """
    from manymetrics_insights.asking.compare import receipt_of
    from manymetrics_insights.questions.models import parse_question
    from manymetrics_insights.reader.iceberg import SnapshotExpiredError

    question = parse_question(saved["question"])
    snapshot, complete_through = receipt_of(saved)
    try:
        return _ask_duckdb(question, source, snapshot, complete_through), False
    except (SnapshotExpiredError, FileNotFoundError):  # its files go after it
        return retry_on_newer(lambda: _ask_duckdb(question, source, None, complete_through)), True
