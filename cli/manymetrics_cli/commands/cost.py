"""``manymetrics cost``: estimate the monthly AWS cost, by component, with its assumptions."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from manymetrics_cli.help_text import KeepExamples
from manymetrics_cli.numbers import number

_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}

_EPILOG = """\
variables with a price (others are named in the bill):
  ingress = "http_api" | "function_url"   engine = "spark" | "arrow"   batch_window_s   archive_days   lake_version_days
  in objects: stream.mode   stream.shards   stream.retention_hours
              api.architecture   api.memory_mb   processor.architecture   processor.memory_mb
  kms_key_arn (a key that was there before is not paid for here)

examples:
  manymetrics cost --events 50M
  manymetrics cost --events 1e9 --tfvars terraform.tfvars --measured build/bench.json -o json
  manymetrics cost --markdown
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``cost``."""
    parser = subparsers.add_parser(
        "cost",
        help="estimate the monthly AWS cost",
        description=(
            "Print a month's AWS bill by component, from list prices and measured milliseconds: the largest component, "
            "the marginal cost per million events, when a provisioned stream beats on-demand, and all assumptions."
        ),
        epilog=_EPILOG,
        formatter_class=KeepExamples,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--events", type=_events, metavar="N", help="events per month: 50000000, 50e6 or 50M")
    what.add_argument("--markdown", action="store_true", help="the table of docs/cost.md: 1M, 10M, 100M and 1B events")
    parser.add_argument("--tfvars", type=Path, metavar="FILE", help="the deployment's .tfvars or .tfvars.json")
    parser.add_argument("--measured", type=Path, metavar="FILE", help="the output of `make bench`: build/bench.json")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="(default: table)")
    for option, default, least, meaning in (
        ("--events-a-request", 20.0, 1, "servers' SDKs send 20 to 100, browsers' 2 to 20"),
        ("--event-bytes", 1_000.0, 1, "size of an event's JSON in bytes"),
        ("--months-kept", 1.0, 0, "of data kept in the tables"),
        ("--peak", 4.0, 1, "ratio of the peak rate to the mean"),
        ("--athena-gb", 0.0, 0, "GB scanned by Athena per month"),
        ("--sdk-loads", 0.0, 0, "downloads of the browser SDK from CloudFront per month"),
    ):
        text = f"{meaning} (default: {default:g})"
        parser.add_argument(option, type=number(least), default=default, metavar="N", help=text)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the bill. Returns 2 if a file can't be used."""
    from manymetrics_cli.cost.measured import MeasuredError, read_measured
    from manymetrics_cli.cost.prices import read_prices
    from manymetrics_cli.cost.report import Report, as_markdown, as_object, as_text
    from manymetrics_cli.cost.stack import Stack, Traffic
    from manymetrics_cli.cost.tfvars import TfvarsError, make_stack, read_tfvars

    traffic = Traffic(
        events=args.events or 1e6,
        events_a_request=args.events_a_request,
        event_bytes=args.event_bytes,
        months_kept=args.months_kept,
        peak=args.peak,
        athena_gb=args.athena_gb,
        sdk_loads=args.sdk_loads,
    )
    try:
        stack, without_price = make_stack(read_tfvars(args.tfvars)) if args.tfvars else (Stack(), [])
        report = Report(stack, traffic, read_prices(), read_measured(args.measured), without_price)
    except (MeasuredError, TfvarsError) as error:
        print(f"manymetrics cost: {error}", file=sys.stderr)
        return 2
    if args.markdown:
        print(as_markdown(report))
    elif args.output == "json":
        print(json.dumps(as_object(report), indent=2))
    else:
        print(as_text(report))
    return 0


def _events(text: str) -> float:
    match = re.fullmatch(r"([0-9][0-9_,]*(?:\.[0-9]+)?(?:[eE]\+?[0-9]{1,2})?)([kKmMbB]?)", text)
    events = float(re.sub("[_,]", "", match[1])) * _UNITS[match[2].lower()] if match else 0.0
    if not 1 <= events <= 1e15:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of events: write 50000000, 50e6 or 50M")
    return events
