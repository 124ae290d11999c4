"""``make aws-conformance``: apply a separate stack in your AWS account, probe it, destroy it, and write a report.

    destroy a killed run's stack -> consent -> apply -> probes -> destroy -> probes of leftovers -> report

Exits with 0 if nothing failed, 1 if something did, 2 if the run could not start, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import platform
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, NoReturn

from botocore.exceptions import BotoCoreError, ClientError

from manymetrics_cli.help_text import KeepExamples
from sample.conformance.extras import Doors, doors
from sample.conformance.functions import starts
from sample.conformance.ingress import cold_starts, encodings, ipv6, routes
from sample.conformance.operations import alarms, nothing_left, second_plan
from sample.conformance.price import estimated_usd
from sample.conformance.probe import Probe, Result, Run, look
from sample.conformance.report import Report, write_report
from sample.conformance.stack import Marker, Outputs, Stack, account_of, check_folder, read_marker, write_marker
from sample.conformance.tables import erase_person, failed_batch, maintenance, views_and_queries
from sample.conformance.world import ConformanceError, World, make_world

WINDOW_S = 10
# For probes that only check names.
NO_DOORS, NO_OUTPUTS = Doors({}, {}), Outputs("", "", "", "", "", "")

PROBES = (
    Probe("routes", "does every route respond, also with extra slashes, through both ingresses?", routes),
    Probe("encodings", "which compressed bodies arrive intact, and are the others rejected?", encodings),
    Probe("ipv6", "is a sender's IPv6 address stored?", ipv6),
    Probe("cold-starts", "are a hundred simultaneous first requests all stored?", cold_starts),
    Probe("views", "do views and saved queries return the same in Athena and in DuckDB?", views_and_queries),
    Probe("failed-batch", "is a failed batch kept in S3, and stored by replay?", failed_batch),
    Probe("maintenance", "does maintenance run, without changing rows?", maintenance),
    Probe("erase", "does the erase job erase one person, and nobody else?", erase_person),
    Probe("starts", "how long do starts take, how much memory is used, and is the class archive used?", starts),
    Probe("alarms", "does each alarm reach the topic?", alarms),
    Probe("second-plan", "would a second apply change nothing?", second_plan),
    Probe("nothing-left", "is nothing left after destroy?", nothing_left, after_destroy=True),
)

_EXAMPLES = """\
examples:
  make aws-conformance
  make aws-conformance ARGS='--yes --region eu-west-1'
  make aws-conformance ARGS='--only routes --only alarms'
  make aws-conformance ARGS=--keep-for-a-day     then, a day later: make aws-conformance ARGS=--measure
  make aws-conformance ARGS=--destroy            only destroy what a run left
"""


def main(arguments: Sequence[str] | None = None, make: Callable[[str], World] = make_world) -> int:
    """Run the command. ``make`` returns the world of a region."""
    args = _parser().parse_args(arguments)
    if args.list:
        for probe in PROBES:
            print(f"{probe.name:14} {probe.question}")
        return 0
    try:
        with _terminated_as_interrupted():
            return _run(args, make(args.region))
    except ConformanceError as error:
        print(error, file=sys.stderr)
        return 2
    except (BotoCoreError, ClientError) as error:
        print(f"AWS rejected a request: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make aws-conformance",
        description=(
            "Apply a separate stack in your AWS account, probe it, destroy it, and write "
            "build/aws-conformance.json and .md. Asks for confirmation first."
        ),
        epilog=_EXAMPLES,
        formatter_class=KeepExamples,
    )
    parser.add_argument("--list", action="store_true", help="list the probes, without running any")
    parser.add_argument(
        "--only",
        action="append",
        choices=[probe.name for probe in PROBES],
        metavar="PROBE",
        help="run this probe; may be repeated (default: all)",
    )
    parser.add_argument("--yes", action="store_true", help="accept the price without a prompt")
    parser.add_argument("--name", type=_name, default="mm-conformance", help="the stack's name (default: %(default)s)")
    parser.add_argument("--region", type=_region, default="us-east-1", help="(default: %(default)s)")
    parser.add_argument("--engine", choices=("spark", "arrow"), default="spark", help="(default: %(default)s)")
    later = parser.add_mutually_exclusive_group()
    later.add_argument("--keep-for-a-day", action="store_true", help="keep the stack, for --measure a day later")
    later.add_argument(
        "--measure", action="store_true", help="compare a kept stack's usage with `manymetrics cost`, and destroy it"
    )
    later.add_argument("--destroy", action="store_true", help="only destroy what a run left")
    return parser


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{2,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: 3 to 19 lower-case letters, digits and hyphens, a letter first")
    return text


def _region(text: str) -> str:
    if not re.fullmatch(r"[a-z]{2}-[a-z]+-\d", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an AWS region: write it as eu-west-1")
    return text


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Destroy the stack on SIGTERM and when the terminal closes, as on Ctrl-C."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = {one: signal.signal(one, interrupt) for one in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _run(args: argparse.Namespace, world: World) -> int:
    check_folder(world.folder)
    account = account_of(world)
    left = read_marker(world.build)
    if left is not None:
        if left.account != account:
            raise ConformanceError(
                "An earlier run left a stack in another account than that of these credentials: use the earlier ones "
                "with --destroy, or it continues to cost."
            )
        if args.measure:
            return _measure(world.at(left.region), left)
        if left.is_kept and not args.destroy:
            raise ConformanceError(
                f"The stack {left.name} was kept for a day: --measure compares its bill and destroys it; "
                "--destroy only destroys it."
            )
        _say(f"An earlier run left the stack {left.name} in {left.region}. Destroying it first")
        Stack(world.at(left.region), left).destroy()
    if args.measure:
        raise ConformanceError("There is no kept stack to measure: start with --keep-for-a-day.")
    if args.destroy:
        _say("Nothing is left.")
        return 0
    if not _agreed(args, account):
        _say("Nothing was created.")
        return 2
    return _probe(args, world, account)


def _agreed(args: argparse.Namespace, account: str) -> bool:
    hours = 26.0 if args.keep_for_a_day else 2.0
    _say(
        f"This creates the stack {args.name} in {args.region} of account {account}: about 80 resources, for less "
        f"than {hours:.0f} hours, at an estimated ${estimated_usd(args.engine, hours):.2f}, under $1 in all. It is "
        f"destroyed {'when you run --measure' if args.keep_for_a_day else 'at the end, also after Ctrl-C'}."
    )
    if args.yes:
        return True
    if not sys.stdin.isatty():
        raise ConformanceError("No terminal to ask for confirmation: pass --yes to accept the price.")
    return input("Continue? [y/N] ").strip().lower() in {"y", "yes"}


@dataclass(slots=True)
class _Outcome:
    """The findings of a run so far."""

    secrets: list[str]
    results: list[Result] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    payloads: list[dict[str, Any]] = field(default_factory=list)
    is_interrupted: bool = False


def _probe(args: argparse.Namespace, world: World, account: str) -> int:
    began, began_at = world.clock(), datetime.now(UTC)
    stack = Stack(world, Marker(args.name, args.region, account, time.time(), _variables(args)))
    wanted = [probe for probe in PROBES if args.only is None or probe.name in args.only]
    outcome = _Outcome([account])
    try:
        _look_at(world, stack, [probe for probe in wanted if not probe.after_destroy], outcome)
    except KeyboardInterrupt:
        outcome.is_interrupted = True
        outcome.problems.append("interrupted")
    except (ConformanceError, BotoCoreError, ClientError, OSError) as error:
        outcome.problems.append(str(error))
    if args.keep_for_a_day and not outcome.problems:
        write_marker(world.build, replace(stack.marker, is_kept=True))
        _say(f"The stack {args.name} is kept. In a day: make aws-conformance ARGS=--measure")
    else:
        outcome.problems += _destroyed(stack)
        if not outcome.is_interrupted:
            blank = Run(world, stack, NO_OUTPUTS, NO_DOORS, WINDOW_S)
            outcome.results += [_looked(probe, blank) for probe in wanted if probe.after_destroy]
    minutes = (world.clock() - began) / 60
    return _reported(args, world, outcome, began_at, minutes)


def _look_at(world: World, stack: Stack, probes: Sequence[Probe], outcome: _Outcome) -> None:
    """Apply, and run the probes of the stack."""
    _say("Applying: 5 to 15 minutes with the builds")
    outputs = stack.apply()
    outcome.secrets.append(outputs.write_key)
    with ExitStack() as opened:
        both = Doors({"http_api": outputs.api_instance_url}, {})
        if probes:
            try:
                both = opened.enter_context(
                    doors(world, stack.marker.name, stack.marker.account, outputs.api_instance_url)
                )
            except (BotoCoreError, ClientError) as error:
                outcome.problems.append(f"No function URL and no echo function: {error}")
        run = Run(world, stack, outputs, both, WINDOW_S, outcome.payloads)
        for probe in probes:
            outcome.results.append(_looked(probe, run))  # results before Ctrl-C are reported


def _reported(args: argparse.Namespace, world: World, outcome: _Outcome, began_at: datetime, minutes: float) -> int:
    """Write the report, and return the exit status."""
    report = Report(
        version("manymetrics"),
        args.region,
        args.engine,
        began_at.isoformat(timespec="seconds"),
        minutes,
        outcome.results,
        outcome.problems,
    )
    page = write_report(world.build, report, outcome.payloads, outcome.secrets)
    for problem in outcome.problems:
        _say(problem)
    _say(f"The report is in {page}, and for programs in {page.with_suffix('.json')}")
    return 130 if outcome.is_interrupted else 0 if report.has_passed else 1


def _variables(args: argparse.Namespace) -> dict[str, Any]:
    here = "arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"
    return {
        "name": args.name,
        "region": args.region,
        "engine": args.engine,
        "processor": {"architecture": here},  # builds without emulation
        "batch_window_s": WINDOW_S,
        "alarm_email": None,
        "monthly_budget_usd": None,  # a budget covers the whole account
    }


def _looked(probe: Probe, run: Run) -> Result:
    _say(f"{probe.name}: {probe.question}")
    result = look(probe, run)
    _say(f"  {result.status}, {result.seconds:.0f} s: {'; '.join(result.seen)[:500]}")
    return result


def _destroyed(stack: Stack) -> list[str]:
    """Destroy the stack in any case. A second Ctrl-C stops it, and the next run continues."""
    _say("Destroying: about 5 minutes")
    try:
        stack.destroy()
    except (ConformanceError, BotoCoreError, ClientError, OSError) as error:
        return [f"The stack is only partly destroyed; `make aws-conformance ARGS=--destroy` continues: {error}"]
    return []


def _measure(world: World, marker: Marker) -> int:
    from sample.conformance.bill import measure

    stack = Stack(world, marker)
    status = measure(world, stack)
    problems = _destroyed(stack)
    for problem in problems:
        _say(problem)
    return 1 if problems else status


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
