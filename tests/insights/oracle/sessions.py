"""Sessions: by a gap or the SDK's id, whether they engaged, and their figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from tests.insights.oracle import values, zones
from tests.insights.oracle.ground import (
    Event,
    Ground,
    Key,
    Matcher,
    by_person,
    grouped,
    nearest_rank,
    ratio,
    seconds,
    seconds12,
)
from tests.insights.oracle.people import Person, named

ENGAGED_AFTER = timedelta(seconds=10)
COLUMNS_BY = {"browser": "browser_name", "os": "os_name", "device": "device_type", "country": "geo_country"}
FIGURES = ("sessions", "persons", "bounced", "engaged", "converted")


@dataclass(frozen=True, eq=False, slots=True)
class Session:
    person: Person
    events: list[Event]  # in order of event_time, message_id

    @property
    def start(self) -> datetime:
        return self.events[0].time

    @property
    def end(self) -> datetime:
        return self.events[-1].time

    @property
    def duration(self) -> timedelta:
        return self.end - self.start

    @property
    def views(self) -> int:
        return sum(event.is_view for event in self.events)

    @property
    def is_engaged(self) -> bool:
        if self.views >= 2 or any(event.is_custom for event in self.events):
            return True
        told = [ms for event in self.events if (ms := _engaged_ms(event)) is not None]
        if told:
            return sum(told) >= ENGAGED_AFTER / timedelta(milliseconds=1)
        return self.duration >= ENGAGED_AFTER

    def pages(self) -> list[str]:
        shown = [page_of(event) for event in self.events if event.is_view]
        return [page for page in shown if page is not None]

    def value(self, name: str) -> str | None:
        """The text by which sessions are broken down."""
        if name == "entry_page":
            return next(iter(self.pages()), None)
        if name == "exit_page":
            return next(reversed(self.pages()), None)
        if name == "source":
            return _first(_source_of(event) for event in self.events)
        column = "context_campaign_name" if name == "campaign" else COLUMNS_BY[name]
        return _first(event.column(column) for event in self.events)


def page_of(event: Event) -> str | None:
    """The path of a page or screen event; a screen without one has its name."""
    path = event.column("context_page_path")
    return event.name if path is None and event.type == "screen" else path


def _source_of(event: Event) -> str | None:
    source = event.column("source")
    return event.column("context_campaign_source") if source is None else source


def _first(found: Iterator[str | None]) -> str | None:
    return next((value for value in found if value is not None), None)


def _engaged_ms(event: Event) -> Decimal | None:
    if event.type != "track" or event.name != "Page Left":
        return None
    return values.number(values.text(values.value_at(event.properties, ["engagedMs"])))


def find_sessions(
    ground: Ground, *, source: str = "gap", gap: str = "30m", cut_at_midnight: bool = False
) -> list[Session]:
    """All sessions over all time."""
    rows = [e for e in ground.events if _is_of_a_session(e) and (source == "gap" or e.column("session_id") is not None)]
    found: list[Session] = []
    for person, events in by_person(rows).items():
        visits = _cut(events, zones.duration(gap)) if source == "gap" else _by_id(events)
        if cut_at_midnight:
            visits = [day for visit in visits for day in _cut_at_midnight(visit, ground.zone)]
        found.extend(Session(person, visit) for visit in visits)
    return found


def default_sessions(ground: Ground) -> list[Session]:
    """The sessions that other insights count."""
    if "sessions" not in ground.found:
        ground.found["sessions"] = find_sessions(ground)
    return list(ground.found["sessions"])


def _is_of_a_session(event: Event) -> bool:
    is_page_left = event.type == "track" and event.name == "Page Left"
    return (event.is_active or is_page_left) and named(event.row, "anonymous_id") is not None


def _cut(events: list[Event], gap: timedelta) -> list[list[Event]]:
    visits: list[list[Event]] = []
    for event in events:
        if visits and event.time - visits[-1][-1].time <= gap:
            visits[-1].append(event)
        else:
            visits.append([event])
    return visits


def _by_id(events: list[Event]) -> list[list[Event]]:
    return list(grouped((event.column("session_id"), event) for event in events).values())


def _cut_at_midnight(events: list[Event], zone: str) -> list[list[Event]]:
    return list(grouped((zones.local_day(event.time, zone), event) for event in events).values())


def asked_sessions(ground: Ground) -> list[Session]:
    """The sessions that the question counts: begun in the range and kept by ``where``."""
    options = {name: ground.question[name] for name in ("source", "gap", "cut_at_midnight") if name in ground.question}
    return [
        session
        for session in find_sessions(ground, **options)
        if ground.in_range(session.events[0]) and any(ground.kept(event) for event in session.events)
    ]


def is_converted(ground: Ground, session: Session) -> bool | None:
    matcher: Matcher | None = ground.question.get("converted")
    return None if matcher is None else any(ground.matches(event, matcher) for event in session.events)


def answer(ground: Ground) -> list[tuple[object, ...]]:
    if ground.question.get("detail"):
        return _details(ground)
    return [row for row, _ in cells(ground)]


def cells(ground: Ground) -> list[tuple[tuple[object, ...], dict[str, set[Person]]]]:
    """Each row of the answer with the persons behind its figures."""
    interval = ground.question.get("interval", "day")
    of_key = grouped((_key(ground, session), session) for session in asked_sessions(ground))
    segments = ground.segments({key: len(sessions) for key, sessions in of_key.items()})
    placed = grouped(
        ((segments.of(key), ground.bucket(session.start, interval)), session)
        for key, sessions in of_key.items()
        for session in sessions
    )
    return [
        _cell(ground, segment, bucket, interval, placed.get((segment, bucket), []))
        for segment in segments.all()
        for bucket in ground.buckets(interval)
    ]


def _key(ground: Ground, session: Session) -> Key:
    return tuple(session.value(each["column"]) for each in ground.by)


def _cell(
    ground: Ground, segment: object, bucket: zones.Bucket, interval: str, sessions: list[Session]
) -> tuple[tuple[object, ...], dict[str, set[Person]]]:
    converted = [session for session in sessions if is_converted(ground, session)]
    engaged = [session for session in sessions if session.is_engaged]
    bounced = [session for session in sessions if not session.is_engaged]
    durations = [seconds(session.duration) for session in sessions]
    row = (
        segment,
        zones.shown(bucket),
        len(sessions),
        len({session.person for session in sessions}),
        len(bounced),
        len(engaged),
        len(converted) if "converted" in ground.question else None,
        sum(session.views for session in sessions),
        sum(len(session.events) for session in sessions),
        ratio(sum(durations), len(durations)),
        seconds12(nearest_rank(durations, "0.5")),
        ground.is_incomplete(bucket, interval),
    )
    lists = zip(FIGURES, (sessions, sessions, bounced, engaged, converted), strict=True)
    return row, {figure: {session.person for session in some} for figure, some in lists}


def _details(ground: Ground) -> list[tuple[object, ...]]:
    sessions = sorted(asked_sessions(ground), key=lambda session: (session.start, session.person[::-1]))
    return [
        (
            *session.person,
            zones.instant_text(session.start),
            zones.instant_text(session.end),
            session.value("entry_page"),
            session.value("exit_page"),
            session.value("source"),
            session.value("campaign"),
            session.views,
            len(session.events),
            session.is_engaged,
            is_converted(ground, session),
        )
        for session in sessions
    ]
