"""What stands where the data should be: nothing usable, another folder's tables, or tables whose catalog is gone."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import pytest

from manymetrics import telemetry
from manymetrics.records import Stamp, pack
from manymetrics.tables import EVENTS
from manymetrics_api.sinks.local_stream import LocalSource, open_stream
from manymetrics_cli.main import main
from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.lake import Lake, live_files, local_catalog
from manymetrics_processor.lake.maintenance import maintain
from manymetrics_processor.lake.scan import read_files
from tests.live_server import live_server

_STAMP = Stamp(time.time_ns() // 1_000, "r-1", "shop", "browser")


@pytest.fixture(autouse=True)
def logs_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server sends this process's logs to its stderr, which is a test's own: the next test's would go there, too."""
    monkeypatch.setattr(telemetry, "log_json_lines", lambda: None)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A data directory with one event."""
    home = tmp_path / "home"
    lake = Lake(local_catalog(home))
    lake.ensure_tables()
    _commit(lake, 1, b'{"type":"track","event":"E","userId":"u","messageId":"m-1"}')
    return home


def _commit(lake: Lake, sequence: int, event: bytes) -> None:
    records = [StreamRecord("s", sequence, record, 1) for record in pack(_STAMP, [event])]
    pipeline.run(records, "local:x", lake, Window())


def _message_ids(lake: Lake) -> list[str]:
    rows = read_files(EVENTS, iceberg := lake.load(EVENTS), live_files(iceberg), ["message_id"])
    return sorted(rows["message_id"].to_pylist())


def test_tables_outlive_their_catalog(home: Path) -> None:
    (home / "catalog.db").unlink()

    lake = Lake(local_catalog(home))
    lake.ensure_tables()
    _commit(lake, 1, b'{"type":"track","event":"E","userId":"u","messageId":"m-0"}')  # as before: past the watermark
    _commit(lake, 2, b'{"type":"track","event":"E","userId":"u","messageId":"m-1"}')  # a resend
    _commit(lake, 3, b'{"type":"track","event":"E","userId":"u","messageId":"m-2"}')
    maintain(lake)

    assert _message_ids(lake) == ["m-1", "m-2"]


def test_a_catalog_that_is_no_database_is_said_with_its_cure(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "catalog.db").write_bytes(b"not a database" * 100)

    assert main(["serve", "--data-dir", str(home)]) == 2
    assert "catalog.db can't be read (file is not a database): restore it from a copy" in capsys.readouterr().err
    assert main(["query", "--data-dir", str(home), "select 1"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_in_place_of_the_folder_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")

    assert main(["serve", "--data-dir", str(tmp_path / "file")]) == 2
    assert "is a file: name a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["#1", "50%", "100%20", "it's", 'a"b', "a;b&c=d", "a b", "ä 東京 🦆", "a\\b", "file:x", "{a}]"]
)
def test_a_folder_of_any_usual_name_works(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    home = Path(name, "data")
    with live_server(tmp_path / name / "data") as server:
        assert server.post("/v1/track", b'{"userId":"u","event":"E","messageId":"m-1"}').status_code == 200
        server.rows_once(1)
        assert server.client.get("/sample/rows?anonymous_id=u").status_code in {200, 304}
        assert main(["doctor", "--data-dir", str(home)]) == 0 or "FAIL  server" in capfd.readouterr().out
    capfd.readouterr()

    assert main(["query", "--data-dir", str(home), "-o", "csv", "select message_id from events"]) == 0
    assert capfd.readouterr().out == "message_id\r\nm-1\r\n"
    assert main(["maintain", "--data-dir", str(home)]) == 0
    assert main(["recover", "--data-dir", str(home)]) == 0
    assert main(["erase", "--data-dir", str(home), "--user-id", "u", "--yes"]) == 0
    assert _message_ids(Lake(local_catalog(home))) == []


@pytest.mark.parametrize("name", ["a*", "a?b", "[ab]", "a\nb", "a\x1b[0m", "a\udcff", "a\x7f"])
def test_a_folder_whose_name_cannot_be_used_is_refused_before_anything_is_stored(
    tmp_path: Path, home: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--data-dir", str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("manymetrics: ")
    assert said.endswith("is not allowed in the path of a data directory: name another one with --data-dir\n")
    assert said[:-1].isprintable()
    assert not (tmp_path / name).exists()

    moved = home.rename(tmp_path / name)
    for command in (["query", "select 1"], ["maintain"], ["erase", "--user-id", "u"], ["replay"]):
        assert main([command[0], "--data-dir", str(moved), *command[1:]]) in {1, 2}
        assert "name another one with --data-dir" in capsys.readouterr().err


_COMMANDS = [
    ["query", "select 1"],
    ["tail"],
    ["maintain"],
    ["erase", "--user-id", "u"],
    ["replay"],
    ["recover"],
    ["doctor"],
]


@pytest.mark.parametrize("command", _COMMANDS, ids=[one[0] for one in _COMMANDS])
@pytest.mark.parametrize("there", ["nothing", "a folder", "a file", "a folder of somebody else's"])
def test_every_command_ends_alike_where_there_is_no_data(
    tmp_path: Path, command: list[str], there: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = tmp_path / "named"
    if there == "a file":
        named.write_text("")
    elif there != "nothing":
        named.mkdir()
    if there == "a folder of somebody else's":
        (named / "notes.txt").write_text("")
    before = sorted(tmp_path.rglob("*"))

    assert main([command[0], "--data-dir", str(named), *command[1:]]) == 2

    said = "".join(capsys.readouterr())
    if there == "a file":
        assert f"{named} is a file: name a directory with --data-dir" in said
    else:
        assert f"there is no data in {named}" in said or f"there is no data directory at {named}" in said
        assert "start the server (make run, or manymetrics serve), or name the right directory with --data-dir" in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", [one for one in _COMMANDS if one[0] in {"query", "maintain", "erase", "replay"}])
def test_commands_on_tables_end_alike_where_none_are_made_yet(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    open_stream(tmp_path / "stream.db").close()

    assert main([command[0], "--data-dir", str(tmp_path), *command[1:]]) == 2
    assert f"there are no tables in {tmp_path}: start the server" in capsys.readouterr().err


def test_a_stream_is_made_with_its_incarnation_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed() -> uuid.UUID:
        raise KeyboardInterrupt

    monkeypatch.setattr(uuid, "uuid4", killed)
    with pytest.raises(KeyboardInterrupt):
        open_stream(tmp_path / "stream.db")
    monkeypatch.undo()

    open_stream(tmp_path / "stream.db").close()

    assert LocalSource(tmp_path / "stream.db").name().startswith("local:")
