"""The ``manymetrics`` command: one file per subcommand. Slow imports happen only when a command runs."""

from __future__ import annotations

import argparse
import io
import os
import sqlite3
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any, cast

from manymetrics.settings import SettingsError
from manymetrics_cli.commands import (
    backup,
    cost,
    definitions,
    doctor,
    enrich,
    erase,
    geoip,
    insight,
    maintain,
    query,
    recover,
    replay,
    serve,
    stream,
    tail,
)
from manymetrics_cli.commit_conflicts import LostRacesError
from manymetrics_cli.help_text import ListCommands
from manymetrics_cli.packages import missing_module

COMMANDS = (
    serve,
    stream,
    query,
    insight,
    definitions,
    tail,
    replay,
    erase,
    enrich,
    geoip,
    maintain,
    backup,
    recover,
    doctor,
    cost,
)

_EXAMPLES = """\
examples:
  manymetrics serve
  manymetrics query "SELECT event, COUNT(*) AS events FROM events GROUP BY event"
  manymetrics funnel "Product Viewed" "Order Completed" --within 7d
  manymetrics COMMAND --help
"""


class CommandParser(argparse.ArgumentParser):
    """Rejects unknown arguments itself, so that the usage shown is that of the subcommand."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]  # noqa: ANN401  # as the base class
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def make_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = CommandParser(
        prog="manymetrics",
        description="Product analytics in your own Iceberg tables.",
        epilog=_EXAMPLES,
        formatter_class=ListCommands,
    )
    parser.add_argument("--version", action="version", version=f"manymetrics {metadata.version('manymetrics')}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns its exit status."""
    _open_closed_streams()
    args = make_parser().parse_args(argv)
    try:
        _check(args)
        status = cast("int", args.run(args))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader is gone; Python must not complain at exit
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        print(f"manymetrics: {message}", file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
    return status


def _open_closed_streams() -> None:
    """Open /dev/null for a stream that the caller closed (`>&-`), else the next file opened takes its number."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        _closed.add(handle)
    os.close(handle)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  # kept
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an event may hold characters that the locale lacks


_closed: set[int] = set()


def _check(args: argparse.Namespace) -> None:
    """Raise SettingsError for arguments that no command accepts."""
    if 1 in _closed and getattr(args, "to", None) is None and args.run not in {serve.run, stream.run}:
        raise SettingsError("standard output is closed: redirect it to a file, or to /dev/null")
    data_dir = getattr(args, "data_dir", None)
    if data_dir is not None and data_dir.exists() and not data_dir.is_dir():
        raise SettingsError(f"the data directory {data_dir} is a file: name a directory with --data-dir")
    for name, value in vars(args).items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not _is_unicode(text):
                raise SettingsError(
                    f"{name} is not UTF-8: set the terminal's encoding to UTF-8, or give it from a file"
                )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of the command line that are not UTF-8
        return False
    return True


def _message(error: Exception) -> str | None:
    """Return the message for the user, with the fix; None for an error that only a bug can cause."""
    if isinstance(error, SettingsError | LostRacesError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return missing_module(error)
    if isinstance(error, OSError | sqlite3.Error):
        return f"{error}: see `manymetrics doctor`"
    if type(error).__module__.startswith("botocore."):
        return f"{error}. Check AWS_REGION, the credentials and the location"
    return None
