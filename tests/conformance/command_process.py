"""``python -m tests.conformance.command_process FOLDER ...``: the command, with its files in a folder of a test.

AWS and Terraform are those of the environment.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from sample.conformance.__main__ import main
from sample.conformance.world import World, make_world


def make_test_world(folder: Path, region: str) -> World:
    """The real one, but for where its files are, and for time, which only sleep moves."""
    world, slept = make_world(region), [0.0]

    def sleep(seconds: float) -> None:
        slept[0] += seconds

    return replace(
        world,
        folder=folder / "sample",
        build=folder / "build" / "aws-conformance",
        clock=lambda: slept[0],
        sleep=sleep,
        remade=lambda other: make_test_world(folder, other),
    )


if __name__ == "__main__":
    home = Path(sys.argv[1])
    sys.exit(main(sys.argv[2:], lambda region: make_test_world(home, region)))
