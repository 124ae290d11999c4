"""Tell the user how to install a missing package."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from importlib import metadata


def requirements() -> Iterator[tuple[str, str, str]]:
    """Yield each package that this one needs, its requirement, and the extra that includes it (empty for none)."""
    for line in metadata.requires("manymetrics") or ():
        requirement, _, marker = line.partition(";")
        extra = marker.partition("==")[2].strip(" '\"")
        yield re.split(r"[\[=<>!~ ]", requirement, maxsplit=1)[0], requirement.strip(), extra


def install_command(requirement: str) -> str:
    """Build the shell command that installs it for the running Python."""
    return shlex.join([sys.executable, "-m", "pip", "install", requirement])


def missing_module(error: ModuleNotFoundError) -> str | None:
    """Return the message for the user, with the fix; None if the module belongs to this project."""
    module = (error.name or "").partition(".")[0]
    if not module or module.startswith("manymetrics"):
        return None
    name = module.replace("_", "-")
    requirement = next((wanted for package, wanted, _ in requirements() if package == name), name)
    return f"{name} is not installed: {install_command(requirement)}"
