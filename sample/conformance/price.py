"""Estimates the cost of a run, with the model of `manymetrics cost`."""

from __future__ import annotations

from manymetrics_cli.cost.bill import HOURS, make_bill
from manymetrics_cli.cost.measured import read_measured
from manymetrics_cli.cost.prices import read_prices
from manymetrics_cli.cost.stack import Engine, Stack, Traffic

WINDOW_S, EVENTS = 10, 5_000
_ATHENA_GB = 150 * 0.01  # each query costs at least 10 MB
_UNKNOWN = 1.25  # a margin for what the model excludes: the upload of the image, CloudFormation, taxes


def estimated_usd(engine: Engine, hours: float) -> float:
    """Return US dollars at list price, without free tiers: the idle stack for these hours, and the probes' traffic."""
    prices, measured = read_prices(), read_measured()
    stack = Stack(engine=engine, window_seconds=WINDOW_S)
    idle = make_bill(stack, Traffic(events=1), prices, measured)
    busy = make_bill(stack, Traffic(events=EVENTS), prices, measured)
    still = (idle.usd - idle.key_rotations_usd) / HOURS * hours
    return _UNKNOWN * (still + busy.usd - idle.usd + prices.athena_scanned.of(_ATHENA_GB))
