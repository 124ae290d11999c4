"""Work and memory after the API follow what was sent, inflated, not its compressed size."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from manymetrics.records import Stamp, pack
from manymetrics.tables import DEAD_LETTERS, EVENTS, Table
from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake import maintenance
from manymetrics_processor.lake.file_memory import MEMORY_KEY, ROW_GROUP_MEMORY, memory_bytes, row_groups
from manymetrics_processor.lake.lake import Lake, live_files
from manymetrics_processor.lake.maintenance import MERGED_MEMORY, Maintenance, merge_small_files
from manymetrics_processor.lake.object_storage import open_parquet
from manymetrics_processor.lake.scan import read_file
from tests.bench.amplification import LIMIT, REQUESTS, measure_requests, search
from tests.conftest import ROOT
from tests.integration.micro_batches import NOW, SHARD, STREAM, file_paths, make_lake, record, rows, track

LONG = b'{"x":"%s"}' % (b"a" * 127_900)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return make_lake(tmp_path)


def requests(number: int, events: list[bytes], **shared: bytes) -> Iterator[list[StreamRecord]]:
    """The records of so many requests."""
    stamp = Stamp(NOW, "r", "shop", "server", **shared)  # type: ignore[arg-type]  # the envelope's parts
    sequences = count(1)
    for _ in range(number):
        yield [StreamRecord(SHARD, next(sequences), one, NOW) for one in pack(stamp, events)]


def commit(lake: Lake, given: Iterator[list[StreamRecord]]) -> None:
    window = Window()
    for records in given:
        pipeline.run(records, STREAM, lake, window)


def memory_of(lake: Lake, table: Table) -> list[int]:
    files = live_files(lake.load(table))
    return sorted(read_file(table, lake.io, file.file_path).nbytes for file in files)


# --- merges -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("event", "table"), [(msgspec.json.encode(track(None)), EVENTS), (b"{}", DEAD_LETTERS)])
def test_a_merge_takes_no_more_than_its_memory_however_small_the_files_are(
    lake: Lake, tmp_path: Path, event: bytes, table: Table
) -> None:
    commit(lake, requests(10, [event] * 90, context=LONG, integrations=LONG))
    before = memory_of(lake, table)
    sizes = [path.stat().st_size for path in file_paths(tmp_path) if path.suffix == ".parquet"]
    assert max(sizes) < 500_000 < MERGED_MEMORY < sum(before)

    merge_small_files(lake, table)

    after = memory_of(lake, table)
    assert max(after) <= MERGED_MEMORY
    assert len(after) < len(before)
    assert len(rows(lake, table)) == 900


def test_files_that_take_much_memory_do_not_keep_others_from_being_merged(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "MERGED_MEMORY", 12_000_000)
    commit(lake, requests(10, [msgspec.json.encode(track(None, properties={"a": "a" * 490_000}))] * 15))
    heavy = {file.file_path for file in live_files(lake.load(EVENTS))}
    window = Window()
    for sequence in range(1_000, 1_020):
        [one] = pack(Stamp(NOW, "r", "shop", "server"), [msgspec.json.encode(track(f"m{sequence}"))])
        pipeline.run([StreamRecord(SHARD, sequence, one, NOW)], STREAM, lake, window)

    merge_small_files(lake, EVENTS)

    files = {file.file_path for file in live_files(lake.load(EVENTS))}
    assert len(files - heavy) == 1
    assert heavy < files


def test_the_memory_of_a_file_is_known_without_holding_it(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [track(f"m{number}", event=None if number % 3 else f"e{number}" * 9) for number in range(700)]
    commit(lake, requests(1, list(map(msgspec.json.encode, events)), context=b'{"x":"%s"}' % (b"a" * 9_000)))
    monkeypatch.setattr("manymetrics_processor.lake.file_memory.SURELY_SMALL", 0)

    monkeypatch.setattr("manymetrics_processor.lake.file_memory.MEMORY_KEY", "not what the file says of itself")
    memory_bytes.cache_clear()

    for table in (EVENTS, DEAD_LETTERS):
        [file] = live_files(lake.load(table))
        actual = read_file(table, lake.io, file.file_path).nbytes
        assert actual <= memory_bytes(lake.io, file.file_path) <= 1.2 * actual


def test_a_file_says_what_memory_it_takes(lake: Lake) -> None:
    commit(lake, requests(1, [msgspec.json.encode(track("m"))] * 90, context=LONG))

    [file] = live_files(lake.load(EVENTS))

    with open_parquet(lake.io, file.file_path) as parquet:
        said = int(parquet.metadata.metadata[MEMORY_KEY.encode()])
    assert said == memory_bytes(lake.io, file.file_path)
    assert said == pytest.approx(read_file(EVENTS, lake.io, file.file_path).nbytes, rel=0.01)


@pytest.mark.parametrize("sizes", [[400_000] * 200, [10] * 5_000 + [500_000] * 150 + [10] * 5_000, [50_000_000, 10]])
def test_a_row_group_takes_no_more_than_its_memory_however_the_rows_differ(sizes: list[int]) -> None:
    rows = pa.table({"text": ["a" * size for size in sizes], "number": list(range(len(sizes)))})

    groups = list(row_groups(rows, 6_000))

    assert pa.concat_tables(groups).equals(rows)
    assert max(group.num_rows for group in groups) <= 6_000
    assert all(group.nbytes <= ROW_GROUP_MEMORY or group.num_rows == 1 for group in groups)
    assert len(groups) <= 2 + rows.nbytes // (ROW_GROUP_MEMORY - 500_000) + len(sizes) // 6_000


def test_a_small_file_is_not_read_to_know_what_it_takes(lake: Lake) -> None:
    commit(lake, requests(1, [msgspec.json.encode(track("m"))]))
    [file] = live_files(lake.load(EVENTS))

    assert memory_bytes(lake.io, file.file_path) < 100_000


def test_rows_that_take_much_memory_are_merged_where_they_fit(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(lake, requests(12, [msgspec.json.encode(track(None))] * 4, context=LONG))
    monkeypatch.setattr(maintenance, "MERGED_MEMORY", 3_000_000)

    merge_small_files(lake, EVENTS)

    assert max(memory_of(lake, EVENTS)) <= 3_000_000
    assert len(memory_of(lake, EVENTS)) == 8  # 5 are one, and 7 are left


def test_what_is_to_be_merged_after_a_flood_is_merged_bit_by_bit_between_commits(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "MERGED_MEMORY", 6_000_000)
    commit(lake, requests(40, [msgspec.json.encode(track(None))] * 8, context=LONG))
    small = Maintenance(lake)

    files = [len(memory_of(lake, EVENTS))]
    for _ in range(10):
        commit(lake, iter([[record(10_000 + len(files), track(f"m{len(files)}"))]]))
        small.after_commit()
        files.append(len(memory_of(lake, EVENTS)))

    merged = [before + 1 - after for before, after in pairwise(files)]
    assert max(merged) <= 5
    assert sum(one > 0 for one in merged) >= 5
    assert merged[-1] == 0


# --- what it takes at most --------------------------------------------------------------------------------

SEEN = (
    "{} with 18 kB of context",
    "{} with 256 kB of context and integrations",
    "an event with 256 kB of context and integrations",
    "490 kB of one letter",
)


@pytest.mark.parametrize("name", SEEN)
def test_no_stage_holds_more_than_a_part_of_a_gigabyte_of_requests_as_heavy_as_can_be(
    tmp_path: Path, name: str
) -> None:
    def peak_mb(stage: str, *more: str) -> float:
        command = [sys.executable, "-m", "tests.integration.heavy_process", str(tmp_path), stage, name, *more]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        return float(done.stdout)

    peaks = [peak_mb("commit", "12"), peak_mb("query"), peak_mb("merge"), peak_mb("query")]

    assert peaks[0] < 450, peaks
    assert peaks[2] < 500, peaks
    assert max(peaks) < 1_200, peaks


def test_no_seen_input_costs_twenty_times_the_cpu_of_usual_events(tmp_path: Path) -> None:
    requests = {name: REQUESTS[name] for name in (*SEEN[:2], SEEN[3], "{}", "100,000 NaN")}

    found = measure_requests(requests, tmp_path, rounds=2, most_weight=500_000)

    ratios = {(name, stage): ratio for name, stages in found.items() for stage, ratio in stages.items()}
    assert max(ratios.values()) <= LIMIT, ratios


def test_no_searched_input_costs_twenty_times_the_cpu_of_usual_events() -> None:
    request, ratio = search(30)

    assert ratio <= LIMIT, request
