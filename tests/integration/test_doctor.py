"""`manymetrics doctor`: each thing that can be wrong is found, and its cure said."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import pytest

from manymetrics.books import StreamBooks, encode, property_name
from manymetrics.settings import Settings
from manymetrics.tables import EVENTS
from manymetrics_api.keys import WriteKey, write_keys
from manymetrics_api.sinks.local_stream import SHARD, LocalSource, open_stream
from manymetrics_cli.commands import doctor
from manymetrics_cli.commands.doctor import Finding
from manymetrics_cli.main import main
from manymetrics_cli.one_machine import Server, forget_server, note_server, noted_server, shell_command
from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.lake import Lake
from manymetrics_processor.operations.erase_tables import Person, erase
from tests.conftest import ROOT
from tests.integration.micro_batches import NOW, STREAM, make_lake, packed, record, track
from tests.ports import free_port


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, port=free_port())


def states(findings: Iterator[Finding]) -> list[tuple[str, str]]:
    """Check and state of each; and that what isn't right has a cure, and only that."""
    found = list(findings)
    assert all(bool(one.cure) == (one.state != "ok") for one in found)
    return [(one.check, one.state) for one in found]


def only(findings: Iterator[Finding]) -> Finding:
    [finding] = findings
    return finding


# --- versions and disk ------------------------------------------------------------------------------------


def test_the_versions_that_are_pinned_are_those_that_are_here(settings: Settings) -> None:
    assert states(doctor.check_versions(settings)) == [("versions", "ok")]


def test_another_version_is_a_warning_and_a_missing_package_a_failure(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "duckdb":
            raise metadata.PackageNotFoundError(name)
        return "0.1" if name == "msgspec" else real(name)

    monkeypatch.setattr(metadata, "version", version)

    found = [one for one in doctor.check_versions(settings) if one.state != "ok"]

    assert sorted((one.state, one.message.split()[0]) for one in found) == [("fail", "duckdb"), ("warn", "msgspec")]


@pytest.mark.parametrize(
    ("absent", "missing"),
    [
        ("awscrt mangum boto3 awslambdaric pyspark", ""),  # what `make run` sets up
        ("awscrt mangum boto3 awslambdaric pyspark uvicorn", "uvicorn"),
        ("awscrt mangum boto3 awslambdaric pyspark duckdb fastapi", "duckdb fastapi"),
        ("mangum pyspark", ""),  # a half of an extra may be another project's
    ],
)
def test_only_what_the_installed_extras_need_is_missed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, absent: str, missing: str
) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name in absent.split():
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)

    found = [one for one in doctor.check_versions(settings) if one.state != "ok"]

    assert sorted(one.message for one in found) == [f"{name} is not installed" for name in missing.split()]


def test_what_make_run_installs_is_whole_and_each_cure_of_a_version_cures(tmp_path: Path) -> None:
    uv, python = Path(sys.executable).with_name("uv"), tmp_path / "venv" / "bin" / "python"
    install: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", python]
    subprocess.run([uv, "venv", "--quiet", "--seed", "--python", sys.executable, tmp_path / "venv"], check=True)
    subprocess.run([*install, "--require-hashes", "-r", ROOT / "requirements.lock"], check=True)
    subprocess.run([*install, "--no-deps", "-e", ROOT], check=True)

    def versions() -> list[Finding]:
        command = [str(python.with_name("manymetrics")), "doctor", "--json", "--data-dir", str(tmp_path / "none")]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        found = [Finding(**json.loads(line)) for line in ended.stdout.splitlines()]
        assert bool(ended.returncode) == any(one.state == "fail" for one in found)
        return [one for one in found if one.check == "versions" and one.state != "ok"]

    assert versions() == []
    subprocess.run([*install, "--no-deps", "fastapi==0.115.0"], check=True)
    subprocess.run([uv, "pip", "uninstall", "--quiet", "--python", python, "duckdb"], check=True)
    broken = versions()
    for one in broken:
        subprocess.run(one.cure, shell=True, check=True, capture_output=True)  # noqa: S602  # as pasted
    assert [(one.state, one.message) for one in broken] == [
        ("fail", "duckdb is not installed"),
        ("warn", "fastapi is 0.115.0; tested with 0.165.0"),
    ]
    assert versions() == []


def test_without_a_data_folder_the_first_start_is_the_cure(settings: Settings, tmp_path: Path) -> None:
    none = replace(settings, data_dir=tmp_path / "none")

    assert states(doctor.check_data(none)) == [("data", "fail")]
    assert states(doctor.check_disk(none)) == []
    assert states(doctor.check_tables(none)) == []
    assert not (tmp_path / "none").exists()


def test_a_folder_with_room_is_fine(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LOW_DISK_BYTES", 1)  # the test's own machine may be nearly full

    assert states(doctor.check_disk(settings)) == [("disk", "ok")]


def test_little_room_is_a_warning(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LOW_DISK_BYTES", 2**62)

    assert states(doctor.check_disk(settings)) == [("disk", "warn")]


def test_what_cannot_be_written_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    (settings.data_dir / "catalog.db").touch()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "catalog" not in str(path) and real(path, mode))

    first, *_ = doctor.check_disk(settings)

    assert (first.state, first.message) == ("fail", f"{settings.data_dir / 'catalog.db'} can't be written")
    assert str(settings.data_dir / "catalog.db") in first.cure


# --- server -----------------------------------------------------------------------------------------------


@contextmanager
def answering(port: int, status: int) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "state", "said"),
    [(200, "ok", "ready at"), (503, "fail", "it can't store"), (404, "fail", "doesn't respond")],
)
def test_what_the_server_of_the_folder_answers_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, status: int, state: str, said: str
) -> None:
    monkeypatch.setattr(doctor, "_is_ours", lambda process: process == str(os.getpid()))
    other = replace(settings, port=free_port())  # what the variable or the default says is not asked
    with answering(settings.port, status):
        note_server(settings.data_dir, f"http://127.0.0.1:{settings.port}")
        finding = only(doctor.check_port(other))

    assert (finding.check, finding.state, said in finding.message) == ("server", state, True)


@pytest.mark.parametrize("left", [None, 2**22 - 3, 1], ids=["never", "killed", "another-program"])
def test_no_server_of_the_folder_is_a_warning_whoever_else_answers(settings: Settings, left: int | None) -> None:
    if left is not None:
        server = Server(f"http://127.0.0.1:{settings.port}", left)
        (settings.data_dir / "server.json").write_bytes(msgspec.json.encode(server))
    not_running = f"not running for {settings.data_dir}"

    assert only(doctor.check_port(settings)) == Finding(
        "server", "warn", f"{not_running}; port {settings.port} is free", shell_command("serve", settings.data_dir)
    )
    with answering(settings.port, 200):
        finding = only(doctor.check_port(settings))

    assert (finding.state, finding.message.partition(";")[0]) == ("warn", not_running)
    assert "of another data directory" in finding.message
    assert finding.cure.endswith("--port N")


def test_a_server_that_ended_is_forgotten_by_itself_alone(settings: Settings) -> None:
    note_server(settings.data_dir, "http://127.0.0.1:1")
    forget_server(settings.data_dir)
    assert noted_server(settings.data_dir) is None

    (settings.data_dir / "server.json").write_bytes(msgspec.json.encode(Server("http://127.0.0.1:1", 1)))
    forget_server(settings.data_dir)
    assert noted_server(settings.data_dir) is not None


# --- keys -------------------------------------------------------------------------------------------------

LIVE, REVOKED = WriteKey("wk_1", "shop"), WriteKey("wk_2", "shop", revoked=True)


def no_file(_path: Path) -> None:
    pass


def unreadable(path: Path) -> None:
    path.write_text("[{")


@pytest.mark.parametrize(
    ("make", "state", "said"),
    [
        (no_file, "warn", "no keys file at"),
        (unreadable, "fail", "can't be read"),
        (lambda path: write_keys(path, [REVOKED]), "fail", "no active key: every event is rejected with 401"),
        (lambda path: write_keys(path, [LIVE, REVOKED]), "ok", "1 of 2 active"),
    ],
    ids=["no file", "unreadable", "none live", "one live"],
)
def test_write_keys(settings: Settings, make: Callable[[Path], None], state: str, said: str) -> None:
    make(settings.data_dir / "keys.json")

    finding = only(doctor.check_keys(settings))

    assert (finding.state, said in finding.message, bool(finding.cure)) == (state, True, state != "ok")
    assert "wk_" not in finding.message + finding.cure


def test_a_key_that_is_there_twice_is_named_by_its_place(settings: Settings) -> None:
    write_keys(settings.data_dir / "keys.json", [REVOKED, LIVE, msgspec.structs.replace(LIVE, revoked=True), LIVE])

    found = [(finding.state, finding.message) for finding in doctor.check_keys(settings)]

    assert [state for state, _ in found] == ["warn", "fail"]
    assert "entries 2 and 3 and 4 in" in found[0][1]
    assert "revoked" in found[0][1]
    assert "wk_" not in str(found)


def test_an_origin_that_no_page_has_is_named(settings: Settings) -> None:
    odd = msgspec.structs.replace(LIVE, origins=("https://shop.example", "shop.example", "https://*.shop.example", "*"))
    write_keys(settings.data_dir / "keys.json", [odd])

    [warning, verdict] = doctor.check_keys(settings)

    assert warning.state == "warn"
    assert warning.message.endswith("has an invalid origin: shop.example, https://*.shop.example, *")
    assert verdict.state == "ok"


def test_keys_from_the_environment_are_a_warning(settings: Settings) -> None:
    assert states(doctor.check_keys(replace(settings, write_keys="wk_1"))) == [("keys", "warn")]


# --- stream and tables ------------------------------------------------------------------------------------


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return make_lake(settings.data_dir)


def put(data_dir: Path, age_s: int = 0) -> str:
    """A record in the stream; returns the stream's name."""
    with closing(open_stream(data_dir / "stream.db")) as database:
        arrived_at = int((time.time() - age_s) * 1_000_000)
        database.execute("insert into records (arrived_at, data) values (?, ?)", (arrived_at, packed([track("a")])))
    with closing(LocalSource(data_dir / "stream.db")) as source:
        return source.name()


@pytest.mark.parametrize(("age_s", "state"), [(0, "ok"), (doctor.LATE_S + 10, "warn")])
@pytest.mark.usefixtures("lake")
def test_records_that_wait_too_long_are_a_warning(settings: Settings, age_s: int, state: str) -> None:
    put(settings.data_dir, age_s)

    finding = next(doctor.check_stream(settings))

    assert (finding.check, finding.state) == ("stream", state)
    assert finding.message.startswith("1 records are waiting, the oldest for ")


def test_a_stream_that_is_all_committed_is_fine(settings: Settings, lake: Lake) -> None:
    name = put(settings.data_dir)
    pipeline.run([StreamRecord(SHARD, 1, packed([track("a")]), NOW)], name, lake, Window())

    assert next(doctor.check_stream(settings)) == Finding("stream", "ok", "all records are committed")


@pytest.mark.usefixtures("lake")
def test_whether_a_committer_runs_is_seen_by_its_lock(settings: Settings) -> None:
    put(settings.data_dir)
    with running("manymetrics_cli.one_machine") as committer, (settings.data_dir / "committer.lock").open("w") as lock:
        assert states(doctor.check_stream(settings))[-1] == ("committer", "warn")

        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"{committer}\n")
        lock.flush()
        assert states(doctor.check_stream(settings))[-1] == ("committer", "ok")


@pytest.mark.parametrize("kind", [fcntl.LOCK_EX, fcntl.LOCK_SH], ids=["exclusive", "shared"])
@pytest.mark.parametrize("says", ["nothing", "ended", "another program", "0", "-1", "text", "9" * 19, "\u0663"])
@pytest.mark.usefixtures("lake")
def test_a_lock_that_another_program_holds_is_a_failure(settings: Settings, says: str, kind: int) -> None:
    put(settings.data_dir)
    with running("manymetrics_cli.one_machine") as ended:
        pass
    with running("another") as another, (settings.data_dir / "committer.lock").open("w") as lock:
        lock.write({"nothing": "", "ended": f"{ended}\n", "another program": f"{another}\n"}.get(says, f"{says}\n"))
        lock.flush()
        fcntl.flock(lock, kind)

        *_, finding = doctor.check_stream(settings)

    assert (finding.state, finding.message) == ("fail", "committer.lock is held by another program")
    assert "fuser" in finding.cure


@contextmanager
def running(name: str) -> Iterator[int]:
    """The id of a process with this name among its arguments, while the context is open."""
    with subprocess.Popen([sys.executable, "-c", "input()", name], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


@pytest.mark.usefixtures("lake")
def test_a_stream_that_is_held_by_somebody_else_is_a_failure(settings: Settings) -> None:
    put(settings.data_dir)
    with closing(open_stream(settings.data_dir / "stream.db")) as other:
        other.execute("begin immediate")

        first, second = doctor.check_stream(settings)

    assert [(one.check, one.state) for one in (first, second)] == [("stream", "fail"), ("committer", "warn")]
    assert first.message.startswith("can't be written")


def test_a_stream_that_is_no_database_is_a_failure_and_no_traceback(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    (settings.data_dir / "stream.db").write_bytes(b"not a database" * 100)

    assert run(settings) == 1

    found = [one for one in json_lines(capfd) if one["check"] == "stream"]
    assert [one["state"] for one in found] == ["fail"]


def test_no_stream_and_no_tables_yet_is_a_warning_each(settings: Settings) -> None:
    assert states(doctor.check_stream(settings)) == [("stream", "warn")]
    assert states(doctor.check_tables(settings)) == [("tables", "warn")]
    assert states(doctor.check_complete(settings)) == []


def test_books_that_agree_with_the_tables_are_fine(settings: Settings, lake: Lake) -> None:
    pipeline.run([record(1, track("a"), track("b"), b"[]")], STREAM, lake, Window())

    assert only(doctor.check_tables(settings)) == Finding("tables", "ok", "3 received, 2 stored, in 1 files")


def test_up_to_when_the_tables_are_complete_is_told(settings: Settings, lake: Lake) -> None:
    name = put(settings.data_dir, age_s=3_600)
    waiting = only(doctor.check_complete(settings))
    pipeline.run([StreamRecord(SHARD, 1, packed([track("a")]), NOW)], name, lake, Window())
    empty = only(doctor.check_complete(settings))
    put(settings.data_dir)
    behind = only(doctor.check_complete(settings))

    assert (waiting.state, waiting.message) == ("warn", "complete-through is unknown: no commit has noted it yet")
    assert empty.message.startswith(f"the tables have everything received before {time.strftime('%Y-', time.gmtime())}")
    assert behind == Finding("complete", "ok", "the tables have everything received before 2025-11-24T13:13:20.000000Z")


def test_erased_rows_are_told_and_are_no_failure(settings: Settings, lake: Lake) -> None:
    pipeline.run([record(1, track("a"), track("b", userId="v"))], STREAM, lake, Window())
    erase(lake, Person("v"))

    finding = only(doctor.check_tables(settings))

    assert (finding.state, finding.message) == ("ok", "2 received, 2 stored (1 erased since), in 1 files")


def test_rows_that_the_books_know_nothing_of_are_a_warning(settings: Settings, lake: Lake) -> None:
    pipeline.run([record(1, track("a"))], STREAM, lake, Window())
    table = lake.load(EVENTS)
    table.append(table.scan().to_arrow())

    finding = only(doctor.check_tables(settings))

    assert (finding.state, finding.message) == ("warn", "2 rows, but the books count 1")


def test_books_that_do_not_balance_are_a_failure(settings: Settings, lake: Lake) -> None:
    pipeline.run([record(1, track("a"))], STREAM, lake, Window())
    wrong = StreamBooks(stream=STREAM, watermarks={"shard-0": "1"}, received=2, stored=1)
    with lake.load(EVENTS).transaction() as transaction:
        transaction.set_properties({property_name(STREAM): encode(wrong)})

    assert only(doctor.check_tables(settings)).state == "fail"


def test_a_lost_catalog_is_no_empty_folder(settings: Settings, lake: Lake) -> None:
    pipeline.run([record(1, track("a"))], STREAM, lake, Window())
    (settings.data_dir / "catalog.db").unlink()

    finding = only(doctor.check_tables(settings))

    assert (finding.state, "catalog.db" in finding.message) == ("fail", True)
    assert finding.cure.startswith(shell_command("serve", settings.data_dir))


# --- the command ------------------------------------------------------------------------------------------


def run(settings: Settings, *arguments: str) -> int:
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("MANYMETRICS_PORT", str(settings.port))
        return main(["doctor", "--json", *arguments, "--data-dir", str(settings.data_dir)])


def json_lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_finding_can_not_drive_the_terminal(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    hostile = "\x1b[2J\x9b\u202e\u2028\x7f\nok    forged"
    monkeypatch.setattr(doctor, "CHECKS", [lambda _settings: iter([Finding("tables", "fail", hostile, hostile)])])

    assert main(["doctor", "--data-dir", str(settings.data_dir), *arguments]) == 1

    shown = capfd.readouterr().out.splitlines()
    assert len(shown) == 2 - len(arguments)
    assert all(line.isprintable() for line in shown)


def test_what_a_check_found_before_it_failed_is_said(settings: Settings) -> None:
    def check_halfway(_settings: Settings) -> Iterator[Finding]:
        yield Finding("halfway", "ok", "so far")
        raise OSError("a disk is gone")

    assert [(one.state, one.message) for one in doctor._safely(check_halfway, settings)] == [
        ("ok", "so far"),
        ("fail", "OSError: a disk is gone"),
    ]


def test_warnings_alone_end_with_0(settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    (settings.data_dir / "warehouse").mkdir()
    assert run(settings) == 0

    found = json_lines(capfd)
    assert [one["check"] for one in found] == ["versions", "disk", "modes", "server", "keys", "stream", "tables"]
    assert {one["state"] for one in found} == {"ok", "warn"}
    assert all(set(one) == {"check", "state", "message", "cure"} for one in found)


def test_a_failure_ends_with_1_and_its_cure_stands_below_it(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    write_keys(settings.data_dir / "keys.json", [REVOKED])

    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("MANYMETRICS_PORT", str(settings.port))
        assert main(["doctor", "--data-dir", str(settings.data_dir)]) == 1

    lines = capfd.readouterr().out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("FAIL"))
    assert lines[at].split()[:3] == ["FAIL", "keys", "no"]
    assert lines[at + 1].split()[:2] == ["->", "add"]


def test_doctor_changes_nothing(settings: Settings, lake: Lake, capfd: pytest.CaptureFixture[str]) -> None:
    pipeline.run([record(1, track("a"))], STREAM, lake, Window())
    before = {path: path.stat().st_mtime_ns for path in settings.data_dir.rglob("*")}

    run(settings)

    assert {path: path.stat().st_mtime_ns for path in settings.data_dir.rglob("*")} == before
    assert capfd.readouterr().err == ""
