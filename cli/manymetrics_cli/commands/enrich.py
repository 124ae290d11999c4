"""`manymetrics enrich`: recompute the enriched columns of stored events."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from datetime import date

from manymetrics_cli.commit_conflicts import report_commit_conflicts
from manymetrics_cli.data_dir import add_data_dir, require_tables
from manymetrics_cli.help_text import KeepExamples

_EXAMPLES = """\
examples:
  manymetrics enrich --dry-run
  manymetrics enrich --from 2026-01-01 --to 2026-03-31
  MANYMETRICS_GEOIP=city.mmdb manymetrics enrich > receipt.json
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``enrich``."""
    parser = subparsers.add_parser(
        "enrich",
        help="recompute the browser, location and source columns of stored events",
        description=(
            "Recompute the columns from browser_name on with the current rules and GeoIP files, for events stored "
            "with others. Columns whose address or user agent was not kept stay unchanged. Safe to run while the "
            "server runs, and to interrupt: the next run continues."
        ),
        epilog=_EXAMPLES,
        formatter_class=KeepExamples,
    )
    parser.add_argument("--from", dest="first", metavar="YYYY-MM-DD", type=_day, help="first day of received_at (UTC)")
    parser.add_argument("--to", dest="last", metavar="YYYY-MM-DD", type=_day, help="last day, included")
    parser.add_argument("--dry-run", action="store_true", help="show what would be rewritten, without doing so")
    add_data_dir(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the receipt as JSON. Returns 1 if files are left for another run."""
    from manymetrics_cli.one_machine import open_geoip, open_lake
    from manymetrics_processor.operations.enrich_tables import enrich_again, find_files

    if args.first is not None and args.last is not None and args.first > args.last:
        print("manymetrics: --from is later than --to: swap them", file=sys.stderr)
        return 2
    require_tables(args.data_dir)
    geo = open_geoip(args.data_dir)
    lake = open_lake(args.data_dir)
    if args.dry_run:
        lake.ensure_tables()
        files, done = find_files(lake, args.first, args.last, geo)
        events = sum(file.record_count for file in files)
        print(json.dumps({"would_rewrite_files": len(files), "events": events, "files_up_to_date": len(done)}))
        return 0
    with report_commit_conflicts():
        receipt = enrich_again(lake, args.first, args.last, geo=geo, say=_say)
    print(json.dumps(dataclasses.asdict(receipt), indent=2))
    if receipt.files_left:
        print("Another commit replaced some files meanwhile: run it again.", file=sys.stderr)
    return 1 if receipt.files_left else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _day(text: str) -> int:
    """Parse a day. Returns days since 1970."""
    try:
        return (date.fromisoformat(text) - date(1970, 1, 1)).days
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day: write it as 2026-01-31") from None
