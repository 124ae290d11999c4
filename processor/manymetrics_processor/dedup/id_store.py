"""Store the dedup ids next to the table, so that a new process needn't read them from the table.

``state.json`` names the runs of each day and the snapshot up to which they cover the table. It is only a copy: a reader
adds the snapshots since, and if it is missing, damaged, too old or of another version, reads the table itself. So the
last writer wins, and losing it neither loses nor duplicates events.
"""

from __future__ import annotations

import logging

import msgspec
from pyiceberg.io import FileIO

from manymetrics_processor.dedup.index import DedupIndex, Run
from manymetrics_processor.lake.object_storage import delete_files, list_files, read_bytes, write_bytes

UNUSED_AGE_S = 3_600.0  # younger runs may belong to a state that another process is writing or reading

VERSION = 2  # of the ids' definition: since 2, ids of server keys and browser keys differ (ids.dedup_digest)

log = logging.getLogger("manymetrics.dedup")


class State(msgspec.Struct, frozen=True, kw_only=True):
    """``day_runs``: the names of the runs, by day (since 1970, UTC).

    Ids received before ``from_day`` are not included; those before ``oldest_day`` did not fit.
    """

    version: int = 1  # the version of states without this field
    table_uuid: str
    snapshot_id: int
    from_day: int
    oldest_day: int
    # Formerly `runs`: a process from before version 2 finds none, and reads the table.
    day_runs: dict[int, list[str]] = {}


class KeptIds:
    """``home``: the location of the ids, for nothing else."""

    def __init__(self, io: FileIO, home: str) -> None:
        self._io, self._home = io, home.rstrip("/")
        self._kept: set[str] = set()

    def open(self, table_uuid: str, index: DedupIndex) -> State | None:
        """Fill an empty index. Returns None, and leaves it empty, if there is no usable state."""
        try:
            state = msgspec.json.decode(read_bytes(self._io, f"{self._home}/state.json"), type=State)
            if state.version != VERSION or state.table_uuid != table_uuid:
                return None
            for day, names in state.day_runs.items():
                for name in names:
                    index.put_run(day, Run.decode(read_bytes(self._io, self._location(name)), name))
                    self._kept.add(name)
        except FileNotFoundError:
            index.clear()
            return None
        except (msgspec.MsgspecError, ValueError) as error:
            log.warning("the stored dedup ids can't be read; reading them from the table", exc_info=error)
            index.clear()
            return None
        return state

    def put(self, table_uuid: str, snapshot_id: int, from_day: int, oldest_day: int, index: DedupIndex) -> None:
        """Store the index; writes only new runs."""
        runs = {day: [run.name for run in runs] for day, runs in index.runs.items()}
        for of_day in index.runs.values():
            for run in of_day:
                if run.name not in self._kept:
                    write_bytes(self._io, self._location(run.name), run.encode())
        self._kept = {name for names in runs.values() for name in names}
        state = State(
            version=VERSION,
            table_uuid=table_uuid,
            snapshot_id=snapshot_id,
            from_day=from_day,
            oldest_day=oldest_day,
            day_runs=runs,
        )
        write_bytes(self._io, f"{self._home}/state.json", msgspec.json.encode(state))
        self._drop_unused()

    def _drop_unused(self) -> None:
        used = {self._location(name) for name in self._kept}
        found = list_files(self._io, f"{self._home}/runs")
        delete_files(self._io, [one for one, age_s in found if one not in used and age_s > UNUSED_AGE_S])

    def _location(self, name: str) -> str:
        return f"{self._home}/runs/{name}.ids"
