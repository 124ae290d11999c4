"""Applies, marks and destroys the stack of a run, with a separate state under build/aws-conformance.

    marker -> apply -> probes -> destroy -> no marker

A marker found at the start is from a killed run: its stack is destroyed before anything else.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from botocore.exceptions import BotoCoreError, ClientError

from sample.conformance.extras import remove_extras
from sample.conformance.world import ConformanceError, World

_MARKER, _STATE, _VARIABLES = "running.json", "terraform.tfstate", "stack.tfvars.json"
_PLAN_CHANGES = 2


@dataclass(frozen=True, slots=True)
class Marker:
    """A stack that may exist. Stored only in build/, which git ignores."""

    name: str
    region: str
    account: str
    started_at: float
    variables: dict[str, Any]
    is_kept: bool = False  # kept on purpose, for a day


@dataclass(frozen=True, slots=True)
class Outputs:
    """The outputs of sample/ that the probes use."""

    api_instance_url: str
    write_key: str
    glue_database_name: str
    athena_workgroup: str
    warehouse: str
    failures_location: str


def read_marker(build: Path) -> Marker | None:
    """Return the marker of a stack that may still exist. Raises ConformanceError if it can't be read."""
    path = build / _MARKER
    if not path.exists():
        return None
    try:
        return Marker(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ConformanceError(
            f"{path} can't be read ({error}). If its stack still exists, run terraform destroy with the state next to "
            f"it; then delete {path}."
        ) from error


def write_marker(build: Path, marker: Marker) -> None:
    """Write the marker atomically, since a later run relies on it."""
    build.mkdir(parents=True, exist_ok=True)
    new = build / f"{_MARKER}.new"
    with new.open("w") as file:
        file.write(json.dumps(asdict(marker)))
        file.flush()
        os.fsync(file.fileno())
    new.replace(build / _MARKER)


def account_of(world: World) -> str:
    """Return the account of the credentials. Raises ConformanceError without any."""
    try:
        return str(world.client("sts").get_caller_identity()["Account"])
    except (BotoCoreError, ClientError) as error:
        raise ConformanceError(
            f"AWS doesn't accept the credentials of this machine: {error}\n"
            "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run aws sso login; and use a --region "
            "that is enabled in the account."
        ) from error


def check_folder(folder: Path) -> None:
    """Raise ConformanceError if sample/ has a remote state: the run would replace that stack."""
    for file in sorted(folder.glob("*.tf")):
        if re.search(r'(?m)^\s*(backend\s+"|cloud\s*\{)', file.read_text()):
            raise ConformanceError(
                f"{file} configures the state of your own stack, and this run needs a separate one: move the file out "
                "of the folder, run again, and move it back."
            )


class Stack:
    """Terraform in sample/, with the state of one marker."""

    def __init__(self, world: World, marker: Marker) -> None:
        self._world, self.marker = world, marker

    def apply(self) -> Outputs:
        """Create everything. The marker is written first."""
        write_marker(self._world.build, self.marker)
        self._init()
        self._run("apply", "-auto-approve", *self._inputs())
        return self.outputs()

    def outputs(self) -> Outputs:
        """Return the stack's outputs. Raises ConformanceError if it is not applied, or only partly."""
        told = json.loads(self._run("output", "-json", f"-state={self._state}", quiet=True))
        values = {name: told[name]["value"] for name in Outputs.__dataclass_fields__ if name in told}
        if len(values) < len(Outputs.__dataclass_fields__):
            raise ConformanceError("The stack is only partly applied: run again, which destroys it first.")
        return Outputs(**values)

    def resources(self) -> list[dict[str, Any]]:
        """Return the resources of the state: address, type and values."""
        shown = json.loads(self._run("show", "-json", str(self._state), quiet=True))
        return [*_resources(shown.get("values", {}).get("root_module", {}))]

    def planned_changes(self) -> dict[str, list[str]]:
        """Return the changes of another apply, as arguments by address."""
        plan = self._world.build.absolute() / "second.tfplan"
        self._run(
            "plan",
            "-detailed-exitcode",
            f"-out={plan}",
            *self._inputs(),
            quiet=True,
            accepted=frozenset({0, _PLAN_CHANGES}),
        )
        told = json.loads(self._run("show", "-json", str(plan), quiet=True))
        plan.unlink(missing_ok=True)  # it contains the write key
        return {
            one["address"]: _differing(one["change"])
            for one in told.get("resource_changes", [])
            if one["change"]["actions"] not in (["no-op"], ["read"])
        }

    def destroy(self) -> None:
        """Destroy everything, including what the probes created. The marker is removed last."""
        self._init()
        remove_extras(self._world, self.marker.name)
        self._run("destroy", "-auto-approve", *self._inputs())
        for name in (_MARKER, _STATE, f"{_STATE}.backup", _VARIABLES):
            (self._world.build / name).unlink(missing_ok=True)

    @property
    def _state(self) -> Path:
        return self._world.build.absolute() / _STATE

    def _init(self) -> None:
        self._world.build.mkdir(parents=True, exist_ok=True)
        (self._world.build / _VARIABLES).write_text(json.dumps(self.marker.variables))
        self._run("init", "-input=false", *self._world.init_arguments, quiet=True)

    def _inputs(self) -> list[str]:
        variables = self._world.build.absolute() / _VARIABLES
        return [
            "-input=false",
            "-lock-timeout=20m",
            "-parallelism=20",
            f"-state={self._state}",
            f"-var-file={variables}",
        ]

    def _run(
        self, command: str, *arguments: str, quiet: bool = False, accepted: frozenset[int] = frozenset({0})
    ) -> str:
        """Run Terraform; returns its output if ``quiet``. The rest goes to a log, since it may outlive this process."""
        build = self._world.build.absolute()
        environ = {**self._world.environ, "TF_DATA_DIR": str(build / "terraform"), "TF_IN_AUTOMATION": "1"}
        environ.pop("TF_WORKSPACE", None)
        errors = build / f"terraform-{command}.log"
        with errors.open("w") as log:
            given = ["terraform", f"-chdir={self._world.folder}", command, "-no-color", *arguments]
            process = _start(given, environ, subprocess.PIPE if quiet else log, log)
        try:
            out, _ = process.communicate()
        except BaseException:  # Ctrl-C: Terraform has to write its state, or the stack can't be destroyed
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
        if process.returncode not in accepted:
            said = f"{out or ''}{errors.read_text()}".strip()
            raise ConformanceError(f"terraform {command} failed, see {errors}:\n{said[-2_000:]}")
        return out or ""


def _start(command: list[str], environ: dict[str, str], out: int | IO[str], log: IO[str]) -> subprocess.Popen[str]:
    """Start in a separate session: only this process forwards Ctrl-C, once."""
    try:
        return subprocess.Popen(
            command, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=log, text=True, start_new_session=True
        )
    except FileNotFoundError:
        raise ConformanceError(
            "terraform is not on PATH: install Terraform 1.10 or later, "
            "https://developer.hashicorp.com/terraform/install"
        ) from None


def _resources(module: dict[str, Any]) -> list[dict[str, Any]]:
    own = [one for one in module.get("resources", []) if one["mode"] == "managed"]
    return own + [one for child in module.get("child_modules", []) for one in _resources(child)]


def _differing(change: dict[str, Any]) -> list[str]:
    before, after, unknown = change["before"] or {}, change["after"] or {}, change["after_unknown"] or {}
    names = {*before, *after, *unknown}
    return sorted(name for name in names if unknown.get(name) is True or before.get(name) != after.get(name))
