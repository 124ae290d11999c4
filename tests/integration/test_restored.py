"""What is believed after a file was put back, locked, or cut: nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from manymetrics.settings import Settings, SettingsError
from manymetrics.tables import EVENTS
from manymetrics_api.app import create_app
from manymetrics_api.committer_state import CommitterState, read_state, write_state
from manymetrics_api.keys import parse_key_list
from manymetrics_api.sinks import MemorySink, SinkResult
from manymetrics_api.sinks.local_stream import SHARD, LocalSource, LocalStream, leave_incarnation, open_stream
from manymetrics_cli import one_machine as local
from manymetrics_cli.main import main
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import local_committer as committer_module
from manymetrics_processor.ingest.local_committer import Committer, Failure
from manymetrics_processor.lake import local_catalog as catalog_module
from manymetrics_processor.lake.lake import Lake, RolledBackError, local_catalog
from manymetrics_processor.lake.maintenance import maintain, remove_orphans
from tests.integration.micro_batches import books, counts, message_ids, packed, track


def put(home: Path, *ids: str) -> None:
    """Take events as the server does, each in a record of its own."""

    async def store() -> None:
        stream = LocalStream(local.stream_path(home), partial(local.read_watermark, home))
        assert set(await stream.put([packed([track(one)]) for one in ids])) == {SinkResult.STORED}
        await stream.close()

    asyncio.run(store())


@contextmanager
def committer(home: Path) -> Iterator[Committer]:
    """As the committer's process has it."""
    with closing(LocalSource(local.stream_path(home))) as source:
        yield Committer(source, SHARD, Lake(local_catalog(home)), Window(), 0)


def commit(home: Path, *ids: str) -> None:
    """Take events and commit them, each by itself."""
    for one in ids:
        put(home, one)
        with committer(home) as made:
            while not made.step():
                pass


def stored(home: Path) -> list[str]:
    return message_ids(Lake(local_catalog(home)))


def trim(home: Path) -> None:
    """Drop what is committed from the stream, as the server does after a minute."""
    with closing(LocalSource(local.stream_path(home))) as source:
        source.drop_committed(source.last_sequence(), keep_s=-1)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    local.check_data_dir(tmp_path)
    return tmp_path


# --- a reader of the catalog ----------------------------------------------------------------------------


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """An open `select`, as a notebook leaves it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("begin")
        reader.execute("select * from iceberg_tables").fetchall()
        yield


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "LOCK_WAIT_S", 0.02)


@pytest.mark.usefixtures("impatient")
def test_a_reader_of_the_catalog_costs_no_event_and_nothing_is_trimmed_before_it_is_there(home: Path) -> None:
    commit(home, "a")
    with reading(home / "catalog.db"), committer(home) as made:
        put(home, "b", "c")
        for _ in range(3):
            with pytest.raises(Exception, match=r"locked|races"):
                made.step()
            made._position, made._held = None, []
        trim(home)
        with closing(LocalSource(local.stream_path(home))) as source:
            assert [record.sequence for record in source.read(1, 10, 10**6)] == [2, 3]
    with committer(home) as made:
        while not made.step():
            pass

    assert stored(home) == ["a", "b", "c"]
    assert counts(books(Lake(local_catalog(home)), _name(home))) == {"received": 3, "stored": 3}


def _name(home: Path) -> str:
    with closing(LocalSource(local.stream_path(home))) as source:
        return source.name()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("statement", ["SELECT", "UPDATE", "COMMIT"])
@pytest.mark.parametrize("times", [1, 5])
def test_a_lock_at_any_statement_costs_no_event(
    home: Path, monkeypatch: pytest.MonkeyPatch, statement: str, times: int
) -> None:
    """``times``: how many waits for a lock it lasts, of 5 s each in the product."""
    commit(home, "a")
    left, real = [times], sqlite3.connect

    class Locked(sqlite3.Connection):
        def cursor(self, *_: object) -> sqlite3.Cursor:  # type: ignore[override]  # as the real one
            return super().cursor(_Cursor)

        def commit(self) -> None:
            _fail("COMMIT")
            super().commit()

    class _Cursor(sqlite3.Cursor):
        def execute(self, sql: str, *rest: object) -> sqlite3.Cursor:  # type: ignore[override]  # as the real one
            _fail(sql.split(maxsplit=1)[0].upper())
            return super().execute(sql, *rest)  # type: ignore[arg-type]  # as the real one

    def _fail(of: str) -> None:
        if of == statement and left[0] > 0:
            left[0] -= 1
            raise sqlite3.OperationalError("database is locked")

    def connect(path: str, *arguments: object, **options: object) -> sqlite3.Connection:
        if str(path).endswith("catalog.db"):
            options["factory"] = Locked
        return real(path, *arguments, **options)  # type: ignore[call-overload, no-any-return]  # as the real one

    put(home, "b", "c")
    with committer(home) as made, monkeypatch.context() as locking:
        locking.setattr(sqlite3, "connect", connect)
        locking.setattr("sqlite3.dbapi2.connect", connect)
        stop = threading.Event()
        failures = list[Failure | None]()
        made._report = failures.append
        thread = threading.Thread(target=made.run, args=(stop,))
        thread.start()
        until = time.monotonic() + 60
        while (made._position is None or made._position.sequence < 3) and time.monotonic() < until:
            time.sleep(0.05)
        stop.set()
        thread.join(60)

    assert left == [0]
    assert stored(home) == ["a", "b", "c"]


@pytest.mark.usefixtures("impatient")
def test_a_command_says_that_the_catalog_is_in_use(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(home, "a")
    with closing(sqlite3.connect(home / "catalog.db", isolation_level=None)) as other:
        other.execute("begin exclusive")
        assert main(["maintain", "--data-dir", str(home)]) == 1
    assert "the catalog is in use (database is locked): run the command again" in capsys.readouterr().err


# --- an older copy ----------------------------------------------------------------------------------------


def test_an_older_catalog_is_refused_and_recovered_without_a_loss(
    home: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(home, "a", "b")
    older = tmp_path_factory.mktemp("copy") / "catalog.db"
    shutil.copy(home / "catalog.db", older)
    commit(home, "c")
    trim(home)
    put(home, "d")
    shutil.copy(older, home / "catalog.db")

    with pytest.raises(SettingsError, match=r"the catalog is older than .* run `manymetrics recover`"):
        local.check_data_dir(home)
    assert main(["serve", "--data-dir", str(home)]) == 2
    with committer(home) as made, pytest.raises(RolledBackError, match="manymetrics recover"):
        made.step()
    assert main(["maintain", "--data-dir", str(home)]) == 2
    capsys.readouterr()

    assert main(["recover", "--dry-run", "--data-dir", str(home)]) == 0
    with pytest.raises(SettingsError):
        local.check_data_dir(home)
    assert main(["recover", "--data-dir", str(home)]) == 0
    [*_, said] = capsys.readouterr().out.splitlines()
    assert json.loads(said) == {"committed_up_to": 3, "records_waiting": 1, "records_missing": 0}
    local.check_data_dir(home)
    with committer(home) as made:
        while not made.step():
            pass
    assert stored(home) == ["a", "b", "c", "d"]
    assert counts(books(Lake(local_catalog(home)), _name(home))) == {"received": 4, "stored": 4}


def test_an_older_catalog_is_known_by_the_files_where_the_stream_tells_nothing(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    commit(home, "a")
    older = tmp_path_factory.mktemp("copy") / "catalog.db"
    shutil.copy(home / "catalog.db", older)
    commit(home, "b", "c")
    shutil.copy(older, home / "catalog.db")
    with closing(LocalSource(local.stream_path(home))) as source:
        source.forget_seen()

    with pytest.raises(SettingsError, match="the catalog is older than its tables"):
        local.check_data_dir(home)


def test_what_a_newer_metadata_file_names_is_no_orphan(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    commit(home, "a")
    older = tmp_path_factory.mktemp("copy") / "catalog.db"
    shutil.copy(home / "catalog.db", older)
    commit(home, "b", "c")
    newer = tmp_path_factory.mktemp("copy") / "catalog.db"
    shutil.copy(home / "catalog.db", newer)
    shutil.copy(older, home / "catalog.db")

    remove_orphans(Lake(local_catalog(home)), EVENTS, older_than_s=-1)

    shutil.copy(newer, home / "catalog.db")
    assert stored(home) == ["a", "b", "c"]


def test_an_older_catalog_under_a_running_committer_stops_it_and_costs_nothing(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    commit(home, "a")
    older = tmp_path_factory.mktemp("copy") / "catalog.db"
    shutil.copy(home / "catalog.db", older)
    put(home, "b")
    with committer(home) as made:
        while not made.step():
            pass
        put(home, "c")
        newer = (home / "catalog.db").read_bytes()
        shutil.copy(older, home / "catalog.db")
        with pytest.raises(RolledBackError):
            made.step()
        (home / "catalog.db").write_bytes(newer)
        made._position, made._held = None, []
        while not made.step():
            pass

    assert stored(home) == ["a", "b", "c"]


def test_tables_that_are_gone_are_refused_until_recover_takes_them_as_they_are(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(home, "a", "b")
    trim(home)
    put(home, "c")
    (home / "catalog.db").unlink()
    shutil.rmtree(home / "warehouse")

    with pytest.raises(SettingsError, match=r"the tables are missing.* run `manymetrics recover`"):
        local.check_data_dir(home)
    assert main(["recover", "--data-dir", str(home)]) == 1
    [*_, said] = capsys.readouterr().out.splitlines()
    assert json.loads(said) == {"committed_up_to": -1, "records_waiting": 1, "records_missing": 2}
    with committer(home) as made:
        while not made.step():
            pass
    assert stored(home) == ["c"]


def test_a_damaged_catalog_is_set_aside_by_recover(home: Path) -> None:
    commit(home, "a")
    (home / "catalog.db").write_bytes(b"not a database" * 100)

    assert main(["recover", "--data-dir", str(home)]) == 0

    assert stored(home) == ["a"]
    assert [path.name for path in home.glob("catalog.db.damaged-*")] != []


def test_recover_is_refused_beside_a_committer(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commit(home, "a")
    with local._lock(home, threading.Event()):
        assert main(["recover", "--data-dir", str(home)]) == 2
    assert "stop the server first" in capsys.readouterr().err


def test_an_older_stream_begins_again_and_loses_no_event(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    commit(home, "a", "b")
    older = tmp_path_factory.mktemp("copy") / "stream.db"
    shutil.copy(local.stream_path(home), older)
    before = _name(home)
    commit(home, "c", "d", "e")
    shutil.copy(older, local.stream_path(home))

    put(home, "f", "g", "h")
    with committer(home) as made:
        while not made.step():
            pass

    assert _name(home) != before
    assert stored(home) == list("abcdefgh")


def test_an_older_stream_under_a_running_server_loses_no_event(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    commit(home, "a", "b")
    older = tmp_path_factory.mktemp("copy") / "stream.db"
    shutil.copy(local.stream_path(home), older)

    async def serve() -> None:
        stream = LocalStream(local.stream_path(home), partial(local.read_watermark, home))
        with committer(home) as made:
            for one in "cde":
                assert await stream.put([packed([track(one)])]) == [SinkResult.STORED]
                await asyncio.to_thread(made.step)
            older.replace(local.stream_path(home))
            for one in "fgh":
                assert await stream.put([packed([track(one)])]) == [SinkResult.STORED]
                await asyncio.to_thread(made.step)
            while not await asyncio.to_thread(made.step):
                pass
        await stream.close()

    asyncio.run(serve())

    assert stored(home) == list("abcdefgh")


def test_nothing_is_taken_while_nobody_can_tell_whether_the_stream_is_behind(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(home, "a")

    async def take() -> list[SinkResult]:
        stream = LocalStream(local.stream_path(home), partial(local.read_watermark, home))
        result = await stream.put([packed([track("b")])])
        await stream.close()
        return result

    with monkeypatch.context() as away:
        away.setattr(local, "read_watermark", _raise_locked)
        assert asyncio.run(take()) == [SinkResult.UNAVAILABLE]
    assert asyncio.run(take()) == [SinkResult.STORED]


def _raise_locked(*_: object) -> int:
    raise sqlite3.OperationalError("database is locked")


# --- a power cut ------------------------------------------------------------------------------------------


@contextmanager
def power(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """At each commit of the catalog, keep the folder as a power cut would leave it just then.

    A file that was not synced is empty, and one whose folder was not synced since it was made is not there.
    """
    synced, kept = dict[str, int](), list[Path]()
    real_sync = catalog_module.sync

    def sync(path: str) -> None:
        real_sync(path)
        synced[path] = len(list(Path(path).iterdir())) if Path(path).is_dir() else Path(path).stat().st_size
        if Path(path).is_dir():
            synced.update({f"{path}/{one.name}/": 1 for one in Path(path).iterdir()})

    before = {str(path) for path in (home / "warehouse").rglob("*")}

    def cut() -> None:
        copy = home.with_name(f"{home.name}-cut-{len(kept)}")
        shutil.copytree(home, copy)
        for path in (home / "warehouse").rglob("*"):
            if path.is_file() and str(path) not in before:
                at = copy / path.relative_to(home)
                new = [one for one in (path, *path.parents) if one.is_relative_to(home) and str(one) not in before]
                if any(f"{one}/" not in synced for one in new if one != home and one != home / "warehouse"):
                    at.unlink()
                elif synced.get(str(path)) != path.stat().st_size:
                    at.write_bytes(b"")
        kept.append(copy)

    with monkeypatch.context() as patch:
        patch.setattr(catalog_module, "sync", sync)
        patch.setattr(catalog_module._Catalog, "commit_table", _after(catalog_module._Catalog.commit_table, cut))
        yield kept


def _after(real: Callable[..., object], then: Callable[[], None]) -> Callable[..., object]:
    def call(*arguments: object) -> object:
        done = real(*arguments)
        then()
        return done

    return call


def test_a_power_cut_after_any_commit_leaves_every_row_that_the_catalog_names(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(home, "a")
    with power(home, monkeypatch) as cuts:
        commit(home, *(f"m{number}" for number in range(9)))
        maintain(Lake(local_catalog(home)), keep_snapshots=1)
    assert len(cuts) > 10

    for copy in cuts:
        original = copy.with_name(home.name)
        moved = original.with_name("running")
        original.rename(moved)
        copy.rename(original)
        expected = [f"m{number}" for number in range(9)]
        have = stored(home)
        assert have[0] == "a"
        assert have[1:] == expected[: len(have) - 1]
        commit(home, "z")
        assert "z" in stored(home)
        original.rename(copy)
        moved.rename(original)


def test_a_metadata_file_that_a_power_cut_left_empty_is_told_and_recovered(home: Path) -> None:
    """As versions before files were synced could leave it."""
    commit(home, "a")
    put(home, "b")
    with committer(home) as made:
        while not made.step():
            pass
    newest = Path(local_catalog(home).load_table(("manymetrics", "events")).metadata_location.removeprefix("file://"))
    newest.write_bytes(b"")

    with pytest.raises(SettingsError, match=r"can't be read.* run `manymetrics recover`"):
        local.check_data_dir(home)
    assert main(["recover", "--data-dir", str(home)]) == 0
    with committer(home) as made:
        while not made.step():
            pass
    assert stored(home) == ["a", "b"]


# --- no progress ------------------------------------------------------------------------------------------


def test_a_committer_that_makes_no_progress_is_told_by_doctor_and_metrics(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    commit(home, "a")
    trim(home)
    put(home, "b")
    assert local.stalled_s(home) < 60

    with monkeypatch.context() as later:
        real = time.time
        later.setattr(time, "time", lambda: real() + 90)
        assert local.stalled_s(home) >= 60
        assert local.books_for_metrics(home).stalled_seconds >= 60
        write_state(home, CommitterState(real(), "OSError: [Errno 28] No space left on device", 7))
        main(["doctor", "--data-dir", str(home)])
        said = capfd.readouterr().out
        assert re.search(r"FAIL +progress .*no commit for 9\d s, 7 attempts failed: OSError: .*No space left", said)
    with committer(home) as made:
        while not made.step():
            pass
    assert local.stalled_s(home) == 0


@pytest.mark.parametrize(("seconds", "status"), [(0.0, "ok"), (59.0, "ok"), (75.0, "stalled")])
def test_readiness_tells_a_stall_and_stays_200(seconds: float, status: str) -> None:
    app = create_app(settings=Settings(), keys=parse_key_list("k"), sink=MemorySink(), stalled_s=lambda: seconds)

    async def get() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.get("/readyz")

    answer = asyncio.run(get())

    assert (answer.status_code, answer.json()["status"]) == (200, status)
    assert ("75 s" in answer.text) == (status == "stalled")


def test_a_committer_that_fails_says_so_and_takes_it_back(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home, "a")
    told: list[Failure | None] = []
    with committer(home) as made:
        made._report = told.append
        stop = threading.Event()
        with monkeypatch.context() as broken:
            broken.setattr(Lake, "_append", _raise_locked)
            thread = threading.Thread(target=made.run, args=(stop,))
            thread.start()
            until = time.monotonic() + 30
            while sum(one is not None for one in told) < 2 and time.monotonic() < until:
                time.sleep(0.01)
        while told[-1] is not None and time.monotonic() < until:
            time.sleep(0.01)
        stop.set()
        thread.join(30)

    failures = [one for one in told if one is not None]
    assert [one.times for one in failures[:2]] == [1, 2]
    assert "database is locked" in failures[0].error
    assert told[-1] is None
    assert stored(home) == ["a"]


# --- an older stream, in other ways -----------------------------------------------------------------------


def commit_all(home: Path) -> None:
    with committer(home) as made:
        while not made.step():
            pass


def copy_of_stream(home: Path, folder: Path) -> Path:
    """A whole copy, as `.backup` makes it."""
    with closing(sqlite3.connect(local.stream_path(home))) as now, closing(sqlite3.connect(folder / "copy")) as copy:
        now.backup(copy)
    return folder / "copy"


def put_in_place(home: Path, older: Path) -> None:
    for log in ("stream.db-wal", "stream.db-shm"):
        (home / log).unlink(missing_ok=True)
    older.replace(local.stream_path(home))


def test_an_older_stream_loses_no_event_where_the_catalog_is_gone_too(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    commit(home, "a", "b")
    older = copy_of_stream(home, tmp_path_factory.mktemp("copy"))
    commit(home, "c", "d", "e")
    (home / "catalog.db").unlink()
    put_in_place(home, older)

    put(home, "f", "g")
    commit_all(home)

    assert stored(home) == list("abcdefg")


def put_over(path: Path, older: Path) -> None:
    """As `cp` does it: the file stays the same one."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma wal_checkpoint(truncate)").fetchall()
    with path.open("r+b") as file:
        file.write(older.read_bytes())


def test_an_older_stream_that_is_written_over_the_servers_loses_no_event(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    commit(home, "a", "b")
    older = copy_of_stream(home, tmp_path_factory.mktemp("copy"))

    async def serve() -> None:
        stream = LocalStream(local.stream_path(home), partial(local.read_watermark, home))
        with committer(home) as made:
            for one in "cde":
                assert await stream.put([packed([track(one)])]) == [SinkResult.STORED]
                await asyncio.to_thread(made.step)
            put_over(local.stream_path(home), older)
            for one in "fgh":
                assert await stream.put([packed([track(one)])]) == [SinkResult.STORED]
                await asyncio.to_thread(made.step)
            while not await asyncio.to_thread(made.step):
                pass
        await stream.close()

    asyncio.run(serve())

    assert stored(home) == list("abcdefgh")


@pytest.mark.parametrize("batch", [20_000, 1])  # 1: a backlog, which the committer drains
def test_a_copy_loses_no_event_while_the_committer_still_reads_the_file_before_it(
    home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(committer_module, "MAX_EVENTS", batch)
    commit(home, "a", "b")

    async def serve() -> None:
        stream = LocalStream(local.stream_path(home), partial(local.read_watermark, home))

        async def take(*ids: str) -> None:
            for one in ids:
                assert await stream.put([packed([track(one)])]) == [SinkResult.STORED]

        with committer(home) as made:
            made.step()
            await take("c", "d")
            older = copy_of_stream(home, tmp_path_factory.mktemp("copy"))
            await take("e", "f", "g")
            put_in_place(home, older)
            await take("h", "i")
            for _ in range(3):
                await asyncio.to_thread(made.step)
            await take("j")
            while not await asyncio.to_thread(made.step):
                pass
            made._decoders.close()
        await stream.close()

    asyncio.run(serve())

    assert sorted(stored(home)) == list("abcdefghij")
    with closing(LocalSource(local.stream_path(home))) as source:
        assert source.missing(source.last_sequence()) == 0


def test_the_committer_knows_a_stream_that_is_behind_by_itself(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    commit(home, "a")
    older = copy_of_stream(home, tmp_path_factory.mktemp("copy"))
    commit(home, "b", "c")
    put_in_place(home, older)
    before = _name(home)

    commit_all(home)

    assert _name(home) != before
    commit(home, "d", "e")
    assert stored(home) == list("abcde")


def test_what_waits_in_a_file_that_was_put_back_gets_numbers_past_all_that_were_given(home: Path) -> None:
    put(home, "a", "b", "c")
    with closing(open_stream(local.stream_path(home))) as connection:
        assert leave_incarnation(connection, 1, given=9)
        assert not leave_incarnation(connection, -1)
    with closing(LocalSource(local.stream_path(home))) as source:
        assert [one.sequence for one in source.read(-1, 10, 10**6)] == [10, 11]
        assert (source.last_sequence(), source.missing(-1)) == (11, 0)
    commit_all(home)
    assert stored(home) == ["b", "c"]


# --- a stall that is told ---------------------------------------------------------------------------------


def test_failures_and_restarts_hide_no_stall(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(home, "a")
    put(home, "b")
    with closing(LocalSource(local.stream_path(home))) as source:
        before = source.outcomes(-1)
    real = time.time
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: real() + 90)
        later.setattr(Lake, "_append", _raise_locked)
        for _ in range(2):
            with committer(home) as made, pytest.raises(sqlite3.OperationalError):
                made.step()
        assert local.stalled_s(home) >= 89
    with closing(LocalSource(local.stream_path(home))) as source:
        assert source.outcomes(-1) == before != [(1, b"")]


def test_what_a_process_did_not_note_is_dropped_by_the_next_and_is_no_progress(home: Path) -> None:
    commit(home, "a")
    put(home, "b")
    with closing(LocalSource(local.stream_path(home))) as source, closing(sqlite3.connect(home / "stream.db")) as file:
        with file:
            file.execute("delete from outcomes")
            file.execute("update records set arrived_at = arrived_at - 90000000")
        source.mark_committed(1)
        assert local.stalled_s(home) >= 90
        assert source.drop_committed(1, keep_s=-1) == 1


def test_a_new_process_counts_failures_on_from_the_one_before(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home, "a")
    monkeypatch.setattr(Lake, "_append", _raise_locked)
    monkeypatch.setattr(committer_module, "FAILURES_BEFORE_RESTART", 2)
    write_state(home, CommitterState(1_000.0, "OSError: before", 8))

    monkeypatch.setattr(local, "_stop_at_end_of_input", lambda _stop: None)
    local.run_committer(Settings(data_dir=home))

    state = read_state(home)
    assert state is not None
    assert state.since == 1_000.0
    assert state.failures >= 10
