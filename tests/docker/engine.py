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
TOOLS = ("buildah", "mmdebstrap", "bwrap", "docker-registry")
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

    def run(self, *words: str, cwd: Path | None = None) -> str:
        """What it prints."""
        done = subprocess.run(
            ["buildah", *words], env=self.environ, cwd=cwd, capture_output=True, text=True, check=False
        )
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
        self.run("rm", "--all")
        self.run("rmi", "--all", "--force")
        shutil.rmtree(self._folder)


def debian() -> Path:
    """The root of a Debian, as a tar."""
    path = CACHE / f"{hashlib.sha256(' '.join(RECIPE).encode()).hexdigest()[:16]}.tar"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.tar")
        subprocess.run([*RECIPE, str(part), "http://deb.debian.org/debian"], check=True)
        part.replace(path)
    return path


def need_tools() -> None:
    """Skips the test where images can't be built."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        what = f"without {', '.join(missing)}" if missing else "by who isn't root"
        pytest.skip(f"{what}, no image can be built here: the tests of docker/ that need one are left out")


def as_lambda(root: Path, temp: Path) -> tuple[str, ...]:
    """What to put before a command, so that it runs in the image as Lambda would run it.

    Nothing but /tmp can be written, also not /dev/shm; the user is a number, and the machine's name is an address.
    """
    temp.chmod(0o1777)
    bwrap = ["bwrap", "--ro-bind", str(root), "/", "--bind", str(temp), "/tmp", "--proc", "/proc", "--dev", "/dev"]
    apart = [
        "--remount-ro",
        "/dev",
        "--unshare-pid",
        "--unshare-uts",
        "--hostname",
        "169.254.76.1",
        "--die-with-parent",
    ]
    nobody = ["setpriv", "--reuid=993", "--regid=990", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
    return (*bwrap, *apart, "--chdir", "/var/task", *nobody)


def environ_of(config: Mapping[str, Any]) -> dict[str, str]:
    return dict(variable.split("=", 1) for variable in config["Env"])
