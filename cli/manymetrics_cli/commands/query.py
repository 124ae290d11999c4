"""``manymetrics query``: SQL over the tables of one machine, with or without the server, or of AWS.

    SQL -> session over the newest snapshot -> check that it only reads -> rows -> text or Parquet

Starting must feel instant, so nothing heavy is imported before it is needed, and PyIceberg never in the normal way.
Where maintenance deletes a planned file before any row is out, the query starts again over the newer snapshot.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import re
import shutil
import sqlite3
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple, TypeVar

from manymetrics.settings import Settings, SettingsError
from manymetrics_api.private_files import is_ours
from manymetrics_cli.data_dir import add_data_dir, default_data_dir, require_tables
from manymetrics_cli.help_text import KeepExamples
from manymetrics_cli.packages import missing_module

if TYPE_CHECKING:
    import duckdb

    from manymetrics_insights.reader.formats import Rows, Writer
    from manymetrics_insights.reader.iceberg import Source
    from manymetrics_insights.reader.session import Session

WAREHOUSE_VARIABLE: Final = "MANYMETRICS_WAREHOUSE"
FORMATS: Final = ("table", "csv", "json", "ndjson", "parquet")
FORMAT_OF_ENDING: Final = {
    ".csv": "csv",
    ".json": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
}
_ONE_RESULT: Final = {"csv": "CSV", "json": "JSON", "parquet": "Parquet"}  # formats that several would break
ATTEMPTS: Final = 3  # sessions opened for one query, each over a newer snapshot
ROWS_A_FETCH: Final = 100  # an event may be half a megabyte
_PLAN_COLUMNS: Final = ["explain_key", "explain_value"]
_BINARY: Final = "Parquet is binary: redirect it to a file (> rows.parquet), or add --to rows.parquet."

T = TypeVar("T")

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


class QueryError(Exception):
    """The question, or the target of its answer, is wrong. The message says the cure."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``query``."""
    parser = subparsers.add_parser(
        "query",
        help="query the tables with SQL",
        description=(
            "Run SQL against the tables and views; the same SQL runs on Athena. It only reads; all times are UTC. "
            "Where MANYMETRICS_WAREHOUSE is set and --data-dir is not given, it reads the tables in AWS Glue and S3."
        ),
        epilog=_EXAMPLES,
        formatter_class=KeepExamples,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("sql", nargs="?", metavar="SQL", help="one statement; - reads from standard input")
    what.add_argument("--file", type=Path, metavar="FILE", help="run each statement of a file")
    what.add_argument("--tables", action="store_true", help="list the tables and views")
    what.add_argument("--describe", metavar="NAME", help="describe the columns of a table or view")
    parser.add_argument(
        "-o",
        "--output",
        choices=FORMATS,
        help="format of the rows (default: what the ending of --to says, as .csv or .parquet; else table)",
    )
    parser.add_argument("--to", type=_file_name, metavar="FILE", help="write the rows to a file")
    add_data_dir(parser)
    parser.set_defaults(run=run, data_dir=None)  # None: not said, so the setting of the warehouse goes first


def _file_name(text: str) -> Path:
    if not text or text.endswith(os.sep):
        raise argparse.ArgumentTypeError(f"{text!r} names no file: add a name, as in {text}rows.csv")
    return Path(text)


def run(args: argparse.Namespace) -> int:
    """Answer one question. 0 when answered; 1 when it could not be, with one message on standard error.

    Raises SettingsError where there are no tables.
    """
    try:
        _answer(args)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains as it exits
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
    """The message for the user; None for an error that only a bug can cause."""
    import duckdb

    from manymetrics_insights.reader.formats import escape_controls
    from manymetrics_insights.reader.iceberg import LakeError
    from manymetrics_insights.reader.readonly import RefusedSqlError

    if isinstance(error, sqlite3.Error):
        return f"The catalogue can't be read: {error}. See `manymetrics doctor`."
    if isinstance(error, duckdb.CatalogException) and "Table with name" in str(error):
        first, *rest = [line for line in str(error).splitlines() if not line.startswith("Did you mean")]
        found = re.search(r'Table with name "?(?:[\w.]*\.)?(\w+)', first)
        near = difflib.get_close_matches(found[1] if found else "", names := _names(), 1)
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(names)}."
        return escape_controls("\n".join([first, hint, *rest]), keep="\n")
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "The disk that the rows are written to is full: make room, or name another file with --to."
    if isinstance(error, PermissionError):
        return f"{error.filename or 'A file'} can't be read: run this as the user that runs the server."
    if isinstance(error, QueryError | LakeError | RefusedSqlError | duckdb.Error | OSError):
        return escape_controls(str(error).strip(), keep="\n")
    return None


def _names() -> list[str]:
    from manymetrics.tables import TABLES
    from manymetrics_insights.views import read_views

    return [*(table.name for table in TABLES), *(view.name for view in read_views())]


def _answer(args: argparse.Namespace) -> None:
    sql = _sql(args)
    if args.to is not None:
        _check_target(args.to, args.data_dir)
    args.output = _format(args.output, args.to)
    if args.output == "parquet" and sql is None:
        raise QueryError("--tables and --describe come as table, csv, json or ndjson.")
    if args.output == "parquet" and args.to is None and sys.stdout.isatty():
        raise QueryError(_BINARY)
    if sql is None:
        with _target(args.to, args.data_dir) as only:
            _write(args, only, *_known(args))
        return
    from manymetrics_insights.views.portable import note_what_only_duckdb_takes

    note_what_only_duckdb_takes(sql)
    statements = _statements(args, sql)
    if len(statements) > 1 and args.output in _ONE_RESULT:
        raise QueryError(
            f"{_ONE_RESULT[args.output]} holds one result, and there are {len(statements)} statements: "
            "run one at a time, or choose -o ndjson or table."
        )
    if args.output == "parquet":
        _retried(lambda: _write_parquet(args, sql))
        return
    with ExitStack() as stack:
        target: IO[str] | None = None
        for number, statement in enumerate(statements, 1):
            with _naming_line(statement.line if len(statements) > 1 else 0):
                columns, rows = _retried(lambda: _rows(_open(args), statement.sql))  # noqa: B023  # called at once
                if target is None:
                    target = stack.enter_context(_target(args.to, args.data_dir))
                elif args.output == "table":
                    target.write("\n")
                if args.output == "table" and len(statements) > 1:
                    target.write(_heading(number, statement))
                _write(args, target, columns, rows)


def _format(output: str | None, to: Path | None) -> str:
    """The format that was asked for, else that of the file's ending, else a table. Raises QueryError where both differ.

    An ending that names no format says nothing.
    """
    named = FORMAT_OF_ENDING.get(to.suffix.lower()) if to is not None else None
    if output is not None and named is not None and output != named:
        raise QueryError(f"The name {to} says {named}, but -o says {output}: leave out -o, or name another file.")
    return output or named or "table"


class Statement(NamedTuple):
    """One of several. ``line``: the one it begins on, from 1. ``comment``: the lines of comment directly above it."""

    line: int
    comment: str
    sql: str


def _heading(number: int, statement: Statement) -> str:
    """The header above the result of one of several statements; it is a comment in SQL, too."""
    from manymetrics_insights.reader.formats import escape_controls

    comment = statement.comment or f"-- statement {number}, line {statement.line}"
    return f"{escape_controls(comment, keep=chr(10))}\n"


def _retried(ask: Callable[[], T]) -> T:
    """Run a read again over a newer snapshot where maintenance deleted files that were planned."""
    for _ in range(ATTEMPTS - 1):
        with suppress(FileNotFoundError):
            return ask()
    return ask()


def _statements(args: argparse.Namespace, sql: str) -> list[Statement]:
    """Each statement. Several come only from a file or standard input."""
    import duckdb

    from manymetrics_insights.reader.readonly import RefusedSqlError

    texts = [statement.query for statement in duckdb.extract_statements(sql)]
    if len(texts) <= 1:
        return [Statement(1, "", sql)]
    if args.file is None and args.sql != "-":
        raise RefusedSqlError(
            f"One statement at a time, please; this is {len(texts)}. A file may hold several: --file."
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
    """Say which of several statements failed; 0 for a single one."""
    try:
        yield
    except Exception as error:
        message = _message(error) if line and not isinstance(error, BrokenPipeError) else None
        if message is None:
            raise
        raise QueryError(f"the statement of line {line}: {message}") from error


def _sql(args: argparse.Namespace) -> str | None:
    """The statement's text, or None for --tables and --describe."""
    if args.file is not None:
        try:
            return _decoded(args.file.read_bytes(), str(args.file))
        except OSError as error:
            raise QueryError(f"{args.file} can't be read: {error.strerror}. Name a file that holds SQL.") from error
    if args.sql == "-":
        return _decoded(sys.stdin.buffer.read(), "standard input")
    return None if args.sql is None else str(args.sql)


def _decoded(text: bytes, where: str) -> str:
    """The text, without a byte order mark."""
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        cure = f"save it as UTF-8, as with `iconv -f {'utf-16' if text[:2] in _UTF_16 else 'latin1'} -t utf-8`"
        raise QueryError(f"{where} is not UTF-8 (line {line}): {cure}.") from error


_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")


def _open(args: argparse.Namespace, writable: Path | None = None) -> Session:
    from manymetrics_insights.reader.session import open_session

    return open_session(_source(args.data_dir), writable=writable)


def _source(data_dir: Path | None) -> Source:
    """Which tables to ask: those of the folder that was named, else of the warehouse, else of the usual folder."""
    warehouse = os.environ.get(WAREHOUSE_VARIABLE)
    if data_dir is not None or not warehouse:
        from manymetrics_insights.reader.folder import Folder

        folder = data_dir or default_data_dir()
        try:
            require_tables(folder)
        except SettingsError as error:
            more = f"; for the tables on AWS, set {WAREHOUSE_VARIABLE}" if str(error).startswith("there ") else ""
            raise SettingsError(f"{error}{more}") from error
        return Folder(folder)
    try:
        from manymetrics_insights.reader.s3 import glue_source
    except ModuleNotFoundError as error:
        raise QueryError(missing_module(error) or str(error)) from error
    return glue_source(warehouse, Settings.read(os.environ).database, os.environ)


def _rows(session: Session, sql: str) -> tuple[list[str], Iterator[Sequence[object]]]:
    """The answer, its first rows read already: up to here the query may be run again."""
    from manymetrics_insights.reader.readonly import reading_statement

    connection = session.connection
    statement = reading_statement(connection, sql)
    with _noticing_failed_files(session):
        _execute(connection, statement)
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
        raise QueryError(f"The answer is cut short: {failure}") from error


@contextmanager
def _noticing_failed_files(session: Session) -> Iterator[None]:
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise (session.failure() or error) from error


def _known(args: argparse.Namespace) -> tuple[list[str], list[Sequence[object]]]:
    """--tables and --describe. They need no data."""
    from manymetrics.tables import TABLES
    from manymetrics_insights.views import read_views

    views = read_views()
    if args.tables:
        docs_of_all = [(table.name, table.doc) for table in TABLES] + [(view.name, view.doc) for view in views]
        return ["name", "what"], list(docs_of_all)
    docs = {table.name: {column.name: column.doc for column in table.columns} for table in TABLES}
    docs |= {view.name: view.columns for view in views}
    if args.describe not in docs:
        raise QueryError(f"There is no {args.describe!r}. There are: {', '.join(docs)}.")
    return ["column", "what"], list(docs[args.describe].items())


def _write(args: argparse.Namespace, target: IO[str], columns: Sequence[str], rows: Rows) -> None:
    count = 0

    def counted() -> Iterator[Sequence[object]]:
        nonlocal count
        for row in rows:
            count += 1
            yield row

    on_terminal = target.isatty()
    write = (
        _write_plan
        if columns == _PLAN_COLUMNS and args.output == "table"
        else _writer(args.output, on_terminal=on_terminal)
    )
    for text in write(columns, counted()):
        target.write(_for_terminal(text) if on_terminal else text)
    if args.output == "table":
        sys.stdout.flush()
        print(f"({count} row{'' if count == 1 else 's'})", file=sys.stderr)


def _write_plan(_columns: Sequence[str], rows: Rows) -> Iterator[str]:
    """EXPLAIN's answer is a drawing, so its lines stay lines."""
    yield from (f"{plan}\n" for _, plan in rows)


def _writer(output: str, *, on_terminal: bool) -> Writer:
    from manymetrics_insights.reader import formats

    writers: dict[str, Writer] = {
        "table": partial(formats.write_table, widest=formats.WIDEST_CELL if on_terminal else None),
        "csv": formats.write_csv,
        "json": formats.write_json,
        "ndjson": formats.write_ndjson,
    }
    return writers[output]


def _for_terminal(text: str) -> str:
    from manymetrics_insights.reader.formats import escape_controls

    return escape_controls(text.replace("\r\n", "\n"), keep="\n")


def _check_target(to: Path, data_dir: Path | None) -> None:
    """Raises QueryError where a file can't be written, before anything is asked."""
    with _naming(to):
        if to.is_dir():
            raise QueryError(f"{to} is a folder: name a file in it, as in --to {to / 'rows.csv'}.")
        _writes_through(to)
        if is_ours((data_dir or default_data_dir()).resolve(), to.resolve()):
            raise QueryError(f"{to} is a file that the server keeps: name another one with --to.")
        folder = to.resolve().parent
        if not folder.is_dir():
            raise QueryError(f"There is no folder {folder} to write {to.name} to: make it, or name another with --to.")
        if to.exists() and not os.access(to, os.W_OK):
            raise QueryError(f"{to} is read-only: name another file with --to, or make it writable.")


@contextmanager
def _naming(to: Path) -> Iterator[None]:
    """Raises QueryError in place of an OSError about the file."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise QueryError(f"{to} can't be written: {error.strerror or error}. Name another file with --to.") from error


def _writes_through(to: Path) -> bool:
    """Whether to write into what is there, since it is a device or a pipe, or its folder takes no new file."""
    try:
        mode = to.stat().st_mode
    except FileNotFoundError:
        return False
    is_open_file = to.absolute().is_relative_to("/dev") or to.absolute().is_relative_to("/proc")  # as /dev/stdout
    return not stat.S_ISREG(mode) or is_open_file or not os.access(to.resolve().parent, os.W_OK)


@contextmanager
def _target(to: Path | None, data_dir: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a file that is whole or isn't there. UTF-8, and line ends as they are written."""
    if to is None:
        sys.stdout.reconfigure(encoding="utf-8", newline="", errors="backslashreplace")  # type: ignore[union-attr]
        yield sys.stdout
    elif _writes_through(to):
        with _naming(to), to.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
            yield file
    else:
        with (
            _whole_file(to, data_dir) as part,
            part.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file,
        ):
            yield file


@contextmanager
def _whole_file(to: Path, data_dir: Path | None) -> Iterator[Path]:
    """Replace a plain file, or what a link leads to, with its mode; a new one's is the umask's.

    Within the data folder it is 0600.
    """
    to = to.resolve()
    is_private = to.is_relative_to((data_dir or default_data_dir()).resolve())
    with _naming(to):
        mode = stat.S_IMODE(to.stat().st_mode) if to.exists() else 0o666 & ~_umask()
        handle, name = tempfile.mkstemp(prefix=".manymetrics-", dir=to.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with _naming(to):
            if not is_private:
                part.chmod(mode)
            part.replace(to)
    finally:
        part.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_parquet(args: argparse.Namespace, sql: str) -> None:
    if args.to is not None and not _writes_through(args.to):
        with _whole_file(args.to, args.data_dir) as part:
            _copy_parquet(args, sql, part)
        return
    with tempfile.TemporaryDirectory(prefix="manymetrics-query-") as folder:
        part = Path(folder, "rows.parquet")
        _copy_parquet(args, sql, part)
        with part.open("rb") as file:
            if args.to is None:
                shutil.copyfileobj(file, sys.stdout.buffer)
                return
            with _naming(args.to), args.to.open("wb") as target:
                if target.isatty():
                    raise QueryError(_BINARY)
                shutil.copyfileobj(file, target)


def _copy_parquet(args: argparse.Namespace, sql: str, path: Path) -> None:
    from manymetrics_insights.reader.readonly import reading_statement

    session = _open(args, path)
    statement = reading_statement(session.connection, sql)
    target = str(path).replace("'", "''")
    with _noticing_failed_files(session):
        _execute(session.connection, f"COPY (\n{statement}\n) TO '{target}' (FORMAT parquet, USE_TMP_FILE false)")


def _execute(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    """In a thread: DuckDB does not look for Ctrl-C while it executes."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(connection.execute, statement)
        try:
            running.result()
        except KeyboardInterrupt:
            connection.interrupt()
            raise
