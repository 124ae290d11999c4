"""The ``manymetrics`` command: one file a subcommand. What is dear to load is imported only as a command runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import cast

from manymetrics.cli import cost, doctor, erase, maintain, query, recover, replay, serve, stream, tail
from manymetrics.cli.races import LostRacesError
from manymetrics.settings import SettingsError

COMMANDS = (serve, stream, query, tail, replay, erase, maintain, recover, doctor, cost)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns its exit status."""
    parser = argparse.ArgumentParser(prog="manymetrics", description="Product analytics in your own Iceberg tables.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    args = parser.parse_args(argv)
    try:
        return cast("int", args.run(args))
    except SettingsError as error:
        print(f"manymetrics: {error}", file=sys.stderr)
        return 2
    except LostRacesError as error:
        print(f"manymetrics: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads any more; nor may Python complain about it at its end
        return 1
    except KeyboardInterrupt:
        return 130
