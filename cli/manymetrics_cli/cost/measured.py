"""Read measured figures: those shipped with the package, overridden by those of your own build/bench.json.

Both files have the shape that ``make bench`` writes: {"commit", "figures": {part: {name: number}}}.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

MEASURED_FILE: Final = Path(__file__).with_name("measured.json")
API_SIZES: Final = (1, 20, 100)  # events per request, as measured by the bench
RECORD_SIZES: Final = (1, 3, 20)  # events per stream record, as real events were packed
BATCHES: Final = (1_000, 10_000, 20_000)  # events of the batches that the bench gives each engine
_COLD_BATCH: Final = 10_000

_API: Final = "Lambda: the API's CPU"
_ENGINES: Final = "Processor on AWS: a batch into Glue and S3, by engine"
_REQUESTS: Final = "Processor on AWS: requests of a commit"
_MAINTENANCE: Final = "Processor on AWS: maintenance"
_BYTES: Final = "Real events: bytes in the stream and in the table, of a byte received"

Figures = Mapping[str, Mapping[str, float]]


class MeasuredError(Exception):
    """A file of measurements can't be used. The message names the fix."""


class _File(msgspec.Struct, frozen=True):
    figures: dict[str, dict[str, float]]
    commit: str = ""
    measured_on: str = ""


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """Figures of one engine: of a warm process by batch size (BATCHES), of its first batch, and of any commit."""

    warm_cpu_ms: Sequence[float]
    warm_wall_ms: Sequence[float]
    cold_cpu_ms: float
    cold_wall_ms: float
    s3_writes: float
    s3_reads: float
    glue_requests: float

    def commit_ms(self, events: float) -> tuple[float, float]:
        """CPU and wall time of a warm commit: interpolated between the measured sizes; constant below the smallest."""
        return _on_lines(self.warm_cpu_ms, events), _on_lines(self.warm_wall_ms, events)


def _on_lines(ms: Sequence[float], events: float) -> float:
    at = max(1, min(bisect_left(BATCHES, events), len(BATCHES) - 1))
    slope = (ms[at] - ms[at - 1]) / (BATCHES[at] - BATCHES[at - 1])
    return ms[at - 1] + slope * (max(events, BATCHES[0]) - BATCHES[at - 1])


@dataclass(frozen=True, slots=True)
class MaintenanceFigures:
    """CPU of merging, per file of a commit and per event; S3 reads, per expired snapshot and per run.

    A new process also reads each kept snapshot once.
    """

    file_ms: float
    event_us: float
    snapshot_ms: float
    snapshot_reads: float
    kept_snapshot_reads: float
    run_ms: float
    run_reads: float
    orphans_ms: float
    orphans_reads: float


@dataclass(frozen=True, slots=True)
class Measured:
    """All measured figures. ``name``: when, where and on which commit they were measured, for display."""

    name: str
    api_cpu_ms: Mapping[int, float]  # per request, by its number of events
    api_start_ms: float
    plain_tracker_cpu_ms: float  # per request of one event
    engines: Mapping[str, EngineFigures]
    maintenance: MaintenanceFigures
    stream_ratio: Mapping[int, float]  # bytes in the stream per byte received, by events per record
    table_ratio: float

    def api_request_cpu_ms(self, events: float) -> float:
        """Interpolate between the measured sizes, and extrapolate past the last one from the two nearest."""
        low, high = (1, 20) if events <= 20 else (20, 100)
        slope = (self.api_cpu_ms[high] - self.api_cpu_ms[low]) / (high - low)
        return self.api_cpu_ms[low] + slope * (events - low)

    def stream_bytes(self, events: float, event_bytes: float) -> float:
        """Return a record's bytes, at the ratio of the largest measured size it reaches: small ones compress less."""
        reached = max(size for size in RECORD_SIZES if size <= max(1, events))
        return events * event_bytes * self.stream_ratio[reached]


def read_measured(path: Path | None = None) -> Measured:
    """Read the package's figures, overridden by those of a file if one is named. Raises MeasuredError."""
    shipped = _read(MEASURED_FILE)
    name = f"measured {shipped.measured_on}, commit {shipped.commit[:7]}"
    figures: Figures = shipped.figures
    if path is not None:
        own = _read(path)
        taken = [part for part in shipped.figures if shipped.figures[part].keys() & own.figures.get(part, {}).keys()]
        if not taken:
            raise MeasuredError(f"{path} has none of the figures that a bill needs: create it with `make bench`")
        figures = {part: {**values, **own.figures.get(part, {})} for part, values in shipped.figures.items()}
        rest = [part for part in shipped.figures if part not in taken]
        name = f"{path}, commit {own.commit or 'unknown'}" + (
            f"; missing there, so taken from {name}: {'; '.join(rest)}" * bool(rest)
        )
    return _measured(name, figures)


def _read(path: Path) -> _File:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise MeasuredError(f"{path} can't be read: {error.strerror}; `make bench` writes build/bench.json") from error
    except msgspec.DecodeError as error:
        raise MeasuredError(f"{path} is not what `make bench` writes: {error}") from error


def _measured(name: str, figures: Figures) -> Measured:
    api, size = figures[_API], figures[_BYTES]
    return Measured(
        name=name,
        api_cpu_ms={n: api[f"product us an event of {n}, awslambdaric counted"] * n / 1e3 for n in API_SIZES},
        api_start_ms=api["product ms to start"],
        plain_tracker_cpu_ms=api["plain tracker us an event of 1, awslambdaric counted"] / 1e3,
        engines={
            "spark": _engine(figures, "spark", "spark, class archive"),
            "arrow": _engine(figures, "arrow", "arrow"),
        },
        maintenance=MaintenanceFigures(
            figures[_MAINTENANCE]["ms a file"],
            figures[_MAINTENANCE]["us an event"],
            figures[_MAINTENANCE]["ms a snapshot that expires"],
            figures[_MAINTENANCE]["reads a snapshot that expires"],
            figures[_MAINTENANCE]["reads a snapshot that is kept"],
            figures[_MAINTENANCE]["ms a run that finds nothing to do"],
            figures[_MAINTENANCE]["reads a run that finds nothing to do"],
            figures[_MAINTENANCE]["ms a look for orphans"],
            figures[_MAINTENANCE]["reads a look for orphans"],
        ),
        stream_ratio={n: size[f"in a record of {n}"] for n in RECORD_SIZES},
        table_ratio=size["in the table"],
    )


def _engine(figures: Figures, name: str, way: str) -> EngineFigures:
    of_batch, of_commit = figures[_ENGINES], figures[_REQUESTS]

    def ms(figure: str, events: int) -> float:
        return of_batch[f"{way}, {events:,} events, {figure}_s"] * 1e3

    return EngineFigures(
        tuple(ms("warm_cpu", size) for size in BATCHES),
        tuple(ms("warm_wall", size) for size in BATCHES),
        ms("cold_cpu", _COLD_BATCH),
        ms("cold_wall", _COLD_BATCH),
        *(of_commit[f"{name}, {figure}"] for figure in ("S3 PUT and LIST", "S3 GET and HEAD", "Glue")),
    )
