"""Small random projects, biased to what goes wrong: ties, exact borders, DST days, odd ids, keys and values.

A world is a project, so that one table holds many. The same seed makes the same world.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from tests.insights.oracle.people import Row
from tests.insights.oracle.zones import days, duration, start_of_day

PLACES: Final = (
    ("UTC", date(2026, 3, 1)),
    ("UTC", date(2026, 12, 30)),
    ("Europe/London", date(2026, 3, 29)),  # 23 hours
    ("Europe/London", date(2026, 10, 25)),  # 25 hours
    ("Africa/Cairo", date(2026, 4, 24)),  # no midnight
    ("Africa/Cairo", date(2026, 10, 29)),  # its last hour twice
    ("America/New_York", date(2026, 3, 8)),
    ("America/New_York", date(2026, 11, 1)),
    ("Asia/Kathmandu", date(2026, 3, 29)),
)
NAMES: Final = (
    "A",
    "B",
    "C",
    "Order Completed",
    "<img src=x onerror=alert(1)>",
    "O'Brien; DROP TABLE events--",
    'say "hi" \\ bye',
    "Größe",
)
TOLD: Final = (
    "Page Left",
    "Element Clicked",
    "Web Vitals",
    "Error",
    "Dead Click",
    "Rage Click",
    "Form Submitted",
    "Field Changed",
)
USERS: Final = ("u1", "u2", "42", "ann@example.com")
DEVICES: Final = ("a1", "a2", "42")
PATHS: Final = (
    "/",
    "/a",
    "/a/",
    "/a?x=1",
    "/b#top",
    "/products/123",
    "/products/0",
    "/users/7B0C3C1e-0000-4000-8000-00000000000f/edit/",
    "/o'brien",
)
PLANS: Final = (
    '"pro"',
    '"free"',
    '"Pro"',
    '""',
    "null",
    "true",
    '"true"',
    "3",
    '"3"',
    "[1]",
    '{"x":1}',
    '"o\'brien; --"',
    '"日本"',
    '"<b>"',
)
NUMBERS: Final = ("1", "2", "3", "0.1", "0.2", "-3", "0", "2.5", '"3"', '"0.1"', '"text"', "null", "true", "100")
ODD_NUMBERS: Final = (
    "9007199254740993",
    '"9007199254740993"',
    "100000000000000",
    "1000000000000000",
    '"999999999999999.999999999"',
    "0.1",
    "0.2",
    "-0.3",
    "1e3",
    "1E-9",
    "5e-10",
    "-5e-10",
    "1.5e-10",
    "-0",
    "2.50",
    '"1_000"',
    '"NaN"',
    '" 3 "',
    '"0x10"',
    '"1e5"',
    '"-1E+2"',
    '"+3"',
    '"03"',
    '".5"',
    '"5."',
    '""',
    '"1e400"',
    '"Infinity"',
    '"１"',  # noqa: RUF001  # no digit of JSON's
    "true",
    "null",
    "[]",
    "{}",
)
KEYS: Final = ("a.b", 'qu"ote', "sp ace", "ключ", "$set", "back\\slash", "0", "it's", "x[0]", "*")
MALFORMED: Final = (
    '{"plan":"pro"',
    "not json",
    "",
    '["pro","free"]',
    '"pro"',
    "null",
    "{plan:1}",
    "{'plan':'pro'}",
    '{"plan":NaN}',
    "{}",
)
WINDOWS: Final = ("90s", "30m", "1h", "24h", "1d", "7d")
MICRO: Final = timedelta(microseconds=1)
ENRICHED: Final = {
    "browser_name": ("Chrome", "Firefox", None),
    "os_name": ("iOS", "Mac OS X", None),
    "device_type": ("desktop", "mobile", None),
    "geo_country": ("GB", "NP", None),
    "source": ("google", None, None),
    "context_campaign_source": ("news'letter", "google", None, None),
    "context_campaign_name": ("spring", "fall; --", None, None),
    "context_page_referrer": ("https://example.org/", None),
    "context_screen_width": (1280, 390, None),
}


@dataclass(frozen=True, slots=True)
class World:
    seed: int
    project_id: str
    rows: list[Row]
    complete_through: datetime
    zone: str
    day: date  # the day around which things happen
    names: tuple[str, ...]  # of its track events
    window: str  # a duration that its events keep exactly, or miss by a microsecond
    flavour: str  # which events it has most


def make_world(seed: int) -> World:
    chance = random.Random(f"world {seed}")
    zone, day = chance.choice(PLACES)
    names = tuple(chance.sample(NAMES, chance.choice((1, 2, 2, 3, 4))))
    window = chance.choice(WINDOWS)
    count = chance.choice((0, 1, chance.randint(2, 8), *(chance.randint(15, 60) for _ in range(12))))
    times = _times(chance, zone, day, window, count)
    ids = chance.sample(range(1, 4 * count + 2), count)
    users, devices = USERS[: chance.randint(1, 4)], DEVICES[: chance.randint(1, 3)]
    flavour = chance.choice(("all", "all", "tracks", "tracks", "tracks", "site", "clicks"))
    rows = [
        _row(chance, flavour, names, users, devices)
        | _received(chance, time)
        | {"message_id": f"m{number}", "project_id": f"w{seed}"}
        for time, number in zip(times, ids, strict=True)
    ]
    if count > 8 and chance.random() < 0.2:
        _chain_aliases(chance, rows[:8])
    return World(
        seed, f"w{seed}", rows, _complete_through(chance, times, zone, day, window), zone, day, names, window, flavour
    )


def _times(chance: random.Random, zone: str, day: date, window: str, count: int) -> list[datetime]:
    """Times that tie, stand at midnights, and keep gaps and windows exactly."""
    midnights = [start_of_day(each, zone) for each in days(day - timedelta(days=3), day + timedelta(days=6))]
    spans = [duration(text) for text in (window, window, "30m", "30m", "10s", "10s", "24h", "1h", "7d", "30d")]
    found: list[datetime] = []
    for _ in range(count):
        kind = chance.random()
        anchor = chance.choice(found) if found else chance.choice(midnights)
        if not midnights[0] <= anchor <= midnights[-1]:
            anchor = chance.choice(midnights)
        if kind < 0.2:
            time = anchor
        elif kind < 0.5:
            time = anchor + chance.choice((1, 1, 1, -1)) * chance.choice(spans)
        elif kind < 0.65:
            time = chance.choice(midnights)
        elif kind < 0.68:
            time = chance.choice(midnights) + timedelta(days=chance.choice((-400, -92, -31, -14, 14, 31)))
        elif kind < 0.85:
            time = anchor + timedelta(seconds=chance.randint(0, 1800))
        else:
            time = chance.choice(midnights) + timedelta(hours=chance.randint(0, 23), minutes=chance.randint(0, 59))
        found.append(time + chance.choice((0, 0, 0, 0, 1, -1)) * MICRO)
    return found


def _received(chance: random.Random, time: datetime) -> Row:
    late = chance.choice(
        (timedelta(0), timedelta(seconds=1), timedelta(days=3), timedelta(days=40), timedelta(days=-1), MICRO)
    )
    return {"event_time": time, "received_at": time + late}


def _complete_through(chance: random.Random, times: list[datetime], zone: str, day: date, window: str) -> datetime:
    midnight = start_of_day(day + timedelta(days=chance.randint(-1, 9)), zone)
    last = max(times, default=midnight)
    return chance.choice(
        (
            midnight,
            midnight - MICRO,
            last,
            last + timedelta(days=40),
            last + timedelta(days=40),
            chance.choice(times or [midnight]),
            chance.choice(times or [midnight]) + duration(window),
            chance.choice(times or [midnight]) + timedelta(days=1),
        )
    )


def _row(
    chance: random.Random, flavour: str, names: tuple[str, ...], users: tuple[str, ...], devices: tuple[str, ...]
) -> Row:
    kinds = {
        "all": ("track",) * 8 + ("told",) * 3 + ("page",) * 4 + ("screen", "identify", "identify", "group", "alias"),
        "tracks": ("track",) * 16 + ("identify", "told", "page"),
        "clicks": ("told",) * 12 + ("page", "track", "identify"),
        "site": ("page",) * 8 + ("told",) * 4 + ("track", "track", "screen", "identify"),
    }[flavour]
    kind = chance.choice(kinds)
    row: Row = {
        "type": "track" if kind == "told" else kind,
        "user_id": chance.choice((None, None, *users, *users)),
        "anonymous_id": chance.choice((None, *devices, *devices)),
        "session_id": chance.choice((None, "s1", "s1", "s2")),
        "bot_kind": chance.choice((None,) * 24 + ("search", "AI assistant")),
        "properties": _properties(chance),
    }
    row |= {column: chance.choice(some) for column, some in ENRICHED.items()}
    row |= _of_kind(chance, kind, names)
    return row | _nobody(chance, row)


def _of_kind(chance: random.Random, kind: str, names: tuple[str, ...]) -> Row:
    if kind == "track":
        return {"event": chance.choice((*names * 6, None))}
    if kind == "told":
        name = chance.choice(TOLD)
        if name != "Page Left":
            return {"event": name}
        ms = chance.choice(("10000", "9999", "5000", "5000", '"10000"', "null", "-5", '"much"', "9999.999999999"))
        return {"event": name, "properties": f'{{"engagedMs":{ms}}}'}
    if kind in ("page", "screen"):
        path = chance.choice((*PATHS, None)) if kind == "page" else chance.choice((None, None, "/a"))
        url = None if path is None else f"https://example.com{path}"
        shown: Row = {"context_page_path": path, "context_page_url": url}
        if chance.random() < 0.1:
            shown["properties"] = '{"engagedMs":10000}'  # says nothing on a page
        return shown | {"event": chance.choice((None, "Home", "Error", "Page Left", "A"))}
    if kind == "identify":
        return {"traits": _traits(chance)}
    if kind == "alias":
        return {
            "user_id": chance.choice((*USERS, None)),
            "previous_id": chance.choice((*USERS, *DEVICES, None)),
        }
    return {"group_id": "g", "traits": '{"plan":"group"}'}


def _nobody(chance: random.Random, row: Row) -> Row:
    """Ids that name nobody, as the processor marks them; now and then the empty text that no repair marks."""
    found: Row = {}
    for name in ("user_id", "anonymous_id", "previous_id"):
        if row.get(name) is not None and chance.random() < 0.06:
            found[name] = chance.choice(("undefined", "null", "[object Object]", " "))
    marks = [f"{name}_placeholder" for name in found]
    if chance.random() < 0.1:
        marks.insert(chance.randint(0, len(marks)), "message_id_missing")
    if row["type"] != "alias" and row.get("user_id") is not None and "user_id" not in found and chance.random() < 0.02:
        found["user_id"] = ""
    return found | {"repairs": ",".join(marks) or None}


def _properties(chance: random.Random) -> str | None:
    if chance.random() < 0.08:
        return chance.choice((*MALFORMED, None))
    members = []
    if chance.random() < 0.8:
        members.append(("plan", chance.choice(PLANS[: chance.choice((2, 14))])))
    if chance.random() < 0.7:
        members.append(("n", chance.choice(NUMBERS)))
    if chance.random() < 0.5:
        members.append(("odd", chance.choice(ODD_NUMBERS)))
    if chance.random() < 0.5:
        members.append((chance.choice(KEYS), chance.choice(PLANS)))
    if chance.random() < 0.3:
        members.append(("deep", f'{{"a.b":{{"0":{chance.choice(PLANS)}}},"list":[{chance.choice(PLANS)}]}}'))
    return _object(chance, members)


def _traits(chance: random.Random) -> str | None:
    if chance.random() < 0.15:
        return chance.choice((*MALFORMED, None))
    members = []
    if chance.random() < 0.8:
        members.append(("plan", chance.choice(PLANS)))
    if chance.random() < 0.5:
        members.append(("n", chance.choice(NUMBERS)))
    if chance.random() < 0.3:
        members.append((chance.choice(KEYS), chance.choice(PLANS)))
    if chance.random() < 0.3:
        members.append(("deep", chance.choice(('{"x":"pro"}', '{"x":null}', '{"y":1}', "null"))))
    return _object(chance, members)


def _object(chance: random.Random, members: list[tuple[str, str]]) -> str:
    chance.shuffle(members)
    is_ascii, space = chance.random() < 0.5, chance.choice(("", " "))
    return "{" + ",".join(f"{space}{json.dumps(key, ensure_ascii=is_ascii)}:{space}{raw}" for key, raw in members) + "}"


def _chain_aliases(chance: random.Random, rows: list[Row]) -> None:
    """Turn rows into a chain of seven aliases and a row of its first user, or a cycle of four."""
    if chance.random() < 0.5:
        pairs = [(f"c{n}", f"c{n + 1}") for n in range(7)]
    else:
        pairs = [("c2", "c3"), ("c3", "c4"), ("c4", "c1"), ("c1", "c2")]
    for row, (old, new) in zip(rows, pairs, strict=False):
        row |= {"type": "alias", "event": None, "previous_id": old, "user_id": new, "repairs": None}
        row |= {"anonymous_id": None, "traits": None, "context_page_path": None}
    rows[-1] |= {"user_id": pairs[0][0], "repairs": None}
