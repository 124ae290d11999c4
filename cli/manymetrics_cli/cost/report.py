"""Format a bill as text, as JSON, and as the README's Markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from manymetrics_cli.cost import bill as model
from manymetrics_cli.cost.bill import Bill, break_evens, make_bill, marginal
from manymetrics_cli.cost.measured import Measured
from manymetrics_cli.cost.prices import Prices
from manymetrics_cli.cost.stack import PLAIN_TRACKER, Ingress, Stack, Traffic

MILLION: Final = 1e6
VOLUMES: Final = (1e6, 10e6, 100e6, 1e9)
PARTLY_FIXED: Final = 720 * 0.015  # a plain tracker, counting only a shard, the gateway and its loader
PARTLY_A_MILLION: Final = 1.00 + 0.10
NOT_IN_IT: Final = (
    "taxes, free tiers, discounts, other regions",
    "log storage",
    "domain, firewall, budget actions, alarm e-mails",
)


@dataclass(frozen=True, slots=True)
class Report:
    """The inputs of an estimate, and everything computed from them."""

    stack: Stack
    traffic: Traffic
    prices: Prices
    measured: Measured
    without_price: Sequence[str] = ()

    def bill(self) -> Bill:
        return make_bill(self.stack, self.traffic, self.prices, self.measured)

    def marginal(self) -> tuple[float, float]:
        return marginal(self.stack, self.traffic, self.prices, self.measured)

    def provisioned(self) -> str:
        """Tell at which volumes a provisioned stream beats an on-demand one."""
        at_first, turns = break_evens(self.stack, self.traffic, self.prices, self.measured)
        peak = f"a peak of {self.traffic.peak:g}x the mean"
        shards = f"{_several(self.stack.shard_count, 'shard')} (more if the peak needs them) and {peak}"
        if not turns:
            better = "provisioned" if at_first else "on demand"
            return f"{better} is cheaper at any volume, with {shards}"
        names = ("on demand", "provisioned")
        parts = [f"{names[at_first]} is cheaper below {_events(turns[0])} events a month"]
        parts += [
            f"{names[(number + at_first) % 2]} from {_events(turn)}" for number, turn in enumerate(turns, start=1)
        ]
        return f"{', '.join(parts)}, with {shards}"

    def assumptions(self) -> list[str]:
        """List the assumptions, each with its unit; unmeasured ones are marked as assumed."""
        stack, traffic, bill = self.stack, self.traffic, self.bill()
        record = self.measured.stream_bytes(traffic.events_a_request, traffic.event_bytes)
        return [
            f"{traffic.events:,.0f} events a month, {traffic.events_a_request:g} a request; a stream record a request",
            (
                f"{traffic.event_bytes:,.0f} bytes an event; {record / traffic.events_a_request:,.0f} in the stream, "
                f"{traffic.event_bytes * self.measured.table_ratio:,.0f} in the table (measured on 32,505 real events)"
            ),
            (
                f"{stack.stream_mode.replace('_', ' ')} stream, {_several(bill.shards, 'shard')}, "
                f"window {stack.window_seconds} s, the busiest seconds {traffic.peak:g}x the mean"
            ),
            (
                f"API: {bill.api_ms} ms billed at {stack.api_memory_mb} MB, {stack.api_architecture}; "
                f"processor: {bill.processor_ms:,} ms a commit at {stack.processor_mb:,} MB, "
                f"{stack.processor_architecture}, engine {stack.engine}"
            ),
            (
                f"{_several(traffic.months_kept, 'month')} of data kept all month; "
                f"{'with' if stack.archive else 'without'} the raw archive"
            ),
            f"milliseconds and bytes: {self.measured.name}",
            (
                f"assumed, not measured: Lambda's core {model.CORE_FACTOR:g}x slower than the measured one, "
                f"{model.PUT_WAIT_MS:g} ms for a Kinesis call, {model.COMMIT_WAIT_MS:g} ms a commit for Glue and S3, "
                f"{model.RUN_WAIT_MS / 1e3:g} s a maintenance run, "
                f"a cold start every {model.ENVIRONMENT_HOURS:g} hours, {model.ANSWER_BYTES} bytes a response, "
                f"{stack.alarms} alarms, no logging of requests, {model.STRANGERS:,.0f} requests from scanners"
            ),
            (
                f"list prices of {self.prices.region} as of {self.prices.as_of}, no free tier; "
                f"not verified: {', '.join(unverified(self.prices)) or 'none'}"
            ),
        ]

    def not_in_it(self) -> list[str]:
        """List what the bill leaves out."""
        asked = []
        if not self.traffic.athena_gb:
            asked.append(f"Athena's queries (${self.prices.athena_scanned.of(1024):g} a TB scanned): --athena-gb")
        if not self.traffic.sdk_loads:
            asked.append("the SDK's loads from CloudFront: --sdk-loads")
        return [*asked, *NOT_IN_IT]


def unverified(prices: Prices) -> list[str]:
    """Return the names of prices without a source."""
    return [name for name, price in prices.by_name().items() if price.source is None]


def as_text(report: Report) -> str:
    """Format the bill as a table, with its assumptions."""
    bill, millions = report.bill(), report.traffic.events / MILLION
    (more, ingestion), top = report.marginal(), bill.dominating
    rows = [(line.component, line.usd, line.why) for line in bill.lines] + [("total", bill.usd, "")]
    text = [f"{'component':<24}{'$/month':>12}{'$/million':>12}{'share':>8}  basis"]
    text += [
        f"{name:<24}{usd:>12,.2f}{usd / millions:>12,.4f}{usd / bill.usd:>8.1%}  {why}".rstrip()
        for name, usd, why in rows
    ]
    text += [
        "",
        f"dominates: {top.component}, {top.usd / bill.usd:.0%}",
        f"the next million events: ${more:,.4f}, of which ${ingestion:,.4f} for ingestion (edge, function, stream)",
        f"stream: {report.provisioned()}",
        f"included for the KMS key's rotations: ${bill.key_rotations_usd:,.2f}, half after one year, all after two",
        f"if every commit met a cold start, as with an idle function: ${bill.cold_usd:,.2f} more",
    ]
    if report.without_price:
        text.append(f"variables that don't affect this bill: {', '.join(report.without_price)}")
    text += ["", "rests on:", *(f"- {one}" for one in report.assumptions())]
    text += ["", "not in it:", *(f"- {one}" for one in report.not_in_it())]
    return "\n".join(text)


def as_object(report: Report) -> dict[str, Any]:
    """Return the bill as an object for JSON, unrounded."""
    bill = report.bill()
    more, ingestion = report.marginal()
    return {
        "usd_a_month": bill.usd,
        "usd_a_million": bill.usd / (report.traffic.events / MILLION),
        "usd_for_the_next_million": more,
        "usd_for_the_next_million_to_take_in": ingestion,
        "usd_of_key_rotations": bill.key_rotations_usd,
        "usd_more_if_cold": bill.cold_usd,
        "dominates": bill.dominating.component,
        "components": [{"component": line.component, "usd": line.usd, "why": line.why} for line in bill.lines],
        "stream": report.provisioned(),
        "without_price": list(report.without_price),
        "traffic": asdict(report.traffic),
        "stack": asdict(report.stack),
        "assumptions": report.assumptions(),
        "not_in_it": report.not_in_it(),
        "prices": {
            "as_of": report.prices.as_of,
            "region": report.prices.region,
            "unverified": unverified(report.prices),
        },
    }


def as_markdown(report: Report) -> str:
    """Format the README's table: the default stack, with a function URL, and a plain tracker, at four volumes."""
    rows = [
        "| events a month | this | a million more | function URL | plain tracker: gateway, shard, loader | all of it |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for events in VOLUMES:
        ours, url = (_at(report, events, ingress) for ingress in ("http_api", "function_url"))
        plain = replace(report, stack=PLAIN_TRACKER, traffic=replace(ours.traffic, events_a_request=1))
        partly = PARTLY_FIXED + PARTLY_A_MILLION * events / MILLION
        cells = (
            f"${ours.bill().usd:,.2f}",
            f"${ours.marginal()[0]:.3f}",
            f"${url.bill().usd:,.2f}",
            f"${partly:,.2f}",
            f"${plain.bill().usd:,.2f}",
        )
        rows.append(f"| {_events(events)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _at(report: Report, events: float, ingress: Ingress) -> Report:
    stack, traffic = replace(report.stack, ingress=ingress), replace(report.traffic, events=events)
    return replace(report, stack=stack, traffic=traffic)


def _events(number: float) -> str:
    return f"{number / 1e9:,.4g} billion" if number >= 1e9 else f"{number / MILLION:,.4g} million"


def _several(number: float, name: str) -> str:
    return f"{number:g} {name}{'s' * (number != 1)}"
