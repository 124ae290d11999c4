"""No other user of the machine reads, locks or pins anything of a data directory, new or landed."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from manymetrics.settings import Settings
from manymetrics_api import private_files
from manymetrics_api.keys import WriteKey, keys_path, write_keys
from manymetrics_api.private_files import make_private, open_files
from manymetrics_cli.commands import doctor
from manymetrics_cli.main import main
from manymetrics_cli.one_machine import check_data_dir, create_local_app
from tests.live_server import LiveServer, eventually, live_server

NOBODY = 65534
KEY = WriteKey(key="wk_shop", project="shop", kind="server")
AS_ROOT = os.geteuid() == 0


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user may enter, as pytest's own is not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def as_nobody(*command: str | Path) -> bool:
    """Whether another user can."""
    done = subprocess.run(
        command, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", check=False, capture_output=True, timeout=10
    )
    return done.returncode == 0


def reach_of_others(folder: Path) -> list[str]:
    """What another user can do, or where the tests can't be one, what the modes let them."""
    paths = [folder, *folder.rglob("*")]
    if not AS_ROOT:
        return [str(path) for path in paths if mode(path) & 0o077]
    found = [f"list {path}" for path in paths if path.is_dir() and as_nobody("ls", path)]
    for path in paths:
        if path.is_file():
            found += [f"read {path}"] if as_nobody("cat", path) else []
            found += [f"lock {path}"] if as_nobody("flock", "-n", "-s", path, "true") else []
    return found


def send(server: LiveServer) -> None:
    body = b'{"userId":"u","event":"E","messageId":"m"}'
    eventually(lambda: server.post("/v1/track", body).status_code == 200 or None)
    server.settle()


@pytest.mark.parametrize("landed", [False, True], ids=["new", "landed"])
def test_another_user_reaches_nothing_of_a_running_server(shared: Path, *, landed: bool) -> None:
    home = shared / "home"
    previous = os.umask(0o022)
    try:
        with live_server(home, [KEY]) as server:
            send(server)
        if landed:
            for path in [home, *home.rglob("*")]:
                path.chmod(0o755 if path.is_dir() else 0o644)
            assert reach_of_others(home)
        with live_server(home, [KEY]) as server:
            send(server)
            assert reach_of_others(home) == []
            names = {path.name for path in home.iterdir()}
            assert names >= {"stream.db", "stream.db-wal", "stream.db-shm", "catalog.db", "committer.lock", "warehouse"}
            if not landed:
                assert [path for path in [home, *home.rglob("*")] if mode(path) & 0o077] == []
            assert open_files(home) == []
    finally:
        os.umask(previous)


@pytest.mark.parametrize("command", ["maintain", "replay", "erase"])
def test_commands_that_write_into_the_folder_keep_it_private(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    open_nothing(home)
    home.chmod(0o755)
    os.umask(0o022)
    arguments = ["--user-id", "u", "--yes"] if command == "erase" else []

    main([command, "--data-dir", str(home), *arguments])

    assert mode(home) == 0o700
    assert os.umask(0o022) == 0o077
    capsys.readouterr()


def open_nothing(home: Path) -> None:
    """Tables without rows."""
    home.mkdir()
    (home / "catalog.db").touch()
    (home / "catalog.db").unlink()
    from manymetrics_processor.lake.lake import Lake, local_catalog

    Lake(local_catalog(home)).ensure_tables()


def test_the_root_under_uvicorn_alone_keeps_the_folder_private_too(tmp_path: Path) -> None:
    os.umask(0)

    create_local_app(Settings(data_dir=tmp_path / "a" / "home"))

    assert mode(tmp_path / "a") == 0o777  # its parents are the user's
    assert mode(tmp_path / "a" / "home") == 0o700
    assert mode(keys_path(tmp_path / "a" / "home")) == 0o600
    assert os.umask(0) == 0o077


def test_a_file_that_goes_while_modes_are_looked_at_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(private_files, "_ours", lambda folder: iter([folder / "stream.db-wal"]))

    make_private(tmp_path)

    assert open_files(tmp_path) == []
    assert caplog.records == []


def test_only_what_is_ours_is_closed(tmp_path: Path) -> None:
    for name in ("stream.db", "stream.db-wal", "catalog.db", "committer.lock", "keys.json", "theirs.txt"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o664)
    (tmp_path / "warehouse").mkdir(mode=0o755)
    outside = tmp_path.parent / "outside"
    outside.touch()
    outside.chmod(0o644)
    (tmp_path / "stream.db-shm").symlink_to(outside)

    make_private(tmp_path)

    assert {path.name for path in tmp_path.iterdir() if mode(path) & 0o077} == {"theirs.txt", "stream.db-shm"}
    assert mode(tmp_path / "warehouse") == 0o700
    assert mode(outside) == 0o644


def test_a_folder_that_was_closed_more_tightly_stays_so(tmp_path: Path) -> None:
    (tmp_path / "keys.json").touch(mode=0o400)

    make_private(tmp_path)

    assert mode(tmp_path / "keys.json") == 0o400


# --- folders that can't be closed -------------------------------------------------------------------------


def refuse(_path: Path, _mode: int) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def ignore(_path: Path, _mode: int) -> None:
    """As a file system without modes."""


@pytest.mark.parametrize("chmod", [refuse, ignore])
def test_a_folder_that_can_not_be_closed_is_used_and_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    chmod: Callable[[Path, int], None],
) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.setattr(Path, "chmod", chmod)

    with caplog.at_level(logging.WARNING):
        check_data_dir(tmp_path)

    [line] = caplog.records
    facts = vars(line)["facts"]
    assert line.getMessage().partition(": ")[0].endswith(" is open to other users")
    assert line.getMessage().startswith(str(tmp_path))
    assert facts == {"cure": f"chmod 700 {tmp_path}, as the user that owns it"}


def test_a_folder_that_all_users_share_is_left_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o1777)

    check_data_dir(tmp_path)

    assert tmp_path.stat().st_mode & 0o7777 == 0o1777
    assert "name a separate directory" in vars(caplog.records[0])["facts"]["cure"]


# --- the keys file ----------------------------------------------------------------------------------------


def test_the_keys_file_is_never_open_and_outlives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        where = Path(f"/proc/self/fd/{handle}").readlink()
        steps.append("sync folder" if where.is_dir() else f"sync file {os.fstat(handle).st_mode & 0o777:o}")
        real_fsync(handle)

    def replaced(self: Path, target: Path) -> Path:
        steps.append(f"replace {mode(self):o} {self.stat().st_size > 0}")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replaced)
    (tmp_path / "keys.json").touch()
    (tmp_path / "keys.new").touch(mode=0o666)  # what an older version used, and left
    os.umask(0)

    write_keys(keys_path(tmp_path), [KEY])

    assert steps == ["sync file 600", "replace 600 True", "sync folder"]
    assert mode(keys_path(tmp_path)) == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"keys.json", "keys.new"}


def test_keys_that_can_not_be_written_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match="No space"):
        write_keys(keys_path(tmp_path), [KEY])

    assert list(tmp_path.iterdir()) == []


# --- query's files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["csv", "parquet"])
def test_an_answer_written_into_the_folder_is_as_private_as_the_tables(
    tmp_path: Path, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    open_nothing(home)
    os.umask(0o022)

    for to in (home / "rows", home / "reports" / "rows", tmp_path / "rows"):
        to.parent.mkdir(exist_ok=True)
        assert main(["query", "--data-dir", str(home), "select 1 a", "-o", output, "--to", str(to)]) == 0

    assert [mode(home / "rows"), mode(home / "reports" / "rows"), mode(tmp_path / "rows")] == [0o600, 0o600, 0o644]
    capsys.readouterr()


# --- doctor -----------------------------------------------------------------------------------------------


def test_doctor_finds_what_is_open_and_says_the_cure(tmp_path: Path) -> None:
    settings = replace(Settings(), data_dir=tmp_path)
    write_keys(keys_path(tmp_path), [KEY])
    (tmp_path / "stream.db").touch(mode=0o600)
    tmp_path.chmod(0o700)
    assert [(one.check, one.state) for one in doctor.check_modes(settings)] == [("modes", "ok")]

    for loose in (0o640, 0o604):
        keys_path(tmp_path).chmod(loose)
        [finding] = doctor.check_modes(settings)
        assert (finding.state, finding.cure) == ("fail", f"chmod 600 {tmp_path}/keys.json, as the user that owns it")
    keys_path(tmp_path).chmod(0o600)
    (tmp_path / "stream.db").chmod(0o644)
    tmp_path.chmod(0o750)
    found = [(one.state, one.cure) for one in doctor.check_modes(settings)]
    assert found == [
        ("fail", f"chmod 700 {tmp_path}, as the user that owns it"),
        ("warn", f"chmod 600 {tmp_path}/stream.db, as the user that owns it"),
    ]
    assert list(doctor.check_modes(replace(settings, data_dir=tmp_path / "none"))) == []


def test_a_lock_that_an_old_reader_holds_is_not_taken_over(tmp_path: Path) -> None:
    """What is open keeps its lock whatever the modes become: that is doctor's to tell."""
    lock = tmp_path / "committer.lock"
    lock.touch(mode=0o644)
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        make_private(tmp_path)
        assert mode(lock) == 0o600


def test_the_module_names_every_file_at_the_top_of_a_folder(shared: Path) -> None:
    home = shared / "home"
    with live_server(home, [KEY]) as server:
        send(server)
        named = set(private_files._ours(home))
        assert {path for path in home.iterdir() if path not in named} == set()
