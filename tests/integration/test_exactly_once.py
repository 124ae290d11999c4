"""Invariant 3: stream to table exactly once, under races, redelivery, re-slicing and a crash at every step.

A schedule is a seeded play: a few processors deliver slices of one stream, and at each step of the commit protocol a
processor may crash (before or after the commit landed) or be overtaken by another one. The real lake, catalog and
files; only the moments of crash and overtaking are chosen by the seed. Then the same plays with one rule broken: they
must be caught, or they would prove nothing.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table as IcebergTable

from manymetrics.books import StreamBooks
from manymetrics.records import Stamp, pack
from manymetrics.tables import DEAD_LETTERS, EVENTS, Table
from manymetrics_processor.decode.batch import StreamRecord, decode
from manymetrics_processor.decode.row import DAY_US
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.lake import CommitContentionError, Lake, Plan, current_books, live_files, local_catalog
from manymetrics_processor.lake.maintenance import maintain
from manymetrics_processor.lake.scan import read_files
from tests.scale import scaled

SCHEDULES = scaled(200, 1_000, 10_000)
PARTS = 10
NOW = 1_763_990_000_000_000  # microseconds since 1970
A_LAKE_EACH = 10  # plays that share their tables
APART = 20 * DAY_US  # between plays, so that none reads another's ids
MAX_DEPTH = 3  # how many processors may stand inside each other's commit


@pytest.fixture(autouse=True)
def no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash here is that of a process, which keeps what it wrote; test_restored.py cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


class CrashError(BaseException):
    """The processor is gone, as by kill -9: nothing may catch it on its way."""


class Step(NamedTuple):
    """A moment of the commit protocol."""

    name: str
    table: str


class SteppedLake(Lake):
    """The real lake, that tells of each step of a commit before and after it is done."""

    def __init__(self, catalog: Catalog, at: Callable[[Step], None]) -> None:
        super().__init__(catalog, sleep=lambda _seconds: None)
        self._at = at

    def load(self, table: Table) -> IcebergTable:
        iceberg = super().load(table)
        self._at(Step("loaded", table.name))
        return iceberg

    def _append(self, table: Table, iceberg: IcebergTable, planned: Plan) -> int:
        self._at(Step("staged", table.name))
        snapshot_id = super()._append(table, iceberg, planned)
        self._at(Step("committed", table.name))
        return snapshot_id


class RebasingLake(SteppedLake):
    """As pyiceberg is by itself: a losing append is moved onto the new head and committed."""

    def load(self, table: Table) -> IcebergTable:
        iceberg = super().load(table)
        iceberg.metadata.properties["commit.retry.num-retries"] = "4"
        return iceberg


class Play:
    """One schedule: a stream of its own, on tables that it shares with others."""

    def __init__(self, seed: int, catalog: Catalog, lake_type: type[SteppedLake] = SteppedLake) -> None:
        self.chance = random.Random(seed)
        self.stream = f"play-{seed}"
        self.now = NOW + seed % 1_000 * APART
        self.depth = 0
        self.lake = lake_type(catalog, self.at)
        self.records = self._make_records()
        self.windows = [Window(), Window(), Window()]

    def _make_records(self) -> list[StreamRecord]:
        sequences = {"a": 0, "b": 0}
        records = []
        for number in range(self.chance.randrange(2, 6)):
            shard = self.chance.choice("ab")
            sequences[shard] += self.chance.randrange(1, 4)
            records.append(StreamRecord(shard, sequences[shard], self._pack(number), self.now))
        return records

    def _pack(self, number: int) -> bytes:
        stamp = Stamp(self.now + number, f"r-{number}", self.stream, "server")
        events = [self._event() for _ in range(self.chance.randrange(1, 4))]
        return pack(stamp, events)[0]

    def _event(self) -> bytes:
        kind = self.chance.random()
        if kind < 0.15:
            return b'{"type": "nonsense"}'
        event = {"type": "track", "event": "E", "userId": "u"}
        if kind < 0.8:  # few ids, so that some come again; else none, so that its place makes one
            event["messageId"] = f"m-{self.chance.randrange(8)}"
        return msgspec.json.encode(event)

    def at(self, step: Step) -> None:
        """Crash here, let another processor run here, or go on."""
        if step.name != "loaded" and self.chance.random() < 0.15:
            raise CrashError
        if self.depth < MAX_DEPTH and self.chance.random() < 0.3:
            self.deliver(self.chance.choice(self.windows))

    def deliver(self, window: Window, records: list[StreamRecord] | None = None) -> None:
        """One delivery, of a slice that starts anywhere; a crash ends it, and nobody is told."""
        if records is None:
            start = self.chance.randrange(len(self.records))
            records = self.records[start : start + self.chance.randrange(1, 4)]
            records = self._whole_prefixes(records)
        self.depth += 1
        try:
            pipeline.run(records, self.stream, self.lake, window)
        except (CrashError, CommitContentionError):
            self.windows.append(Window())  # a new process, that knows nothing
        finally:
            self.depth -= 1

    def _whole_prefixes(self, records: list[StreamRecord]) -> list[StreamRecord]:
        """As a shard is read: what is delivered begins at or before the first record that is not committed."""
        books = current_books(Lake.load(self.lake, EVENTS), self.stream)
        kept = []
        for shard in ("a", "b"):
            of_shard = [record for record in self.records if record.shard == shard]
            wanted = [record for record in records if record.shard == shard]
            if wanted:
                first = next((r for r in of_shard if r.sequence > books.watermark(shard)), of_shard[-1])
                kept += [r for r in of_shard if min(first, wanted[0])[1] <= r.sequence <= wanted[-1].sequence]
        return kept

    def run(self) -> None:
        """Deliver at random, then all of it until it is there."""
        for _ in range(self.chance.randrange(1, 4)):
            self.deliver(self.chance.choice(self.windows))
        for _ in range(50):
            self.deliver(self.chance.choice(self.windows), self.records)
            if all(self._books().watermark(shard) == at for shard, at in self._last().items()):
                return
        pytest.fail("it never got through")

    def _last(self) -> dict[str, int]:
        return {
            record.shard: max(r.sequence for r in self.records if r.shard == record.shard) for record in self.records
        }

    def _books(self) -> StreamBooks:
        return current_books(Lake.load(self.lake, EVENTS), self.stream)

    def faults(self) -> list[str]:
        """What is wrong with the tables and the books; nothing, where every event is there exactly once."""
        batch = decode(self.records, self.stream)
        rows = batch.events.table.to_pylist()
        letters = batch.letters.table.to_pylist()
        expected = {"ids": Counter({row["message_id"]: 1 for row in rows}), "letters": Counter(_ids(letters))}
        stored = self._rows_of(EVENTS, "message_id")
        dead = self._rows_of(DEAD_LETTERS, "dead_letter_id")
        found = {"ids": Counter(row["message_id"] for row in stored), "letters": Counter(_ids(dead))}
        books = self._books()
        distinct = len(expected["ids"])
        told = (books.received, books.stored, books.duplicate, sum(books.dead_lettered.values()))
        true = (int(batch.counts.sum()), distinct, len(rows) - distinct, len(letters))
        return [f"{name}: {found[name]} for {expected[name]}" for name in expected if found[name] != expected[name]] + (
            [] if told == true else [f"books: {told} for {true}"]
        )

    def _rows_of(self, table: Table, id_column: str) -> list[dict[str, object]]:
        iceberg = Lake.load(self.lake, table)
        of_its_day = [file for file in live_files(iceberg) if file.partition[0] == self.now // DAY_US]
        rows: list[dict[str, object]] = read_files(table, iceberg, of_its_day, [id_column]).to_pylist()
        return rows


def _ids(letters: list[dict[str, object]]) -> Iterator[object]:
    return (letter["dead_letter_id"] for letter in letters)


def _new_catalog(folder: Path) -> Catalog:
    catalog = local_catalog(folder)
    Lake(catalog).ensure_tables()
    return catalog


@pytest.mark.parametrize("part", range(PARTS))
def test_every_event_is_there_exactly_once_whatever_the_schedule(part: int, tmp_path: Path) -> None:
    of_part = SCHEDULES // PARTS
    for first in range(part * of_part, (part + 1) * of_part, A_LAKE_EACH):
        catalog = _new_catalog(tmp_path / str(first))
        for seed in range(first, first + A_LAKE_EACH):
            play = Play(seed, catalog)
            play.run()
            if seed % (5 * A_LAKE_EACH) == 0:
                maintain(Lake(catalog))
            assert play.faults() == [], f"seed {seed}"


def test_the_schedules_catch_a_watermark_that_is_not_heeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StreamBooks, "watermark", lambda _books, _shard: -1)
    catalog = _new_catalog(tmp_path)

    assert any(_breaks(seed, catalog, SteppedLake) for seed in range(20))


def test_the_schedules_catch_an_append_that_is_rebased(tmp_path: Path) -> None:
    catalog = _new_catalog(tmp_path)

    assert any(_breaks(seed, catalog, RebasingLake) for seed in range(20))


def _breaks(seed: int, catalog: Catalog, lake_type: type[SteppedLake]) -> bool:
    play = Play(seed, catalog, lake_type)
    for _ in range(3):
        play.deliver(play.windows[0], play.records)
    return play.faults() != []
