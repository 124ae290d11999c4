"""Erase a person from everything stored in S3, with a receipt: ``spark-submit erase.py --user-id ID --yes``.

    find ids -> raw archive and batches that were given up -> both tables, with snapshots and files -> older versions

Objects are erased before tables, since only the tables link devices to the person: an interrupted job can be run again,
with the devices that it printed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict

from botocore.exceptions import ClientError

from manymetrics_processor.errors import CommitNotConfirmedError
from manymetrics_processor.ingest.factory import make_catalog
from manymetrics_processor.ingest.processor import AWS_ORPHAN_AGE_S
from manymetrics_processor.jobs.cluster import cluster
from manymetrics_processor.jobs.command import errors_in_a_line, job_parser, job_settings, say
from manymetrics_processor.lake.lake import Lake
from manymetrics_processor.operations.erase_objects import erase_from_objects
from manymetrics_processor.operations.erase_tables import Person, count, erase, with_linked_ids
from manymetrics_processor.operations.object_versions import purge_versions

NEVER_REACHED = (
    "events that are still in the Kinesis stream: run this again once the processor has committed them",
    "the Kinesis stream itself, until its retention ends",
    "query results in Athena's output location, until it is emptied",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the receipt as JSON. Returns 1 if something that should be erased was not reached."""
    parser = job_parser("erase", "Erase a person from tables, raw archive and failed batches. Can't be undone.")
    parser.add_argument("--user-id", metavar="ID", help="the person")
    parser.add_argument(
        "--anonymous-id", metavar="ID", action="append", default=[], help="an anonymous id (device); may be repeated"
    )
    parser.add_argument("--project", metavar="ID", help="erase only in this project (default: all projects)")
    parser.add_argument("--archive", metavar="LOCATION", help="the raw archive (default: MANYMETRICS_ARCHIVE)")
    parser.add_argument(
        "--failures",
        metavar="LOCATION",
        action="append",
        help="the location of batches that were given up; may be repeated (default: failures, below the warehouse)",
    )
    parser.add_argument("--yes", action="store_true", help="erase; without it, show what would be erased")
    args = parser.parse_args(arguments)
    if not args.user_id and not any(args.anonymous_id):
        parser.error("name the person: --user-id ID, or --anonymous-id ID")
    with errors_in_a_line(parser, CommitNotConfirmedError), cluster("manymetrics erase") as on:
        settings = job_settings(args)
        lake = Lake(make_catalog(settings, os.environ), database=settings.database)
        failures = args.failures or [f"{settings.warehouse.rstrip('/')}/failures"]
        person = with_linked_ids(lake, Person(args.user_id, frozenset(args.anonymous_id), args.project), on.map)
        if person.caution:
            say(person.caution)
        say(f"devices: {json.dumps(person.device_ids)}")  # a run after an interruption may not find them again
        objects = []
        for location in filter(None, [args.archive or settings.archive, *failures]):
            say(f"{location} ...")
            objects.append(erase_from_objects(lake.io, location, person, on.map, dry_run=not args.yes))
        if not args.yes:
            would = {**count(lake, person, on.map), **{one.location: one.events_erased for one in objects}}
            print(json.dumps({"would_erase": would, "anonymous_ids": person.device_ids}))
            say("Nothing was erased. Add --yes to erase.")
            return 0
        say("tables ...")
        tables = erase(lake, person, on.map, orphan_age_s=AWS_ORPHAN_AGE_S)
    places = [f"{settings.warehouse.rstrip('/')}/{settings.database}", *(one.location for one in objects)]
    purged, not_purged = purge(places)
    not_reached = [f"{one}: can't be read" for receipt in objects for one in receipt.unreadable]
    not_reached += not_purged
    named = {args.archive, *(args.failures or ())}
    not_reached += [f"{one.location}: no objects found" for one in objects if one.location in named and not one.objects]
    left = sum(one.files_left for one in tables)
    if left:
        not_reached.append(
            f"{left} files that the tables no longer reference, but a commit or a query may still use: run this "
            "again in a day"
        )
    receipt = {
        "user_id": args.user_id,
        "anonymous_ids": person.device_ids,
        "tables": [asdict(one) for one in tables],
        "objects": [asdict(one) for one in objects],
        "versions_deleted": purged,
        "not_reached": [*not_reached, *NEVER_REACHED],
    }
    print(json.dumps(receipt, indent=2))
    return 1 if not_reached else 0


def purge(locations: Sequence[str]) -> tuple[int, list[str]]:
    """Delete older versions of objects; returns how many, and the failures with their fix."""
    purged, failed = 0, []
    for location in locations:
        if not location.startswith("s3://"):
            continue
        say(f"older versions below {location} ...")
        try:
            purged += purge_versions(location, os.environ)
        except (ClientError, OSError) as error:
            cure = "allow s3:ListBucketVersions and s3:DeleteObjectVersion there, and run this again"
            failed.append(f"older versions of objects below {location} ({error}): {cure}")
    return purged, failed


if __name__ == "__main__":
    sys.exit(main())
