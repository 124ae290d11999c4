"""Arguments, settings and error handling shared by the jobs' commands."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from pyiceberg.exceptions import NoSuchTableError

from manymetrics.settings import Settings, SettingsError
from manymetrics_processor.lake.lake import CommitContentionError, ForeignTableError
from manymetrics_processor.lake.scan import UnreadableDeletesError


def job_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Make the parser for ``spark-submit [Spark's options] name.py ...``."""
    parser = argparse.ArgumentParser(prog=name, description=description)
    parser.add_argument(
        "--warehouse",
        metavar="LOCATION",
        help="the location of the tables: s3://bucket/prefix (default: MANYMETRICS_WAREHOUSE)",
    )
    return parser


def megabytes(text: str) -> int:
    """Parse megabytes, a whole number of at least 1."""
    if not re.fullmatch(r"0*[1-9][0-9]*", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of megabytes of at least 1")
    return int(text)


@contextmanager
def errors_in_a_line(parser: argparse.ArgumentParser, *others: type[Exception]) -> Iterator[None]:
    """Exit with the message, without a traceback, on errors that the user can fix."""
    ours = (SettingsError, NoSuchTableError, ForeignTableError, UnreadableDeletesError, CommitContentionError)
    known: tuple[type[Exception], ...] = (*ours, *others)
    try:
        yield
    except known as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


def job_settings(args: argparse.Namespace) -> Settings:
    """Read the settings from the environment and the command line. Raises SettingsError."""
    settings = Settings.read(os.environ)
    return replace(settings, warehouse=args.warehouse) if args.warehouse else settings


def say(line: str) -> None:
    """Print progress to stderr."""
    print(line, file=sys.stderr, flush=True)
