"""Who did it, from the comments of the views ``identities`` and ``person_events``, and everybody's traits."""

from __future__ import annotations

from datetime import datetime

from tests.insights.oracle.values import parse

Row = dict[str, object]
Person = tuple[str, str]  # person_id, person_kind

ALIASES_FOLLOWED = 7


def named(row: Row, column: str) -> str | None:
    """The id in a column, unless it names nobody."""
    value = row.get(column)
    if value is None or f"{column}_placeholder" in str(row.get("repairs") or ""):
        return None
    return str(value)


def moment(row: Row) -> tuple[datetime, str]:
    time = row["event_time"]
    assert isinstance(time, datetime)
    return time, str(row["message_id"])


def find_persons(rows: list[Row]) -> list[Person | None]:
    """The person of each row of one project; None where its ids name nobody."""
    user_of_device: dict[str, str] = {}
    alias: dict[str, str] = {}
    for row in sorted(rows, key=moment):
        user, device, previous = (named(row, column) for column in ("user_id", "anonymous_id", "previous_id"))
        if user is None:
            continue
        if device is not None:
            user_of_device[device] = user
        if row["type"] == "alias" and previous is not None:
            user_of_device[previous] = user
            if previous != user:
                alias[previous] = user
    return [_person(row, user_of_device, alias) for row in rows]


def _person(row: Row, user_of_device: dict[str, str], alias: dict[str, str]) -> Person | None:
    device = named(row, "anonymous_id")
    user = named(row, "user_id")
    if user is None and device is not None:
        user = user_of_device.get(device)
    if user is not None:
        return _follow(user, alias), "user"
    return (device, "anonymous") if device is not None else None


def _follow(user: str, alias: dict[str, str]) -> str:
    """The last of a chain of aliases; of a cycle its least id."""
    chain = [user]
    while chain[-1] in alias and len(chain) <= ALIASES_FOLLOWED + 1:
        chain.append(alias[chain[-1]])
    if len(chain) == ALIASES_FOLLOWED + 2:  # it has no end
        return min(chain[-4:])
    return chain[-1]


def find_traits(rows: list[Row], persons: list[Person | None]) -> dict[Person, dict[str, object]]:
    """For each person and key the latest value that is not null."""
    found: dict[Person, dict[str, object]] = {}
    for row, person in sorted(zip(rows, persons, strict=True), key=lambda pair: moment(pair[0])):
        traits = parse(row.get("traits"))
        if person is None or row["type"] != "identify" or not isinstance(traits, dict):
            continue
        known = found.setdefault(person, {})
        known.update({key: value for key, value in traits.items() if value is not None})
    return found
