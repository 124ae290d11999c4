"""Schemathesis against the running server, from its own /openapi.json. schemathesis.toml rules out what it says."""

import os
import subprocess
import sys
from pathlib import Path

from tests.live_server import LiveServer

HERE = Path(__file__).parent


def test_what_the_server_answers_is_what_its_description_says(server: LiveServer, tmp_path: Path) -> None:
    schemathesis: list[Path | str] = [
        Path(sys.executable).parent / "schemathesis",
        "--config-file",
        HERE / "schemathesis.toml",
        "run",
    ]
    options = ["--auth", "wk_shop:", "--seed", "1", "--max-examples", "5"]
    # The same code and models under other names, each of which test_routes.py asks: four times the time for nothing.
    options += ["--exclude-tag", "events, other spellings"]

    run = subprocess.run(
        [*schemathesis, f"{server.url}/openapi.json", *options, "--phases", "examples,coverage,fuzzing"],
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert run.returncode == 0, run.stdout[-6_000:] + run.stderr[-1_000:]
    assert server.alive()
