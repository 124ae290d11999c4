"""`manymetrics erase`: erase a person, and print a receipt."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

from manymetrics_cli.commit_conflicts import report_commit_conflicts
from manymetrics_cli.data_dir import add_data_dir, require_tables
from manymetrics_cli.help_text import KeepExamples

DRAIN_WAIT_S = 60.0


_EXAMPLES = """\
examples:
  manymetrics erase --user-id jane@example.com
  manymetrics erase --user-id jane@example.com --yes > receipt.json
  manymetrics erase --anonymous-id 5f1c --anonymous-id 9b2e --project shop --yes
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``erase``."""
    parser = subparsers.add_parser(
        "erase",
        help="erase a person, and print a receipt",
        description=(
            "Erase a person from events and dead_letters, from old snapshots and files, and from the stream's file. "
            "Also erases anonymous events of devices that this person was the last to use. Safe to run while the "
            "server runs. Can't be undone."
        ),
        epilog=_EXAMPLES,
        formatter_class=KeepExamples,
    )
    parser.add_argument("--user-id", metavar="ID", help="the person's user id")
    parser.add_argument(
        "--anonymous-id", metavar="ID", action="append", default=[], help="an anonymous id (device); may be repeated"
    )
    parser.add_argument("--project", metavar="ID", help="erase only in this project (default: all projects)")
    parser.add_argument("--yes", action="store_true", help="erase; without it, show what would be erased")
    add_data_dir(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the receipt as JSON. Returns 1 if something could not be reached."""
    from manymetrics_cli.one_machine import open_lake
    from manymetrics_processor.operations.erase_tables import Person, count, erase, with_linked_ids

    if not args.user_id and not any(args.anonymous_id):
        print("manymetrics: name the person: --user-id ID, or --anonymous-id ID", file=sys.stderr)
        return 2
    require_tables(args.data_dir)
    lake = open_lake(args.data_dir)
    waiting = wait_until_committed(args.data_dir)
    person = with_linked_ids(lake, Person(args.user_id, frozenset(args.anonymous_id), args.project))
    if person.caution:
        print(f"manymetrics: {person.caution}", file=sys.stderr)
    if not args.yes:
        would = {"would_erase": count(lake, person), "anonymous_ids": person.device_ids}
        print(json.dumps(would))
        print("Nothing was erased. Add --yes to erase.", file=sys.stderr)
        return 0
    with report_commit_conflicts():
        receipts = erase(lake, person)
    not_reached = (
        [] if not waiting else [f"{waiting} records still in the stream: start the server, then run this again"]
    )
    if not scrub_stream(args.data_dir):
        not_reached.append("the stream's file is in use: committed records stay in it for about a minute")
    left = sum(one.files_left for one in receipts)
    if left:
        not_reached.append(
            f"{left} files that the tables no longer reference, but a commit or a query may still use: run "
            "manymetrics maintain in ten minutes"
        )
    receipt = {
        "user_id": args.user_id,
        "anonymous_ids": person.device_ids,
        "tables": [dataclasses.asdict(one) for one in receipts],
        "not_reached": not_reached,
    }
    print(json.dumps(receipt, indent=2))
    return 1 if not_reached else 0


def wait_until_committed(data_dir: Path) -> int:
    """Wait until the records in the stream are committed; returns how many are not."""
    from manymetrics_cli.one_machine import pending_records

    until = time.monotonic() + DRAIN_WAIT_S
    last = progress = pending_records(data_dir)
    while last and time.monotonic() < until:
        time.sleep(0.2)
        last = pending_records(data_dir)
        if last < progress:
            print(f"{last} records to commit first ...", file=sys.stderr)
            progress, until = last, time.monotonic() + DRAIN_WAIT_S
        elif time.monotonic() > until - DRAIN_WAIT_S + 5 and last == progress:
            break  # no progress: no server runs
    return last


def scrub_stream(data_dir: Path) -> bool:
    """Drop committed records from the stream's file, overwriting their bytes. Returns False if the file is busy."""
    import sqlite3

    from manymetrics_api.sinks.local_stream import LocalSource
    from manymetrics_cli.one_machine import committed_up_to, stream_path

    path = stream_path(data_dir)
    if not path.exists():
        return True
    source = LocalSource(path)
    try:
        source.scrub(committed_up_to(data_dir))
    except sqlite3.OperationalError:
        return False
    finally:
        source.close()
    return True
