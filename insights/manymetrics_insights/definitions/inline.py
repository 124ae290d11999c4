"""Replace the names in a question by what they stand for, so that it stands alone.

An answer's receipt holds the question in this form: a later change of a definition does not touch it.
"""

from __future__ import annotations

from typing import Final, TypeVar

from pydantic import BaseModel

from manymetrics_insights.definitions.models import NONE, Definitions
from manymetrics_insights.questions.base import MAX_TEXT, Model, nearest
from manymetrics_insights.questions.filters import AllOf, AnyCohort, AnyFilter, InCohort, Matcher
from manymetrics_insights.questions.models import AnyQuestion, Paths, QuestionError, Ranged, Step

MAX_PARTS: Final = 5_000  # that a question may stand for; names of names double quickly
MAX_DEPTH: Final = 20  # of names that stand for names
_MAX_FILTERS: Final = 100
_KINDS: Final = ("event", "page", "type", "any", "any_of", "definition")

M = TypeVar("M", bound=BaseModel)
Keys = tuple[str | int, ...]


def inline(question: AnyQuestion, definitions: Definitions | None = None) -> AnyQuestion:
    """Return the question without names, and with the rules that apply to it. Raises QuestionError.

    An inlined question stays as it is, with any definitions.
    """
    inliner = Inliner(definitions or NONE)
    found = inliner.part(question, ())
    if inliner.errors:
        raise QuestionError(inliner.errors)
    return found


class Inliner:
    """Collects what is wrong in ``errors``: paths and messages."""

    def __init__(self, definitions: Definitions) -> None:
        self.definitions = definitions
        self.errors: list[tuple[list[str | int], str]] = []
        self._within: list[tuple[str, str]] = []  # the names whose meaning is being read
        self._parts = 0

    def enter(self, kind: str, name: str) -> None:
        """Read on as within a definition, so that its own name in it is a cycle."""
        self._within.append((kind, name))

    def part(self, part: M, path: Keys) -> M:
        """Return a part of a question, or of a definition, without names."""
        self._parts += 1
        if self._parts > MAX_PARTS:
            if self._parts == MAX_PARTS + 1:
                self._refuse(path, f"stands for more than {MAX_PARTS:,} parts: define it with fewer names of names")
            return part
        changed: dict[str, object] = {}
        for name, field in type(part).model_fields.items():
            value = getattr(part, name)
            found = self._value(value, (*path, field.alias or name))
            if found is not value:
                changed[name] = found
        if isinstance(part, Ranged):
            changed |= self._rules(part, path)
        if isinstance(part, Step) and part.label is None and _names_a_definition(part):
            changed["label"] = part.title[:MAX_TEXT]  # as the answer would have it with the name
        copy = part.model_copy(update=changed) if changed else part
        if isinstance(copy, Matcher) and copy.definition is not None:
            found = self.event(copy.definition, (*path, "definition"))
            return copy if found is None else copy.model_copy(update=_stands_for(found, copy))
        if isinstance(copy, InCohort) and isinstance(copy.cohort, str):
            cohort = self.cohort(copy.cohort, (*path, "cohort"))
            return copy if cohort is None else copy.model_copy(update={"cohort": cohort})
        return copy

    def _value(self, value: object, path: Keys) -> object:
        if isinstance(value, Model):
            return self.part(value, path)
        if isinstance(value, tuple):
            found = tuple(self._value(one, (*path, place)) for place, one in enumerate(value))
            return found if any(one is not other for one, other in zip(found, value, strict=True)) else value
        return value

    def _rules(self, question: Ranged, path: Keys) -> dict[str, object]:
        """Return what the definitions say of a question's population and paths, where it doesn't say so itself."""
        known, found = self.definitions, dict[str, object]()
        if question.internal != "include" and question.internal_cohort is None:
            if known.internal is None:
                self._refuse((*path, "internal"), "no internal users are defined")
            else:
                found["internal_cohort"] = self.part(known.internal, (*path, "internal"))
        if question.bots != "include" and question.bot_rows is None:
            found["bot_rows"] = known.bots
        if isinstance(question, Paths) and question.rules is None:
            found["rules"] = known.paths
        return found

    def event(self, name: str, path: Keys) -> Matcher | None:
        """Return the matcher of a defined event, without names; None if that is wrong."""
        found = self.definitions.events.get(name)
        if found is None:
            self._refuse(path, f"there is no definition of an event {name!r}{nearest(name, self.definitions.events)}")
            return None
        return self._named(("event", name), found, path)

    def cohort(self, name: str, path: Keys) -> AnyCohort | None:
        """Return the condition of a cohort, without names; None if that is wrong."""
        found = self.definitions.cohorts.get(name)
        if found is None:
            self._refuse(path, f"there is no cohort {name!r}{nearest(name, self.definitions.cohorts)}")
            return None
        return self._named(("cohort", name), found, path)

    def _named(self, key: tuple[str, str], found: M, path: Keys) -> M | None:
        if key in self._within:
            names = [name for _, name in [*self._within[self._within.index(key) :], key]]
            self._refuse(path, f"stands for itself: {' -> '.join(names)}")
            return None
        if len(self._within) >= MAX_DEPTH:
            self._refuse(path, f"names stand for names more than {MAX_DEPTH} deep")
            return None
        self._within.append(key)
        errors = len(self.errors)
        whole = self.part(found, ())
        self._within.pop()
        if len(self.errors) > errors:  # of the definition: told where it is named
            messages = [message for _, message in self.errors[errors:]]
            self.errors[errors:] = [(list(path), messages[0])]
            return None
        return whole

    def _refuse(self, path: Keys, message: str) -> None:
        self.errors.append((list(path), message))


def _names_a_definition(matcher: Matcher) -> bool:
    return matcher.definition is not None or any(map(_names_a_definition, matcher.any_of or ()))


def _stands_for(found: Matcher, matcher: Matcher) -> dict[str, object]:
    return {kind: getattr(found, kind) for kind in _KINDS} | {"where": _both(found.where, matcher.where)}


def _both(first: tuple[AnyFilter, ...], second: tuple[AnyFilter, ...]) -> tuple[AnyFilter, ...]:
    """Return filters that are all of both, no more than a question takes."""
    if len(first) + len(second) <= _MAX_FILTERS:
        return (*first, *second)
    return tuple(AllOf(all=some) for some in (first, second) if some)
