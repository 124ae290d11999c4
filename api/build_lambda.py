"""``make package``: build the API as zips for AWS Lambda, one per architecture.

    build/manymetrics-api-arm64.zip    build/manymetrics-api-x86_64.zip

    requirements-lambda.lock -> wheels for Lambda's Linux -> trim files never loaded -> .pyc -> zip

Needs no AWS account and runs no code of the packages, so any machine builds both. The .pyc are compiled with Lambda's
minor version of Python (others are ignored), and are never checked against their sources, whose times Lambda sets.
Names are sorted, and times and modes fixed: the build is reproducible.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements-lambda.lock"
PACKAGES = (ROOT / "contract" / "manymetrics", ROOT / "api" / "manymetrics_api")
PLATFORMS = {"arm64": "aarch64-manylinux2014", "x86_64": "x86_64-manylinux2014"}
MAX_ZIP_BYTES = 12_000_000
TASK_ROOT = "/var/task"  # where Lambda unpacks it, for tracebacks
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time in a zip

# Files that the function never loads, in the folder of its packages.
TRIMMED = (
    "bin",
    "**/*.pyi",
    "**/py.typed",
    "**/tests",
    "fastapi_offline/static/redoc.standalone.js",  # the app has no /redoc
    "zstandard/_cffi*.so",  # for PyPy
    "zstandard/backend_cffi.py",
)
# Kept of a package's metadata: licences, and what is read at run time: versions and entry points.
METADATA_KEPT = ("METADATA", "entry_points.txt", "licenses/**/*", "LICENSE*", "NOTICE*")


def main() -> None:
    """Build both, and print their paths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.13", help="the minor version of Lambda's Python (default: 3.13)")
    parser.add_argument("--out", type=Path, default=ROOT / "build", help="the folder for the zips (default: build)")
    arguments = parser.parse_args()
    python = find_python(arguments.python)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for architecture in PLATFORMS:
        path = arguments.out / f"manymetrics-api-{architecture}.zip"
        build(path, architecture, arguments.python, python)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB  sha256 {digest}")  # noqa: T201  # the command's result


def build(path: Path, architecture: str, version: str, python: Path) -> None:
    """Write the zip. ``python``: a local interpreter of that minor version."""
    with TemporaryDirectory(dir=path.parent, prefix="package-") as scratch:
        folder = Path(scratch)
        _install(folder, architecture, version)
        for package in PACKAGES:
            shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        _trim(folder)
        _compile(folder, python)
        _zip(folder, path)
    size = path.stat().st_size
    if size > MAX_ZIP_BYTES:
        raise SystemExit(f"{path} has {size} bytes, over the limit of {MAX_ZIP_BYTES}: trim it")


def find_python(version: str) -> Path:
    """Find an interpreter of that minor version: this one, one of uv or pyenv, or one that uv downloads."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for found in [_uv_python(version), *sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True)]:
        if found is not None and found.exists():
            return found
    subprocess.run([*_uv(), "python", "install", "--quiet", version], check=False)
    downloaded = _uv_python(version)
    if downloaded is None:
        raise SystemExit(f"compiling for Lambda needs Python {version} on this machine: put python{version} on PATH")
    return downloaded


def _uv_python(version: str) -> Path | None:
    done = subprocess.run([*_uv(), "python", "find", version], capture_output=True, text=True, check=False)
    return Path(done.stdout.strip()) if done.returncode == 0 else None


def _uv() -> list[str]:
    return [sys.executable, "-m", "uv"]


def _install(folder: Path, architecture: str, version: str) -> None:
    wheels = ["--require-hashes", "--only-binary", ":all:", "--no-deps", "--link-mode", "copy"]
    target = ["--python-platform", PLATFORMS[architecture], "--python-version", version, "--target", str(folder)]
    subprocess.run([*_uv(), "pip", "install", "--quiet", *wheels, *target, "-r", str(LOCK)], check=True)


def _trim(folder: Path) -> None:
    for pattern in TRIMMED:
        for path in list(folder.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    for info in folder.glob("*.dist-info"):
        kept = {path for pattern in METADATA_KEPT for path in info.glob(pattern)}
        for path in info.rglob("*"):
            if path.is_file() and path not in kept:
                path.unlink()
    (folder / ".lock").unlink(missing_ok=True)  # uv's own
    for library in folder.rglob("*.so"):
        library.write_bytes(stripped(library.read_bytes()))


def stripped(elf: bytes) -> bytes:
    """Remove the sections of a 64-bit little-endian library: debug information and symbols that only tools read.

    Loaded data is in segments, before them. The sections would be two thirds of the zip, mostly zstandard's.
    """
    if elf[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    [first] = struct.unpack_from("<Q", elf, 0x20)
    size, count = struct.unpack_from("<HH", elf, 0x36)
    segments = (struct.unpack_from("<IIQQQQQQ", elf, first + number * size) for number in range(count))
    end = max(first + count * size, *(offset + length for _, _, offset, _, _, length, _, _ in segments))
    kept = bytearray(elf[:end])
    struct.pack_into("<Q", kept, 0x28, 0)  # offset of the section headers: none
    struct.pack_into("<HHH", kept, 0x3A, 0, 0, 0)
    return bytes(kept)


def _compile(folder: Path, python: Path) -> None:
    paths = ["-s", str(folder), "-p", TASK_ROOT, str(folder)]
    command = [str(python), "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", *paths]
    subprocess.run(command, check=True, env={"PYTHONHASHSEED": "0"})


def _zip(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in _files(folder):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, for its modes
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, file.read_bytes())


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.as_posix())


if __name__ == "__main__":
    main()
