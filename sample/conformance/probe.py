"""A probe: a function with a name, and its result."""

from __future__ import annotations

import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from botocore.exceptions import BotoCoreError, ClientError

from sample.conformance.extras import Doors
from sample.conformance.stack import Outputs, Stack
from sample.conformance.world import ConformanceError, World

Status = Literal["passed", "failed", "not run"]


class ProbeFailedError(Exception):
    """AWS does something else than is expected."""


class NotRunError(Exception):
    """This account or machine can't show it. The message says why."""


@dataclass(slots=True)
class Run:
    """The state that the probes of one stack share. ``payloads`` are recorded, and not redacted yet."""

    world: World
    stack: Stack
    outputs: Outputs
    doors: Doors
    window_s: float
    payloads: list[dict[str, Any]] = field(default_factory=list)
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    @property
    def name(self) -> str:
        return self.stack.marker.name


@dataclass(frozen=True, slots=True)
class Probe:
    """``look`` returns what was seen, in words, and raises ProbeFailedError or NotRunError."""

    name: str
    question: str
    look: Callable[[Run], list[str]]
    after_destroy: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """``seen``: in words; why, where it didn't pass."""

    name: str
    question: str
    status: Status
    seen: list[str]
    seconds: float = 0.0


def look(probe: Probe, run: Run) -> Result:
    """Run one probe. Whatever goes wrong in it is its result: the others still run."""
    began = run.world.clock()
    status: Status = "passed"
    try:
        seen = probe.look(run)
    except NotRunError as error:
        status, seen = "not run", [str(error)]
    except ProbeFailedError as error:
        status, seen = "failed", str(error).splitlines()
    except (BotoCoreError, ClientError, ConformanceError, OSError) as error:
        status, seen = "failed", [f"{type(error).__name__}: {error}"]
    except Exception:  # noqa: BLE001  # a defect of the probe costs no other probe its result
        status, seen = "failed", ["The probe itself broke:", *traceback.format_exc(limit=-3).splitlines()]
    return Result(probe.name, probe.question, status, seen, round(run.world.clock() - began, 1))
