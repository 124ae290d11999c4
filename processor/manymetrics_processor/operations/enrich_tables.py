"""Recomputes the enriched columns of stored events with the current rules and GeoIP files.

    files of the days -> those made by other rules -> [rewrite some -> swap them in one snapshot]*

Each swap is a separate commit, so an interrupted run continues where it stopped: finished files have the current
`enrichment_version`. Columns whose address or user agent was not kept keep their values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow.compute as pc
from pyiceberg.manifest import DataFile

from manymetrics.tables import EVENTS
from manymetrics_processor.enrich.enrichment import enrich, geoip, rules_version
from manymetrics_processor.enrich.geo import GeoIP
from manymetrics_processor.lake.lake import Lake, live_files
from manymetrics_processor.lake.maintenance import JOBS_ATTEMPTS, Rewritten, stage_rewritten, swap
from manymetrics_processor.lake.object_storage import open_parquet
from manymetrics_processor.lake.scan import portable
from manymetrics_processor.parallel import Spread

FILES_AT_ONCE = 8  # rewritten between two commits, unless a cluster rewrites more in parallel
_VERSION = "enrichment_version"


@dataclass(frozen=True, slots=True)
class Receipt:
    """``files_left``: replaced by another commit meanwhile; run again. Snapshots: ids; None for an empty table."""

    rules: str
    snapshot_before: int | None
    snapshot_after: int | None
    files_done_before: int
    files_rewritten: int
    files_left: int
    rows_rewritten: int


def find_files(
    lake: Lake, from_day: int | None, to_day: int | None, geo: GeoIP | None = None, spread: Spread = map
) -> tuple[list[DataFile], list[DataFile]]:
    """Return the files of these days (since 1970, UTC; inclusive) made by other rules, and those up to date."""
    iceberg, rules = lake.load(EVENTS), _current_rules(geo)
    files = [file for file in live_files(iceberg) if _is_within(file.partition[0], from_day, to_day)]
    io = portable(iceberg).io

    def is_done(location: str) -> bool:
        try:
            with open_parquet(io, location) as parquet:
                if _VERSION not in parquet.schema_arrow.names:
                    return False
                versions = parquet.read(columns=[_VERSION])[_VERSION]
                return bool(pc.all(pc.fill_null(pc.equal(versions, rules), False)).as_py())  # noqa: FBT003  # Arrow's
        except FileNotFoundError:  # another commit replaced it
            return False

    done = dict(zip(files, spread(is_done, [file.file_path for file in files]), strict=True))
    return [file for file in files if not done[file]], [file for file in files if done[file]]


def enrich_again(
    lake: Lake,
    from_day: int | None = None,
    to_day: int | None = None,
    *,
    geo: GeoIP | None = None,
    spread: Spread = map,
    at_once: int = FILES_AT_ONCE,
    say: Callable[[str], None] = lambda _line: None,
) -> Receipt:
    """Rewrite the files of these days (since 1970, UTC; inclusive) that were made by other rules.

    ``geo``: the GeoIP files; by default those of each process's environment, as a cluster needs. ``at_once``: files
    rewritten between two commits. Raises ConflictError after too many lost races; earlier commits stay, and the next
    run continues.
    """
    lake.ensure_tables()
    before = lake.load(EVENTS).metadata.current_snapshot_id
    files, done = find_files(lake, from_day, to_day, geo, spread)
    say(f"{len(files)} files to rewrite, {len(done)} are up to date")
    rewritten = rows = 0
    for group in _in_groups(files, at_once):
        swapped = _rewrite(lake, group, geo, spread)
        rewritten += len(swapped)
        rows += sum(file.record_count for one in swapped for file in one.new)
        say(f"{rewritten} of {len(files)} files rewritten, {rows} events")
    after = lake.load(EVENTS).metadata.current_snapshot_id
    return Receipt(_current_rules(geo), before, after, len(done), rewritten, len(files) - rewritten, rows)


def _rewrite(lake: Lake, files: Sequence[DataFile], geo: GeoIP | None, spread: Spread) -> Sequence[Rewritten]:
    iceberg = lake.load(EVENTS)
    target = portable(iceberg)

    def stage(file: DataFile) -> Rewritten | None:
        try:
            return stage_rewritten(EVENTS, target, [file], lambda rows: enrich(rows, geo, keeps_unknown=True))
        except FileNotFoundError:  # another commit replaced and removed it
            return None

    staged = [one for one in spread(stage, files) if one is not None]
    return swap(lake, EVENTS, staged, iceberg, "enrich", attempts=JOBS_ATTEMPTS)


def _current_rules(geo: GeoIP | None) -> str:
    geo = geoip() if geo is None else geo
    geo.refresh()
    return rules_version(geo)


def _is_within(day: int, from_day: int | None, to_day: int | None) -> bool:
    return (from_day is None or day >= from_day) and (to_day is None or day <= to_day)


def _in_groups(files: Sequence[DataFile], size: int) -> Iterator[list[DataFile]]:
    left = iter(sorted(files, key=lambda file: (file.partition[0], file.file_path)))
    while group := list(islice(left, size)):
        yield group
