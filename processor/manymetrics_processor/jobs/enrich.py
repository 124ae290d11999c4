"""Recomputes the enriched columns of stored events on a cluster: ``spark-submit enrich.py --from 2026-01-01``.

Applies upgraded rules or newer GeoIP files to earlier events; see operations.enrich_tables.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date

from manymetrics_processor.errors import CommitNotConfirmedError
from manymetrics_processor.ingest.factory import make_catalog
from manymetrics_processor.jobs.cluster import cluster
from manymetrics_processor.jobs.command import errors_in_a_line, job_parser, job_settings, say
from manymetrics_processor.lake.lake import Lake
from manymetrics_processor.operations.enrich_tables import FILES_AT_ONCE, enrich_again


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the receipt as JSON. Returns 1 if files are left for another run."""
    parser = job_parser(
        "enrich", "Recompute browser, location and source columns with the current rules and GeoIP files."
    )
    parser.add_argument("--from", dest="first", metavar="YYYY-MM-DD", type=_day, help="first day of received_at (UTC)")
    parser.add_argument("--to", dest="last", metavar="YYYY-MM-DD", type=_day, help="last day, included")
    args = parser.parse_args(arguments)
    if args.first is not None and args.last is not None and args.first > args.last:
        parser.error("--from is later than --to: swap them")
    with errors_in_a_line(parser, CommitNotConfirmedError), cluster("manymetrics enrich") as on:
        settings = job_settings(args)
        lake = Lake(make_catalog(settings, os.environ), database=settings.database)
        at_once = max(FILES_AT_ONCE, on.width)
        receipt = enrich_again(lake, args.first, args.last, spread=on.map, at_once=at_once, say=say)
    print(json.dumps(asdict(receipt), indent=2))
    return 1 if receipt.files_left else 0


def _day(text: str) -> int:
    return (date.fromisoformat(text) - date(1970, 1, 1)).days


if __name__ == "__main__":
    sys.exit(main())
