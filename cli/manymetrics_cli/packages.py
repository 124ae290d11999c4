"""Say how to install a package that a command needs and doesn't find."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from importlib import metadata


def requirements() -> Iterator[tuple[str, str, str]]:
    """Yield each package that this one needs, its requirement, and the extra that brings it (empty for none)."""
    for line in metadata.requires("manymetrics") or ():
        requirement, _, marker = line.partition(";")
        extra = marker.partition("==")[2].strip(" '\"")
        yield re.split(r"[\[=<>!~ ]", requirement, maxsplit=1)[0], requirement.strip(), extra


def install_command(requirement: str) -> str:
    """A shell command that installs it for the Python that runs."""
    return shlex.join([sys.executable, "-m", "pip", "install", requirement])


def missing_module(error: ModuleNotFoundError) -> str | None:
    """The message for the user, with the cure; None where the module is this project's own."""
    module = (error.name or "").partition(".")[0]
    if not module or module.startswith("manymetrics"):
        return None
    name = module.replace("_", "-")
    requirement = next((wanted for package, wanted, _ in requirements() if package == name), name)
    return f"{name} is not installed: {install_command(requirement)}"
