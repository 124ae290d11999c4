"""The inputs of a price estimate: a deployment, and its traffic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Ingress = Literal["http_api", "function_url"]
Engine = Literal["spark", "arrow"]
Mode = Literal["provisioned", "on_demand"]
Architecture = Literal["arm64", "x86_64"]

PROCESSOR_MB: dict[Engine, int] = {"spark": 1792, "arrow": 1024}  # processor/README.md


@dataclass(frozen=True, slots=True)
class Stack:
    """A deployment; the defaults are those of the project."""

    ingress: Ingress = "http_api"
    api_memory_mb: int = 256
    api_architecture: Architecture = "arm64"
    engine: Engine = "spark"
    processor_memory_mb: int | None = None  # None: the engine's default
    processor_architecture: Architecture = "x86_64"
    stream_mode: Mode = "provisioned"
    shard_count: int = 1
    stream_retention_hours: int = 24
    window_seconds: int = 300
    archive: bool = False
    lake_version_days: int = 7
    encrypted: bool = True  # with a KMS key created by the stack, which is billed
    pays_for_key: bool = True
    alarms: int = 10
    dashboards: int = 1
    metrics: int = 2  # CloudWatch metrics of the processor: handler.py
    is_plain_tracker: bool = False  # one event per request, fully logged: for comparison

    @property
    def processor_mb(self) -> int:
        return self.processor_memory_mb or PROCESSOR_MB[self.engine]


@dataclass(frozen=True, slots=True)
class Traffic:
    """A month's traffic. ``peak``: the ratio of the busiest seconds to the mean."""

    events: float
    events_a_request: float = 20.0
    event_bytes: float = 1_000.0
    months_kept: float = 1.0
    peak: float = 4.0
    athena_gb: float = 0.0
    sdk_loads: float = 0.0


PLAIN_TRACKER = Stack(
    api_memory_mb=128,
    api_architecture="x86_64",
    encrypted=False,
    alarms=0,
    dashboards=0,
    metrics=0,
    is_plain_tracker=True,
)
