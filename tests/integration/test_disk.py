"""A disk that is full or read-only: what the server, its log and the commands say, and that events go on afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from manymetrics import telemetry
from manymetrics_api.keys import write_keys
from manymetrics_cli.main import main
from tests.in_process import KEYS
from tests.live_server import LiveServer, eventually, live_server

_EVENT = b'{"userId":"u","event":"E","messageId":"m-%d"}'


@pytest.fixture(autouse=True)
def logs_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in test_data_dir."""
    monkeypatch.setattr(telemetry, "log_json_lines", lambda: None)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own, which takes root."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", path], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture
def read_only(disk: Path) -> Path:
    """A data directory with one event, on a disk that takes nothing any more."""
    with live_server(disk / "data") as server:
        assert server.post("/v1/track", _EVENT % 1).status_code == 200
        server.rows_once(1)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    return disk / "data"


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(b"." * 4_096)


def test_a_full_disk_is_told_once_and_with_its_cure_and_events_go_on_after_it(
    disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with live_server(disk / "data") as server:
        assert server.post("/v1/track", _EVENT % 1).status_code == 200
        server.rows_once(1)
        fill(disk)

        assert {server.post("/v1/track", _EVENT % 2).status_code for _ in range(5)} == {503}
        assert server.client.get("/readyz").status_code == 503
        metrics = server.client.get("/metrics")
        assert metrics.status_code == 200
        assert "manymetrics_data_readable 0.0" in metrics.text
        assert 'manymetrics_events_total{outcome="stored",reason=""} 1.0' in metrics.text
        assert "manymetrics_stream_pending_records" not in metrics.text
        assert main(["doctor", "--data-dir", str(server.data_dir)]) == 1
        assert "free some space" in capfd.readouterr().out
        assert server.log.read_text().count("the stream can't store: database or disk is full") == 1

        (disk / "fill").unlink()
        assert eventually(lambda: server.post("/v1/track", _EVENT % 2).status_code == 200 or None)
        assert {row["message_id"] for row in server.rows_once(2)} == {"m-1", "m-2"}
        assert "manymetrics_data_readable 1.0" in server.client.get("/metrics").text
        assert "the stream can store again" in server.log.read_text()
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    "command", [["tail"], ["maintain"], ["erase", "--user-id", "u", "--yes"], ["replay"], ["recover"]]
)
def test_a_read_only_folder_is_refused_in_a_line_with_its_cure(
    read_only: Path, command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([command[0], "--data-dir", str(read_only), *command[1:]]) == 2

    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("manymetrics: ")]
    assert len(lines) == 1
    assert f"{read_only} can't be written: mount it writable" in lines[0]


def test_a_read_only_folder_can_be_asked_and_doctor_names_the_cure(
    read_only: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["query", "--data-dir", str(read_only), "-o", "csv", "select message_id from events"]) == 0
    assert capfd.readouterr().out == "message_id\r\nm-1\r\n"
    assert main(["doctor", "--data-dir", str(read_only)]) == 1
    assert f"mount it writable, or chown it to the user that runs the server: {read_only}" in capfd.readouterr().out


def test_a_server_on_a_read_only_disk_says_so_once_and_takes_events_when_it_can_write(
    read_only: Path, disk: Path
) -> None:
    server = LiveServer(read_only)
    server.log, server.output = disk.with_name("log"), disk.with_name("output")
    server.launch()
    try:
        eventually(lambda: server.alive() or None)
        eventually(lambda: "the committer can't start" in server.log.read_text() or None)
        assert {server.post("/v1/track", _EVENT % 2).status_code for _ in range(3)} == {503}
        assert server.client.get("/readyz").status_code == 503
        assert server.client.get("/metrics").status_code == 200
        said = server.log.read_text()
        assert [said.count(one) for one in ("the committer can't start", "the stream can't store")] == [1, 1]
        assert said.startswith(f"manymetrics: {read_only} can't be written: mount it writable")
        assert "Until then every event is rejected with 503" in said.splitlines()[0]
        assert "Traceback" not in said
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        assert eventually(lambda: server.post("/v1/track", _EVENT % 2).status_code == 200 or None)
        assert {row["message_id"] for row in server.rows_once(2)} == {"m-1", "m-2"}
    finally:
        server.stop()


def test_a_server_that_starts_on_a_full_disk_says_so_first(disk: Path) -> None:
    server = LiveServer(disk / "data")
    server.log, server.output = disk.with_name("log"), disk.with_name("output")
    server.data_dir.mkdir()
    write_keys(server.data_dir / "keys.json", KEYS)
    fill(disk)
    server.launch()
    try:
        eventually(lambda: server.alive() or None)
        assert "data is full: free some space. Until then every event is rejected with 503" in server.log.read_text()
        assert server.post("/v1/track", _EVENT % 1).status_code == 503
    finally:
        server.stop()


def test_a_committer_waits_for_a_read_only_disk_and_says_so_once(read_only: Path, disk: Path) -> None:
    environ = {**os.environ, "MANYMETRICS_DATA_DIR": str(read_only)}
    log = disk.with_name("log")
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "manymetrics_cli.one_machine"],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
        ) as committer,
    ):
        eventually(lambda: "the committer can't start" in log.read_text() or None)
        time.sleep(3)
        said = log.read_text()
        assert said.count("the committer can't start") == 1
        assert "Read-only file system" in said
        assert "Traceback" not in said
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        assert committer.stdout is not None
        assert committer.stdout.readline() == b"ready\n"
        assert committer.stdin is not None
        committer.stdin.close()
        assert committer.wait(20) == 0
