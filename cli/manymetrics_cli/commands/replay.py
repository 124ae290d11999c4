"""`manymetrics replay`: reprocess dead letters after a fix."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from dataclasses import asdict
from functools import partial
from typing import Any

from manymetrics.outcomes import Reason
from manymetrics.settings import Settings, SettingsError
from manymetrics_cli.commit_conflicts import report_commit_conflicts
from manymetrics_cli.data_dir import add_data_dir, require_tables
from manymetrics_cli.help_text import KeepExamples

_EXAMPLES = """\
examples:
  manymetrics replay --dry-run
  manymetrics replay --reason unprocessable
  manymetrics replay s3://bucket/prefix
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``replay``."""
    parser = subparsers.add_parser(
        "replay",
        help="reprocess dead letters",
        description=(
            "Reprocess dead letters, and store those that this version of ManyMetrics can read and store. "
            "Each keeps its position, its received_at and the data of its request. "
            "Idempotent. An event that a client sent wrongly stays a dead letter: query its `raw`, "
            "correct it and send it again."
        ),
        epilog=_EXAMPLES,
        formatter_class=KeepExamples,
    )
    parser.add_argument(
        "location",
        nargs="?",
        help="s3://bucket/prefix: replay batches that were given up, or the raw archive, instead of dead letters",
    )
    parser.add_argument(
        "--reason",
        metavar="REASON",
        choices=[reason.value for reason in Reason],
        help="replay only those with this reason, e.g. unstorable",
    )
    parser.add_argument("--id", dest="dead_letter_id", metavar="ID", help="replay only this dead_letter_id")
    parser.add_argument("--project", metavar="ID", help="replay only those of this project")
    parser.add_argument("--dry-run", action="store_true", help="show what would be stored, without storing it")
    add_data_dir(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the outcomes as JSON. Returns 1 if no dead letter has the given id."""
    wanted = {"reason": args.reason, "dead_letter_id": args.dead_letter_id, "project_id": args.project}
    if args.location is not None:
        if not args.location.strip():
            raise SettingsError(
                "the location is empty: pass s3://bucket/prefix, or leave it out to replay dead letters"
            )
        if args.dry_run or any(value is not None for value in wanted.values()):
            raise SettingsError("--reason, --id, --project and --dry-run apply to dead letters, not to an S3 location")
        return _run_objects(args.location)
    from manymetrics_cli.one_machine import open_lake
    from manymetrics_processor.dedup.window import Window
    from manymetrics_processor.operations.replay_dead_letters import STAGE, Report, replay

    matched = 0

    def chosen(letter: dict[str, Any]) -> bool:
        nonlocal matched
        fits = all(value is None or letter[name] == value for name, value in wanted.items())
        matched += fits and letter["stage"] != STAGE
        return fits

    require_tables(args.data_dir)
    window = Window(Settings.read(os.environ).dedup_window_days)
    with report_commit_conflicts():
        report = replay(open_lake(args.data_dir), window, chosen, dry_run=args.dry_run)
    given = shlex.join(f"{name}={value}" for name, value in wanted.items() if value is not None)
    if not matched and args.dead_letter_id is not None:
        print(f"manymetrics: no such dead letter: {given}", file=sys.stderr)
        return 1
    print(json.dumps({"dry_run": args.dry_run, **asdict(report)}))
    if not matched:
        print(f"There is no dead letter with {given}." if given else "There are no dead letters.", file=sys.stderr)
    elif report == Report():
        print("All matching dead letters were replayed before.", file=sys.stderr)
    return 0


def _run_objects(location: str) -> int:
    import boto3

    from manymetrics_processor.ingest.factory import known_stream_name, make_catalog, make_window
    from manymetrics_processor.lake.lake import Lake
    from manymetrics_processor.operations.replay_objects import NoObjectsError, replay_objects

    if not location.startswith("s3://"):
        raise SettingsError(f"replay takes an S3 location, s3://bucket/prefix, not {location!r}")
    settings = Settings.read(os.environ)
    catalog = make_catalog(settings, os.environ)
    lake = Lake(catalog, database=settings.database)
    lake.ensure_tables()
    name_of = partial(known_stream_name, boto3.client("kinesis"))

    def say(one: str) -> None:
        print(one, file=sys.stderr)

    try:
        with report_commit_conflicts():
            report = replay_objects(lake, make_window(settings, catalog), location, name_of, say)
    except NoObjectsError as error:
        print(f"manymetrics: {error}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(report)))
    return 1 if report.unreadable_objects else 0
