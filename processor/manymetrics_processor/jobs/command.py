"""Arguments, settings and errors that the jobs' commands share."""

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
    """For ``spark-submit [Spark's options] name.py ...``."""
    parser = argparse.ArgumentParser(prog=name, description=description)
    parser.add_argument(
        "--warehouse",
        metavar="LOCATION",
        help="where the tables are: s3://bucket/prefix (default: the setting MANYMETRICS_WAREHOUSE)",
    )
    return parser


def megabytes(text: str) -> int:
    """The type of an option that takes megabytes: a whole number from 1 on."""
    if not re.fullmatch(r"0*[1-9][0-9]*", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of megabytes from 1 on")
    return int(text)


@contextmanager
def errors_in_a_line(parser: argparse.ArgumentParser, *others: type[Exception]) -> Iterator[None]:
    """End the job with the message of an error that a person can fix, without a traceback."""
    ours = (SettingsError, NoSuchTableError, ForeignTableError, UnreadableDeletesError, CommitContentionError)
    known: tuple[type[Exception], ...] = (*ours, *others)
    try:
        yield
    except known as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


def job_settings(args: argparse.Namespace) -> Settings:
    """Those of the environment, and the command line's. Raises SettingsError."""
    settings = Settings.read(os.environ)
    return replace(settings, warehouse=args.warehouse) if args.warehouse else settings


def say(line: str) -> None:
    """How far it is, on stderr."""
    print(line, file=sys.stderr, flush=True)
