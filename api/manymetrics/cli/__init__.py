"""The ``manymetrics`` command: one file a subcommand, each imported only as far as its arguments need."""

from __future__ import annotations

import argparse
from typing import cast

from manymetrics.cli import query


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; the exit status."""
    parser = argparse.ArgumentParser(prog="manymetrics")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    query.add_parser(subparsers)
    args = parser.parse_args(argv)
    return cast("int", args.run(args))
