"""`manymetrics recover`, and what a start takes for the newest state of the tables."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io import FileIO
from pyiceberg.table.metadata import TableMetadata

from manymetrics.books import StreamBooks, encode, property_name
from manymetrics.settings import Settings, SettingsError
from manymetrics.tables import EVENTS
from manymetrics_api.committer_state import CommitterState, write_state
from manymetrics_api.sinks.local_stream import LocalSource
from manymetrics_cli import one_machine as local
from manymetrics_cli.commands import doctor
from manymetrics_cli.commands.recover import _is_damaged
from manymetrics_cli.main import main
from manymetrics_processor.ingest.processor import AWS_ORPHAN_AGE_S
from manymetrics_processor.jobs import erase as erase_job
from manymetrics_processor.jobs.compact import Limits, compact
from manymetrics_processor.lake.lake import Lake, RolledBackError, Version, live_files, local_catalog
from manymetrics_processor.lake.maintenance import remove_orphans
from manymetrics_processor.lake.rollback import metadata_number
from manymetrics_processor.operations.erase_tables import Person, Receipt, erase
from tests.in_process_cluster import InProcessCluster
from tests.integration.micro_batches import books, counts
from tests.integration.test_restored import _name, commit, committer, put, stored, trim


@pytest.fixture
def home(tmp_path: Path) -> Path:
    local.check_data_dir(tmp_path)
    return tmp_path


def path_of(location: str) -> Path:
    return Path(location.removeprefix("file://"))


def newest_file(home: Path) -> Path:
    files = [path_of(one.file_path) for one in live_files(Lake(local_catalog(home)).load(EVENTS))]
    return max(files, key=lambda one: one.stat().st_mtime_ns)


def recover(home: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Its status, and what it says of events and of the stream."""
    capsys.readouterr()
    status = main(["recover", "--data-dir", str(home), *more])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return status, next(one for one in lines if one.get("table") == "events"), lines[-1]


def run_out(home: Path) -> None:
    with committer(home) as made:
        while not made.step():
            pass


def current(home: Path) -> Path:
    return path_of(Lake(local_catalog(home)).load(EVENTS).metadata_location)


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


# --- files that are missing -------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", [remove, cut])
def test_the_server_starts_after_recover_where_a_file_is_missing_or_cut(
    home: Path, capsys: pytest.CaptureFixture[str], harm: Callable[[Path], None]
) -> None:
    commit(home, "a", "b", "c")
    harmed = newest_file(home)
    commit(home, "d", "e")
    trim(home)
    put(home, "f")
    harm(harmed)

    status, events, stream = recover(home, capsys)

    assert (status, events["rows"], events["rows_of_newest"]) == (1, 2, 5)
    assert [path_of(one) for one in events["bad_files"]] == [harmed]
    assert len(events["set_aside"]) == 3
    assert stream == {"committed_up_to": 2, "records_waiting": 1, "records_missing": 3}
    local.check_data_dir(home)
    run_out(home)
    assert stored(home) == ["a", "b", "f"]
    assert recover(home, capsys)[0] == 0


def test_what_was_set_aside_is_no_orphan(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(home, "a", "b", "c")
    harmed = newest_file(home)
    commit(home, "d", "e")
    live = {path_of(one.file_path) for one in live_files(Lake(local_catalog(home)).load(EVENTS))}
    harmed.unlink()
    _, events, _ = recover(home, capsys)

    remove_orphans(Lake(local_catalog(home)), EVENTS, older_than_s=-1)

    assert all(one.exists() for one in live - {harmed})
    assert all(path_of(one).with_name(f"{path_of(one).name}.set-aside").exists() for one in events["set_aside"])


def test_where_no_state_is_whole_the_newest_is_taken_and_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(home, "a")
    harmed = newest_file(home)
    commit(home, *"bcdefghi")
    newest = current(home)
    harmed.unlink()
    (home / "catalog.db").unlink()

    status, events, _ = recover(home, capsys)

    assert (status, events["is_whole"], path_of(events["is_at"])) == (1, False, newest)
    local.check_data_dir(home)


def test_a_row_of_tables_that_are_gone_goes_too(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(home, "a")
    trim(home)
    shutil.rmtree(home / "warehouse")

    assert recover(home, capsys)[0] == 1
    local.check_data_dir(home)
    commit(home, "b")
    assert stored(home) == ["b"]


# --- lost races -------------------------------------------------------------------------------------------


def lose(home: Path, like: Path | None = None) -> Path:
    """Leave the metadata file of a commit that lost its race, younger than the winner's and without its rows."""
    winner = current(home)
    before = path_of(json.loads(winner.read_bytes())["metadata-log"][-1]["metadata-file"])
    loser = winner.with_name(f"{winner.name.partition('-')[0]}-00000000-0000-0000-0000-000000000000.metadata.json")
    time.sleep(0.02)
    loser.write_bytes((like or before).read_bytes())
    return loser


@pytest.mark.parametrize("how", ["seen", "catalog", "log", "rows"])
def test_the_winner_of_a_race_is_taken(home: Path, capsys: pytest.CaptureFixture[str], how: str) -> None:
    commit(home, "a", "b")
    winner = current(home)
    lose(home, winner if how != "rows" else None)
    if how == "log":
        commit(home, "c")
        newest_file(home).unlink()
    if how != "catalog":
        (home / "catalog.db").unlink()
    if how != "seen":
        with closing(LocalSource(local.stream_path(home))) as source:
            source.forget_seen()

    _, events, _ = recover(home, capsys)

    assert path_of(events["is_at"]).name == winner.name


def test_a_start_without_a_catalog_takes_the_winner_of_a_race(home: Path) -> None:
    commit(home, "a", "b")
    winner = current(home)
    lose(home, winner)
    (home / "catalog.db").unlink()

    run_out(home)

    assert current(home) == winner
    assert stored(home) == ["a", "b"]


def test_another_state_of_the_same_number_is_refused(home: Path) -> None:
    commit(home, "a", "b")
    lake = Lake(local_catalog(home))
    seen = Version.read(lake.load(EVENTS))
    other = Version(seen.table_uuid, seen.number, str(lose(home)))
    lake.see(EVENTS, other)  # nobody said that the first was committed
    lake.expect("events", seen)
    lake._seen["events"] = seen
    with pytest.raises(RolledBackError):
        lake.see(EVENTS, other)
    lake.see(EVENTS, Version("another", -1, "x")._replace(table_uuid=seen.table_uuid))


def test_a_catalog_of_another_history_is_refused(home: Path) -> None:
    commit(home, "a", "b")
    loser = lose(home)
    with closing(sqlite3.connect(home / "catalog.db")) as database, database:
        change = "update iceberg_tables set metadata_location = ? where table_name = 'events'"
        database.execute(change, (f"file://{loser}",))

    with pytest.raises(SettingsError, match="manymetrics recover"):
        local.check_data_dir(home)


# --- one commit ahead of the catalog --------------------------------------------------------------------


def test_a_commit_that_ended_before_the_catalog_named_it_is_taken_once(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(home, "a")
    put(home, "b")
    real = SqlCatalog._write_metadata

    def end(metadata: TableMetadata, io: FileIO, location: str) -> None:
        real(metadata, io, location)
        raise KeyboardInterrupt

    with monkeypatch.context() as killed, committer(home) as made:
        made.step()
        killed.setattr(SqlCatalog, "_write_metadata", staticmethod(end))
        put(home, "c")
        with pytest.raises(KeyboardInterrupt):
            made.step()
    before = current(home)

    local.check_data_dir(home)
    put(home, "d")
    run_out(home)

    assert metadata_number(current(home).name) > metadata_number(before.name)
    assert stored(home) == ["a", "b", "c", "d"]
    assert counts(books(Lake(local_catalog(home)), _name(home))) == {"received": 4, "stored": 4}


def test_both_databases_put_back_by_one_commit_lose_nothing(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copies = tmp_path_factory.mktemp("copy")
    commit(home, "a", "b")
    for name in ("catalog.db", "stream.db"):
        with closing(sqlite3.connect(home / name)) as source, closing(sqlite3.connect(copies / name)) as target:
            source.backup(target)
    put(home, "c", "d", "e")
    run_out(home)
    for path in home.glob("stream.db-*"):
        path.unlink()
    for name in ("catalog.db", "stream.db"):
        shutil.copy(copies / name, home / name)

    local.check_data_dir(home)
    put(home, "f", "g")
    run_out(home)

    assert stored(home) == list("abcdefg")


def test_a_newer_commit_whose_file_is_missing_is_not_taken(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copy = tmp_path_factory.mktemp("copy") / "catalog.db"
    commit(home, "a")
    shutil.copy(home / "catalog.db", copy)
    with closing(LocalSource(local.stream_path(home))) as source:
        seen = source.seen()
        commit(home, "b")
        source.put_outcomes((), seen)
    before = newest_file(home)
    shutil.copy(copy, home / "catalog.db")
    before.unlink()

    local.check_data_dir(home)
    run_out(home)

    assert stored(home) == ["a", "b"]


# --- a damaged catalog ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["no database", "first page", "zeroed", "empty", "absent"])
@pytest.mark.parametrize("dry", [True, False])
def test_a_catalog_that_is_damaged_anyhow(home: Path, capsys: pytest.CaptureFixture[str], kind: str, dry: bool) -> None:
    commit(home, "a")
    path = home / "catalog.db"
    whole = path.read_bytes()
    page = 4096
    damaged = {
        "no database": b"no database" * 999,
        "first page": whole[:page],
        "zeroed": whole[:page] + bytes(len(whole) - page),
        "empty": b"",
    }
    path.unlink()
    if kind in damaged:
        path.write_bytes(damaged[kind])

    status, events, _ = recover(home, capsys, *(["--dry-run"] if dry else []))

    assert (status, events["rows"]) == (0, 1)
    if dry:
        assert (path.read_bytes() if path.exists() else None) == damaged.get(kind)
    else:
        assert stored(home) == ["a"]
        assert kind == "empty" or not path.stat().st_mode & 0o077  # that file was the test's own


def test_a_catalog_is_found_whatever_its_folder_is_called(tmp_path: Path) -> None:
    path = tmp_path / "a?b#c%20d" / "catalog.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table iceberg_tables (metadata_location, previous_metadata_location)")

    assert not _is_damaged(path)


def test_a_catalog_that_is_locked_is_not_taken_for_a_damaged_one(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(home, "a")
    with closing(sqlite3.connect(home / "catalog.db", isolation_level=None)) as other:
        other.execute("begin exclusive")
        assert main(["recover", "--data-dir", str(home)]) == 2
    assert "stop the program that uses it" in capsys.readouterr().err


# --- doctor -----------------------------------------------------------------------------------------------


def findings(home: Path, name: str) -> list[tuple[str, str]]:
    found = list(doctor.check_tables(Settings(data_dir=home)))
    assert all(bool(one.cure) == (one.state != "ok") for one in found)
    return [(one.state, one.message) for one in found if one.check == name]


@pytest.mark.parametrize("harm", [remove, cut])
def test_doctor_fails_where_a_file_is_missing_or_cut(home: Path, harm: Callable[[Path], None]) -> None:
    commit(home, "a", "b")
    assert [state for state, _ in findings(home, "tables")] == ["ok"]
    harm(newest_file(home))

    (state, said), *_ = findings(home, "tables")

    assert (state, said.partition(":")[0]) == ("fail", "1 of 2 files of events are missing or damaged")


def test_doctor_fails_where_the_catalog_is_older(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = tmp_path_factory.mktemp("copy") / "catalog.db"
    commit(home, "a")
    shutil.copy(home / "catalog.db", copy)
    commit(home, "b", "c")
    shutil.copy(copy, home / "catalog.db")

    [finding] = doctor.check_tables(Settings(data_dir=home))

    assert (finding.state, finding.cure) == ("fail", "put back the newer catalog.db, or run `manymetrics recover`")


@pytest.mark.parametrize(("lost", "state"), [(1, "warn"), (9, "fail")])
def test_doctor_tells_of_events_that_could_not_be_stored(home: Path, lost: int, state: str) -> None:
    commit(home, "a")
    iceberg = Lake(local_catalog(home)).load(EVENTS)
    found = StreamBooks(stream="another", received=10, stored=10 - lost, dead_lettered={"unstorable": lost})
    with iceberg.transaction() as transaction:
        transaction.set_properties({property_name("another"): encode(found)})

    assert findings(home, "letters") == [(state, f"{lost} events could not be stored")]


def test_doctor_says_the_first_line_of_an_error(home: Path) -> None:
    write_state(home, CommitterState(time.time(), "x" * 500 + "\nsecond line", 3))

    [finding] = doctor.check_progress(Settings(data_dir=home))

    assert finding.message.endswith(f"3 attempts failed: {'x' * 200}")


# --- how old an orphan must be ----------------------------------------------------------------------------


def test_an_orphan_of_an_hour_is_left_on_aws_and_goes_on_one_machine(home: Path) -> None:
    commit(home, "a")
    orphan = newest_file(home).with_name("orphan.parquet")

    def leave() -> None:
        shutil.copy(newest_file(home), orphan)
        os.utime(orphan, (time.time() - 3_600,) * 2)

    lake = Lake(local_catalog(home))
    leave()
    compact(lake, InProcessCluster(), Limits())
    erase(lake, Person("nobody"), orphan_age_s=AWS_ORPHAN_AGE_S)
    assert orphan.exists()
    erase(lake, Person("nobody"))
    assert not orphan.exists()


def test_the_erase_job_leaves_orphans_for_a_day(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ages = list[float]()

    def erase_nothing(*_: object, orphan_age_s: float) -> list[Receipt]:
        ages.append(orphan_age_s)
        return []

    @contextmanager
    def cluster(_name: str) -> Iterator[InProcessCluster]:
        yield InProcessCluster()

    commit(home, "a")
    monkeypatch.setattr(erase_job, "erase", erase_nothing)
    monkeypatch.setattr(erase_job, "cluster", cluster)
    monkeypatch.setattr(erase_job, "make_catalog", lambda *_: local_catalog(home))
    tables = f"file://{home}/warehouse"
    erase_job.main(["--user-id", "u", "--yes", "--warehouse", f"{tables}/nothing", "--archive", f"{tables}/none"])

    assert ages == [AWS_ORPHAN_AGE_S]
