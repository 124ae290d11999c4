"""``manymetrics query``: run SQL on the tables of one machine, with or without the server, or on AWS.

    SQL -> session over the newest snapshot -> check that it only reads -> rows -> text or Parquet

Startup must feel instant, so heavy modules are imported only when needed, and PyIceberg normally not at all.
If maintenance deletes a planned file before the first row is output, the query restarts on the newer snapshot.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from manymetrics_cli.data_dir import add_data_dir
from manymetrics_cli.definitions_source import named_views
from manymetrics_cli.help_text import KeepExamples
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
    write_with,
)
from manymetrics_cli.table_source import describe_reading_failure, find_source

if TYPE_CHECKING:
    from manymetrics_insights.reader.formats import Rows
    from manymetrics_insights.reader.session import Session

_ONE_RESULT: Final = {"csv": "CSV", "json": "JSON", "parquet": "Parquet"}  # formats that hold a single result
ROWS_A_FETCH: Final = 100  # an event may be half a megabyte
_PLAN_COLUMNS: Final = ["explain_key", "explain_value"]

_EXAMPLES: Final = """\
examples:
  manymetrics query --tables
  manymetrics query --describe events
  manymetrics query "SELECT event, COUNT(*) AS events FROM events GROUP BY event ORDER BY events DESC"
  manymetrics query "SELECT * FROM users" --to users.csv
  manymetrics query --file sample/queries.sql
  manymetrics query - < report.sql
  MANYMETRICS_WAREHOUSE=s3://bucket/tables MANYMETRICS_DATABASE=shop manymetrics query "SELECT * FROM data_quality"
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``query``."""
    parser = subparsers.add_parser(
        "query",
        help="query the tables with SQL",
        description=(
            "Run SQL against the tables and views; the same SQL runs on Athena. Read-only; all times are UTC. "
            "If MANYMETRICS_WAREHOUSE is set and --data-dir is not given, it reads the tables in AWS Glue and S3."
        ),
        epilog=_EXAMPLES,
        formatter_class=KeepExamples,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("sql", nargs="?", metavar="SQL", help="one statement; - reads standard input")
    what.add_argument("--file", type=Path, metavar="FILE", help="run each statement of a file")
    what.add_argument("--tables", action="store_true", help="list the tables and views")
    what.add_argument("--describe", metavar="NAME", help="describe the columns of a table or view")
    add_output(parser)
    add_data_dir(parser)
    parser.set_defaults(run=run, data_dir=None)  # None: not given, so MANYMETRICS_WAREHOUSE takes precedence


def run(args: argparse.Namespace) -> int:
    """Run one query. Returns 0, or 1 with one message on standard error if it failed.

    Raises SettingsError if there are no tables.
    """
    try:
        _answer(args)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python reports an error at exit
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        print(f"manymetrics query: {message}", file=sys.stderr)
        return 1
    return 0


def _message(error: Exception) -> str | None:
    """Return the message for the user; None for an error that only a bug can cause."""
    import duckdb

    from manymetrics_insights.reader.formats import escape_controls
    from manymetrics_insights.reader.readonly import RefusedSqlError

    if type(error).__name__ == "DefinitionsError":  # which takes long to import
        return escape_controls(str(error), keep="\n")
    if isinstance(error, duckdb.CatalogException) and "Table with name" in str(error):
        first, *rest = [line for line in str(error).splitlines() if not line.startswith("Did you mean")]
        found = re.search(r'Table with name "?(?:[\w.]*\.)?(\w+)', first)
        near = difflib.get_close_matches(found[1] if found else "", names := _names(), 1)
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(names)}."
        return escape_controls("\n".join([first, hint, *rest]), keep="\n")
    if isinstance(error, RefusedSqlError | duckdb.Error):
        return escape_controls(str(error).strip(), keep="\n")
    return describe_reading_failure(error)


def _names() -> list[str]:
    from manymetrics.tables import TABLES
    from manymetrics_insights.views import read_views

    return [*(table.name for table in TABLES), *(view.name for view in (*read_views(), *named_views()))]


def _answer(args: argparse.Namespace) -> None:
    sql = _sql(args)
    if args.to is not None:
        check_target(args.to, args.data_dir)
    args.output = choose_format(args.output, args.to)
    if args.output == "parquet" and sql is None:
        raise CommandError("--tables and --describe support table, csv, json and ndjson.")
    if args.output == "parquet" and args.to is None and sys.stdout.isatty():
        raise CommandError(BINARY)
    if sql is None:
        with open_target(args.to, args.data_dir) as only:
            _write(args, only, *_known(args))
        return
    from manymetrics_insights.views.portable import note_what_only_duckdb_takes

    note_what_only_duckdb_takes(sql)
    statements = _statements(args, sql)
    if len(statements) > 1 and args.output in _ONE_RESULT:
        raise CommandError(
            f"{_ONE_RESULT[args.output]} holds one result, but there are {len(statements)} statements: "
            "run one at a time, or choose -o ndjson or table."
        )
    if args.output == "parquet":
        retry_on_newer(lambda: write_binary(args.to, args.data_dir, lambda part: _copy_parquet(args, sql, part)))
        return
    with ExitStack() as stack:
        target: IO[str] | None = None
        for number, statement in enumerate(statements, 1):
            with _naming_line(statement.line if len(statements) > 1 else 0):
                columns, rows = retry_on_newer(lambda: _rows(_open(args, statement.sql), statement.sql))  # noqa: B023  # called at once
                if target is None:
                    target = stack.enter_context(open_target(args.to, args.data_dir))
                elif args.output == "table":
                    target.write("\n")
                if args.output == "table" and len(statements) > 1:
                    target.write(_heading(number, statement))
                _write(args, target, columns, rows)


class Statement(NamedTuple):
    """One of several statements. ``line``: its first line, from 1. ``comment``: the comment lines directly above it."""

    line: int
    comment: str
    sql: str


def _heading(number: int, statement: Statement) -> str:
    """Return the header above the result of one of several statements, as an SQL comment."""
    from manymetrics_insights.reader.formats import escape_controls

    comment = statement.comment or f"-- statement {number}, line {statement.line}"
    return f"{escape_controls(comment, keep=chr(10))}\n"


def _statements(args: argparse.Namespace, sql: str) -> list[Statement]:
    """Split SQL into statements. Several are allowed only from a file or standard input."""
    import duckdb

    from manymetrics_insights.reader.readonly import RefusedSqlError

    texts = [statement.query for statement in duckdb.extract_statements(sql)]
    if len(texts) <= 1:
        return [Statement(1, "", sql)]
    if args.file is None and args.sql != "-":
        raise RefusedSqlError(
            f"Only one statement is allowed here, found {len(texts)}. Put several into a file: --file."
        )
    found, end = list[Statement](), 0
    for text in texts:
        begin = sql.find(text, end)
        end = begin + len(text)
        blank = _BEFORE_SQL.match(sql, begin)
        first = blank.end() if blank else begin
        above = _COMMENT_ABOVE.search(sql, begin, first)
        comment = "\n".join(line.strip() for line in above[0].splitlines()) if above else ""
        found.append(Statement(sql.count("\n", 0, first) + 1, comment, text))
    return found


_BEFORE_SQL: Final = re.compile(r"(?:[\s;]|--[^\n]*|/\*.*?\*/)*", re.DOTALL)
_COMMENT_ABOVE: Final = re.compile(r"^[ \t]*(?:(?:--[^\n]*|/\*.*?\*/[ \t\r]*)\n[ \t]*)+\Z", re.DOTALL | re.MULTILINE)


@contextmanager
def _naming_line(line: int) -> Iterator[None]:
    """Name the failed statement in the error, by its line; 0 for a single one."""
    try:
        yield
    except Exception as error:
        message = _message(error) if line and not isinstance(error, BrokenPipeError) else None
        if message is None:
            raise
        raise CommandError(f"statement at line {line}: {message}") from error


def _sql(args: argparse.Namespace) -> str | None:
    """Return the SQL text, or None for --tables and --describe."""
    if args.file is not None:
        try:
            return _decoded(args.file.read_bytes(), str(args.file))
        except OSError as error:
            raise CommandError(f"{args.file} can't be read: {error.strerror}. Name an SQL file.") from error
    if args.sql == "-":
        return _decoded(sys.stdin.buffer.read(), "standard input")
    return None if args.sql is None else str(args.sql)


def _decoded(text: bytes, where: str) -> str:
    """Decode UTF-8, without a byte order mark. Raises CommandError."""
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        cure = f"save it as UTF-8, as with `iconv -f {'utf-16' if text[:2] in _UTF_16 else 'latin1'} -t utf-8`"
        raise CommandError(f"{where} is not UTF-8 (line {line}): {cure}.") from error


_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


def _open(args: argparse.Namespace, sql: str, writable: Path | None = None) -> Session:
    from manymetrics_insights.reader.session import open_session

    return open_session(find_source(args.data_dir), writable=writable, more=named_views(sql))


def _rows(session: Session, sql: str) -> tuple[list[str], Iterator[Sequence[object]]]:
    """Run a query and fetch its first rows; up to then the query may be retried."""
    from manymetrics_insights.reader.readonly import reading_statement

    connection = session.connection
    statement = reading_statement(connection, sql)
    with naming_failed_files(session):
        run_interruptibly(connection, lambda: connection.execute(statement))
        first = connection.fetchmany(ROWS_A_FETCH)
    columns = [column[0] for column in connection.description or ()]
    return columns, chain(first, _rest(session))


def _rest(session: Session) -> Iterator[Sequence[object]]:
    try:
        while rows := session.connection.fetchmany(ROWS_A_FETCH):
            yield from rows
    except Exception as error:
        failure = session.failure()
        if failure is None:
            raise
        raise CommandError(f"The result is incomplete: {failure}") from error


def _known(args: argparse.Namespace) -> tuple[list[str], list[Sequence[object]]]:
    """Return the rows of --tables or --describe. They need no data."""
    from manymetrics.tables import TABLES
    from manymetrics_insights.views import read_views

    views = (*read_views(), *named_views())
    if args.tables:
        docs_of_all = [(table.name, table.doc) for table in TABLES] + [(view.name, view.doc) for view in views]
        return ["name", "what"], list(docs_of_all)
    docs = {table.name: {column.name: column.doc for column in table.columns} for table in TABLES}
    docs |= {view.name: view.columns for view in views}
    if args.describe not in docs:
        raise CommandError(f"There is no table or view {args.describe!r}. There are: {', '.join(docs)}.")
    return ["column", "what"], list(docs[args.describe].items())


def _write(args: argparse.Namespace, target: IO[str], columns: Sequence[str], rows: Rows) -> None:
    if columns == _PLAN_COLUMNS and args.output == "table":
        count = write_with(target, _write_plan, columns, rows)
    else:
        count = write_rows(target, args.output, columns, rows)
    if args.output == "table":
        sys.stdout.flush()
        print(f"({count} row{'' if count == 1 else 's'})", file=sys.stderr)


def _write_plan(_columns: Sequence[str], rows: Rows) -> Iterator[str]:
    """Write EXPLAIN's output, a drawing, line by line."""
    yield from (f"{plan}\n" for _, plan in rows)


def _copy_parquet(args: argparse.Namespace, sql: str, path: Path) -> None:
    from manymetrics_insights.reader.readonly import reading_statement

    session = _open(args, sql, path)
    statement = reading_statement(session.connection, sql)
    target = str(path).replace("'", "''")
    with naming_failed_files(session):
        copy = f"COPY (\n{statement}\n) TO '{target}' (FORMAT parquet, USE_TMP_FILE false)"
        run_interruptibly(session.connection, lambda: session.connection.execute(copy))
