"""What is backfilled is in the tables as if it had come by its stream, once, whatever it is and however often."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from manymetrics.limits import MAX_EVENT_BYTES
from manymetrics.tables import DEAD_LETTERS, EVENTS, Table
from manymetrics_processor.decode import arrow as columns
from manymetrics_processor.decode import batch as decode_module
from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.decode.row import DAY_US
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.ingest.raw_archive import SUFFIX, Archive
from manymetrics_processor.jobs import backfill as job
from manymetrics_processor.jobs import backfill_inputs as pieces
from manymetrics_processor.jobs import cluster_batch
from manymetrics_processor.jobs.backfill import NothingToDoError, Report, TooManyFilesError, backfill
from manymetrics_processor.jobs.backfill_inputs import Piece
from manymetrics_processor.lake import arrow_engine
from manymetrics_processor.lake.arrow_engine import ArrowEngine
from manymetrics_processor.lake.lake import Lake, live_files, local_catalog
from manymetrics_processor.lake.maintenance import remove_orphans
from manymetrics_processor.lake.scan import read_files
from manymetrics_processor.parallel import in_groups
from tests.in_process_cluster import InProcessCluster
from tests.integration.micro_batches import NOW, STREAM, books, counts, make_lake, message_ids, record, rows, track

NAMELESS = {"type": "track", "userId": "u"}
LINEAGE = ("_stream", "_shard", "_sequence", "_position")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return make_lake(tmp_path)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where what is to be backfilled lies."""
    folder = tmp_path / "warehouse" / "export"  # a local catalog opens files of its folder alone
    folder.mkdir(parents=True)
    return folder


def archived(lake: Lake, home: Path, *batches: list[StreamRecord], stream: str = STREAM) -> None:
    for batch in batches:
        Archive(f"file://{home}", lake.io).put(stream, batch)


def run(home: Path, *, at: Path | None = None, **options: Any) -> Report:  # noqa: ANN401  # what backfill takes
    catalog = local_catalog(at or home.parent.parent)
    return backfill(catalog, InProcessCluster(), f"file://{home}", **{"source": "test", **options})


def outcomes(report: Report) -> dict[str, int]:
    return {"stored": report.stored, "duplicate": report.duplicate, "dead_lettered": report.dead_lettered}


def lines(*events: object) -> bytes:
    return b"".join((one if isinstance(one, bytes) else msgspec.json.encode(one)) + b"\n" for one in events)


def exported(message_id: str | None, day: int = 0, **fields: object) -> dict[str, Any]:
    """An event as Segment exports it, received on a day counted from 2025-11-20."""
    return track(message_id, receivedAt=f"2025-11-{20 + day:02}T10:00:00.5Z", **fields)


# --- the raw archive --------------------------------------------------------------------------------------


def test_the_archive_makes_the_rows_that_the_stream_made(lake: Lake, home: Path, tmp_path: Path) -> None:
    batches = [
        [record(number, track(f"{number}-{i}", properties={"i": i}), NAMELESS, track(None, userId="x"), day=number % 3)]
        for number, i in enumerate(range(12))
    ]
    streamed = make_lake(tmp_path / "streamed")
    for batch in batches:
        pipeline.run(batch, STREAM, streamed, Window())
    archived(lake, home, *batches)

    report = run(home)

    assert outcomes(report) == {"stored": 24, "duplicate": 0, "dead_lettered": 12}
    for table in (EVENTS, DEAD_LETTERS):
        assert rows(lake, table) == rows(streamed, table)
    assert counts(books(lake, "backfill:test")) == {
        "received": 36,
        "stored": 24,
        "dead_lettered:no_event_name": 12,
    }
    assert books(lake, "backfill:test").arrived_at == {}


def test_a_second_run_changes_nothing_and_reads_nothing(lake: Lake, home: Path) -> None:
    archived(lake, home, [record(1, track("a"), NAMELESS)], [record(2, track("b"))])
    run(home)
    before = lake.load(EVENTS).metadata_location, lake.load(DEAD_LETTERS).metadata_location

    again = run(home)

    assert (lake.load(EVENTS).metadata_location, lake.load(DEAD_LETTERS).metadata_location) == before
    assert outcomes(again) == {"stored": 0, "duplicate": 0, "dead_lettered": 0}
    assert (again.commits, again.pieces_passed_over) == (0, 1)


def test_what_the_tables_have_is_a_duplicate_and_what_they_lack_is_stored(lake: Lake, home: Path) -> None:
    batches = [[record(number, *(track(f"{number}-{i}") for i in range(5)))] for number in range(4)]
    for batch in batches[::2]:
        pipeline.run(batch, STREAM, lake, Window())
    archived(lake, home, *batches)

    report = run(home)

    assert outcomes(report) == {"stored": 10, "duplicate": 10, "dead_lettered": 0}
    assert message_ids(lake) == sorted(f"{number}-{i}" for number in range(4) for i in range(5))


def test_dead_letters_that_the_tables_have_are_passed_over(lake: Lake, home: Path) -> None:
    batches = [[record(number, NAMELESS, track(f"m{number}"), b"[]")] for number in range(4)]
    for batch in batches[:2]:
        pipeline.run(batch, STREAM, lake, Window())
    archived(lake, home, *batches)

    report = run(home)

    assert outcomes(report) == {"stored": 2, "duplicate": 2, "dead_lettered": 4}
    assert report.letters_passed_over == 4
    letters = [(row["_sequence"], row["_position"]) for row in rows(lake, DEAD_LETTERS)]
    assert letters == [(str(number), position) for number in range(4) for position in (0, 2)]
    assert books(lake, "backfill:test").received == 8
    assert books(lake, "backfill:test").balanced


def test_objects_that_overlap_are_committed_once(lake: Lake, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "ARCHIVE_BYTES", 1)  # a piece an object, but for those that overlap
    records = [record(number, track(f"m{number}"), NAMELESS) for number in range(6)]
    archived(lake, home, records[0:2], records[1:4], records[3:5], records[5:])

    report = run(home)

    assert outcomes(report) == {"stored": 6, "duplicate": 0, "dead_lettered": 6}
    assert len(rows(lake, DEAD_LETTERS)) == 6


def test_records_that_came_in_another_order_around_midnight_are_all_committed(
    lake: Lake, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "ARCHIVE_BYTES", 1)
    records = [
        record(number, track(f"m{number}"))._replace(arrived_at=NOW + day * DAY_US)
        for number, day in enumerate((0, 1, 0, 1))
    ]
    archived(lake, home, records)

    report = run(home, commit_bytes=1)

    assert (report.stored, report.commits) == (4, 4)
    assert message_ids(lake) == ["m0", "m1", "m2", "m3"]


def test_streams_and_shards_are_told_apart(lake: Lake, home: Path) -> None:
    for stream in ("one", "two"):
        for shard in ("shard-0", "shard-1"):
            archived(lake, home, [record(7, track(f"{stream}-{shard}"), shard=shard)], stream=stream)

    assert run(home).stored == 4
    assert run(home).stored == 0
    assert len({tuple(row[name] for name in LINEAGE) for row in rows(lake)}) == 4


def test_a_damaged_object_harms_only_itself_and_is_named(lake: Lake, home: Path) -> None:
    archived(lake, home, [record(1, track("a"))], [record(2, track("b"))])
    [first, _] = sorted(home.rglob("*" + SUFFIX))
    first.write_bytes(first.read_bytes()[:100])

    report = run(home)

    assert message_ids(lake) == ["b"]
    assert [one.partition(": ")[0] for one in report.damaged] == [f"file://{first}"]


def test_an_object_that_was_mended_is_backfilled_by_its_own_location(lake: Lake, home: Path) -> None:
    archived(lake, home, [record(1, track("a"))], [record(2, track("b"))])
    [first, _] = sorted(home.rglob("*" + SUFFIX))
    whole = first.read_bytes()
    first.write_bytes(whole[:100])
    [damaged] = run(home, source=None).damaged
    first.write_bytes(whole)

    assert "by exactly this location" in damaged
    assert run(first, at=home.parent.parent, source=None).stored == 1
    assert message_ids(lake) == ["a", "b"]


# --- NDJSON -----------------------------------------------------------------------------------------------


def test_a_line_is_an_event_of_the_day_on_which_it_was_received(lake: Lake, home: Path) -> None:
    written_at = NOW // 1_000_000
    (home / "a.ndjson").write_bytes(
        lines(
            exported("received", 1, timestamp="2025-11-01T00:00:00Z"),
            track("happened", timestamp="2025-11-02T00:00:00Z"),
            track("ahead", receivedAt="2099-01-01T00:00:00Z"),
            track("neither"),
        )
    )
    os.utime(home / "a.ndjson", (written_at, written_at))

    run(home, project="shop")

    received = {row["message_id"]: str(row["received_at"]) for row in rows(lake)}
    assert received == {
        "received": "2025-11-21 10:00:00.500000",
        "happened": "2025-11-02 00:00:00",
        "ahead": "2025-11-24 13:13:20",
        "neither": "2025-11-24 13:13:20",
    }
    assert {row["project_id"] for row in rows(lake)} == {"shop"}


def test_a_bad_line_becomes_a_dead_letter_and_harms_only_itself(lake: Lake, home: Path) -> None:
    large = track("large", properties={"text": "x" * MAX_EVENT_BYTES})
    (home / "a.ndjson").write_bytes(
        lines(exported("a"), b"{", b"", b"  ", exported(None), large, [1], b"\xff", exported("b"))
    )

    report = run(home, project="shop")
    again = run(home, project="shop")

    assert outcomes(report) == {"stored": 3, "duplicate": 0, "dead_lettered": 4}
    assert outcomes(again) == {"stored": 0, "duplicate": 0, "dead_lettered": 0}
    letters = [(row["_position"], row["reason"], len(row["raw"])) for row in rows(lake, DEAD_LETTERS)]
    assert letters == [
        (1, "invalid_json", 1),
        (5, "too_large", 65_536),
        (6, "not_an_object", 3),
        (7, "invalid_json", 4),
    ]
    assert [(row["_shard"], row["_position"]) for row in rows(lake)] == [("a.ndjson", at) for at in (0, 4, 8)]


def test_a_file_is_the_same_rows_however_it_is_compressed(
    lake: Lake, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PART_BYTES", 1_000)
    data = lines(*(exported(f"m{number}", number % 4) for number in range(50)))
    (home / "plain.jsonl").write_bytes(data)
    (home / "gz.json.gz").write_bytes(gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :]))
    (home / "zst.ndjson.zst").write_bytes(zstandard.compress(data))

    report = run(home, project="shop")

    assert outcomes(report) == {"stored": 50, "duplicate": 100, "dead_lettered": 0}
    assert run(home, project="shop").commits == 0
    assert message_ids(lake) == sorted(f"m{number}" for number in range(50))


@given(
    texts=st.lists(st.binary(max_size=12).map(lambda one: one.replace(b"\n", b"")), max_size=20),
    part_bytes=st.integers(1, 20),
    ends=st.booleans(),
)
def test_each_line_is_in_one_part_whatever_its_size(
    texts: list[bytes], part_bytes: int, ends: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("lines") / "lines"
    path.write_bytes(b"\n".join(texts) + (b"\n" if ends else b""))
    size = path.stat().st_size

    found = []
    with pytest.MonkeyPatch.context() as patch, path.open("rb") as file:
        patch.setattr(pieces, "PART_BYTES", part_bytes)
        patch.setattr(pieces, "_MORE_BYTES", 3)
        for start in range(0, max(size, 1), part_bytes):
            found += pieces._lines_from(file, start, size)

    assert [one for one in found if one] == [one for one in texts if one]


def zst(data: bytes) -> bytes:
    """In two frames, of which the second is most of it, in small blocks."""
    writer = zstandard.ZstdCompressor(level=1).compressobj()
    blocks = [
        writer.compress(data[at : at + 500]) + writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        for at in range(500, len(data), 500)
    ]
    return zstandard.compress(data[:500]) + b"".join(blocks) + writer.flush()


@pytest.mark.parametrize(("ending", "compress"), [("gz", lambda data: gzip.compress(data, 0)), ("zst", zst)])
def test_a_file_that_breaks_off_is_committed_up_to_there_and_the_rest_once_it_is_whole(
    ending: str, compress: Callable[[bytes], bytes], lake: Lake, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PART_BYTES", 1_000)
    whole = compress(lines(*(exported(f"m{number}", properties={"x": os.urandom(20).hex()}) for number in range(50))))
    file = home / f"a.json.{ending}"
    file.write_bytes(whole[: len(whole) // 2])
    (home / "b.json").write_bytes(lines(exported("b")))

    broken = run(home, project="shop")
    file.write_bytes(whole)
    mended = run(home, project="shop")

    assert [one.rpartition(": ")[0] for one in broken.damaged] == [f"file://{file}"]
    assert (broken.stored > 1, mended.damaged) == (True, [])
    assert broken.stored + mended.stored == 51
    assert broken.dead_lettered + mended.dead_lettered == 0
    assert message_ids(lake) == sorted(["b", *(f"m{number}" for number in range(50))])


@pytest.mark.parametrize(("ending", "compress"), [("json", bytes), ("json.gz", gzip.compress)])
@pytest.mark.parametrize("part_bytes", [100, 1_000_000])
def test_of_a_file_that_has_grown_what_is_new_is_read(
    ending: str,
    compress: Callable[[bytes], bytes],
    part_bytes: int,
    lake: Lake,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pieces, "PART_BYTES", part_bytes)
    data = lines(*(exported(None, number % 3, n=number) for number in range(20)))
    for size in (0, len(data) // 3, len(data) // 3 + 1, len(data) - 1, len(data)):
        (home / f"a.{ending}").write_bytes(compress(data[:size]))
        run(home, project="shop")

    assert [msgspec.json.decode(row["extra"])["n"] for row in rows(lake)] == list(range(20))
    assert run(home, project="shop").commits == 0


def test_a_file_that_grows_while_it_is_read_is_read_as_it_was_listed(
    lake: Lake, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "a.json"
    file.write_bytes(lines(exported("a")))
    lines_from = pieces._lines_from

    def grown(*arguments: Any) -> list[bytes]:  # noqa: ANN401  # as the real one
        file.write_bytes(lines(exported("a"), exported("b")))
        return lines_from(*arguments)

    monkeypatch.setattr(pieces, "_lines_from", grown)
    assert run(home, project="shop").stored == 1
    assert run(home, project="shop").stored == 1
    assert message_ids(lake) == ["a", "b"]


def test_files_that_are_empty_once_unpacked_are_nothing(home: Path) -> None:
    (home / "a.json.gz").write_bytes(gzip.compress(b""))
    (home / "b.json.gz").write_bytes(b"")
    (home / "c.json.zst").write_bytes(zstandard.compress(b""))
    (home / "d.json").write_bytes(b"")

    report = run(home, project="shop", commit_bytes=1)

    assert (outcomes(report), report.damaged) == ({"stored": 0, "duplicate": 0, "dead_lettered": 0}, [])


def test_more_files_than_the_tables_can_remember_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "MAX_FILES", 2)
    for number in range(3):
        (home / f"{number}.json").write_bytes(lines(exported(f"m{number}")))

    with pytest.raises(TooManyFilesError, match="has 3 files"):
        run(home, project="shop")


def test_many_pieces_are_cut_into_commits_in_no_time() -> None:
    many = [Piece("shard", number, number, "", 1_000) for number in range(200_000)]

    groups = list(in_groups(many, lambda piece: piece.size, 100_000_000))

    assert [len(one) for one in groups] == [100_000] * 2


def test_windows_files_are_read_as_any(lake: Lake, home: Path) -> None:
    (home / "a.json").write_bytes(b"\xef\xbb\xbf" + lines(exported("a"), exported("b")).replace(b"\n", b"\r\n"))

    run(home, project="shop")

    assert message_ids(lake) == ["a", "b"]


def test_a_location_is_the_same_however_it_is_written(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "warehouse")
    (home / "a.json").write_bytes(lines(exported(None)))

    for same in ((f"file://{home}", f"file://{home}/"), (str(home), f"{home}/", "export", "./export/")):
        reports = [backfill(local_catalog(tmp_path), InProcessCluster(), one, project="shop") for one in same]
        assert [one.commits for one in reports] == [1, *[0] * (len(same) - 1)]


def test_files_that_are_nothing_of_it_are_named(home: Path) -> None:
    (home / "a.ndjson").write_bytes(lines(exported("a")))
    (home / "a.csv").write_text("a,b")

    assert run(home, project="shop").files_passed_over == [f"file://{home}/a.csv"]
    with pytest.raises(NothingToDoError, match="NDJSON needs --project ID"):
        run(home)


# --- many commits -----------------------------------------------------------------------------------------


def test_days_are_committed_in_order_and_resends_are_found_across_commits(lake: Lake, home: Path) -> None:
    for day in range(9):
        (home / f"day-{day}.ndjson").write_bytes(lines(exported("again", day), exported(f"m{day}", day)))

    report = run(home, project="shop", commit_bytes=1)

    assert (report.commits, report.stored, report.duplicate) == (9, 11, 7)  # day 8 is more than 7 days after the first
    assert [row["received_at"].day for row in rows(lake) if row["message_id"] == "again"] == [20, 28]


def test_what_others_commit_meanwhile_is_found(lake: Lake, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archived(lake, home, [record(1, track("a"), track("b"), NAMELESS)])
    stage = cluster_batch.ClusterEngine.stage
    raced: list[object] = []

    def overtaken(*arguments: Any) -> Any:  # noqa: ANN401  # as the real one
        if not raced:
            raced.append(pipeline.run([record(1, track("b"), track("c"))], "another", lake, Window()))
        return stage(*arguments)

    monkeypatch.setattr(cluster_batch.ClusterEngine, "stage", overtaken)

    report = run(home)

    assert outcomes(report) == {"stored": 1, "duplicate": 1, "dead_lettered": 1}
    assert message_ids(lake) == ["a", "b", "c"]


def test_files_that_are_removed_as_orphans_before_their_commit_are_staged_again(
    lake: Lake, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "a.json").write_bytes(lines(exported("a")))
    stage = cluster_batch.ClusterEngine.stage
    removed: list[int] = []

    def slowly(*arguments: Any) -> Any:  # noqa: ANN401  # as the real one
        files = stage(*arguments)
        if not removed:
            removed.append(remove_orphans(lake, EVENTS, older_than_s=0))
        return files

    monkeypatch.setattr(cluster_batch.ClusterEngine, "stage", slowly)

    assert run(home, project="shop").stored == 1

    assert removed == [1]
    assert message_ids(lake) == ["a"]


def test_a_large_day_is_several_files_and_each_is_sorted(
    lake: Lake, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_batch, "FILE_ROWS", 10)
    (home / "a.ndjson").write_bytes(
        lines(*(exported(f"m{number}", number % 2, event=f"E{-number % 7}") for number in range(50)))
    )

    run(home, project="shop")

    iceberg = lake.load(EVENTS)
    files = [read_files(EVENTS, iceberg, [file])["event"].to_pylist() for file in live_files(iceberg)]
    assert sorted(map(len, files)) == [5, 5, 10, 10, 10, 10]
    assert all(names == sorted(names) for names in files)
    assert message_ids(lake) == sorted(f"m{number}" for number in range(50))


# --- what can't be stored ---------------------------------------------------------------------------------


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """No row with the id `poison` can be made Arrow, and none with `refused` can be committed."""
    to_arrow, append = columns.to_arrow, ArrowEngine.append
    refused = set[str]()
    stage_day = arrow_engine.stage_day

    def make(table: Table, of: Any) -> pa.Table:  # noqa: ANN401  # as the real one
        if any("poison" in row for row in of):
            raise ValueError
        return to_arrow(table, of)

    def stage(table: Table, iceberg: Any, data: pa.Table, *rest: Any, **options: Any) -> Any:  # noqa: ANN401  # as the real one
        file = stage_day(table, iceberg, data, *rest, **options)
        if "message_id" in data.column_names and "refused" in data["message_id"].to_pylist():
            refused.add(file.file_path)
        return file

    def commit(self: ArrowEngine, table: Table, iceberg: Any, files: Any, *rest: Any) -> int:  # noqa: ANN401  # as the real one
        if any(file.file_path in refused for file in files):
            raise ValueError
        return append(self, table, iceberg, files, *rest)

    monkeypatch.setattr(decode_module, "to_arrow", make)
    for module in (arrow_engine, cluster_batch):
        monkeypatch.setattr(module, "stage_day", stage)
    monkeypatch.setattr(ArrowEngine, "append", commit)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("bad", ["poison", "refused"])
def test_an_archived_event_that_can_not_be_stored_costs_no_other(lake: Lake, home: Path, bad: str) -> None:
    archived(lake, home, [record(1, track("a"), track(bad), NAMELESS, track("b")), record(2, track("c"))])
    archived(lake, home, [record(3, track("d"))])

    report = run(home)

    assert message_ids(lake) == ["a", "b", "c", "d"]
    assert outcomes(report) == {"stored": 4, "duplicate": 0, "dead_lettered": 2}
    kept = counts(books(lake, "backfill:test"))
    assert kept == {"received": 6, "stored": 4, "dead_lettered:no_event_name": 1, "dead_lettered:unstorable": 1}
    assert books(lake, "backfill:test").arrived_at == {}
    assert run(home).pieces_passed_over == 1


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("bad", ["poison", "refused"])
@pytest.mark.parametrize("name", ["one.ndjson", "one.ndjson.gz"])
def test_a_line_that_can_not_be_stored_costs_no_other(lake: Lake, home: Path, bad: str, name: str) -> None:
    data = lines(*(exported(f"m{at}") for at in range(5)), b"", exported(bad), exported("last"), NAMELESS)
    (home / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    (home / "two.ndjson").write_bytes(lines(exported("other")))

    report = run(home, project="shop")

    assert message_ids(lake) == sorted([*(f"m{at}" for at in range(5)), "last", "other"])
    assert outcomes(report) == {"stored": 7, "duplicate": 0, "dead_lettered": 2}
    assert outcomes(run(home, project="shop")) == {"stored": 0, "duplicate": 0, "dead_lettered": 0}
