"""Insights over real orders and edits, against the same figures counted from the source files by plain loops.

Each event is sent with a device of its sender, so that there are sessions; edits of robots with a robot's user agent.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from math import ceil
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from manymetrics_insights.asking.ask import Context, answer
from manymetrics_insights.questions.models import parse_question
from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.session import Session, open_session
from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from tests.integration.micro_batches import NOW, SHARD, STREAM, make_lake, packed
from tests.real_data import PROJECTS, read_events, true_figures

SHOP: dict[str, Any] = {"project": PROJECTS["retail-orders"], "from": "2010-12-01", "to": "2011-07-01"}
WIKI: dict[str, Any] = {"project": PROJECTS["wiki-edits"], "from": "2015-09-10", "to": "2015-11-02"}
BOUGHT, REFUNDED, EDITED = "Order Completed", "Order Refunded", "Page Edited"
LATER = datetime(2026, 1, 1)
ROBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
A_RECORD = 200
HALF_AN_HOUR = timedelta(minutes=30)
MONTHS = [date(2010, 12, 1), *(date(2011, month, 1) for month in range(1, 7))]

Person = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Sent:
    """An event as it stands in its file."""

    time: datetime
    message_id: str
    person: Person
    event: str
    properties: dict[str, Any]
    is_robot: bool


@pytest.fixture(scope="module")
def sent(shared_data: Path) -> dict[str, list[Sent]]:
    return {
        name: sorted(map(_parse, read_events(shared_data, name)), key=lambda one: (one.time, one.message_id))
        for name in PROJECTS
    }


@pytest.fixture(scope="module")
def orders(sent: dict[str, list[Sent]]) -> list[Sent]:
    return sent["retail-orders"]


@pytest.fixture(scope="module")
def edits(sent: dict[str, list[Sent]]) -> list[Sent]:
    return sent["wiki-edits"]


@pytest.fixture(scope="module")
def session(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    data_dir = tmp_path_factory.mktemp("real") / "data"
    pipeline.run(list(_records(shared_data)), STREAM, make_lake(data_dir), Window())
    opened = open_session(Folder(data_dir))
    with closing(opened.connection) as connection:
        # Held: who a person is need not be found again for each question.
        views = {view.name: view.sql for view in opened.views}
        connection.execute(f"CREATE OR REPLACE TEMP TABLE person_events AS {views['person_events']}")
        connection.execute(f"CREATE OR REPLACE TEMP TABLE users AS {views['users']}")
        yield opened


def _parse(line: bytes) -> Sent:
    event = json.loads(line, parse_float=Decimal)
    person = ("user", event["userId"]) if "userId" in event else ("anonymous", event["anonymousId"])
    at, properties = datetime.fromisoformat(event["timestamp"]).replace(tzinfo=None), event["properties"]
    return Sent(at, event["messageId"], person, event["event"], properties, properties.get("isRobot") is True)


def _records(folder: Path) -> Iterator[StreamRecord]:
    sequence = 0
    for name, project in PROJECTS.items():
        events: list[dict[str, Any] | bytes] = [_to_send(json.loads(line)) for line in read_events(folder, name)]
        for start in range(0, len(events), A_RECORD):
            sequence += 1
            yield StreamRecord(SHARD, sequence, packed(events[start : start + A_RECORD], project_id=project), NOW)


def _to_send(event: dict[str, Any]) -> dict[str, Any]:
    event.setdefault("anonymousId", f"device of {event.get('userId')}")
    if event["properties"].get("isRobot"):
        event.setdefault("context", {})["userAgent"] = ROBOT
    return event


def ask(session: Session, question: dict[str, Any], complete_through: datetime = LATER) -> list[tuple[Any, ...]]:
    context = Context(now=complete_through, complete_through=complete_through)
    return answer(parse_question(question), session, context).rows


def trend(session: Session, base: dict[str, Any], **options: object) -> dict[Any, Any]:
    """The values of a trend of one series by bucket, or by segment and bucket."""
    series = {"any": True} | {key: options.pop(key) for key in list(options) if key in SERIES}
    rows = ask(session, base | {"insight": "trends", "series": [series]} | options)
    return {(segment, bucket) if "by" in options else bucket: value for _, segment, bucket, value, _ in rows}


SERIES = ("measure", "property", "trailing")


def shown(value: float) -> float:
    return float(f"{value:.12g}")


def nearest_rank(values: Iterable[Any], percent: int) -> Any:  # noqa: ANN401  # one of the values
    ranked = sorted(values)
    return ranked[ceil(percent * len(ranked) / 100) - 1]


def by_person(events: Iterable[Sent]) -> dict[Person, list[Sent]]:
    found: dict[Person, list[Sent]] = defaultdict(list)
    for one in events:
        found[one.person].append(one)
    return found


def local_day(at: datetime, zone: str) -> date:
    return at.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).date()


def not_zero(values: dict[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in values.items() if value}


@pytest.mark.parametrize(("name", "base"), [("retail-orders", SHOP), ("wiki-edits", WIKI | {"bots": "include"})])
def test_figures_are_those_of_the_truth(session: Session, shared_data: Path, name: str, base: dict[str, Any]) -> None:
    truth = true_figures(shared_data, name)
    whole = base | {"from": base["from"][:5] + "01-01", "to": f"{int(base['from'][:4]) + 2}-01-01"}

    assert not_zero(trend(session, base)) == truth["events_by_day"]
    assert not_zero(trend(session, base, measure="persons")) == truth["active_persons_by_day"]
    assert sum(trend(session, whole, interval="month").values()) == truth["events"]
    assert max(trend(session, whole, interval="month", measure="persons", cumulative=True).values()) == truth["persons"]
    by_event = trend(session, whole, interval="month", by=[{"column": "event"}])
    counted: Counter[str] = Counter()
    for (event, _), count in by_event.items():
        counted[event] += count
    assert counted == truth["by_event"]
    revenue = trend(session, whole, interval="month", measure="sum", property=["revenue"])
    assert sum(revenue.values()) * 1000 == truth["revenue_thousandths"]
    sticky = ask(session, base | {"insight": "stickiness"})
    assert sum(persons for _, persons in sticky) == truth["persons"]
    assert sum(persons for days, persons in sticky if days >= 2) == truth["persons_active_on_2_or_more_days"]


def test_trends_of_orders(session: Session, orders: list[Sent]) -> None:
    by_day: dict[date, Decimal] = defaultdict(Decimal)
    by_month: dict[date, Decimal] = defaultdict(Decimal)
    by_country: dict[tuple[str, date], set[Person]] = defaultdict(set)
    first: dict[Person, date] = {}
    for one in orders:
        day = local_day(one.time, "Europe/London")
        by_day[day] += one.properties["revenue"]
        by_month[day.replace(day=1)] += one.properties["revenue"]
        by_country[one.properties["country"], day.replace(day=1)].add(one.person)
        first.setdefault(one.person, day)
    london = SHOP | {"zone": "Europe/London"}
    revenue = {"measure": "sum", "property": ["revenue"]}

    assert not_zero(trend(session, london, **revenue)) == {str(day): value for day, value in by_day.items() if value}
    assert trend(session, london, interval="month", **revenue) == {str(day): by_month[day] for day in MONTHS}

    found = trend(session, london, interval="month", measure="persons", by=[{"property": ["country"]}], limit=1_000)
    assert not_zero(found) == {(country, str(day)): len(persons) for (country, day), persons in by_country.items()}
    newcomers = Counter(str(day) for day in first.values())
    assert not_zero(trend(session, london, measure="first_ever")) == newcomers

    days_of = defaultdict(set)
    for one in orders:
        days_of[local_day(one.time, "Europe/London")].add(one.person)
    trailing = {
        str(day): len(set().union(*(days_of.get(day - timedelta(back), set()) for back in range(7))))
        for day in (date(2010, 12, 1) + timedelta(number) for number in range(212))
    }
    assert trend(session, london, measure="active", trailing=7) == trailing


def test_trends_of_edits(session: Session, edits: list[Sent]) -> None:
    """By people and robots; whole numbers of either sign; days of a zone with minutes in its offset."""
    zone = WIKI | {"zone": "Asia/Kathmandu"}
    quarters = WIKI | {"from": "2015-07-01", "to": "2016-01-01", "interval": "quarter"}
    for bots, allowed in {"exclude": {False}, "only": {True}, "include": {False, True}}.items():
        asked = [one for one in edits if one.is_robot in allowed]
        by_day: dict[str, list[int]] = defaultdict(list)
        for one in asked:
            by_day[str(local_day(one.time, "Asia/Kathmandu"))].append(one.properties["delta"])
        assert not_zero(trend(session, zone, bots=bots)) == {day: len(deltas) for day, deltas in by_day.items()}
        for measure, percent in {"median": 50, "p90": 90}.items():
            found = trend(session, zone, bots=bots, measure=measure, property=["delta"])
            assert {day: value for day, value in found.items() if value is not None} == {
                day: nearest_rank(deltas, percent) for day, deltas in by_day.items()
            }
        found = trend(session, zone, bots=bots, measure="average", property=["delta"])
        assert {day: value for day, value in found.items() if value is not None} == {
            day: pytest.approx(sum(deltas) / len(deltas), rel=1e-11) for day, deltas in by_day.items()
        }
        of_channel = Counter(one.properties["channel"] for one in asked)
        top = sorted(of_channel, key=lambda channel: (-of_channel[channel], channel))[:5]
        found = trend(
            session,
            quarters,
            bots=bots,
            cumulative=True,
            measure="distinct",
            property=["page"],
            by=[{"property": ["channel"]}],
            limit=1_000,
        )
        everywhere: dict[str, set[str]] = defaultdict(set)
        for one in asked:
            everywhere[one.properties["channel"]].add(one.properties["page"])
        assert {channel: n for (channel, bucket), n in found.items() if bucket == "2015-10-01"} == {
            channel: len(found_pages) for channel, found_pages in everywhere.items()
        }
        events = trend(session, quarters, bots=bots, by=[{"property": ["channel"]}], limit=5)
        shares: Counter[str] = Counter()
        for (channel, _), count in events.items():
            shares[channel] += count
        assert shares == Counter(
            one.properties["channel"] if one.properties["channel"] in top else "(other)" for one in asked
        )


@pytest.mark.parametrize(("second", "days"), [(BOUGHT, 30), (REFUNDED, 7), (REFUNDED, 90)])
def test_funnel_of_two_steps(session: Session, orders: list[Sent], second: str, days: int) -> None:
    base = SHOP | {"from": "2010-12-10", "to": "2011-05-01"}
    start, end, window = datetime(2010, 12, 10), datetime(2011, 5, 1), timedelta(days)
    known_through = datetime(2011, 5, 10)
    entered, took, immature, converted = 0, [], 0, set()
    for person, events in by_person(orders).items():
        ordered = sorted(events, key=lambda one: (one.time, one.event != BOUGHT, one.message_id))
        entries = [place for place, one in enumerate(ordered) if one.event == BOUGHT and start <= one.time < end]
        entered += bool(entries)
        chains = [
            (place, -entry)
            for entry in entries
            for place in range(entry + 1, len(ordered))
            if ordered[place].event == second and ordered[place].time <= ordered[entry].time + window
        ]
        if chains:
            place, entry = min(chains)
            took.append((ordered[place].time - ordered[-entry].time) / timedelta(seconds=1))
            converted.add(person)
        elif entries:
            immature += ordered[entries[0]].time > known_through - window

    question = base | {"insight": "funnel", "steps": [{"event": BOUGHT}, {"event": second}], "window": f"{days}d"}
    first, last = ask(session, question, known_through)

    count = len(took)
    assert first[2:8] == (1, BOUGHT, entered, None, 1.0, 0)
    assert last[2:8] == (2, second, count, shown(count / entered), shown(count / entered), entered - count)
    assert last[8:10] == (nearest_rank(took, 50), nearest_rank(took, 90))
    assert last[10] == pytest.approx(sum(took) / count, rel=1e-11)
    assert first[11] == last[11] == immature
    assert count > 100

    listed = ask(session, {"insight": "persons", "of": question, "cell": {"step": 2}}, known_through)
    assert [(kind, person) for person, kind, *_ in listed] == sorted(converted, key=lambda one: (one[1], one[0]))
    left = ask(session, {"insight": "persons", "of": question, "cell": {"step": 2}, "figure": "dropped"}, known_through)
    assert len(left) == entered - count


def test_weekly_retention(session: Session, orders: list[Sent]) -> None:
    periods, known_through = 12, datetime(2011, 3, 30, 12)

    def week(at: datetime) -> int:
        return (at.date() - date(2010, 11, 29)).days // 7

    born: dict[Person, datetime] = {}
    back: dict[Person, set[int]] = defaultdict(set)
    for one in orders:
        if one.time > known_through or one.event != BOUGHT:
            continue
        if one.person not in born and date(2010, 12, 8) <= one.time.date() < date(2011, 3, 1):
            born[one.person] = one.time
        if one.person in born:
            back[one.person].add(week(one.time))
    expected = []
    for cohort in sorted({week(at) for at in born.values()}):
        members = [person for person, at in born.items() if week(at) == cohort]
        for n in range(periods + 1):
            is_mature = cohort + n < week(known_through)
            returned = sum(cohort + n in back[person] for person in members) if is_mature else None
            rate = None if returned is None else shown(returned / len(members))
            label = str(date(2010, 11, 29) + timedelta(7 * cohort))
            expected.append((None, label, len(members), n, returned, rate, is_mature))
    question = SHOP | {
        "insight": "retention",
        "from": "2010-12-08",
        "to": "2011-03-01",
        "born": {"event": BOUGHT},
        "return": {"event": BOUGHT},
        "interval": "week",
        "periods": periods,
    }

    assert ask(session, question, known_through) == expected
    cell = {"cohort": "2010-12-13", "n": 4}
    listed = ask(session, {"insight": "persons", "of": question, "cell": cell}, known_through)
    assert {(kind, person) for person, kind, *_ in listed} == {
        person for person, at in born.items() if week(at) == 2 and 6 in back[person]
    }
    events = Counter(one.person for one in orders)
    first_seen: dict[Person, datetime] = {}
    for one in orders:
        first_seen.setdefault(one.person, one.time)
    assert all(
        row[2] == f"{first_seen[row[1], row[0]].isoformat()}Z" and row[4] == events[row[1], row[0]] for row in listed
    )


def test_monthly_lifecycle(session: Session, orders: list[Sent]) -> None:
    active: list[set[Person]] = [set() for _ in MONTHS]
    for one in orders:
        active[MONTHS.index(one.time.date().replace(day=1))].add(one.person)
    expected = []
    for n, month in enumerate(MONTHS[1:], 1):
        now, before = active[n], active[n - 1]
        earlier: set[Person] = set().union(*active[:n])
        states = (now - earlier, now & before, (now & earlier) - before, before - now, now)
        expected.append((str(month), *map(len, states), False))

    question = SHOP | {"insight": "lifecycle", "from": "2011-01-01", "interval": "month"}
    assert ask(session, question) == expected


def test_stickiness(session: Session, edits: list[Sent]) -> None:
    days: dict[Person, set[date]] = defaultdict(set)
    for one in edits:
        if not one.is_robot:
            days[one.person].add(local_day(one.time, "America/New_York"))
    persons = Counter(map(len, days.values()))

    rows = ask(session, WIKI | {"insight": "stickiness", "from": "2015-09-09", "zone": "America/New_York"})
    assert [(count, n) for count, n in rows if n] == sorted(persons.items())
    assert [count for count, _ in rows] == list(range(1, 55))


def visits(events: list[Sent]) -> list[list[Sent]]:
    """A person's events, cut where more than half an hour lies between."""
    found: list[list[Sent]] = []
    for one in events:
        if not found or one.time - found[-1][-1].time > HALF_AN_HOUR:
            found.append([])
        found[-1].append(one)
    return found


def test_sessions_of_orders(session: Session, orders: list[Sent]) -> None:
    by_month: dict[date, list[list[Sent]]] = defaultdict(list)
    for events in by_person(orders).values():
        for visit in visits(events):
            by_month[visit[0].time.date().replace(day=1)].append(visit)
    expected = []
    for month in MONTHS:
        found = by_month[month]
        lasted = [(visit[-1].time - visit[0].time) / timedelta(seconds=1) for visit in found]
        converted = sum(any(one.event == REFUNDED for one in visit) for visit in found)
        persons = len({visit[0].person for visit in found})
        counts = (len(found), persons, 0, len(found), converted, 0, sum(map(len, found)))
        average = pytest.approx(sum(lasted) / len(found), rel=1e-11)
        expected.append((None, str(month), *counts, average, nearest_rank(lasted, 50), False))

    question = SHOP | {"insight": "sessions", "interval": "month", "converted": {"event": REFUNDED}}
    assert ask(session, question) == expected


@pytest.mark.parametrize("unit", ["session", "person"])
def test_paths_of_orders(session: Session, orders: list[Sent], unit: str) -> None:
    depth, window = 5, timedelta(days=30)
    counts: Counter[tuple[int, str, str]] = Counter()
    persons: dict[tuple[int, str, str], set[Person]] = defaultdict(set)
    for person, events in by_person(orders).items():
        for units in visits(events) if unit == "session" else [events]:
            first = next((place for place, one in enumerate(units) if one.event == BOUGHT), None)
            if first is None:
                continue
            rest = [one for one in units[first:] if unit == "session" or one.time <= units[first].time + window]
            nodes = [one.event for place, one in enumerate(rest) if not place or rest[place - 1].event != one.event]
            for step, node in enumerate(nodes[: depth - 1], 1):
                key = (step, node, nodes[step] if step < len(nodes) else "(exit)")
                counts[key] += 1
                persons[key].add(person)

    question = SHOP | {"insight": "paths", "unit": unit, "start": {"event": BOUGHT}, "nodes": "events", "depth": depth}
    rows = ask(session, question | ({"window": "30d"} if unit == "person" else {}))
    assert sorted(rows) == sorted((*key, count, len(persons[key])) for key, count in counts.items())
    assert len(rows) > 5


def test_timeline_of_the_most_frequent_buyer(session: Session, orders: list[Sent]) -> None:
    kind, person = Counter(one.person for one in orders).most_common(1)[0][0]
    mine = by_person(orders)[kind, person]
    began = {one.message_id: visit[0].time for visit in visits(mine) for one in visit}
    expected = [
        (f"{one.time.isoformat()}Z", "track", one.event, f"{began[one.message_id].isoformat()}Z", one.message_id)
        for one in reversed(mine)
    ]

    question = {"insight": "timeline", "project": SHOP["project"], "person_id": person, "person_kind": kind}
    rows = ask(session, question | {"limit": 1_000})
    assert [row[:5] for row in rows] == expected
    before = {"before": expected[5][0], "limit": 10}
    later = [row for row in expected if row[0] < expected[5][0]]
    assert [row[:5] for row in ask(session, question | before)] == later[:10]
