"""Set up the schema of the provider's version 6: ``python -m tests.infra.fetch_schema .venv/schema NPM...``.

Of a package of 2,200 types, which npm fetches and keeps in its cache, it takes those that our Terraform uses. NPM is
the command that starts npm. The package must have the hash that ``npm/package-lock.json`` says.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.infra.provider_schema import TYPES, folder_of
from tests.infra.terraform import MODULE, ROOT

LOCK = Path(__file__).parent / "npm" / "package-lock.json"
PACKAGE = "@cdktf/provider-aws"
ALSO = ("provider", "aws_batch_compute_environment")  # the second lost an argument, which a test writes
FOLDERS = (MODULE, *sorted((MODULE / "examples").iterdir()), ROOT / "sample")
_CLASSES = re.compile(r"package/lib/([^/]+)/index\.js")


def main(home: Path, npm: Sequence[str]) -> None:
    if is_there(home):
        return
    with tempfile.TemporaryDirectory(dir=home.parent) as folder:
        archive = fetch(Path(folder), npm)
        unpacked = Path(folder) / home.name
        unpack(archive, unpacked)
        shutil.copy(LOCK, unpacked)
        shutil.rmtree(home, ignore_errors=True)
        unpacked.rename(home)  # whole or not at all


def is_there(home: Path) -> bool:
    """Whether it is of this package, and has every type."""
    lock = home / LOCK.name
    same = lock.is_file() and lock.read_bytes() == LOCK.read_bytes()
    return same and all((home / f"{type_}.js").is_file() for type_ in used())


def fetch(folder: Path, npm: Sequence[str]) -> Path:
    """The package as npm has it, if it is the one that was locked."""
    locked: Mapping[str, str] = json.loads(LOCK.read_text())["packages"][f"node_modules/{PACKAGE}"]
    how = ("--loglevel=error", "--ignore-scripts", "--prefer-offline", "--fetch-retry-mintimeout=1000")
    what = (f"{PACKAGE}@{locked['version']}", f"--pack-destination={folder}")
    if subprocess.run([*npm, "pack", *how, *what], stdout=subprocess.DEVNULL, check=False).returncode:
        sys.exit(f"npm could not fetch {what[0]}")
    [archive] = folder.glob("*.tgz")
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    if locked["integrity"] != f"sha512-{base64.b64encode(digest).decode()}":
        sys.exit(f"{what[0]} has not the hash that {LOCK} says")
    return archive


def unpack(archive: Path, home: Path) -> None:
    """The classes of the types in use, without the map of their sources, which is most of them; and what there is."""
    home.mkdir()
    wanted = {folder_of(type_): type_ for type_ in used()}
    there = []
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            if found := _CLASSES.fullmatch(member.name):
                there.append(found[1])
                if (type_ := wanted.get(found[1])) and (file := tar.extractfile(member)):
                    code, _, _ = file.read().partition(b"//# sourceMappingURL=")
                    (home / f"{type_}.js").write_bytes(code)
    (home / TYPES).write_text("\n".join(sorted(map(_type_of, there))) + "\n")


def used() -> set[str]:
    """The types that our Terraform names, as in an address."""
    text = "\n".join(source.read_text() for folder in FOLDERS for source in folder.glob("*.tf"))
    named = re.findall(r'(?m)^(resource|data) "(aws_\w+)"', text)
    return {*ALSO, *(type_ if kind == "resource" else f"data.{type_}" for kind, type_ in named)}


def _type_of(folder: str) -> str:
    name = folder.replace("-", "_")
    if name == "provider":
        return name
    return name.replace("data_aws_", "data.aws_", 1) if name.startswith("data_aws_") else f"aws_{name}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
