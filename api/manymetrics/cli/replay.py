"""`manymetrics replay`: send dead letters again, after a fix."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from typing import Any

from manymetrics.cli.data_dir import add_data_dir
from manymetrics.cli.races import races_said_in_a_line
from manymetrics.settings import Settings


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``replay``."""
    parser = subparsers.add_parser(
        "replay",
        help="send dead letters again",
        description=(
            "Read dead letters again and store those that can be read now. Each keeps its place, its received_at and "
            "what was known of its request. Doing it twice changes nothing."
        ),
    )
    parser.add_argument("--reason", help="only those with this reason")
    parser.add_argument("--id", dest="dead_letter_id", help="only this dead_letter_id")
    parser.add_argument("--project", help="only those of this project")
    parser.add_argument("--dry-run", action="store_true", help="say what would be stored, and store nothing")
    add_data_dir(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what became of them, as JSON."""
    from manymetrics.local import open_lake
    from manymetrics_processor.replay import replay
    from manymetrics_processor.window import Window

    wanted = {"reason": args.reason, "dead_letter_id": args.dead_letter_id, "project_id": args.project}

    def chosen(letter: dict[str, Any]) -> bool:
        return all(value is None or letter[name] == value for name, value in wanted.items())

    window = Window(Settings.read(os.environ).dedup_window_days)
    with races_said_in_a_line():
        report = replay(open_lake(args.data_dir), window, chosen, dry_run=args.dry_run)
    print(json.dumps({"dry_run": args.dry_run, **asdict(report)}))
    return 0
