"""Input made to break parsers, from the folder of real input: JSONTestSuite, and the Big List of Naughty Strings."""

import json
import tarfile
from pathlib import Path


def read_json_test_suite(shared_data: Path) -> dict[str, bytes]:
    """Each file of the suite by its name: y_ must be taken, n_ refused, i_ is free."""
    with tarfile.open(shared_data / "torture" / "json-test-suite.tar.gz") as archive:
        members = [member for member in archive.getmembers() if member.name.endswith(".json")]
        return {Path(member.name).name: _content(archive, member) for member in members}


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file is not None else b""


def read_naughty_strings(shared_data: Path) -> list[str]:
    """Strings that break things."""
    strings: list[str] = json.loads((shared_data / "torture" / "naughty-strings.json").read_text(encoding="utf-8"))
    return strings
