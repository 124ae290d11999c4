"""The script that builds and pushes: with buildah and a real registry, and with a docker that only keeps its words."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import pytest

import build_image
from tests.conftest import ROOT
from tests.docker.engine import Buildah, need
from tests.live_server import eventually
from tests.local_http import serving
from tests.ports import free_port

USER, PASSWORD = "AWS", "a word for tests"
HASHED = "$2b$04$nDWJoEoUhOVaiqjhUaoJO.Xze/vkvhyYexJMIwvoQBbONYSLq7qnK"  # bcrypt, which the registry wants
DOCKERFILE = """\
FROM scratch AS light
COPY pyproject.toml /
ARG VERSION
ARG REVISION
ARG NOTE=none
LABEL version=$VERSION revision=$REVISION note=$NOTE
FROM light AS spark
COPY docker/build_image.py /
"""


@dataclass(frozen=True, slots=True)
class Checkout:
    """The script in a folder of its own, with a Dockerfile that takes no time. ``programs`` is all of its PATH."""

    folder: Path
    programs: Path
    environ: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, self.folder / "docker" / "build_image.py", *words],
            env={"PATH": str(self.programs), **self.environ, **environ},
            capture_output=True,
            text=True,
            check=False,
        )

    def add_program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}")
        path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    folder, programs = tmp_path / "checkout", tmp_path / "programs"
    (folder / "docker").mkdir(parents=True)
    programs.mkdir()
    shutil.copy(ROOT / "docker" / "build_image.py", folder / "docker")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "docker" / "processor.Dockerfile").write_text(DOCKERFILE)
    return Checkout(folder, programs)


@pytest.fixture
def with_buildah(checkout: Checkout, buildah: Buildah, tmp_path: Path) -> Checkout:
    """Beside a docker without a daemon, which is common. What buildah is told, and its environment, are in ``told``."""
    program, told, temp = shutil.which("buildah"), tmp_path / "told", tmp_path / "temp"
    temp.mkdir()
    path = buildah.environ["PATH"]
    checkout.add_program("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    checkout.add_program("buildah", f'export PATH={path}\necho "$@" >>{told}\nenv >>{told}\nexec {program} "$@"')
    checkout.environ.update({**buildah.environ, "PATH": str(checkout.programs), "TMPDIR": str(temp)})
    return checkout


@contextmanager
def registry(folder: Path, *, closed: bool) -> Iterator[str]:
    """Debian's docker-registry: its address. A closed one wants a password."""
    need("docker-registry")
    folder.mkdir()
    port = free_port()
    settings: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if closed:
        (folder / "passwords").write_text(f"{USER}:{HASHED}\n")
        settings["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "passwords")}}
    (folder / "config.json").write_text(json.dumps(settings))  # YAML, too
    log = (folder / "log").open("wb")
    with log, subprocess.Popen(["docker-registry", "serve", folder / "config.json"], stdout=log, stderr=log) as process:
        try:
            eventually(lambda: _answers(port))
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()


def _answers(port: int) -> bool | None:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v2/").status_code in {200, 401} or None
    except httpx.TransportError:
        return None


def manifest(address: str, name: str) -> dict[str, Any]:
    accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
    repository, tag = name.split(":")
    url = f"http://{address}/v2/{repository}/manifests/{tag}"
    answer = httpx.get(url, headers=accept, auth=(USER, PASSWORD)).raise_for_status()
    return {**answer.json(), "digest": answer.headers["Docker-Content-Digest"]}


@pytest.mark.image
@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_it_pushes_once_and_says_the_digest(with_buildah: Checkout, tmp_path: Path, closed: bool) -> None:
    told, temp = tmp_path / "told", tmp_path / "temp"
    secrets = {"REGISTRY_USER": USER, "REGISTRY_PASSWORD": PASSWORD} if closed else {}

    with registry(tmp_path / "registry", closed=closed) as address:
        image = f"{address}/some/shop:1.0"
        first = with_buildah.run(image, "--push", "--build-arg", "NOTE=mine", **secrets)
        pushed = manifest(address, "some/shop:1.0")
        words = told.read_text()
        again = with_buildah.run(image, "--push", PATH="", **secrets)  # there is nothing that could build
        another = with_buildah.run(f"{address}/some/shop:2.0", "--engine", "arrow", "--push", **secrets)
        light = manifest(address, "some/shop:2.0")

    assert (first.returncode, again.returncode, another.returncode) == (0, 0, 0), first.stderr + another.stderr
    assert first.stdout == again.stdout == pushed["digest"] + "\n"
    assert another.stdout == light["digest"] + "\n" != first.stdout
    assert pushed["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert (len(pushed["layers"]), len(light["layers"])) == (2, 1)
    assert "is already in the registry" in again.stderr
    assert PASSWORD not in words + first.stderr + again.stderr
    assert "REGISTRY_PASSWORD" not in words
    assert list(temp.iterdir()) == []


@pytest.mark.image
def test_wrong_credentials_are_told_before_anything_is_built(checkout: Checkout, tmp_path: Path) -> None:
    with registry(tmp_path / "registry", closed=True) as address:
        image = f"{address}/shop:1.0"
        none = checkout.run(image, "--push")
        wrong = checkout.run(image, "--push", REGISTRY_USER=USER, REGISTRY_PASSWORD="another")

    assert (none.returncode, wrong.returncode) == (1, 1)
    assert none.stderr == f"build_image: {address} requires REGISTRY_USER and REGISTRY_PASSWORD: set both\n"
    assert "they are wrong or expired" in wrong.stderr


@pytest.mark.image
def test_an_image_that_is_not_pushed_is_named_by_its_id_and_says_its_source(
    with_buildah: Checkout, buildah: Buildah
) -> None:
    done = with_buildah.run("localhost/shop:1.0", "--build-arg", "NOTE=mine")

    labels = buildah.described("localhost/shop:1.0")["Labels"]
    assert done.stdout.strip() == json.loads(buildah.run("inspect", "localhost/shop:1.0"))["FromImageID"]
    assert (labels["version"], labels["revision"], labels["note"]) == (
        metadata.version("manymetrics"),
        "unknown",
        "mine",
    )


@pytest.mark.image
def test_programs_that_this_machine_cannot_run_are_told_with_the_cure(with_buildah: Checkout) -> None:
    program = bytearray(Path(shutil.which("true") or "").read_bytes())
    program[18:20] = (0xF3).to_bytes(2, "little")  # e_machine: RISC-V
    (with_buildah.folder / "true").write_bytes(program)
    (with_buildah.folder / "true").chmod(0o755)
    file = with_buildah.folder / "docker" / "processor.Dockerfile"
    file.write_text('FROM scratch AS spark\nCOPY true /\nRUN ["/true"]\n')

    done = with_buildah.run("localhost/shop:1.0", "--architecture", "arm64")

    assert done.returncode == 1
    assert "this machine can't run programs for arm64" in done.stderr
    assert "qemu-user-static" in done.stderr


def test_without_an_engine_one_error_says_what_to_install(checkout: Checkout) -> None:
    checkout.add_program("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")

    done = checkout.run("localhost/shop:1.0")

    assert done.returncode == 1
    assert done.stderr == (
        "build_image: no working container engine. Start Docker with buildx, or install podman or buildah.\n"
        "  `docker info` failed: Cannot connect to the Docker daemon\n"
        "  podman is not installed\n"
        "  buildah is not installed\n"
    )


def test_a_docker_without_buildx_is_none(checkout: Checkout) -> None:
    checkout.add_program("docker", '[ "$1" = info ] || { echo "unknown command: docker $1" >&2; exit 1; }')

    done = checkout.run("localhost/shop:1.0")

    assert done.returncode == 1
    assert "\n  `docker buildx version` failed: unknown command: docker buildx\n" in done.stderr


def test_the_revision_is_the_commit_and_tells_of_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        author = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
        done = subprocess.run(["git", "-C", tmp_path, *author, *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    monkeypatch.setattr(build_image, "ROOT", tmp_path)
    none = build_image.revision()
    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "--message", "One")
    clean = build_image.revision()
    (tmp_path / "a").write_text("2")

    assert (none, clean, build_image.revision()) == ("unknown", head := git("rev-parse", "HEAD"), f"{head}-dirty")


def test_docker_makes_one_manifest_for_one_platform_and_keeps_its_context(checkout: Checkout, tmp_path: Path) -> None:
    home, pushed = tmp_path / "home", tmp_path / "pushed"
    (home / ".docker" / "contexts").mkdir(parents=True)
    known = {"currentContext": "mine", "credsStore": "desktop", "auths": {"elsewhere": {"auth": "eDp5"}}}
    (home / ".docker" / "config.json").write_text(json.dumps(known))
    checkout.add_program(
        "docker",
        f'printf "%s\\n" "$*" >>{tmp_path}/calls\n'
        f'[ "$1" = push ] && {shutil.which("cp")} -rP "$DOCKER_CONFIG" {pushed} || true\n',
    )

    with serving(_registry_that_has_it_once(pushed)) as server:
        image = f"127.0.0.1:{server.server_port}/shop:1.0"
        secrets = {"REGISTRY_USER": USER, "REGISTRY_PASSWORD": PASSWORD}
        done = checkout.run(image, "--architecture", "arm64", "--push", HOME=str(home), **secrets)

    assert done.returncode == 0, done.stderr
    info, version, build, push = (tmp_path / "calls").read_text().splitlines()
    assert (info, version, push) == ("info", "buildx version", f"push {image}")
    assert build.startswith("buildx build --load --provenance=false --platform linux/arm64 --target spark --build-arg ")
    assert build.endswith(f"--file {checkout.folder}/docker/processor.Dockerfile --tag {image} {checkout.folder}")
    assert json.loads((pushed / "config.json").read_text()) == {
        "currentContext": "mine",
        "auths": {image.partition("/")[0]: {"auth": "QVdTOmEgd29yZCBmb3IgdGVzdHM="}},
    }
    assert (pushed / "contexts").readlink() == home / ".docker" / "contexts"
    assert (home / ".docker" / "config.json").read_text() == json.dumps(known)


def _registry_that_has_it_once(pushed: Path) -> type[BaseHTTPRequestHandler]:
    class Registry(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # named by http.server
            self.send_response(200 if pushed.exists() else 404)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            return

    return Registry


@pytest.mark.parametrize("image", ["shop", "registry.example.com/shop", "shop:1.0", "registry.example.com/Shop:1.0"])
def test_an_image_without_registry_or_tag_is_refused(checkout: Checkout, image: str) -> None:
    done = checkout.run(image)

    assert done.returncode == 2
    assert "is not registry/repository:tag" in done.stderr


def test_a_registry_out_of_reach_is_told(checkout: Checkout) -> None:
    done = checkout.run(f"127.0.0.1:{free_port()}/shop:1.0", "--push")

    assert (done.returncode, "can't be reached" in done.stderr) == (1, True)
