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
    """AWS behaves differently than expected."""


class NotRunError(Exception):
    """The probe can't run in this account or on this machine. The message has the reason."""


@dataclass(slots=True)
class Run:
    """The state shared by the probes of one stack. ``payloads`` are recorded, but not redacted yet."""

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
    """``look`` returns its findings as text, or raises ProbeFailedError or NotRunError."""

    name: str
    question: str
    look: Callable[[Run], list[str]]
    after_destroy: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """``seen``: the findings as text, or the reason if it didn't pass."""

    name: str
    question: str
    status: Status
    seen: list[str]
    seconds: float = 0.0


def look(probe: Probe, run: Run) -> Result:
    """Run one probe. Any error becomes its result, so that the others still run."""
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
    except Exception:  # noqa: BLE001  # a defect of one probe must not stop the others
        status, seen = "failed", ["The probe itself failed:", *traceback.format_exc(limit=-3).splitlines()]
    return Result(probe.name, probe.question, status, seen, round(run.world.clock() - began, 1))
