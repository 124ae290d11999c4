"""A keys file that can't be read: said at the start, in the log, by /readyz and doctor; and when it is fixed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from manymetrics_api.keys import KeysUnavailableError, WriteKey, keys_path, read_keys, write_keys
from manymetrics_cli.main import main
from tests.live_server import LiveServer, eventually, live_server

SHOP = WriteKey(key="wk_shop", project="shop")
EVENT = b'{"userId":"u","event":"E"}'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    """Not started yet, with a folder."""
    server = LiveServer(tmp_path / "data")
    server.data_dir.mkdir()
    yield server
    if server.process is not None and server.process.poll() is None:
        server.stop()


def said(server: LiveServer) -> list[tuple[str, str]]:
    """Level and what follows the message, of each line about keys."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in server.log.read_text().splitlines()]
    return [(line["level"], line.get("why", "")) for line in lines if line["log"] == "manymetrics.keys"]


def error_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def statuses(server: LiveServer) -> tuple[int, int, int]:
    return (
        server.post("/v1/track", EVENT).status_code,
        server.client.get("/readyz").status_code,
        server.client.get("/healthz").status_code,
    )


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.write_text('[{"key": "wk_shop", '), "truncated"),
        (lambda path: path.write_text('{"key": "wk_shop", "project": "shop"}'), "Expected `array`"),
        (lambda path: path.write_text('[{"key": "wk_shop"}]'), "missing required field `project`"),
        (lambda path: path.write_bytes(b'[{"key": "wk_shop", "project": "caf\xe9"}]'), "utf-8"),
        (lambda path: path.write_text(""), "truncated"),
        (lambda path: path.mkdir(), "Is a directory"),
    ],
    ids=["no JSON", "an object", "no project", "Latin-1", "empty", "a folder"],
)
def test_a_server_that_starts_with_unreadable_keys_says_so_and_goes_on_once_they_are_mended(
    server: LiveServer, spoil: Callable[[Path], None], why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = keys_path(server.data_dir)
    spoil(path)
    server.launch()
    banner = eventually(lambda: server.output.read_text() or None)

    assert "is ready" not in banner
    assert all(part in banner for part in (str(path), "fix", why))
    assert statuses(server) == (503, 503, 200)
    assert error_of(server.client.get("/readyz")) == (503, "keys_unavailable")
    statuses(server)
    [(level, logged)] = said(server)
    assert (level, str(path) in logged, "wk_shop" in server.log.read_text() + banner) == ("ERROR", True, False)
    main(["doctor", "--data-dir", str(server.data_dir)])
    assert f"can't be read, so every event is rejected with 503: {path}" in capfd.readouterr().out

    if path.is_dir():
        path.rmdir()
    write_keys(path, [SHOP])
    assert statuses(server) == (200, 200, 200)
    assert [level for level, _ in said(server)] == ["ERROR", "INFO"]


def test_keys_that_break_while_nobody_sends_are_told_once_and_again_when_the_reason_changes(tmp_path: Path) -> None:
    with live_server(tmp_path / "data") as server:
        path = keys_path(server.data_dir)
        path.unlink()
        eventually(lambda: said(server) or None)
        assert said(server) == [("ERROR", f"{path}: No such file or directory")]
        assert error_of(server.client.get("/readyz")) == (503, "keys_unavailable")

        path.write_text("[")
        eventually(lambda: len(said(server)) == 2 or None)
        write_keys(path, [SHOP])
        eventually(lambda: len(said(server)) == 3 or None)

        assert [level for level, _ in said(server)] == ["ERROR", "ERROR", "INFO"]
        assert statuses(server) == (200, 200, 200)


def test_keys_without_the_right_to_read_them_name_the_chmod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keys_path(tmp_path)

    def refused(_path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")  # as root reads any file

    monkeypatch.setattr(Path, "read_bytes", refused)

    with pytest.raises(KeysUnavailableError) as raised:
        read_keys(path)
    assert f"chmod 600 {path}" in raised.value.cure
