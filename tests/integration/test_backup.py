"""A backup that is made while the server writes is whole, or is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from manymetrics import telemetry
from manymetrics_cli.commands import backup
from manymetrics_cli.main import main
from manymetrics_processor.lake.maintenance import maintain
from tests.live_server import MANYMETRICS, LiveServer, eventually, live_server
from tests.scale import scaled


@pytest.fixture(autouse=True)
def logs_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in test_data_dir."""
    monkeypatch.setattr(telemetry, "log_json_lines", lambda: None)
    monkeypatch.setattr(backup, "NICENESS", 0)  # this process's tests go on


class Sender(threading.Thread):
    """Sends events one after the other; ``acknowledged`` are the ids of those that were answered with 200."""

    def __init__(self, server: LiveServer, *, with_ids: bool = True) -> None:
        super().__init__(daemon=True)
        self._server, self._with_ids = server, with_ids
        self.acknowledged: list[str] = []
        self.others: list[int] = []
        self.longest_s = 0.0
        self.stop = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.stop.is_set():
            number += 1
            named = f',"messageId":"m-{number}"' if self._with_ids else ""
            heavy = "x" * 400_000 if number % 10 == 0 else ""
            events = [f'{{"type":"track","event":"n-{number}","userId":"u","properties":{{"x":"{heavy}"}}{named}}}']
            if heavy:  # over a megabyte: it waits aside
                events += [event.replace(f"n-{number}", f"n-{number}{more}") for event in events for more in "abc"]
                events = [event.replace("m-", f"m-{place}-") for place, event in enumerate(events)]
            begun = time.monotonic()
            status = self._server.post("/v1/batch", f'{{"batch":[{",".join(events)}]}}'.encode()).status_code
            self.longest_s = max(self.longest_s, time.monotonic() - begun)
            if status == 200:
                self.acknowledged += [json.loads(event)["event"] for event in events]
            else:
                self.others.append(status)


def names(server: LiveServer) -> list[str]:
    return sorted(row["event"] for row in server.rows(columns=["event"]))


def wait_for(server: LiveServer, wanted: set[str]) -> None:
    eventually(lambda: wanted <= set(names(server)) or None)


@pytest.mark.parametrize("with_ids", [True, False], ids=["with message ids", "without message ids"])
def test_a_backup_under_load_has_every_event_once_that_was_acknowledged_before_it(
    tmp_path: Path, *, with_ids: bool
) -> None:
    with live_server(tmp_path / "data", commit_interval_s="0.05") as server:
        sender = Sender(server, with_ids=with_ids)
        sender.start()
        eventually(lambda: len(server.rows()) > 100 or None)
        copies = []
        for number in range(scaled(2, 3, 3)):
            to = tmp_path / f"copy {number}"
            before = set(sender.acknowledged)
            made = subprocess.run(
                [MANYMETRICS, "backup", "--data-dir", server.data_dir, to], capture_output=True, text=True, check=False
            )
            assert made.returncode == 0, made.stderr
            assert f"manymetrics serve --data-dir '{to}'" in made.stderr
            copies.append((to, before, set(sender.acknowledged)))
        sender.stop.set()
        sender.join(30)
        server.stop(signal.SIGKILL)
    assert (sender.others, sender.longest_s < 5) == ([], True)
    while (tmp_path / "data").exists():  # the committer finishes its commit
        shutil.rmtree(tmp_path / "data", ignore_errors=True)

    for to, before, after in copies:
        assert main(["recover", "--data-dir", str(to), "--dry-run"]) == 0
        restored = LiveServer(to)
        restored.start()
        try:
            assert restored.post("/v1/track", b'{"userId":"u","event":"last"}').status_code == 200
            wait_for(restored, before | {"last"})
            found = names(restored)
            assert len(found) == len(set(found))
            assert set(found) <= after | {"last"} | set(sender.acknowledged)
        finally:
            restored.stop()


def test_the_catalog_is_copied_before_the_stream(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is committed in between then counts once: it is in the copied stream, past the copied catalog's mark.

    The other way round it would be in the tables of a stream that does not have it yet, and numbers be given twice.
    """
    copied = list[str]()
    real = backup._copy_database

    def noted(source: Path, target: Path) -> None:
        copied.append(source.name)
        real(source, target)

    monkeypatch.setattr(backup, "_copy_database", noted)

    assert main(["backup", "--data-dir", str(home), str(tmp_path / "to")]) == 0
    assert copied == ["catalog.db", "stream.db"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A data directory whose server is stopped, with an event that is not committed."""
    with live_server(tmp_path / "data") as server:
        assert server.post("/v1/track", b'{"userId":"u","event":"a","messageId":"a"}').status_code == 200
        server.rows_once(1)
    return tmp_path / "data"


def test_a_backup_says_what_it_holds_and_is_closed_to_others(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backup", "--data-dir", str(home), str(tmp_path / "to")]) == 0

    held = json.loads(capsys.readouterr().out)
    assert held["rows"] == {"events": 1, "dead_letters": 0}
    assert (held["received"], held["records_waiting"]) == (1, 0)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "to").rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "to").stat().st_mode) == 0o700
    assert (tmp_path / "to/keys.json").read_bytes() == (home / "keys.json").read_bytes()
    assert main(["maintain", "--data-dir", str(tmp_path / "to"), "--keep-snapshots", "1"]) == 0


@pytest.mark.parametrize("where", ["within", "not empty", "a file", "itself", "a pattern"])
def test_a_backup_is_refused_where_it_would_mix_with_other_files(
    home: Path, tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("")
    to = {
        "within": home / "copy",
        "not empty": tmp_path / "full",
        "a file": tmp_path / "full/notes.txt",
        "itself": home,
        "a pattern": tmp_path / "a*",
    }[where]
    before = sorted(tmp_path.rglob("*"))

    assert main(["backup", "--data-dir", str(home), str(to)]) == 2

    assert "name a" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_backup_that_is_killed_at_any_file_is_refused_by_every_command(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class KilledError(BaseException):
        pass

    left = 0

    def killed(path: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError
        return real(path, target)

    real, number = Path.replace, 0
    monkeypatch.setattr(Path, "replace", killed)
    while True:
        left, to = number, tmp_path / f"to-{number}"
        try:
            assert main(["backup", "--data-dir", str(home), str(to)]) == 0
            break
        except KilledError:
            number += 1
        if not (to / "backup.unfinished").exists():  # killed before it had begun
            assert [*to.glob("*.db"), *to.glob("warehouse")] == []
            continue
        for command in (["serve"], ["query", "select 1"], ["tail"], ["maintain"], ["recover"], ["doctor"]):
            assert main([command[0], "--data-dir", str(to), *command[1:]]) == 2
            assert "an unfinished backup" in "".join(capsys.readouterr())
    assert number > 5


def test_a_copy_that_is_not_whole_is_not_called_one(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def damaged(pairs: list[tuple[Path, Path]]) -> None:
        real(pairs)
        for _, target in pairs:
            if target.suffix == ".parquet":
                target.write_bytes(target.read_bytes()[:-8])

    real = backup._copy_files
    monkeypatch.setattr(backup, "_copy_files", damaged)

    assert main(["backup", "--data-dir", str(home), str(tmp_path / "to")]) == 1
    assert "is incomplete: remove it, then run this again" in capsys.readouterr().err
    assert main(["query", "--data-dir", str(tmp_path / "to"), "select 1"]) == 2


@pytest.mark.parametrize("kind", ["*.parquet", "*-m0.avro", "snap-*.avro", "*.metadata.json"])
def test_a_file_that_somebody_deleted_is_named_at_once(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    for path in (home / "warehouse/manymetrics/events").rglob(kind):
        path.unlink()

    assert main(["backup", "--data-dir", str(home), str(tmp_path / "to")]) == 1

    said = capsys.readouterr().err
    assert "is gone, and the tables name it: see `manymetrics doctor`" in said
    assert "meanwhile" not in said


def test_a_folder_without_its_warehouse_and_cut_metadata_are_said_in_a_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = home / "warehouse/manymetrics/events/metadata"
    newest = max(folder.glob("*.metadata.json"))
    newest.write_bytes(newest.read_bytes()[:50])
    for command in (["backup", str(tmp_path / "to")], ["query", "select 1 from events"]):
        assert main([command[0], "--data-dir", str(home), *command[1:]]) in {1, 2}
        assert "manymetrics doctor" in (said := capsys.readouterr().err) or "manymetrics recover" in said
    shutil.rmtree(home / "warehouse")
    for command in (["backup", str(tmp_path / "to2")], ["query", "select 1 from events"]):
        assert main([command[0], "--data-dir", str(home), *command[1:]]) in {1, 2}
        assert " is gone" in (said := capsys.readouterr().err) or " is missing" in said


@pytest.mark.parametrize("waiting", [False, True], ids=["stopped", "with a write-ahead log"])
def test_a_read_only_folder_is_backed_up_if_its_stream_is_whole(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, waiting: bool
) -> None:
    """As a snapshot that is mounted; modes keep root from nothing, so what the system says is put in its place."""
    if waiting:
        (home / "stream.db-wal").write_bytes(b"x")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(home)) and real(path, mode))

    assert main(["backup", "--data-dir", str(home), str(tmp_path / "to")]) == int(waiting)

    assert ("stream.db-wal is not empty" in capsys.readouterr().err) == waiting


def test_files_that_are_removed_meanwhile_begin_another_round(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from manymetrics_cli.one_machine import open_lake
    from manymetrics_processor.lake.maintenance import MERGE_FROM_FILES

    server = LiveServer(home)
    server.start()
    for number in range(MERGE_FROM_FILES + 2):
        assert server.post("/v1/track", b'{"userId":"u","event":"b","messageId":"b%d"}' % number).status_code == 200
        server.rows_once(number + 2)
    server.stop()
    rounds = 0

    def slow(pairs: list[tuple[Path, Path]]) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            real([pair for pair in pairs if pair[0].suffix != ".parquet"])
            maintain(open_lake(home), keep_snapshots=1)
        real(pairs)

    real = backup._copy_files
    monkeypatch.setattr(backup, "_copy_files", slow)

    assert main(["backup", "--data-dir", str(home), str(tmp_path / "to")]) == 0
    held = json.loads(capsys.readouterr().out)
    assert held["rows"]["events"] == MERGE_FROM_FILES + 3
    kept = {path.relative_to(home) for path in (home / "warehouse").rglob("*") if path.is_file()}
    copied = {path.relative_to(tmp_path / "to") for path in (tmp_path / "to/warehouse").rglob("*") if path.is_file()}
    assert copied <= kept


def test_what_waits_in_the_stream_is_in_the_backup(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(home / "stream.db")) as stream:
        (record,) = stream.execute("select data from records order by sequence desc").fetchone() or (b"x",)
        stream.execute("insert into records (arrived_at, data) values (1, ?)", (record,))
        stream.commit()

    assert main(["backup", "--data-dir", str(home), str(tmp_path / "to")]) == 0
    assert json.loads(capsys.readouterr().out)["records_waiting"] == 1
