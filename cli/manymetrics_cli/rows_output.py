"""Write rows as ``--output`` and ``--to`` say: to standard output, or to a file that appears when it is complete.

Shared by ``query`` and the insights. The formats themselves are in ``manymetrics_insights.reader.formats``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from manymetrics_api.private_files import is_ours
from manymetrics_cli.data_dir import default_data_dir

if TYPE_CHECKING:
    from manymetrics_insights.reader.formats import Rows, Writer

FORMATS: Final = ("table", "csv", "json", "ndjson", "parquet")
FORMAT_OF_ENDING: Final = {
    ".csv": "csv",
    ".json": "json",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
}
BINARY: Final = "Parquet is binary: redirect it to a file (> rows.parquet), or add --to rows.parquet."


class CommandError(Exception):
    """The arguments or the output file are wrong. The message names the fix."""


def add_output(parser: argparse.ArgumentParser, *, to: bool = True) -> None:
    """Add ``--output`` and ``--to``. ``to``: False if the command has a ``--to`` of its own."""
    parser.add_argument(
        "-o",
        "--output",
        choices=FORMATS,
        help="format of the rows (default: by the extension of --to, such as .csv or .parquet; else table)",
    )
    if to:
        parser.add_argument("--to", type=file_name, metavar="FILE", help="write the rows to a file")


def file_name(text: str) -> Path:
    """Raise ArgumentTypeError for what can't name a file."""
    if not text or text.endswith(os.sep):
        raise argparse.ArgumentTypeError(f"{text!r} is not a file name: add one, as in {text}rows.csv")
    return Path(text)


def choose_format(output: str | None, to: Path | None) -> str:
    """Return the requested format, else that of the file's extension, else table.

    An unknown extension is ignored. Raises CommandError if the two differ.
    """
    named = FORMAT_OF_ENDING.get(to.suffix.lower()) if to is not None else None
    if output is not None and named is not None and output != named:
        raise CommandError(
            f"{to} has the extension of {named}, but -o is {output}: leave out -o, or name another file."
        )
    return output or named or "table"


def check_target(to: Path, data_dir: Path | None) -> None:
    """Raise CommandError before the query runs if the file can't be written."""
    with _naming(to):
        if to.is_dir():
            raise CommandError(f"{to} is a folder: name a file in it, as in --to {to / 'rows.csv'}.")
        _writes_through(to)
        if is_ours((data_dir or default_data_dir()).resolve(), to.resolve()):
            raise CommandError(f"{to} belongs to the server's data: name another file with --to.")
        folder = to.resolve().parent
        if not folder.is_dir():
            raise CommandError(
                f"There is no folder {folder} to write {to.name} to: make it, or name another with --to."
            )
        if to.exists() and not os.access(to, os.W_OK):
            raise CommandError(f"{to} is read-only: name another file with --to, or make it writable.")


@contextmanager
def _naming(to: Path) -> Iterator[None]:
    """Turn an OSError about the file into a CommandError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"{to} can't be written: {error.strerror or error}. Name another file with --to.") from error


def _writes_through(to: Path) -> bool:
    """Return whether to write in place: to a device or a pipe, or in a folder where no file can be created."""
    try:
        mode = to.stat().st_mode
    except FileNotFoundError:
        return False
    is_open_file = to.absolute().is_relative_to("/dev") or to.absolute().is_relative_to("/proc")  # as /dev/stdout
    return not stat.S_ISREG(mode) or is_open_file or not os.access(to.resolve().parent, os.W_OK)


@contextmanager
def open_target(to: Path | None, data_dir: Path | None) -> Iterator[IO[str]]:
    """Yield standard output, or a file that appears only when complete. UTF-8, line ends unchanged."""
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
    """Replace a regular file, or a link's target, keeping its mode; a new file gets the umask's.

    Within the data directory it is 0600.
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


def write_binary(to: Path | None, data_dir: Path | None, make: Callable[[Path], None]) -> None:
    """Let ``make`` write a file, and put it where it belongs: standard output, or a file that appears when complete."""
    if to is not None and not _writes_through(to):
        with _whole_file(to, data_dir) as part:
            make(part)
        return
    with tempfile.TemporaryDirectory(prefix="manymetrics-query-") as folder:
        part = Path(folder, "rows.parquet")
        make(part)
        with part.open("rb") as file:
            if to is None:
                shutil.copyfileobj(file, sys.stdout.buffer)
                return
            with _naming(to), to.open("wb") as target:
                if target.isatty():
                    raise CommandError(BINARY)
                shutil.copyfileobj(file, target)


def write_rows(target: IO[str], output: str, columns: Sequence[str], rows: Rows) -> int:
    """Write rows in a format other than parquet. Returns how many there were."""
    return write_with(target, _writer(output, on_terminal=target.isatty()), columns, rows)


def write_with(target: IO[str], write: Writer, columns: Sequence[str], rows: Rows) -> int:
    """Write rows with a writer. Returns how many there were."""
    count = 0

    def counted() -> Iterator[Sequence[object]]:
        nonlocal count
        for row in rows:
            count += 1
            yield row

    on_terminal = target.isatty()
    for text in write(columns, counted()):
        target.write(_for_terminal(text) if on_terminal else text)
    return count


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
