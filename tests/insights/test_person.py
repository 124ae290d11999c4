"""Who did it: the views against a plain program over small random worlds, and cases by hand.

A world is a project, so that one commit holds hundreds of them. Ids and times are few, so that users share devices,
aliases meet in chains and circles, and events tie.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise

from manymetrics_insights.views import read_views
from tests.insights.lakes import NOON, Lake, Row
from tests.insights.traits_cases import EXPECTED, identifies
from tests.scale import scaled

Ask = Callable[[str], list[Row]]

WORLDS = scaled(200, 400, 4_000)
USERS = ("u1", "u2", "u3", "u4", "42")
TRAITS = ({"plan": "free"}, {"plan": "pro", "age": None}, {"age": 4, "plan": None}, {"é": {"b": 1}, "age": 5})
DEVICES = ("a1", "a2", "a3", "42")


def person_of(lake_rows: Ask, *columns: str) -> list[tuple[object, ...]]:
    names = columns or ("message_id", "person_id", "person_kind")
    rows = lake_rows(f"SELECT {', '.join(names)} FROM person_events ORDER BY message_id")
    return [tuple(row.values()) for row in rows]


def test_a_user_id_on_the_event_wins(lake: Lake, rows_of: Ask) -> None:
    lake.append_events(
        {"message_id": "1", "anonymous_id": "a", "user_id": "ann"},
        {"message_id": "2", "anonymous_id": "a", "user_id": "bob", "event_time": NOON + timedelta(days=1)},
    )

    assert person_of(rows_of) == [("1", "ann", "user"), ("2", "bob", "user")]


def test_anonymous_events_go_to_the_user_seen_last_on_the_device_also_those_before(lake: Lake, rows_of: Ask) -> None:
    lake.append_events(
        {"message_id": "1", "anonymous_id": "a", "event_time": NOON - timedelta(days=9)},
        {"message_id": "2", "anonymous_id": "a", "user_id": "ann"},
        {"message_id": "3", "anonymous_id": "a", "user_id": "bob", "event_time": NOON + timedelta(microseconds=1)},
    )

    assert person_of(rows_of)[0] == ("1", "bob", "user")


def test_users_seen_at_the_same_time_are_told_apart_by_message_id(lake: Lake, rows_of: Ask) -> None:
    lake.append_events(
        {"message_id": "2", "anonymous_id": "a", "user_id": "ann"},
        {"message_id": "1", "anonymous_id": "a", "user_id": "bob"},
        {"message_id": "3", "anonymous_id": "a"},
    )

    assert person_of(rows_of)[2] == ("3", "ann", "user")


def test_a_value_that_an_older_processor_left_in_the_context_is_in_its_column(lake: Lake, rows_of: Ask) -> None:
    left = '{"device":{"brand":"Acme"},"groupId":"g-1"}'
    lake.append_events(
        {"message_id": "1", "user_id": "ann", "context": left},
        {"message_id": "2", "user_id": "ann", "context": left, "context_group_id": "g-2"},
        {"message_id": "3", "user_id": "ann"},
    )

    found = person_of(rows_of, "message_id", "context_device_brand", "context_group_id")

    assert found == [("1", "Acme", "g-1"), ("2", "Acme", "g-2"), ("3", None, None)]


def test_an_alias_makes_one_person_of_two_users(lake: Lake, rows_of: Ask) -> None:
    lake.append_events(
        {"message_id": "1", "user_id": "old"},
        {"message_id": "2", "type": "alias", "previous_id": "old", "user_id": "new"},
        {"message_id": "3", "user_id": "new"},
    )

    assert person_of(rows_of) == [("1", "new", "user"), ("2", "new", "user"), ("3", "new", "user")]


def test_an_alias_of_a_device_names_its_user(lake: Lake, rows_of: Ask) -> None:
    lake.append_events(
        {"message_id": "1", "anonymous_id": "a"},
        {"message_id": "2", "type": "alias", "previous_id": "a", "user_id": "ann"},
    )

    assert person_of(rows_of) == [("1", "ann", "user"), ("2", "ann", "user")]


def test_only_an_alias_merges_users(lake: Lake, rows_of: Ask) -> None:
    lake.append_events(
        {"message_id": "1", "user_id": "old"},
        {"message_id": "2", "type": "identify", "previous_id": "old", "user_id": "new", "anonymous_id": "a"},
        {"message_id": "3", "user_id": "old", "anonymous_id": "a"},
    )

    assert person_of(rows_of) == [("1", "old", "user"), ("2", "new", "user"), ("3", "old", "user")]


def test_aliases_are_followed_through_seven_in_a_row(lake: Lake, rows_of: Ask) -> None:
    chain: list[Row] = [{"type": "alias", "previous_id": f"u{n}", "user_id": f"u{n + 1}"} for n in range(7)]
    lake.append_events(*chain, {"message_id": "z", "user_id": "u0"})

    assert {row[1] for row in person_of(rows_of)} == {"u7"}


def test_aliases_in_a_circle_make_one_person_and_end(lake: Lake, rows_of: Ask) -> None:
    circle = [("b", "c"), ("c", "d"), ("d", "a"), ("a", "b"), ("tail", "c"), ("self", "self")]
    aliases: list[Row] = [{"type": "alias", "previous_id": old, "user_id": new} for old, new in circle]
    lake.append_events(*aliases)

    assert person_of(rows_of, "user_id", "person_id") == [
        ("c", "a"),
        ("d", "a"),
        ("a", "a"),
        ("b", "a"),
        ("c", "a"),
        ("self", "self"),
    ]


def test_projects_share_nothing(lake: Lake, rows_of: Ask) -> None:
    lake.append_events(
        {"message_id": "1", "project_id": "one", "anonymous_id": "a", "user_id": "ann"},
        {"message_id": "2", "project_id": "two", "anonymous_id": "a"},
        {"message_id": "3", "project_id": "one", "type": "alias", "previous_id": "bob", "user_id": "ann"},
        {"message_id": "4", "project_id": "two", "user_id": "bob"},
    )

    assert person_of(rows_of) == [
        ("1", "ann", "user"),
        ("2", "a", "anonymous"),
        ("3", "ann", "user"),
        ("4", "bob", "user"),
    ]


def test_an_anonymous_42_is_not_the_user_42(lake: Lake, rows_of: Ask) -> None:
    lake.append_events({"anonymous_id": "42"}, {"user_id": "42"})

    kinds = rows_of("SELECT person_id, person_kind, events FROM users ORDER BY person_kind")
    assert kinds == [
        {"person_id": "42", "person_kind": "anonymous", "events": 1},
        {"person_id": "42", "person_kind": "user", "events": 1},
    ]


def test_an_id_that_names_nobody_joins_nobody(lake: Lake, rows_of: Ask) -> None:
    user, device, previous = (f"{name}_id_placeholder" for name in ("user", "anonymous", "previous"))
    lake.append_events(
        {"message_id": "1", "user_id": "undefined", "anonymous_id": "a", "repairs": user},
        {"message_id": "2", "user_id": "undefined", "anonymous_id": "b", "repairs": f"not_a_number,{user}"},
        {"message_id": "3", "user_id": "undefined", "repairs": user},
        {"message_id": "4", "user_id": "ann", "anonymous_id": "null", "repairs": device},
        {"message_id": "5", "user_id": "bob", "anonymous_id": "null", "repairs": f"{device},message_id_missing"},
        {"message_id": "6", "anonymous_id": "null", "repairs": device},
        {"message_id": "7", "user_id": "NaN", "anonymous_id": " ", "repairs": f"{device},{user}"},
        {"message_id": "8", "type": "alias", "previous_id": "ann", "user_id": "undefined", "repairs": user},
        {"message_id": "9", "type": "alias", "previous_id": "null", "user_id": "bob", "repairs": previous},
    )

    assert person_of(rows_of) == [
        ("1", "a", "anonymous"),
        ("2", "b", "anonymous"),
        ("3", None, "unknown"),
        ("4", "ann", "user"),
        ("5", "bob", "user"),
        ("6", None, "unknown"),
        ("7", None, "unknown"),
        ("8", None, "unknown"),
        ("9", "bob", "user"),
    ]
    assert rows_of("SELECT person_id, events, devices FROM users ORDER BY person_id") == [
        {"person_id": "a", "events": 1, "devices": 1},
        {"person_id": "ann", "events": 1, "devices": 0},
        {"person_id": "b", "events": 1, "devices": 1},
        {"person_id": "bob", "events": 2, "devices": 0},
    ]
    assert rows_of("SELECT type, events, persons FROM event_catalog ORDER BY type") == [
        {"type": "alias", "events": 2, "persons": 1},
        {"type": "track", "events": 7, "persons": 4},
    ]
    assert rows_of("SELECT placeholder_ids FROM data_quality") == [{"placeholder_ids": 8}]
    assert rows_of("SELECT * FROM identities") == []


def test_only_an_object_with_keys_counts_as_traits(lake: Lake, rows_of: Ask) -> None:
    traits = ['{"plan":"pro"}', "[]", "{}", "{ }", '"text"', '["a"]', "5", None]
    identifies: list[Row] = [
        {"type": "identify", "user_id": "u", "traits": text, "event_time": NOON + timedelta(hours=hour)}
        for hour, text in enumerate(traits)
    ]
    lake.append_events(*identifies)

    assert rows_of("SELECT traits, traits_at FROM users") == [{"traits": '{"plan":"pro"}', "traits_at": NOON}]


def test_traits_are_the_latest_values_that_are_not_null_key_by_key(lake: Lake, rows_of: Ask) -> None:
    lake.append_events(*identifies())

    assert {row["person_id"]: row["traits"] for row in rows_of("SELECT person_id, traits FROM users")} == EXPECTED


def test_traits_at_is_when_the_latest_of_these_values_was_set(lake: Lake, rows_of: Ask) -> None:
    traits = ['{"a":1,"b":1}', '{"a":2}', '{"b":null}', "{}", '{"c"']
    lake.append_events(
        *(
            {"type": "identify", "user_id": "u", "traits": text, "event_time": NOON + timedelta(hours=hour)}
            for hour, text in enumerate(traits)
        )
    )

    assert rows_of("SELECT traits, traits_at FROM users") == [
        {"traits": '{"a":2,"b":1}', "traits_at": NOON + timedelta(hours=1)}
    ]


def test_person_events_has_each_event_once_with_all_its_columns(lake: Lake, rows_of: Ask) -> None:
    lake.append_events(*random_events())

    persons = rows_of("SELECT * FROM person_events ORDER BY project_id, message_id")
    events = rows_of("SELECT * FROM events ORDER BY project_id, message_id")

    assert [{k: v for k, v in row.items() if k not in ("person_id", "person_kind")} for row in persons] == events


def test_persons_are_those_of_a_plain_program_in_random_worlds(lake: Lake, rows_of: Ask) -> None:
    events = random_events()
    lake.append_events(*events)

    found = rows_of("SELECT project_id, message_id, person_id, person_kind FROM person_events")

    expected = {(e["project_id"], e["message_id"]): person for e, person in with_person(events)}
    assert {(r["project_id"], r["message_id"]): (r["person_kind"], r["person_id"]) for r in found} == expected
    assert len(found) == len(events)


def test_the_text_for_athena_finds_the_same_persons(lake: Lake, rows_of: Ask) -> None:
    lake.append_events(*random_events(), *random_aliases())
    [view] = [view for view in read_views() if view.name == "person_events"]
    persons = "SELECT project_id, message_id, person_id, person_kind FROM {} ORDER BY project_id, message_id"

    expected = rows_of(persons.format("person_events"))
    found = rows_of(persons.format(f"({view.sql})"))

    assert view.sql != view.duckdb_sql
    assert found == expected


def test_random_aliases_have_chains_and_cycles_within_and_beyond_what_is_followed() -> None:
    chains: set[int] = set()
    cycles: set[int] = set()
    for aliases in last_aliases(random_aliases()).values():
        for user in aliases:
            path = [user]
            while path[-1] in aliases and path[-1] not in path[:-1]:
                path.append(aliases[path[-1]])
            length = len(path) - 1 - path.index(path[-1])
            (cycles if length else chains).add(length or len(path) - 1)

    assert chains >= set(range(1, 10))
    assert cycles >= set(range(2, 6))


def test_users_are_those_of_a_plain_program_in_random_worlds(lake: Lake, rows_of: Ask) -> None:
    events = random_events()
    lake.append_events(*events)

    found = rows_of("SELECT * FROM users")

    assert sorted(found, key=str) == sorted(plain_users(events), key=str)


def test_identities_are_those_of_a_plain_program_in_random_worlds(lake: Lake, rows_of: Ask) -> None:
    events = random_events()
    lake.append_events(*events)

    found = rows_of("SELECT * FROM identities")

    assert sorted(found, key=str) == sorted(plain_identities(events), key=str)


def random_events() -> list[Row]:
    chance = random.Random(7)
    return [event for world in range(WORLDS) for event in random_world(chance, f"world{world}")]


def random_world(chance: random.Random, project: str) -> Iterator[Row]:
    for number in chance.sample(range(100), chance.randint(1, 14)):
        kind = chance.choice(["track", "page", "screen", "identify", "alias", "alias", "group"])
        event: Row = {
            "project_id": project,
            "message_id": f"m{number}",
            "type": kind,
            "event_time": NOON + timedelta(microseconds=chance.randint(0, 3)),
            "user_id": chance.choice([None, None, *USERS]) if kind != "alias" else chance.choice(USERS),
            "anonymous_id": chance.choice([None, *DEVICES]),
            "previous_id": chance.choice([*USERS, *DEVICES]) if kind == "alias" or chance.random() < 0.1 else None,
            "traits": chance.choice([None, "{}", *map(json.dumps, TRAITS)]),
        }
        placeholders = [
            name for name in ("user", "anonymous", "previous") if event[f"{name}_id"] and chance.random() < 0.1
        ]
        event |= {f"{name}_id": "undefined" for name in placeholders}
        yield event | {"repairs": ",".join(f"{name}_id_placeholder" for name in placeholders) or None}


def random_aliases() -> list[Row]:
    """Worlds of long chains and cycles of aliases: beyond what is followed, too."""
    chance = random.Random(8)
    return [event for world in range(WORLDS) for event in random_chains(chance, f"aliases{world}")]


def random_chains(chance: random.Random, project: str) -> Iterator[Row]:
    ids = chance.sample([f"u{number}" for number in range(14)], chance.randint(2, 14))
    links = list(pairwise(ids))
    if chance.random() < 0.6:
        links.append((ids[-1], chance.choice(ids)))
    links += [(chance.choice(ids), chance.choice(ids)) for _ in range(chance.choice([0, 0, 1, 3]))]
    messages = iter(chance.sample(range(100), len(links) + len(ids)))
    for previous, user in links:
        yield {
            "project_id": project,
            "message_id": f"m{next(messages)}",
            "type": "alias",
            "event_time": NOON + timedelta(microseconds=chance.randint(0, 2)),
            "user_id": user,
            "previous_id": previous,
            "repairs": chance.choice([None, None, None, None, "user_id_placeholder", "previous_id_placeholder"]),
        }
    for name in ids:
        yield {
            "project_id": project,
            "message_id": f"m{next(messages)}",
            chance.choice(["user_id", "anonymous_id"]): name,
        }


def last_aliases(events: list[Row]) -> dict[object, dict[object, object]]:
    """The aliases that apply, by project and previous_id."""
    found: dict[object, dict[object, object]] = defaultdict(dict)
    for event in sorted(events, key=lambda event: (str(event["project_id"]), *moment({"event_time": NOON} | event))):
        if event.get("type") == "alias" and event["repairs"] is None and event["previous_id"] != event["user_id"]:
            found[event["project_id"]][event["previous_id"]] = event["user_id"]
    return found


def named(event: Row) -> Row:
    """An event without the ids that name nobody."""
    return event | {name: None for name in ("user_id", "anonymous_id", "previous_id") if event[name] == "undefined"}


def moment(event: Row) -> tuple[object, object]:
    return event["event_time"], event["message_id"]


def with_person(events: list[Row]) -> list[tuple[Row, tuple[str, object]]]:
    """Each event with its person, by the definition: worlds, then time, then one rule after the other."""
    device: dict[tuple[object, object], object] = {}
    alias: dict[tuple[object, object], object] = {}
    for event in sorted(map(named, events), key=lambda e: (str(e["project_id"]), *moment(e))):
        project, user = event["project_id"], event["user_id"]
        if user is None:
            continue
        if event["anonymous_id"] is not None:
            device[project, event["anonymous_id"]] = user
        if event["type"] == "alias" and event["previous_id"] is not None:
            device[project, event["previous_id"]] = user
            if event["previous_id"] != user:
                alias[project, event["previous_id"]] = user

    def merged(project: object, user: object) -> object:
        path: list[object] = []
        while (project, user) in alias and user not in path:
            path.append(user)
            user = alias[project, user]
        return min(map(str, path[path.index(user) :])) if user in path else user

    def person(event: Row) -> tuple[str, object]:
        project, anonymous = event["project_id"], event["anonymous_id"]
        user = event["user_id"] if event["user_id"] is not None else device.get((project, anonymous))
        if user is not None:
            return "user", merged(project, user)
        return ("unknown", None) if anonymous is None else ("anonymous", anonymous)

    return [(event, person(named(event))) for event in events]


def plain_users(events: list[Row]) -> list[Row]:
    persons: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for event, (kind, person) in with_person(events):
        if kind != "unknown":
            persons[event["project_id"], person, kind].append(named(event))
    users: list[Row] = []
    for (project, person_id, person_kind), theirs in persons.items():
        values: dict[str, object] = {}
        set_at: dict[str, object] = {}
        for event in sorted((e for e in theirs if e["type"] == "identify"), key=moment):
            new = {key: value for key, value in json.loads(str(event["traits"] or "{}")).items() if value is not None}
            values |= new
            set_at |= dict.fromkeys(new, event["event_time"])
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        users.append(
            {
                "project_id": project,
                "person_id": person_id,
                "person_kind": person_kind,
                "first_seen": min(e["event_time"] for e in theirs),  # type: ignore[type-var]
                "last_seen": max(e["event_time"] for e in theirs),  # type: ignore[type-var]
                "events": len(theirs),
                "tracks": sum(e["type"] == "track" for e in theirs),
                "pages": sum(e["type"] in ("page", "screen") for e in theirs),
                "devices": len({e["anonymous_id"] for e in theirs} - {None}),
                "traits": text if values else None,
                "traits_at": max(set_at.values(), default=None),  # type: ignore[type-var]
            }
        )
    return users


def plain_identities(events: list[Row]) -> list[Row]:
    links: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for event in map(named, events):
        if event["user_id"] is not None and event["anonymous_id"] is not None:
            links[event["project_id"], event["anonymous_id"], None, event["user_id"]].append(event)
        if event["user_id"] is not None and event["type"] == "alias" and event["previous_id"] is not None:
            links[event["project_id"], None, event["previous_id"], event["user_id"]].append(event)
    return [
        dict(zip(("project_id", "anonymous_id", "previous_id", "user_id"), link, strict=True))
        | {
            "first_seen": min(shown, key=moment)["event_time"],
            "last_seen": max(shown, key=moment)["event_time"],
            "last_message_id": max(shown, key=moment)["message_id"],
            "events": len(shown),
        }
        for link, shown in links.items()
    ]
