"""What is committed is as .editorconfig tells editors to write it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.conftest import ROOT

_WRITTEN = (
    ".py",
    ".ts",
    ".tsx",
    ".mjs",
    ".md",
    ".tf",
    ".hcl",
    ".toml",
    ".yml",
    ".yaml",
    ".sql",
    ".sh",
    "Makefile",
    "run",
)
_MADE = ("sdk-js/dist/", "sdk-js/released/", "sdk-js/api/", "tests/events/")  # by programs, or broken on purpose


def faults(text: str, *, tabs: bool = False) -> list[str]:
    """What .editorconfig says otherwise."""
    found = {
        "a line ends with CR": "\r" in text,
        "blanks at the end of a line": bool(re.search(r"[ \t]$", text, re.MULTILINE)),
        "the last line does not end": bool(text) and not text.endswith("\n"),
        "indented by tabs": not tabs and bool(re.search(r"^ *\t", text, re.MULTILINE)),
    }
    return [fault for fault, is_there in found.items() if is_there]


def test_every_file_that_people_write_is_so() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split(
        "\n"
    )
    written = [Path(name) for name in listed if name.endswith(_WRITTEN) and not name.startswith(_MADE)]
    there = [file for file in written if (ROOT / file).is_file()]

    assert len(there) > 300
    assert {
        str(file): found for file in there if (found := faults((ROOT / file).read_text(), tabs=file.name == "Makefile"))
    } == {}


def test_each_fault_is_found() -> None:
    assert faults("fine\n") == []
    assert faults("cr\r\n") == ["a line ends with CR"]
    assert faults("blank \n") == ["blanks at the end of a line"]
    assert faults("no end") == ["the last line does not end"]
    assert faults("\ttab\n") == ["indented by tabs"]
    assert faults("\ttab\n", tabs=True) == []
