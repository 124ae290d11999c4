"""Terraform over a copy of the module, with no AWS account and no network.

Where there is no terraform or no copy of its AWS provider, the tests that need it skip, and CI fails.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import pytest

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "infra"
IGNORED = shutil.ignore_patterns(".terraform*", "*.tfstate*", "__pycache__")
PROVIDER = Path("registry.terraform.io/hashicorp/aws")
OLDER_SDK = "0.0.9-0123456789ab"  # a released build beside that of dist
_VERSION = re.compile(r"(?:^|_)(\d+\.\d+\.\d+)(?:$|_)")
_TAKE = """\
terraform {
  required_providers {
    aws = { source = "hashicorp/aws", version = "%s" }
  }
}
"""
VALID = "Success! The configuration is valid.\n\n"  # and no warning: nothing that is used is deprecated


def provider_mirror() -> Path | None:
    """A folder that holds the AWS provider: named, where Terraform itself looks, or an add-on of this machine."""
    named = os.environ.get("TF_PLUGIN_MIRROR")
    places = [
        *([Path(named)] if named else []),
        Path("~/.terraform.d/plugins").expanduser(),
        Path("/usr/local/share/terraform/plugins"),
        *sorted(Path("/opt").glob("*")),
    ]
    return next((place for place in places if (place / PROVIDER).is_dir()), None)


def provider_versions(mirror: Path | None) -> list[str]:
    """The newest version of each major version that a mirror has and the module takes, the oldest first.

    A mirror holds folders by version, or zips as `terraform providers mirror` writes them.
    """
    if mirror is None:
        return []
    [least, below] = re.findall(r'version = ">= ([\d.]+), < ([\d.]+)"', (MODULE / "versions.tf").read_text())[0]
    names = (found[1] for path in (mirror / PROVIDER).iterdir() if (found := _VERSION.search(path.name)))
    numbers = sorted(number for number in set(map(_numbers, names)) if _numbers(least) <= number < _numbers(below))
    newest = {number[0]: number for number in numbers}
    return [".".join(map(str, number)) for number in newest.values()]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


# What a fixture is parametrised with. Where there is no mirror its tests skip, and say so.
EACH_VERSION: list[str | None] = [*provider_versions(provider_mirror())] or [None]


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource as a run's state has it."""

    address: str
    type: str
    values: dict[str, Any]

    def but(self, **values: object) -> Self:
        """The same with other values: a variant that is broken."""
        return type(self)(self.address, self.type, {**self.values, **values})


@dataclass(slots=True)
class Tested:
    """What `terraform test` said: each run's status, what was wrong, and the states of those that applied."""

    runs: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    states: dict[str, list[Resource]] = field(default_factory=dict)


class Terraform:
    """A copy of the module in ``folder``, beside what it reads of the repository. Nothing is written to the tree.

    Ready to use, with the provider of the mirror. ``root``: the folder that it runs in, which may be another that uses
    the module; what that needs beside the module is there already. ``aws``: the environment in which an AWS is reached.
    ``override``: what the module is told otherwise, as a file of it. ``version``: the provider's; None takes the oldest
    that the mirror has, which is the one that the emulations of AWS were taught.
    """

    def __init__(
        self,
        folder: Path,
        root: str = "infra",
        aws: Mapping[str, str] | None = None,
        override: str = "",
        version: str | None = None,
    ) -> None:
        program, mirror = shutil.which("terraform"), provider_mirror()
        versions = provider_versions(mirror)
        if program is None:
            pytest.skip("no terraform on this machine: the tests of infra/ that need it are left out")
        if not versions:
            pytest.skip(f"no {PROVIDER} in $TF_PLUGIN_MIRROR or where Terraform looks: tests of infra/ are left out")
        self.module = folder / root
        shutil.copytree(MODULE, folder / "infra", ignore=IGNORED)
        if override:
            (folder / "infra" / "tests_override.tf").write_text(override)
        for built in ("dist", "released"):
            shutil.copytree(ROOT / "sdk-js" / built, folder / "sdk-js" / built)
        older = folder / "sdk-js" / "released" / OLDER_SDK
        older.mkdir()
        (older / "mm.js").write_text("// An older release.\n")
        shutil.copy(ROOT / "sdk-js" / "package.json", folder / "sdk-js")
        self._program, self._aws = program, dict(aws or {})
        (self.module / "provider_override.tf").write_text(_TAKE % (version or versions[0]))
        done = self.run("init", "-backend=false", "-input=false", "-no-color", f"-plugin-dir={mirror}")
        assert done.returncode == 0, done.stderr

    def copy(self, folder: Path) -> Self:
        """One more, that may be broken."""
        shutil.copytree(self.module.parent, folder, symlinks=True, dirs_exist_ok=True)
        another = object.__new__(type(self))
        another.module = folder / self.module.name
        another._program, another._aws = self._program, self._aws
        return another

    def run(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """One command, in the module, given some input. No credentials and no settings of this machine's reach it."""
        environ = _environ() | {"TF_CLI_CONFIG_FILE": os.devnull, "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}
        if arguments[0] in _ASK_A_PROVIDER:
            folder = self.module if self._aws else None  # in which it looks for the files that it is to upload
            environ["TF_REATTACH_PROVIDERS"] = _served(self._provider().resolve(), folder, tuple(self._aws.items()))
        environ |= self._aws
        return subprocess.run(
            [self._program, *arguments],
            cwd=self.module,
            env=environ,
            input=given,
            text=True,
            capture_output=True,
            check=False,
        )

    def version(self) -> str:
        """The provider's that was installed."""
        return self._provider().parents[1].name

    def _provider(self) -> Path:
        [program] = (self.module / ".terraform" / "providers" / PROVIDER).glob("*/*/terraform-provider-aws_*")
        return program

    def test(self, file: str, *, states: bool = False) -> Tested:
        """The runs of one file of tests. ``states``: with what they applied, which takes longer."""
        done = self.run("test", "-json", *(["-verbose"] if states else []), f"-filter=tests/{file}")
        tested = Tested()
        for message in map(json.loads, done.stdout.splitlines()):
            match message:
                case {"type": "test_run", "test_run": {"progress": "complete", "run": run, "status": status}}:
                    tested.runs[run] = status
                case {"type": "diagnostic", "diagnostic": {"severity": "error"}}:
                    tested.errors.append(message["@message"] + ": " + message["diagnostic"].get("detail", ""))
                case {"type": "test_state", "test_state": state, "@testrun": run}:
                    tested.states[run] = list(resources_of(state["root_module"]))
        return tested

    def edit(self, file: str, old: str, new: str) -> None:
        """Break the copy. The text must be there."""
        path = self.module / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r} any more"
        path.write_text(text.replace(old, new))

    def keep_runs(self, file: str, *kept: str) -> None:
        """Leave these runs of a file of tests."""
        path = self.module / "tests" / file
        head, *texts = re.split(r"(?m)^(?=run \")", path.read_text())
        by_name = {text.split('"')[1]: text for text in texts}
        path.write_text(head + "".join(by_name[run] for run in kept))


def _environ() -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TF_"))}
    return environ | {"GOGC": "400"}  # a quarter less of a core's time, for 300 MB: Go looks for garbage too often


_ASK_A_PROVIDER = frozenset({"apply", "destroy", "graph", "plan", "show", "test", "validate"})


@cache
def _served(provider: Path, folder: Path | None, aws: tuple[tuple[str, str], ...]) -> str:
    """How a provider is reached that runs until this process ends. It reads the AWS from its own environment.

    Terraform would start one for each step of each run, which takes longer than what it is asked: a second on a core.
    """
    process = subprocess.Popen(
        [provider, "-debug"],
        cwd=folder,
        env=_environ() | dict(aws),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    atexit.register(process.wait)
    atexit.register(process.send_signal, signal.SIGINT)  # called first; it removes its socket
    assert process.stdout is not None
    told = (re.search("TF_REATTACH_PROVIDERS='(.*)'", line) for line in process.stdout)
    return next(found[1] for found in told if found)


def resources_of(module: Mapping[str, Any]) -> Iterator[Resource]:
    """Those of a module in Terraform's JSON, and of the modules in it."""
    for one in module.get("resources", []):
        if one["mode"] == "managed":
            yield Resource(one["address"], one["type"], one.get("values", {}))  # none where a plan knows none
    for child in module.get("child_modules", []):
        yield from resources_of(child)
