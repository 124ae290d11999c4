"""`manymetrics stream run`: run the processor on a server or in a container, without Lambda."""

from __future__ import annotations

import argparse
import os
import signal
import threading

from manymetrics.settings import Settings, SettingsError
from manymetrics.telemetry import log_json_lines
from manymetrics_cli.help_text import KeepExamples
from manymetrics_cli.numbers import number, whole_number

_EXAMPLES = """\
examples:
  export MANYMETRICS_STREAM=events MANYMETRICS_WAREHOUSE=s3://bucket/tables AWS_REGION=us-east-1
  manymetrics stream run
  manymetrics stream run --window-s 10 --failures s3://bucket/failures
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``stream``."""
    parser = subparsers.add_parser(
        "stream",
        help="commit a Kinesis stream to the tables, without Lambda",
        epilog=_EXAMPLES,
        formatter_class=KeepExamples,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run_parser = commands.add_parser(
        "run",
        help="read the stream and commit it, until interrupted",
        description=(
            "Read the stream that MANYMETRICS_STREAM names and commit it to the tables under MANYMETRICS_WAREHOUSE, "
            "as Lambda's event source mapping and function would. It resumes from the watermark in the tables, so it "
            "can be stopped and started at any time. Run a single instance; extra ones only add cost."
        ),
        epilog=_EXAMPLES,
        formatter_class=KeepExamples,
    )
    run_parser.add_argument(
        "--batch-size", type=whole_number(1), default=10_000, metavar="N", help="maximum records per batch"
    )
    run_parser.add_argument(
        "--window-s",
        type=number(0),
        default=60.0,
        metavar="S",
        help="maximum seconds to wait for a full batch (default: 60)",
    )
    run_parser.add_argument(
        "--retries",
        type=whole_number(-1),
        default=-1,
        metavar="N",
        help="retries before a failing batch is given up (default: -1, no limit)",
    )
    run_parser.add_argument(
        "--max-record-age-s",
        type=number(0),
        default=20 * 3_600.0,
        metavar="S",
        help="age at which a failing batch is given up; keep it below the stream's retention (default: 20 hours)",
    )
    run_parser.add_argument(
        "--failures",
        metavar="S3",
        help="where to keep batches that were given up, s3://bucket/prefix (default: next to the tables)",
    )
    run_parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT."""
    settings = Settings.read(os.environ)
    if not settings.stream:
        raise SettingsError("MANYMETRICS_STREAM is missing: name the Kinesis stream to read")
    from manymetrics_processor.ingest.factory import make_event_source
    from manymetrics_processor.ingest.kinesis_poller import Options

    log_json_lines()
    options = Options(
        batch_size=args.batch_size,
        window_s=args.window_s,
        retries=args.retries,
        max_record_age_s=args.max_record_age_s,
    )
    stop = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: stop.set())
    make_event_source(os.environ, options, args.failures).run(stop)
    return 0
