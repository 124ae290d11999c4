"""What answers only this machine, over real sockets: no proxy's request, and no name that may be a stranger's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from manymetrics.settings import Settings
from manymetrics_api.keys import WriteKey, write_keys
from manymetrics_cli.commands import serve
from tests.live_server import LiveServer, live_server

BROWSER = WriteKey("wk_browser", "shop")
SERVER = WriteKey("wk_server_secret", "shop", kind="server")
PATHS = ["/sample", "/sample/rows?anonymous_id=a", "/metrics"]


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with tempfile.TemporaryDirectory() as folder, live_server(Path(folder, "home"), [SERVER, BROWSER]) as running:
        yield running


@pytest.fixture(scope="module")
def with_token() -> Iterator[LiveServer]:
    with (
        tempfile.TemporaryDirectory() as folder,
        live_server(Path(folder, "home"), [BROWSER], metrics_token="t-1") as running,
    ):
        yield running


def status(server: LiveServer, path: str, *headers: str, version: str = "1.1", host: str | None = None) -> int:
    """Of a GET, byte for byte as it is given here."""
    named = [f"Host: 127.0.0.1:{server.port}" if host is None else host, *headers]
    lines = "".join(f"{line}\r\n" for line in named if line)
    answer = server.raw(f"GET {path} HTTP/{version}\r\n{lines}\r\n".encode("latin-1"))
    assert SERVER.key.encode() not in answer
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_this_machine_is_answered_by_each_of_its_names(server: LiveServer, path: str, host: str) -> None:
    assert status(server, path, "User-Agent: Mozilla/5.0", "Accept: */*", host=f"Host: {host}:{server.port}") == 200
    assert status(server, path, host=f"Host: {host}") == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host",
    ["rebound.example", "127.0.0.1.example", "127.0.0.1@x.example", "0.0.0.1", "localhost.", "127.1", "", "::1"],
)
def test_another_name_is_refused(server: LiveServer, path: str, host: str) -> None:
    assert status(server, path, host=f"Host: {host}") == 403


@pytest.mark.parametrize("path", PATHS)
def test_two_names_and_none_are_refused(server: LiveServer, path: str) -> None:
    assert status(server, path, "Host: rebound.example") == 403
    assert status(server, path, host="", version="1.0") == 403


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "header",
    [
        *("Via: 1.1 x", "Forwarded: for=1.2.3.4", "X-Forwarded-For: 127.0.0.1", "x-forwarded-host: a", "X-Forwarded:1"),
        *("X-Forwarded-Proto: https", "X-Forwarded-Port: 443", "X-Forwarded-Server: a", "X-Forwarded-Anything: a"),
        *("X-Real-IP: 1.2.3.4", "X-Real-Port: 1", "CF-Connecting-IP: 1.2.3.4", "CF-Ray: 1", "True-Client-IP: 1.2.3.4"),
        *("Fastly-Client-IP: 1.2.3.4", "X-Client-IP: 1.2.3.4", "X-Cluster-Client-IP: 1.2.3.4", "CDN-Loop: x"),
        *("X-Original-URL: /", "X-Original-Host: a", "X-Amzn-Trace-Id: Root=1", "X-Envoy-External-Address: a"),
        *("Client-IP: 1.2.3.4", "X-ProxyUser-Ip: 1.2.3.4", "Fly-Client-IP: 1.2.3.4", "X-Forwarded-For:"),
    ],
)
def test_a_proxys_request_is_refused(server: LiveServer, path: str, header: str) -> None:
    assert status(server, path, header) == 403


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("headers", [("Connection: close",), ("Connection: keep-alive",), ()])
def test_nginx_as_it_comes_is_refused(server: LiveServer, path: str, headers: tuple[str, ...]) -> None:
    """`proxy_pass http://127.0.0.1:8000;` sends HTTP/1.0, the upstream as Host, and nothing of its own."""
    assert status(server, path, *headers, "User-Agent: Mozilla/5.0", version="1.0") == 403


@pytest.mark.parametrize("path", PATHS[:2])
def test_nginx_with_http_1_1_is_refused_where_there_is_a_key_or_a_row(server: LiveServer, path: str) -> None:
    assert status(server, path, "Connection: close", "User-Agent: Mozilla/5.0") == 403


def test_rows_are_for_the_page_here_alone(server: LiveServer) -> None:
    own = f"http://127.0.0.1:{server.port}"

    found = [status(server, PATHS[1], f"Referer: {one}") for one in (f"{own}/sample", "https://stats.example/sample")]

    assert found == [200, 403]


def test_a_token_reads_metrics_from_anywhere_by_any_name(with_token: LiveServer) -> None:
    bearer = "Authorization: Bearer t-1"

    assert status(with_token, "/metrics", bearer, "X-Forwarded-For: 1.2.3.4", host="Host: stats.example") == 200
    assert status(with_token, "/metrics", bearer, version="1.0") == 200
    assert status(with_token, "/metrics") == 403


# --- server keys ------------------------------------------------------------------------------------------


def test_no_server_key_is_shown_where_a_browser_key_is(server: LiveServer) -> None:
    page = server.client.get("/sample").text

    assert BROWSER.key in page
    said = server.output.read_text() + server.log.read_text()
    assert BROWSER.key in said
    for text in (page, said):
        assert SERVER.key not in text


@pytest.mark.parametrize(
    "path", ["/v1/projects/{}/settings", "/sourceConfig?writeKey={}", "/sourceConfig/?writeKey={}"]
)
def test_settings_know_no_server_key(server: LiveServer, path: str) -> None:
    refused = server.client.get(path.format(SERVER.key))

    assert (refused.status_code, refused.json()["code"]) == (403, "server_key")
    assert SERVER.key not in refused.text
    assert BROWSER.key in server.client.get(path.format(BROWSER.key)).text
    assert "wk_unknown" in server.client.get(path.format("wk_unknown")).text


def test_with_server_keys_alone_the_banner_says_where_they_are(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys.json", [SERVER])

    text = serve.banner(Settings(data_dir=tmp_path))

    assert SERVER.key not in text
    assert "-u WRITE_KEY: -d '" in text
    assert f"write key   none for browsers: server keys are in {tmp_path}/keys.json\n" in text
