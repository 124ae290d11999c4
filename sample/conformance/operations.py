"""Probes operations: alarms, a second plan, and leftovers after a destroy."""

from __future__ import annotations

from sample.conformance.extras import Queue, heard
from sample.conformance.leftovers import leftovers
from sample.conformance.probe import ProbeFailedError, Run

HEARD_WITHIN_S = 120.0
GONE_WITHIN_S, LOOK_EVERY_S = 300.0, 15.0


def alarms(run: Run) -> list[str]:
    """Each alarm of the stack exists and has the topic as its action, and a triggered one reaches the topic."""
    planned = {
        one["values"]["alarm_name"] for one in run.stack.resources() if one["type"] == "aws_cloudwatch_metric_alarm"
    }
    [topic] = [one["values"]["arn"] for one in run.stack.resources() if one["type"] == "aws_sns_topic"]
    cloudwatch = run.world.client("cloudwatch")
    pages = cloudwatch.get_paginator("describe_alarms").paginate(AlarmNamePrefix=f"{run.name}-")
    found = {one["AlarmName"]: one for page in pages for one in page["MetricAlarms"]}
    wrong = [f"{name} doesn't exist" for name in sorted(planned - found.keys())]
    wrong += [
        f"{name} has no action on the topic, or its actions are off"
        for name, one in sorted(found.items())
        if topic not in one["AlarmActions"] or not one["ActionsEnabled"]
    ]
    if wrong or not planned:
        raise ProbeFailedError("\n".join(wrong) or "The state has no alarms")
    rung = min(planned)
    with heard(run.world, run.name, topic) as queue:
        cloudwatch.set_alarm_state(AlarmName=rung, StateValue="OK", StateReason="conformance: before")
        cloudwatch.set_alarm_state(AlarmName=rung, StateValue="ALARM", StateReason="conformance: set off")
        seconds = _wait_until_heard(run, queue, rung)
        cloudwatch.set_alarm_state(AlarmName=rung, StateValue="OK", StateReason="conformance: over")
    return [f"{len(planned)} alarms with an action", f"{rung} was received {seconds:.0f} s after it was triggered"]


def _wait_until_heard(run: Run, queue: Queue, alarm: str) -> float:
    began = run.world.clock()
    while True:
        if any(
            str(one.get("Subject")).startswith(f'ALARM: "{alarm}"') for one in queue.messages()
        ):  # not the OK message
            return run.world.clock() - began
        if run.world.clock() - began > HEARD_WITHIN_S:
            raise ProbeFailedError(f"{alarm} was triggered, but the topic had no message after {HEARD_WITHIN_S:.0f} s")
        run.world.sleep(3)


def second_plan(run: Run) -> list[str]:
    """Terraform plans no changes, even after all probes."""
    beyond = {
        address: sorted({*arguments} - run.world.untold.get(address, frozenset()))
        for address, arguments in run.stack.planned_changes().items()
    }
    changed = {address: arguments for address, arguments in beyond.items() if arguments}
    if changed:
        raise ProbeFailedError("\n".join(f"{address}: {', '.join(names)}" for address, names in changed.items()))
    return ["no change"]


def nothing_left(run: Run) -> list[str]:
    """After destroy, nothing has the stack's tag or name. A KMS key pending deletion counts as gone."""
    until = run.world.clock() + GONE_WITHIN_S
    while left := leftovers(run.world, run.name):
        if run.world.clock() > until:
            raise ProbeFailedError("\n".join(left))
        run.world.sleep(LOOK_EVERY_S)
    return ["nothing by tag and nothing by name"]
