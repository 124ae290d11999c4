"""Writes a run's findings as JSON and Markdown, and the redacted payloads that can be committed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sample.conformance.payloads import redacted
from sample.conformance.probe import Result


@dataclass(frozen=True, slots=True)
class Report:
    """One run. ``problems``: errors outside of the probes, such as a failed apply or destroy."""

    version: str
    region: str
    engine: str
    began_at: str
    minutes: float
    results: Sequence[Result]
    problems: Sequence[str] = ()

    @property
    def has_passed(self) -> bool:
        """Whether nothing failed. Probes that were not run don't count as failed, but are listed."""
        return not self.problems and all(one.status != "failed" for one in self.results)


def write_report(build: Path, report: Report, payloads: Sequence[Mapping[str, Any]], secrets: Sequence[str]) -> Path:
    """Write .json and .md next to the run's folder, and the payloads, all without secrets. Returns the page."""
    build.parent.mkdir(parents=True, exist_ok=True)
    clean, refused = _clean_payloads(payloads)
    told = {**asdict(report), "passed": report.has_passed, "payloads": clean, "payloads_left_out": refused}
    page = build.parent / f"{build.name}.md"
    texts = {
        build.parent / f"{build.name}.json": json.dumps(told, indent=1, ensure_ascii=False) + "\n",
        page: as_markdown(report, len(clean), refused),
    }
    for path, text in texts.items():
        path.write_text(_without(text, secrets))
    recorded = build / "payloads.json"
    recorded.parent.mkdir(parents=True, exist_ok=True)
    recorded.write_text(_without(json.dumps(clean, indent=1, ensure_ascii=False) + "\n", secrets))
    return page


def _clean_payloads(payloads: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    clean, refused = [], []
    for one in payloads:
        try:
            clean.append(redacted(one))
        except ValueError as error:
            refused.append(str(error))
    return clean, refused


def _without(text: str, secrets: Sequence[str]) -> str:
    for secret in filter(None, secrets):
        text = text.replace(secret, "(left out)")
    return text


def as_markdown(report: Report, payloads: int, refused: Sequence[str]) -> str:
    """Format a page that can be committed or posted in an issue."""
    counts = Counter(one.status for one in report.results)
    lines = [
        "# ManyMetrics on AWS: conformance",
        "",
        f"Version {report.version}, region {report.region}, engine {report.engine}, started {report.began_at}, "
        f"{report.minutes:.0f} minutes: "
        + ", ".join(f"{counts[status]} {status}" for status in ("passed", "failed", "not run"))
        + ".",
        "",
        *(f"**Error:** {_cell(problem)}\n" for problem in report.problems),
        "| probe | result | s | findings |",
        "|---|---|--:|---|",
        *(
            f"| {one.name}: {_cell(one.question)} | {one.status} | {one.seconds:.0f} | "
            f"{'<br>'.join(_cell(line) for line in one.seen)} |"
            for one in report.results
        ),
        "",
        f"{payloads} payloads of the gateways were recorded, without keys, addresses and account numbers.",
        *(f"Left out: {_cell(one)}." for one in refused),
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
