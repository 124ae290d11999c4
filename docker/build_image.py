"""Build the processor's image for AWS Lambda, and push it.

    python3 docker/build_image.py 123456789012.dkr.ecr.eu-west-1.amazonaws.com/shop:1.0 --push

    docker, podman or buildah, the first that works -> one image for one architecture -> the registry

The only line on stdout is the image's digest in the registry; without --push, its id. Needs Python 3.11 and one of the
engines. With --push it signs in as REGISTRY_USER with REGISTRY_PASSWORD (for ECR: AWS, and the output of
`aws ecr get-login-password`), which are never in arguments or permanent files. If the registry has the tag, it stays
and nothing is built: its image may be in use, and an earlier run may have been interrupted after its push.

Lambda accepts a single manifest, not a list, so the platform is set and the image has no provenance.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "docker" / "processor.Dockerfile"
TARGETS = {"spark": "spark", "arrow": "light"}
PLATFORMS = {"x86_64": "linux/amd64", "arm64": "linux/arm64"}
MANIFESTS = (  # types that a tag may refer to
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
)


class BuildError(Exception):
    """The message has the fix."""


@dataclass(frozen=True, slots=True)
class Reference:
    """``registry/repository:tag``."""

    registry: str
    repository: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        found = re.fullmatch(r"([\w-]+(?:[.:][\w.:-]+)?)/([a-z0-9._/-]+):([\w][\w.-]*)", text)
        if found is None:
            raise argparse.ArgumentTypeError(f"{text!r} is not registry/repository:tag")
        return cls(*found.groups())

    @property
    def is_local(self) -> bool:
        """Whether it is a registry on this machine, without TLS."""
        return self.registry.partition(":")[0] in {"localhost", "127.0.0.1"}

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}:{self.tag}"


@dataclass(frozen=True, slots=True)
class Engine:
    """A program, commands that check whether its engine works, and its arguments."""

    name: str
    probes: tuple[tuple[str, ...], ...]
    build: tuple[str, ...]
    plain_http: tuple[str, ...]


ENGINES = (
    # docker without a daemon or without buildx is common. For registries on this machine it doesn't use TLS by default.
    Engine("docker", (("info",), ("buildx", "version")), ("buildx", "build", "--load", "--provenance=false"), ()),
    Engine("podman", (("info",),), ("build", "--format", "docker"), ("--tls-verify=false",)),
    Engine("buildah", (("info",),), ("build", "--format", "docker", "--layers"), ("--tls-verify=false",)),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, push, and print the image's digest or id."""
    given = _parser().parse_args(arguments)
    try:
        say(make(given, dict(os.environ)))
    except BuildError as error:
        raise SystemExit(f"build_image: {error}") from None


def _parser() -> argparse.ArgumentParser:
    here = "arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", metavar="IMAGE", type=Reference.parse, help="registry/repository:tag")
    parser.add_argument("--engine", choices=TARGETS, default="spark", help="engine for commits (default: spark)")
    parser.add_argument("--architecture", choices=PLATFORMS, default=here, help=f"the function's (default: {here})")
    parser.add_argument("--push", action="store_true", help="push the image to the registry")
    parser.add_argument(
        "--build-arg", action="append", default=[], metavar="NAME=VALUE", help="argument of the Dockerfile: BASE, ..."
    )
    return parser


def make(given: argparse.Namespace, environ: dict[str, str]) -> str:
    """Return the resulting image's digest or id. Raises BuildError."""
    user, password = environ.pop("REGISTRY_USER", ""), environ.pop("REGISTRY_PASSWORD", "")
    reference: Reference = given.image
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
    if given.push:  # checked first, so that wrong credentials fail before minutes of work
        there = digest_in_registry(reference, credentials)
        if there:
            tell(f"{reference} is already in the registry, and stays unchanged")
            return there
    engine = find_engine(environ)
    tell(f"Building {reference} with {engine.name}")
    build(engine, given, environ)
    if not given.push:
        return _output([engine.name, "inspect", *_ID[engine.name], str(reference)], environ)
    tell(f"Pushing {reference}")
    with signed_in(reference, credentials, environ) as may_push:
        plain = engine.plain_http if reference.is_local else ()
        run([engine.name, "push", *plain, str(reference)], may_push)
    pushed = digest_in_registry(reference, credentials)
    if pushed is None:
        raise BuildError(f"{engine.name} pushed {reference}, but the registry does not have it: see its output above")
    return pushed


_ID = {
    "docker": ("--type", "image", "--format", "{{.Id}}"),
    "podman": ("--type", "image", "--format", "{{.Id}}"),
    "buildah": ("--type", "image", "--format", "{{.FromImageID}}"),
}


def find_engine(environ: Mapping[str, str]) -> Engine:
    """Return the first one that works. Raises BuildError."""
    said = []
    for engine in ENGINES:
        if shutil.which(engine.name, path=environ.get("PATH")) is None:
            said.append(f"{engine.name} is not installed")
            continue
        for probe in engine.probes:
            done = subprocess.run([engine.name, *probe], env=environ, capture_output=True, text=True, check=False)
            if done.returncode:
                last = (done.stderr or done.stdout).strip().splitlines()[-1:]
                said.append(f"`{engine.name} {' '.join(probe)}` failed: {' '.join(last)}")
                break
        else:
            return engine
    raise BuildError(
        "no working container engine. Start Docker with buildx, or install podman or buildah.\n  " + "\n  ".join(said)
    )


def build(engine: Engine, given: argparse.Namespace, environ: Mapping[str, str]) -> None:
    arguments = [f"VERSION={version()}", f"REVISION={revision()}", *given.build_arg]
    target = ["--platform", PLATFORMS[given.architecture], "--target", TARGETS[given.engine]]
    words = [word for argument in arguments for word in ("--build-arg", argument)]
    what = ["--file", str(DOCKERFILE), "--tag", str(given.image), str(ROOT)]
    try:
        run([engine.name, *engine.build, *target, *words, *what], environ)
    except BuildError as error:
        if "exec format error" not in str(error):
            raise
        raise BuildError(
            f"this machine can't run programs for {given.architecture}. Build on one that can, install QEMU here "
            "(Debian: qemu-user-static, binfmt-support; Docker: docker run --privileged --rm tonistiigi/binfmt "
            "--install all), or use another architecture for the function."
        ) from error


def version() -> str:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def revision() -> str:
    """Return the commit of this checkout; ``unknown`` outside of a repository."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--match="]
    try:
        done = subprocess.run(git, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


@contextmanager
def signed_in(reference: Reference, credentials: str, environ: dict[str, str]) -> Iterator[dict[str, str]]:
    """Provide the environment in which an engine may push. Its credentials file is deleted afterwards."""
    if not credentials:
        yield environ
        return
    with TemporaryDirectory(prefix="registry-") as folder:  # readable only by this user
        home = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME", "/"), ".docker"))
        config = {}
        for entry in home.iterdir() if home.is_dir() else ():
            if entry.name == "config.json":  # contexts and plugins are kept, other credentials are not
                known = json.loads(entry.read_text())
                config = {key: known[key] for key in known if key not in {"auths", "credsStore", "credHelpers"}}
            else:
                Path(folder, entry.name).symlink_to(entry.absolute())
        file = Path(folder, "config.json")
        file.write_text(json.dumps({**config, "auths": {reference.registry: {"auth": credentials}}}))
        yield {**environ, "DOCKER_CONFIG": folder, "REGISTRY_AUTH_FILE": str(file)}


def digest_in_registry(reference: Reference, credentials: str) -> str | None:
    """Return the tag's digest; None if there is no such tag."""
    scheme = "http" if reference.is_local else "https"
    url = f"{scheme}://{reference.registry}/v2/{reference.repository}/manifests/{reference.tag}"
    headers = {"Accept": ", ".join(MANIFESTS)}
    if credentials:
        headers["Authorization"] = f"Basic {credentials}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:  # noqa: S310  # one of two
            return f"sha256:{hashlib.sha256(answer.read()).hexdigest()}"
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 404:
                return None
            if error.code in {401, 403}:
                cure = "they are wrong or expired" if credentials else "set both"
                raise BuildError(f"{reference.registry} requires REGISTRY_USER and REGISTRY_PASSWORD: {cure}") from None
            raise BuildError(f"{url} returned {error.code}") from None
    except OSError as error:
        raise BuildError(f"{reference.registry} can't be reached: {error}") from None


def run(command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Run a command and show its output live. Raises BuildError with the end of the output."""
    said: list[str] = []
    with subprocess.Popen(
        command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101  # it is a pipe
        for line in process.stdout:
            tell(line.rstrip())
            said = [*said[-50:], line]
    if process.returncode:
        raise BuildError(f"{' '.join(command[:3])} failed:\n{''.join(said)}")


def _output(command: Sequence[str], environ: Mapping[str, str]) -> str:
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout.strip()


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # progress


def say(line: str) -> None:
    print(line)  # noqa: T201  # the command's result


if __name__ == "__main__":
    main()
