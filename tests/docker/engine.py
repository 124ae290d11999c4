"""Container images without Docker: buildah, and a base of Debian's packages that stands in for Lambda's.

The base has Lambda's minor version of Python, no JVM, and what this machine trusts. It is kept for all checkouts in
~/.cache/manymetrics/images; all else is in one folder, and goes with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BASE = "localhost/base:stand-in"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "manymetrics" / "images"
RECIPE = ("mmdebstrap", "--variant=minbase", "--include=python3,python3-pip,ca-certificates", "trixie")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class Buildah:
    """An engine with a store of its own, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        storage = folder / "storage.conf"
        storage.write_text(f'[storage]\ndriver = ""\ngraphroot = "{folder}/store"\nrunroot = "{folder}/run"\n')
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "BUILDAH_ISOLATION": "chroot",  # no other way leads from inside a container
            "CONTAINERS_STORAGE_CONF": str(storage),
        }

    def run(self, *words: str) -> str:
        """What it prints."""
        done = subprocess.run(["buildah", *words], env=self.environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def make_base(self) -> None:
        """So that ``BASE`` is there."""
        container = self.run("from", "scratch")
        self.run("add", container, str(debian()), "/")
        self.run("copy", container, str(CERTIFICATES), str(CERTIFICATES))
        self.run("commit", "--quiet", "--rm", container, BASE)

    def described(self, image: str) -> dict[str, Any]:
        """Its configuration, and its layers' sizes in bytes under ``sizes``."""
        told = json.loads(self.run("inspect", "--type", "image", image))
        sizes = [layer["size"] for layer in json.loads(told["Manifest"])["layers"]]
        return {**told["Docker"]["config"], "architecture": told["OCIv1"]["architecture"], "sizes": sizes}

    @contextmanager
    def root_of(self, image: str) -> Iterator[Path]:
        """A folder that holds a container's root, with no changes yet."""
        container = self.run("from", "--pull-never", image)
        try:
            yield Path(self.run("mount", container))
        finally:
            self.run("rm", container)

    def close(self) -> None:
        """Leave no mount and no file."""
        subprocess.run(["buildah", "rm", "--all"], env=self.environ, capture_output=True, check=False)
        shutil.rmtree(self._folder)  # which tells of a mount that is left


def debian() -> Path:
    """The root of a Debian, as a tar."""
    path = CACHE / f"{hashlib.sha256(' '.join(RECIPE).encode()).hexdigest()[:16]}.tar"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.tar")
        subprocess.run([*RECIPE, str(part), "http://deb.debian.org/debian"], check=True)
        part.replace(path)
    return path


def need(*tools: str) -> None:
    """Skips the test where one of them is not there."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} on this machine (Debian has it): tests of docker/ are left out")


def need_engine() -> None:
    """Skips the test where no image can be built."""
    need("buildah", "mmdebstrap", "bwrap")
    if os.geteuid() != 0:
        pytest.skip("only root can build an image without Docker: tests of docker/ are left out")


def environ_of(config: Mapping[str, Any]) -> dict[str, str]:
    return dict(variable.split("=", 1) for variable in config["Env"])
