"""The sample page: for a browser on this machine alone, and only with a key that it may use."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from manymetrics.settings import Settings
from manymetrics_api.app import create_app
from manymetrics_api.keys import KeyTable, WriteKey
from manymetrics_api.sinks import MemorySink
from manymetrics_cli.built_sdk import BuiltSdk, read_built_sdk
from manymetrics_cli.sample_page import SampleData, add_sample_routes
from tests.in_process import App, Reply, ask

HERE = {"host": "127.0.0.1:8000"}
KEY = WriteKey(key="wk_shop", project="shop")


@dataclass
class Table:
    """A table that counts who reads it."""

    commit: str = "00001.metadata.json"
    asked: list[tuple[str, str]] = field(default_factory=list)

    def rows(self, project: str, anonymous_id: str) -> list[dict[str, Any]]:
        self.asked.append((project, anonymous_id))
        return [{"message_id": "1", "event": "<b>"}]


@pytest.fixture(scope="module")
def whole_sdk() -> BuiltSdk:
    return read_built_sdk()


def made(
    table: Table,
    sdk: BuiltSdk,
    key: Callable[[str], WriteKey | None] = lambda _origin: KEY,
    *,
    behind_proxies: bool = False,
) -> App:
    data = SampleData(key, "manymetrics query --data-dir 'a b'", lambda: table.commit, table.rows)
    return create_app(
        settings=Settings(),
        keys=KeyTable((KEY,)),
        sink=MemorySink(),
        more_routes=lambda app: add_sample_routes(app, sdk, data, behind_proxies=behind_proxies),
    )


@pytest.fixture(scope="module")
def table() -> Table:
    """Which no test has read; the one that reads has its own."""
    return Table()


@pytest.fixture(scope="module")
def app(table: Table, whole_sdk: BuiltSdk) -> App:
    """The usual one, for all tests: making one takes 0.1 s."""
    return made(table, whole_sdk)


@pytest.fixture(scope="module")
def behind_proxies(whole_sdk: BuiltSdk) -> App:
    return made(Table(), whole_sdk, behind_proxies=True)


def get(app: App, path: str = "/sample", client: str = "127.0.0.1", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(app, "GET", path, HERE | named, client=client)


def test_the_page_loads_the_sdk_as_any_page_does_and_runs_nothing_inline(app: App) -> None:
    reply = get(app)

    text = reply.body.decode()
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert str(read_built_sdk().script_tag("http://127.0.0.1:8000", "wk_shop")) in text
    assert reply.headers["content-security-policy"].startswith("default-src 'self'; ")
    assert reply.headers["cache-control"] == "no-store"
    scripts = re.findall(r"<script[^>]*>([^<]*)</script>", text)
    assert scripts == ["", "", ""]
    assert not re.search(r"<style| style=| on\w+=", text)
    assert 'data-query="manymetrics query --data-dir &#x27;a b&#x27;"' in text


def test_each_file_of_the_page_is_there(app: App) -> None:
    named = set(re.findall(r'(?:src|href)="(/sample/[^"]+)"', get(app).body.decode()))

    files = {"/sample/icon.svg", "/sample/sample.css", "/sample/observe.js", "/sample/sample.js"}
    assert named == {*files, "/sample/about"}
    assert {get(app, path).status for path in named} == {200}
    assert get(app, "/sample/index.html").status == 404
    assert get(app, "/sample/../pyproject.toml").status == 404


@pytest.mark.parametrize("path", ["/sample", "/sample/rows?anonymous_id=a"])
@pytest.mark.parametrize(
    ("client", "headers"),
    [
        ("203.0.113.7", {}),
        ("127.0.0.1", {"x_forwarded_for": "203.0.113.7"}),
        ("127.0.0.1", {"forwarded": "for=203.0.113.7"}),
        ("127.0.0.1", {"host": "rebound.example:8000"}),
        ("127.0.0.1", {"host": "127.0.0.1.example"}),
        ("127.0.0.1", {"host": "localhost:8000@rebound.example"}),
        ("127.0.0.1", {"host": ""}),
    ],
)
def test_nobody_else_sees_a_key_or_a_row(
    app: App, table: Table, path: str, client: str, headers: dict[str, str]
) -> None:
    reply = get(app, path, client, **headers)

    assert reply.status == 403
    assert b"wk_shop" not in reply.body
    assert table.asked == []


@pytest.mark.parametrize("path", ["/sample", "/sample/rows?anonymous_id=a"])
def test_behind_proxies_it_answers_nobody(behind_proxies: App, path: str) -> None:
    assert get(behind_proxies, path).status == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "LOCALHOST:9000", "[::1]:8000"])
def test_every_name_of_this_machine_will_do(app: App, host: str) -> None:
    assert f'data-host="http://{host}"' in get(app, host=host, client="::1").body.decode()


def test_without_a_key_that_it_may_use_the_page_says_the_cure(whole_sdk: BuiltSdk) -> None:
    asked: list[str] = []
    reply = get(made(Table(), whole_sdk, asked.append))

    assert (reply.status, asked) == (503, ["http://127.0.0.1:8000"])
    assert b"keys.json" in reply.body


def test_without_a_built_sdk_the_page_says_the_cure() -> None:
    reply = get(made(Table(), BuiltSdk("0-0", {}, {})))

    assert (reply.status, b"node build.mjs" in reply.body) == (503, True)


def test_rows_are_of_the_keys_project_and_read_once_a_commit(whole_sdk: BuiltSdk) -> None:
    table, path = Table(), "/sample/rows?anonymous_id=a%20%27b"
    app = made(table, whole_sdk)

    first = get(app, path)
    again = get(app, path, if_none_match=first.headers["etag"])
    table.commit = "00002.metadata.json"
    after = get(app, path, if_none_match=first.headers["etag"])

    assert first.json() == {"rows": [{"message_id": "1", "event": "<b>"}]}
    assert (again.status, again.body, after.status) == (304, b"", 200)
    assert table.asked == [("shop", "a 'b")] * 2
    assert "access-control-allow-origin" not in first.headers
