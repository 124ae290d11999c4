"""What the jobs have in common as commands."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace

from manymetrics.settings import Settings


def job_parser(name: str, description: str) -> argparse.ArgumentParser:
    """For ``spark-submit [Spark's options] name.py ...``."""
    parser = argparse.ArgumentParser(prog=name, description=description)
    parser.add_argument(
        "--warehouse",
        metavar="LOCATION",
        help="where the tables are: s3://bucket/prefix (default: the setting MANYMETRICS_WAREHOUSE)",
    )
    return parser


def job_settings(args: argparse.Namespace) -> Settings:
    """Those of the environment, and the command line's. Raises SettingsError."""
    settings = Settings.read(os.environ)
    return replace(settings, warehouse=args.warehouse) if args.warehouse else settings


def say(line: str) -> None:
    """How far it is, on stderr."""
    print(line, file=sys.stderr, flush=True)
