"""The built SDK on one machine: a path that never changes its bytes, one that moves, and nothing else."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from manymetrics.settings import Settings
from manymetrics_api.app import create_app
from manymetrics_api.keys import KeyTable
from manymetrics_api.sinks import MemorySink
from manymetrics_cli.built_sdk import BuiltSdk, add_sdk_routes, hash_scripts, read_built_sdk
from manymetrics_cli.static_files import read_static_files
from tests.conftest import ROOT
from tests.in_process import App, Reply, ask

FILES = {
    "mm.js": b"/* the core */" * 50,
    "chunks/a.js": b"a",
    "mm.js.map": b"{}",
    "client.d.ts": b"export",
}
RELEASED = "0.0.9-0123456789ab"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("built")
    (home / "dist" / "chunks").mkdir(parents=True)
    (home / "secret.js").write_bytes(b"secret")
    for name, body in FILES.items():
        (home / "dist" / name).write_bytes(body)
    (home / "released" / RELEASED).mkdir(parents=True)
    (home / "released" / RELEASED / "mm.js").write_bytes(b"/* an older core */")
    return home


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """To be changed."""
    return Path(shutil.copytree(folder, tmp_path / "sdk"))


@pytest.fixture(scope="module")
def sdk(folder: Path) -> BuiltSdk:
    return read_built_sdk(folder)


@pytest.fixture(scope="module")
def app(sdk: BuiltSdk) -> App:
    return create_app(
        settings=Settings(), keys=KeyTable(()), sink=MemorySink(), more_routes=lambda app: add_sdk_routes(app, sdk)
    )


def get(app: App, path: str, **headers: str) -> Reply:
    return ask(app, "GET", path, {name.replace("_", "-"): value for name, value in headers.items()})


def test_the_path_of_a_build_is_cached_for_ever_and_the_moving_one_for_minutes(app: App, sdk: BuiltSdk) -> None:
    fixed, moving = get(app, f"/sdk/{sdk.build}/mm.js"), get(app, "/sdk/mm.js")

    assert (fixed.status, fixed.body, moving.status, moving.body) == (200, FILES["mm.js"]) * 2
    assert fixed.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert moving.headers["cache-control"] == "public, max-age=300"
    for reply in (fixed, moving):
        assert reply.headers["content-type"] == "text/javascript; charset=utf-8"
        assert reply.headers["access-control-allow-origin"] == "*"
        assert reply.headers["x-content-type-options"] == "nosniff"


def test_a_released_build_is_served_under_its_path_for_ever_beside_a_newer_one(app: App) -> None:
    reply = get(app, f"/sdk/{RELEASED}/mm.js")

    assert (reply.status, reply.body) == (200, b"/* an older core */")
    assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"


def test_files_below_and_maps_are_there_too(app: App, sdk: BuiltSdk) -> None:
    assert get(app, f"/sdk/{sdk.build}/chunks/a.js").body == b"a"
    assert get(app, "/sdk/mm.js.map").headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "path",
    [
        "/sdk",
        "/sdk/",
        "/sdk/{build}",
        "/sdk/{build}/",
        "/sdk/{build}/{build}/mm.js",
        "/sdk/0.0.9-{hash}/mm.js",
        "/sdk/{build}x/mm.js",
        "/sdk/released/0.0.9-0123456789ab/mm.js",
        "/sdk/0.0.9-0123456789ab/chunks/a.js",
        "/sdk/client.d.ts",
        "/sdk/{build}/client.d.ts",
        "/sdk/../secret.js",
        "/sdk/{build}/../../secret.js",
        "/sdk/%2e%2e/secret.js",
        "/sdk/..%2fsecret.js",
        "/sdk//secret.js",
    ],
)
def test_anything_else_is_not_found(app: App, sdk: BuiltSdk, path: str) -> None:
    reply = get(app, path.format(build=sdk.build, hash=sdk.build.rpartition("-")[2]))

    assert (reply.status, reply.json()["code"]) == (404, "not_found")


def test_a_head_is_answered_as_a_get(app: App) -> None:
    reply = ask(app, "HEAD", "/sdk/mm.js")

    assert (reply.status, reply.headers["content-length"]) == (200, str(len(FILES["mm.js"])))


@pytest.mark.parametrize("path", ["mm.js", "chunks/a.js"])
def test_the_build_changes_with_any_script_and_with_its_name(copy: Path, sdk: BuiltSdk, path: str) -> None:
    (copy / "dist" / path).write_bytes(b"other")
    changed = read_built_sdk(copy)
    (copy / "dist" / path).rename(copy / "dist" / "renamed.js")
    renamed = read_built_sdk(copy)

    assert len({sdk.build, changed.build, renamed.build}) == 3


def test_the_build_does_not_change_with_what_pages_do_not_run(copy: Path, sdk: BuiltSdk) -> None:
    (copy / "dist" / "mm.js.map").write_bytes(b'{"other": 1}')

    assert read_built_sdk(copy).build == sdk.build


# --- gzip and tags ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("accepted", ["gzip", "br, gzip", "GZIP;q=0.5", "deflate,gzip ; q=1.0"])
def test_who_takes_gzip_gets_it(app: App, accepted: str) -> None:
    reply = get(app, "/sdk/mm.js", accept_encoding=accepted)

    assert (reply.headers["content-encoding"], reply.headers["vary"]) == ("gzip", "Accept-Encoding")
    assert gzip.decompress(reply.body) == FILES["mm.js"]
    assert len(reply.body) < len(FILES["mm.js"])


@pytest.mark.parametrize("accepted", ["", "br", "gzip;q=0", "gzip;q=0.000", "x-gzip-like"])
def test_who_does_not_take_gzip_gets_the_plain_bytes(app: App, accepted: str) -> None:
    reply = get(app, "/sdk/mm.js", accept_encoding=accepted)

    assert "content-encoding" not in reply.headers
    assert (reply.body, reply.headers["vary"]) == (FILES["mm.js"], "Accept-Encoding")


def test_what_gzip_would_not_make_smaller_is_sent_plain(app: App) -> None:
    assert get(app, "/sdk/chunks/a.js", accept_encoding="gzip").body == b"a"


@pytest.mark.parametrize("encoding", ["", "gzip"])
@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
def test_who_has_it_already_is_told_so(app: App, encoding: str, form: str) -> None:
    first = get(app, "/sdk/mm.js", accept_encoding=encoding)

    again = get(app, "/sdk/mm.js", accept_encoding=encoding, if_none_match=form.format(first.headers["etag"]))

    assert (again.status, again.body) == (304, b"")
    kept = ("etag", "cache-control", "vary")
    assert [again.headers[name] for name in kept] == [first.headers[name] for name in kept]


def test_a_tag_is_of_the_bytes_as_they_were_sent(app: App) -> None:
    plain, zipped = get(app, "/sdk/mm.js"), get(app, "/sdk/mm.js", accept_encoding="gzip")

    assert plain.headers["etag"] != zipped.headers["etag"]
    assert get(app, "/sdk/mm.js", if_none_match=zipped.headers["etag"]).status == 200


# --- the tag of a page ------------------------------------------------------------------------------------


def test_a_pages_tag_names_the_build_its_hash_the_key_and_the_host(sdk: BuiltSdk) -> None:
    integrity = base64.b64encode(hashlib.sha384(FILES["mm.js"]).digest()).decode()

    assert sdk.script_tag("https://events.example.com", "wk_1") == (
        f'<script defer src="https://events.example.com/sdk/{sdk.build}/mm.js" integrity="sha384-{integrity}" '
        'crossorigin="anonymous" data-key="wk_1" data-host="https://events.example.com"></script>'
    )


def test_a_key_can_not_end_its_attribute(sdk: BuiltSdk) -> None:
    tag = sdk.script_tag("https://events.example.com", '"><script>')

    assert tag is not None
    assert tag.count("<script") == 1


def test_where_nothing_is_built_there_is_nothing_to_serve(tmp_path: Path) -> None:
    none = read_built_sdk(tmp_path / "absent")

    assert (none.files, none.script_tag("https://events.example.com", "wk_1")) == ({}, None)


def test_the_checkouts_own_build_is_read_where_the_package_holds_none() -> None:
    sdk = read_built_sdk()

    assert sdk.files["mm.js"].body == (ROOT / "sdk-js" / "dist" / "mm.js").read_bytes()
    assert re.fullmatch(r"\d+\.\d+\.\d+-[0-9a-f]{12}", sdk.build)


# --- releases ---------------------------------------------------------------------------------------------

RELEASES = [folder for folder in (ROOT / "sdk-js" / "released").iterdir() if folder.is_dir()]


def test_a_released_build_holds_the_bytes_that_its_name_says_and_scripts_alone() -> None:
    for folder in RELEASES:
        assert folder.name.rpartition("-")[2] == hash_scripts(read_static_files(folder))
        assert {file.suffix for file in folder.rglob("*")} == {".js"}


def test_the_build_is_released_or_of_a_newer_version_than_all_that_are() -> None:
    """Pages pin what /sample shows them. The cure: ``node release.mjs`` in sdk-js, or a newer version."""
    build = read_built_sdk().build
    released = [folder.name for folder in RELEASES]

    assert build in released or all(_version(build) > _version(one) for one in released)
    assert json.loads((ROOT / "sdk-js" / "package.json").read_text())["version"] == build.rpartition("-")[0]


def _version(build: str) -> tuple[int, ...]:
    return tuple(map(int, build.rpartition("-")[0].split(".")))
