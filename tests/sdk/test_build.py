"""What is built is what stands in the repository, small, and harmless where there is no browser."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.sdk.conftest import NODE, SDK

pytestmark = pytest.mark.browser

MOST_BYTES = 5_000  # compressed with brotli, as servers send it


@pytest.fixture(autouse=True)
def tools() -> None:
    if not NODE.is_file() or not (SDK / "node_modules").is_dir():
        pytest.skip("no Node, or no sdk-js/node_modules (make sdk)")


def node(*arguments: str) -> str:
    done = subprocess.run([NODE, *arguments], cwd=SDK, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_built_files_are_those_of_a_fresh_build(tmp_path: Path) -> None:
    node("build.mjs", str(tmp_path))

    fresh, kept = ({file.name: file.read_text() for file in folder.iterdir()} for folder in (tmp_path, SDK / "dist"))
    assert {name: text for name, text in fresh.items() if not name.endswith(".map")} == {
        name: text for name, text in kept.items() if not name.endswith(".map")
    }


@pytest.mark.parametrize("name", ["mm.js", "index.js"])
def test_the_core_is_small(name: str) -> None:
    size = node("-p", f"zlib.brotliCompressSync(fs.readFileSync('dist/{name}')).length")

    assert int(size) <= MOST_BYTES


def test_on_a_server_it_does_nothing() -> None:
    code = """import { createClient } from "./dist/index.js";
        const client = createClient({ key: "k", host: "https://example.com" });
        client.track("A"); client.identify("u"); client.reset(); await client.flush(); console.log("fine")"""

    assert node("--input-type=module", "-e", code) == "fine\n"
