"""Say how to install a package that a command needs and doesn't find."""

from __future__ import annotations

import re
import shlex
import sys
from importlib import metadata


def install_command(requirement: str) -> str:
    """A shell command that installs it for the Python that runs."""
    return shlex.join([sys.executable, "-m", "pip", "install", requirement])


def missing_module(error: ModuleNotFoundError) -> str | None:
    """What to tell the user, with the cure; None where the module is this project's own."""
    module = (error.name or "").partition(".")[0]
    if not module or module.startswith("manymetrics"):
        return None
    name = module.replace("_", "-")
    lines = (line.partition(";")[0].strip() for line in metadata.requires("manymetrics") or ())
    requirement = next((line for line in lines if re.split(r"[\[=<>!~]", line, maxsplit=1)[0] == name), name)
    return f"{name} is not installed: {install_command(requirement)}"
