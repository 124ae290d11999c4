"""A data directory that was moved or copied works where it is, and nothing outside of it is read or written."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import pytest
from pyiceberg.types import NestedField, StringType, StructType

from manymetrics.records import Stamp, pack
from manymetrics.tables import EVENTS
from manymetrics_cli import one_machine as local
from manymetrics_cli.main import main
from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.lake import ForeignTableError, Lake, live_files, local_catalog
from manymetrics_processor.lake.maintenance import orphans, remove_orphans
from manymetrics_processor.lake.object_storage import list_files
from manymetrics_processor.lake.scan import read_files
from tests.live_server import live_server

_STAMP = Stamp(time.time_ns() // 1_000, "r-1", "shop", "browser")
_SQL = "select string_agg(message_id, ',' order by message_id) as ids from events"


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """A data directory with one event of one person."""
    home = tmp_path / "original"
    commit(home, 1, "a")
    return home


def commit(home: Path, sequence: int, message_id: str) -> None:
    lake = Lake(local_catalog(home))
    lake.ensure_tables()
    event = b'{"type":"track","event":"E","userId":"u-%s","messageId":"%s"}' % (
        message_id.encode(),
        message_id.encode(),
    )
    records = [StreamRecord("s", sequence, record, 1) for record in pack(_STAMP, [event])]
    pipeline.run(records, "local:x", lake, Window())


def stored(home: Path) -> list[str]:
    """Read through the committer's own way."""
    lake = Lake(local_catalog(home))
    rows = read_files(EVENTS, iceberg := lake.load(EVENTS), live_files(iceberg), ["message_id"])
    return sorted(rows["message_id"].to_pylist())


def everything(home: Path) -> dict[Path, bytes]:
    return {path.relative_to(home): path.read_bytes() for path in home.rglob("*") if path.is_file()}


@pytest.fixture
def asked(capsys: pytest.CaptureFixture[str]) -> Callable[[Path], str]:
    """What `query` answers."""

    def ask(home: Path) -> str:
        capsys.readouterr()
        status = main(["query", "--data-dir", str(home), "-o", "ndjson", _SQL])
        out, err = capsys.readouterr()
        return str(json.loads(out)["ids"]) if status == 0 else err

    return ask


def tables_finding(home: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    main(["doctor", "--data-dir", str(home)])
    return next(line for line in capsys.readouterr().out.splitlines() if line[6:].startswith("tables "))


@pytest.mark.parametrize("name", ["copy", "a b", "Zürich 東京", "100%20", "#1", "it's", 'a"b', "a;b"])
def test_a_copy_answers_from_itself_whatever_the_original_holds(
    original: Path, tmp_path: Path, asked: Callable[[Path], str], name: str
) -> None:
    copy = tmp_path / name
    shutil.copytree(original, copy)
    commit(original, 2, "only-in-the-original")
    before = everything(original)

    local.check_data_dir(copy)
    commit(copy, 2, "only-in-the-copy")

    assert asked(copy) == "a,only-in-the-copy"
    assert asked(original) == "a,only-in-the-original"
    assert everything(original) == before


def test_a_folder_that_moves_again_and_again_goes_on(
    original: Path, tmp_path: Path, asked: Callable[[Path], str], capsys: pytest.CaptureFixture[str]
) -> None:
    home = original
    for number in range(2, 5):
        home = home.rename(tmp_path / f"moved {number}")
        commit(home, number, f"m{number}")
    shutil.copytree(home, tmp_path / "copy")
    shutil.rmtree(home)

    assert asked(tmp_path / "copy") == "a,m2,m3,m4"
    assert "4 received, 4 stored" in tables_finding(tmp_path / "copy", capsys)
    assert not original.exists()


def test_a_copy_without_its_files_is_not_whole_because_the_original_is(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: Callable[[Path], str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    for path in (copy / "warehouse").rglob("*.parquet"):
        path.unlink()

    assert tables_finding(copy, capsys).startswith("FAIL")
    assert str(copy) in asked(copy)
    shutil.rmtree(copy / "warehouse")
    assert tables_finding(copy, capsys).startswith("FAIL")
    assert str(copy) in asked(copy)


def test_maintenance_and_erasure_of_a_moved_folder_keep_what_is_live(
    original: Path, tmp_path: Path, asked: Callable[[Path], str]
) -> None:
    commit(original, 2, "b")
    moved = tmp_path / "moved"
    shutil.copytree(original, moved)
    before = everything(original)
    for number in range(3, 12):
        commit(moved, number, f"c{number:02}")
    lake = local.open_lake(moved)
    left = f"{lake.load(EVENTS).location()}/data/left.parquet"
    (moved / "warehouse/manymetrics/events/data/left.parquet").write_bytes(b"of a process that was killed")

    assert [location for location, _ in orphans(lake.load(EVENTS))] == [left]
    assert remove_orphans(lake, EVENTS, older_than_s=0) == 1
    assert main(["maintain", "--data-dir", str(moved), "--keep-snapshots", "1"]) == 0
    assert main(["erase", "--data-dir", str(moved), "--user-id", "u-b", "--yes"]) == 0

    assert asked(moved) == "a," + ",".join(f"c{number:02}" for number in range(3, 12))
    assert not any(b"u-b" in data for path, data in everything(moved).items() if "data" in path.parts)
    assert everything(original) == before


def test_the_tables_of_a_moved_folder_outlive_their_catalog(
    original: Path, tmp_path: Path, asked: Callable[[Path], str]
) -> None:
    moved = original.rename(tmp_path / "moved")
    (moved / "catalog.db").unlink()

    assert main(["recover", "--data-dir", str(moved), "--dry-run"]) == 0
    assert not (moved / "catalog.db").exists()
    assert main(["recover", "--data-dir", str(moved)]) == 0
    commit(moved, 2, "b")

    assert asked(moved) == "a,b"
    assert stored(moved) == ["a", "b"]


def test_a_commit_that_ended_before_its_catalog_named_it_is_taken_for_done_in_a_moved_folder(
    original: Path, tmp_path: Path, asked: Callable[[Path], str]
) -> None:
    older = (original / "catalog.db").read_bytes()
    commit(original, 2, "b")
    moved = original.rename(tmp_path / "moved")
    (moved / "catalog.db").write_bytes(older)

    local.check_data_dir(moved)

    assert asked(moved) == "a,b"


def test_a_table_that_was_put_among_those_of_another_folder_is_refused(original: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    commit(other, 1, "x")
    newest = local_catalog(original).load_table("manymetrics.events").metadata_location.rpartition("/")[2]
    files = other / "warehouse/manymetrics/events/metadata"
    shutil.copy(original / "warehouse/manymetrics/events/metadata" / newest, files / newest)

    with pytest.raises(ForeignTableError, match="copied there"):
        list(Lake(local_catalog(other)).states(EVENTS))


def test_a_file_outside_of_the_folder_is_not_read(original: Path, tmp_path: Path, asked: Callable[[Path], str]) -> None:
    shutil.copytree(original, tmp_path / "copy")
    with closing(sqlite3.connect(tmp_path / "copy" / "catalog.db")) as catalog:
        catalog.execute(
            "update iceberg_tables set metadata_location = 'file:///warehouse/manymetrics/../../etc/passwd'"
        )
        catalog.commit()

    assert "is not in" in asked(tmp_path / "copy")


@pytest.mark.parametrize(
    "named",
    [
        "file:///etc/passwd",
        "{warehouse}/../../etc/passwd",
        "file:///other/warehouse/manymetrics/x",
        "/etc/passwd",
        "s3://b/x",
    ],
)
def test_nothing_outside_of_the_folder_is_opened_or_removed_whatever_metadata_names(tmp_path: Path, named: str) -> None:
    catalog = local_catalog(tmp_path / "data")
    location = named.format(warehouse=catalog.properties["warehouse"])
    io = Lake(catalog).io

    for touch in (io.new_input, io.new_output, io.delete):
        with pytest.raises(ValueError, match="does not belong to the tables in"):
            touch(location)


def test_a_nested_column_of_a_moved_folder_is_read_from_it(
    original: Path, tmp_path: Path, asked: Callable[[Path], str]
) -> None:
    kind = StructType(NestedField(1001, "inner", StringType(), required=False))
    with local_catalog(original).load_table("manymetrics.events").update_schema() as update:
        update.add_column("nested", kind)
    moved = original.rename(tmp_path / "moved")

    assert asked(moved) == "a"


def test_a_copy_is_served_beside_its_original(tmp_path: Path) -> None:
    def event(message_id: str) -> bytes:
        return b'{"userId":"u","event":"E","messageId":"%s"}' % message_id.encode()

    def ids(rows: Iterable[dict[str, str]]) -> set[str]:
        return {row["message_id"] for row in rows}

    with live_server(tmp_path / "first") as first:
        assert first.post("/v1/track", event("a")).status_code == 200
        first.settle()
        first.stop()
        shutil.copytree(tmp_path / "first", tmp_path / "the second")
        first.start()
        assert first.post("/v1/track", event("first")).status_code == 200
        with live_server(tmp_path / "the second") as second:
            for one in ("a", "second"):  # the first is known from before
                assert second.post("/v1/track", event(one)).status_code == 200
            assert ids(second.rows_once(3)) == {"a", "marker 1", "second"}
        assert ids(first.rows_once(3)) == {"a", "marker 1", "first"}


def test_files_of_a_moved_folder_are_listed_by_the_names_they_were_written_under(
    original: Path, tmp_path: Path
) -> None:
    moved = original.rename(tmp_path / "moved")
    lake = Lake(local_catalog(moved))

    listed = {location for location, _ in list_files(lake.io, f"{lake.home(EVENTS)}/data")}

    assert listed == {file.file_path for file in live_files(lake.load(EVENTS))}
    assert all(location.startswith(f"file://{original}/warehouse/") for location in listed)
