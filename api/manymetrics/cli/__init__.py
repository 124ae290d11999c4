"""The command `manymetrics`; one file a command, each loaded only when it is called."""

from __future__ import annotations

import argparse
import importlib
import sys

COMMANDS = ("serve",)


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    from manymetrics.settings import SettingsError

    parser = argparse.ArgumentParser(prog="manymetrics", description="Product analytics in your own tables.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"manymetrics.cli.{name}").add_parser(commands)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except SettingsError as error:
        print(f"manymetrics: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
