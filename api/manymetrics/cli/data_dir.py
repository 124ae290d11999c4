"""The option ``--data-dir``, the same for every command that works on the files of one machine."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

VARIABLE = "MANYMETRICS_DATA_DIR"


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=default_data_dir(),
        metavar="DIR",
        help=f"where the data is kept (default: {VARIABLE}, else .manymetrics)",
    )


def default_data_dir() -> Path:
    """The folder where the option doesn't name one."""
    return Path(os.environ.get(VARIABLE, ".manymetrics"))
