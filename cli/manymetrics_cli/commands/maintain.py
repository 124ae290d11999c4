"""`manymetrics maintain`: merge small files, expire old snapshots, remove orphan files."""

from __future__ import annotations

import argparse
import dataclasses
import json

from manymetrics_cli.commit_conflicts import report_commit_conflicts
from manymetrics_cli.data_dir import add_data_dir, require_tables
from manymetrics_cli.help_text import KeepExamples
from manymetrics_cli.numbers import whole_number

_EXAMPLES = """\
examples:
  manymetrics maintain
  manymetrics maintain --keep-snapshots 1
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``maintain``."""
    parser = subparsers.add_parser(
        "maintain",
        help="merge small files, expire old snapshots, remove orphan files",
        description="Merge small files, expire old snapshots and remove orphan files, all at once. The server "
        "does this incrementally between commits. Safe to run while the server runs.",
        epilog=_EXAMPLES,
        formatter_class=KeepExamples,
    )
    parser.add_argument(
        "--keep-snapshots", type=whole_number(1), default=10, metavar="N", help="snapshots to keep (default: 10)"
    )
    add_data_dir(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print one JSON line per table."""
    from manymetrics_cli.one_machine import open_lake
    from manymetrics_processor.lake.maintenance import maintain

    require_tables(args.data_dir)
    with report_commit_conflicts():
        reports = maintain(open_lake(args.data_dir), keep_snapshots=args.keep_snapshots)
    for report in reports:
        print(json.dumps(dataclasses.asdict(report)))
    return 0
