"""What policies of IAM allow, as far as this project's use it: Allow and Deny, wildcards, and conditions on strings.

moto has such a thing too, but takes a condition that isn't met for a denial of everything, and knows none of ours.
What is not understood here is an error, never a yes or a no.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

Policy = Mapping[str, Any]

_KNOWN = {"Sid", "Effect", "Action", "Resource", "Condition", "Principal"}
_OPERATORS = {"StringEquals", "Bool"}


@dataclass(frozen=True, slots=True, order=True)
class Need:
    """One thing that a call needs to be allowed. ``via``: through which service, as KMS is asked by others.

    ``tls``: whether it comes by HTTPS.
    """

    action: str
    resource: str
    via: str = ""
    tls: bool = True

    def __str__(self) -> str:
        return " ".join(part for part in (self.action, self.resource, self.via and f"via {self.via}") if part)

    @property
    def context(self) -> dict[str, str]:
        """The keys of conditions that it comes with."""
        return {"aws:SecureTransport": str(self.tls).lower()} | ({"kms:ViaService": self.via} if self.via else {})


def is_allowed(policies: Iterable[Policy], need: Need) -> bool:
    """Whether a statement allows it and none denies it. Policies of buckets are among them for what they deny."""
    effects = {one["Effect"] for policy in policies for one in policy["Statement"] if _is_about(one, need)}
    return effects == {"Allow"}


def grants(policy: Policy) -> Iterator[Policy]:
    """A policy for each single thing that a policy allows: an action on a resource, under a value of a condition."""
    for statement in policy["Statement"]:
        if statement["Effect"] != "Allow":
            continue
        for action in _list(statement["Action"]):
            for resource in _list(statement["Resource"]):
                for condition in _conditions(statement.get("Condition", {})):
                    single = {"Effect": "Allow", "Action": action, "Resource": resource, "Condition": condition}
                    yield {"Statement": [single]}


def in_words(grant: Policy) -> str:
    """One of those, for people."""
    [one] = grant["Statement"]
    return " ".join([one["Action"], one["Resource"], *(f"{test}" for test in one["Condition"].values())])


def unused(policy: Policy, needs: Iterable[Need]) -> list[str]:
    """What a policy allows that none of these needs."""
    asked = list(needs)
    return [in_words(one) for one in grants(policy) if not any(is_allowed([one], need) for need in asked)]


def _is_about(statement: Mapping[str, Any], need: Need) -> bool:
    if strange := statement.keys() - _KNOWN:
        raise ValueError(f"a statement with {strange}")
    return (
        any(_fits(pattern.lower(), need.action.lower()) for pattern in _list(statement["Action"]))
        and any(_fits(pattern, need.resource) for pattern in _list(statement["Resource"]))
        and all(_holds(operator, keys, need.context) for operator, keys in statement.get("Condition", {}).items())
    )


def _holds(operator: str, wanted: Mapping[str, str | list[str]], context: Mapping[str, str]) -> bool:
    """Of a key that a call doesn't come with, nothing holds."""
    if operator not in _OPERATORS:
        raise ValueError(f"a condition with {operator}")
    return all(context.get(key) in _list(values) for key, values in wanted.items())


def _conditions(condition: Mapping[str, Mapping[str, str | list[str]]]) -> Iterator[dict[str, dict[str, str]]]:
    """One for each value; ours have one key, or none."""
    tests = [(operator, key, values) for operator, keys in condition.items() for key, values in keys.items()]
    if not tests:
        yield {}
        return
    [(operator, key, values)] = tests
    for value in _list(values):
        yield {operator: {key: value}}


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)


def _fits(pattern: str, text: str) -> bool:
    return _pattern(pattern).fullmatch(text) is not None


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
