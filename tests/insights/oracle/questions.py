"""Random questions of every insight and option, made of a world's own names, values, days and window."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any, Final

from tests.insights.oracle.ground import Filter, Ground, Matcher, Question
from tests.insights.oracle.oracle import answer
from tests.insights.oracle.worlds import DEVICES, KEYS, PATHS, PLACES, PLANS, USERS, World
from tests.insights.oracle.zones import local_day

Options = dict[str, Any]

PLAN_TEXTS: Final = tuple(v for v in map(json.loads, PLANS) if isinstance(v, str))
TEXTS: Final = (*PLAN_TEXTS, "p", "o", "'", "%", "_", "pr_", "日", "\\", '"', "x", "nobody; --")
PATTERNS: Final = ("^p", "o$", "r.", "[0-9]+", "pro|free", "^[a-z]+$", "^$", "e{2}", "(p|f)r")
NUMBERS: Final = (0, 1, 3, 2.5, 0.1, -3, 100, 1000)
COMPARISONS: Final = ("<", "<=", ">", ">=")
SESSION_COLUMNS: Final = ("entry_page", "exit_page", "source", "campaign", "browser", "os", "device", "country")
COLUMNS: Final = ("geo_country", "browser_name", "context_page_path", "context_screen_width", "session_id")
FORMULAS: Final = ("A / B", "A + B * 2", "(A - B) / A", "-A", "B / A - 0.5", "A * B")
MEASURES: Final = (
    "events",
    "persons",
    "sessions",
    "events_per_person",
    "sum",
    "average",
    "median",
    "p90",
    "min",
    "max",
    "distinct",
    "first_ever",
    "active",
)
ORDERS: Final = (
    {"measure": "events"},
    {"measure": "sum", "property": ["n"]},
    {"measure": "min", "property": ["n"]},
    {"measure": "max", "property": ["odd"]},
)
PERSON_FIGURES: Final = {
    "trends": ("value",),
    "funnel": ("persons", "dropped", "immature"),
    "retention": ("returned", "size"),
    "lifecycle": ("new", "returning", "resurrecting", "dormant", "active"),
    "stickiness": ("persons",),
    "sessions": ("persons", "persons", "bounced", "engaged"),
    "paths": ("persons",),
}


def make_questions(seed: int, world: World) -> list[Question]:
    asking = Asking(random.Random(f"questions {seed}"), world)
    made = [
        *(asking.hitting(asking.trends) for _ in range(4)),
        *(asking.hitting(asking.funnel) for _ in range(5)),
        *(asking.hitting(asking.retention) for _ in range(3)),
        asking.hitting(asking.lifecycle),
        asking.hitting(asking.stickiness),
        *(asking.hitting(asking.sessions) for _ in range(2)),
        *(asking.hitting(asking.paths) for _ in range(2)),
        *(asking.hitting(asking.persons) for _ in range(2)),
        asking.hitting(asking.timeline),
    ]
    return [_told(question) for question in made]


class Asking:
    """Makes questions of one world."""

    def __init__(self, chance: random.Random, world: World) -> None:
        self.chance = chance
        self.world = world

    def likely(self, share: float) -> bool:
        return self.chance.random() < share

    def maybe(self, share: float, *choices: Any) -> Any:  # noqa: ANN401  # any option
        """One of the choices, or None for an option that is left out."""
        return self.chance.choice(choices) if self.likely(share) else None

    def hitting(self, make: Callable[[], Question]) -> Question:
        """A question whose answer has something in it, if a few tries find one."""
        question = make()
        for _ in range(6):
            rows = answer(_told(question), self.world.rows, self.world.complete_through)
            if any(_says_something(question, row) for row in rows):
                break
            question = make()
        return question

    # what all insights share

    def ground(self, insight: str, *, longest: int = 30) -> Question:
        start = self.world.day + timedelta(days=self.chance.randint(-3, 1))
        if self.world.rows and self.likely(0.5):
            time = self.chance.choice(self.world.rows)["event_time"]
            assert isinstance(time, datetime)
            start = local_day(time, self.world.zone) - timedelta(days=self.chance.choice((0, 0, 1)))
        length = min(longest, self.chance.choice((1, 2, 3, 4, 7, 8, 10, 30, 100)))
        last = self.chance.choice(("1d", "7d", "30d")) if self.likely(0.06) else None
        return {
            "insight": insight,
            "project": self.world.project_id,
            "from": None if last else start.isoformat(),
            "to": None if last else (start + timedelta(days=length)).isoformat(),
            "last": last,
            "zone": self.world.zone if self.likely(0.8) else self.chance.choice(PLACES)[0],
            "week_start": self.maybe(0.4, "monday", "sunday"),
            "where": [self.filter()] if self.likely(0.12) else None,
            "bots": self.maybe(0.2, "exclude", "include", "only"),
        }

    def short(self, asked: Question, interval: str | None) -> str | None:
        """The interval; hours only over three days."""
        if interval == "hour" and asked["from"] is None:
            return "day"
        if interval == "hour":
            stop = date.fromisoformat(asked["from"]) + timedelta(days=3)
            asked["to"] = min(asked["to"], stop.isoformat())
        return interval

    def breakdown(self, share: float = 0.4) -> Options:
        if not self.likely(share):
            return {}
        count = self.chance.choice((1, 1, 1, 2, 3))
        return {"by": [self.property() for _ in range(count)], "limit": self.maybe(0.5, 1, 2, 3)}

    def property(self) -> Filter:
        kind = self.chance.random()
        if kind < 0.3:
            return {"property": [self.chance.choice(("plan", "n"))]}
        if kind < 0.6:
            return {"property": self.path()}
        if kind < 0.85:
            return {"column": self.chance.choice(COLUMNS)}
        return {"trait": self.chance.choice((["plan"], ["plan"], ["n"], ["deep", "x"], [self.chance.choice(KEYS)]))}

    def path(self) -> list[str]:
        deep = self.chance.choice((["deep", "a.b", "0"], ["deep", "list", "0"], ["deep"], ["plan", "x"], ["missing"]))
        return self.chance.choice((["plan"], ["plan"], ["n"], [self.chance.choice(KEYS)], deep))

    def filter(self) -> Filter:
        kind = self.chance.random()
        if kind < 0.1:
            return {"not": self.filter()}
        if kind < 0.25:
            return {self.chance.choice(("all", "any")): [self.filter() for _ in range(self.chance.randint(1, 3))]}
        if kind < 0.4:
            return {"property": [self.chance.choice(("odd", "n"))]} | self.numeric()
        of = self.property()
        if self.likely(0.5) and self.world.rows:
            return of | self.found(of)
        return of | (self.textual() if self.likely(0.7) else self.numeric())

    def found(self, of: Filter) -> Filter:
        """A condition that an event of the world meets, if one has the value at all."""
        ground = Ground({"insight": "trends"}, self.world.rows, self.world.complete_through)
        texts = [text for event in ground.all_events if (text := ground.value(event, of)) is not None]
        if not texts:
            return {"is_set": False}
        text = self.chance.choice(texts)
        return self.chance.choice(({"is": text}, {"is_not": text}, {"in": [text, "x"]}, {"is_set": True}, {">=": text}))

    def textual(self) -> Filter:
        text = self.chance.choice(TEXTS)
        return self.chance.choice(
            (
                {"is": text},
                {"is": self.chance.choice(PLAN_TEXTS)},
                {"is_not": text},
                {"in": [text, self.chance.choice(PLAN_TEXTS), 3]},
                {"contains": text},
                {"starts_with": text},
                {"ends_with": text},
                {"matches": self.chance.choice(PATTERNS)},
                {"is_set": self.likely(0.5)},
                {"is": True},
            )
        )

    def numeric(self) -> Filter:
        low, high = sorted((self.chance.choice(NUMBERS), self.chance.choice(NUMBERS)))
        return self.chance.choice(
            (
                {"is": low},
                {"is_not": low},
                {"in": [low, high, "pro"]},
                {self.chance.choice(COMPARISONS): low},
                {self.chance.choice(COMPARISONS): high},
                {"between": [low, high]},
                {"is_set": self.likely(0.5)},
            )
        )

    def matcher(self, *, any_share: float = 0.1) -> Matcher:
        where = {"where": [self.filter()]} if self.likely(0.15) else {}
        return self.kind(any_share) | where

    def kind(self, any_share: float) -> Matcher:
        chance = self.chance.random()
        if chance < any_share:
            return {"any": True}
        if chance < any_share + 0.05:
            return {"page": self.chance.choice(PATHS)}
        if chance < any_share + 0.12:
            return {"type": self.chance.choice(("track", "page", "screen", "identify", "alias", "group"))}
        if chance < any_share + 0.17:
            return {"event": self.chance.choice(("Page Left", "Error", "Element Clicked", "never'seen"))}
        if chance < any_share + 0.27:
            return {"any_of": [self.matcher() for _ in range(self.chance.randint(1, 3))]}
        return self.seen(any_share)

    def seen(self, any_share: float) -> Matcher:
        """A matcher of an event of the world."""
        if self.likely(0.6) and self.world.flavour not in ("site", "clicks"):
            return {"event": self.chance.choice(self.world.names)}
        named = [row for row in self.world.rows if row.get("event") is not None or row["type"] == "page"]
        row = self.chance.choice(named) if named else {"type": "track", "event": self.world.names[0]}
        if row["type"] == "track":
            return {"event": row["event"]}
        if row["type"] == "page" and row["context_page_path"] is not None:
            return {"page": row["context_page_path"]}
        return {"any": True} if any_share else {"type": row["type"]}

    # insights

    def trends(self) -> Question:
        asked = self.ground("trends", longest=100) | self.breakdown()
        count = self.chance.choice((1, 1, 2, 3))
        series = [self.series() for _ in range(count)]
        interval: str | None = self.chance.choice(("hour", "day", "day", "week", "month", "quarter"))
        if any(each.get("measure") == "active" for each in series):
            interval = "day"
        elif self.likely(0.15):
            asked["cumulative"] = True
        interval = self.short(asked, interval)
        formulas = [each for each in FORMULAS if count > 1 or "B" not in each]
        return asked | {
            "series": series,
            "interval": interval,
            "formulas": [self.chance.choice(formulas)] if self.likely(0.3) else None,
            "compare": self.maybe(0.25, "previous", "year"),
            "moving": self.maybe(0.15, 1, 2, 3, 7),
        }

    def series(self) -> Options:
        measure = self.chance.choice((*MEASURES, None))
        made = self.matcher(any_share=0.3) | {
            "measure": measure,
            "label": self.maybe(0.1, "sum", "it's", "<b>"),
        }
        if measure in ("sum", "average", "median", "p90", "min", "max", "distinct"):
            made["property"] = [self.chance.choice(("n",) if measure == "distinct" else ("n", "odd", "odd"))]
        if measure == "active":
            made["trailing"] = self.chance.choice((1, 7, 28, 30))
        return {key: value for key, value in made.items() if value is not None}

    def funnel(self) -> Question:
        count = self.chance.choice((2, 2, 3, 3, 4, 5, 10))
        steps = [self.matcher() for _ in range(count)]
        if self.likely(0.3):  # the same event in several steps
            steps = [self.chance.choice(steps[:2]) for _ in steps]
        asked = self.ground("funnel") | self.breakdown(0.5) | {"steps": steps}
        order = self.maybe(0.6, "loose", "strict", "any")
        if count <= 4 and self.likely(0.5):
            asked["exclude"] = [self.exclusion(count, order) for _ in range(self.chance.choice((1, 1, 2)))]
            asked["exclusion"] = self.maybe(0.6, "stop", "drop")
        if "by" in asked:
            asked["attribution"] = self.maybe(0.7, "first", "last", {"step": self.chance.randint(1, count)})
        return asked | {
            "window": self.maybe(0.8, self.world.window, self.world.window, "7d", "30m"),
            "order": order,
            "count": self.maybe(0.3, "persons", "sessions"),
            "reentry": self.maybe(0.3, "best", "first"),
            "hold": self.property() if self.likely(0.2) else None,
            "by_time": self.short(asked, self.maybe(0.25, "hour", "day", "day", "week", "month", "quarter")),
        }

    def exclusion(self, count: int, order: str | None) -> Options:
        made = self.matcher()
        if self.likely(0.6):
            after = 1 if order == "any" else self.chance.randint(1, count - 1)
            made |= {"after": after, "before": self.chance.randint(after + 1, count)}
        return made

    def retention(self) -> Question:
        asked = self.ground("retention") | self.breakdown(0.3)
        asked |= {
            "born": self.matcher(any_share=0.3),
            "return": self.matcher(any_share=0.5),
            "born_is": self.maybe(0.7, "in_range", "ever", "recurring"),
            "interval": self.maybe(0.7, "day", "day", "week", "month"),
            "period": self.maybe(0.5, "calendar", "rolling"),
            "min_times": self.maybe(0.2, 1, 2, 3),
            "mean": self.maybe(0.3, "weighted"),
        }
        if asked["period"] != "rolling" and self.likely(0.1):
            asked["interval"] = self.short(asked, self.chance.choice(("hour", "quarter")))
        if self.likely(0.25):
            brackets = ([[0, 0], [1, 3]], [[1, 1], [2, 6]], [[0, 2], [1, 1]])
            return asked | {"brackets": self.chance.choice(brackets)}
        return asked | {
            "periods": self.maybe(0.8, 0, 1, 3, 7),
            "when": self.maybe(0.7, "on", "on_or_after", "on_or_before"),
        }

    def lifecycle(self) -> Question:
        asked = self.ground("lifecycle", longest=100)
        return asked | {
            "event": self.maybe(0.5, self.matcher(any_share=0.4)),
            "interval": self.short(asked, self.maybe(0.7, "hour", "day", "day", "day", "week", "month", "quarter")),
            "new": self.maybe(0.4, "active", "created"),
        }

    def stickiness(self) -> Question:
        return self.ground("stickiness") | {"event": self.maybe(0.5, self.matcher(any_share=0.4))}

    def sessions(self) -> Question:
        asked = self.ground("sessions", longest=100) | {
            "source": self.maybe(0.4, "gap", "sdk"),
            "cut_at_midnight": self.likely(0.5) if self.likely(0.3) else None,
            "converted": self.maybe(0.5, self.matcher()),
        }
        if asked["source"] != "sdk":
            asked["gap"] = self.maybe(0.4, "10s", "1h", "24h", self.world.window)
        if self.likely(0.3):
            return asked | {"detail": True}
        if self.likely(0.4):
            count = self.chance.choice((1, 1, 2, 3))
            asked["by"] = [{"column": name} for name in self.chance.sample(SESSION_COLUMNS, count)]
            asked["limit"] = self.maybe(0.5, 1, 2, 3)
        return asked | {
            "interval": self.short(asked, self.maybe(0.6, "hour", "day", "day", "week", "month", "quarter"))
        }

    def paths(self) -> Question:
        asked = self.ground("paths")
        unit = self.maybe(0.5, "session", "person")
        return asked | {
            "unit": unit,
            "window": self.chance.choice((self.world.window, "24h")) if unit == "person" else None,
            "nodes": self.maybe(0.5, "pages", "events", "both"),
            self.chance.choice(("start", "end")): self.maybe(0.6, self.anchor()),
            "depth": self.maybe(0.5, 2, 3, 7),
            "limit": self.maybe(0.5, 1, 2, 3),
        }

    def anchor(self) -> Matcher:
        if self.likely(0.4):
            return {"page": self.chance.choice(PATHS)}
        found = self.seen(0)
        return found if "type" not in found else {"event": "Element Clicked"}

    # persons

    def persons(self) -> Question:
        makers = (self.trends, self.funnel, self.retention, self.lifecycle, self.stickiness, self.sessions, self.paths)
        for _ in range(20):
            of = _told(self.hitting(self.chance.choice(makers)))
            found = self.cell(of)
            if found is not None:
                figure = self.chance.choice(PERSON_FIGURES[of["insight"]])
                return {
                    "insight": "persons",
                    "project": self.world.project_id,
                    "of": of,
                    "cell": found,
                    "figure": figure,
                    "order_by": self.maybe(0.3, *ORDERS),
                    "limit": self.maybe(0.2, 1, 2),
                }
        return self.stickiness()

    def cell(self, of: Question) -> Options | None:
        """The key of a cell of the answer, that counts somebody if it can."""
        if of.get("count") == "sessions" or of.get("detail") or (of["insight"] == "trends" and not _counts_persons(of)):
            return None
        rows = answer(of, self.world.rows, self.world.complete_through)
        rows = [row for row in rows if "(mean)" not in row and not (of["insight"] == "retention" and row[6] is False)]
        if not rows:
            return None
        row = self.chance.choice(rows)
        names = {
            "trends": ("series", "segment", "bucket"),
            "funnel": ("segment", "bucket", "step"),
            "retention": ("segment", "cohort", None, "n"),
            "lifecycle": ("bucket",),
            "stickiness": ("days",),
            "sessions": ("segment", "bucket"),
            "paths": ("step", "from", "to"),
        }[of["insight"]]
        named = {name: value for name, value in zip(names, row, strict=False) if name and value is not None}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in named.items()}

    def timeline(self) -> Question:
        kind = self.chance.choice(("user", "user", "anonymous"))
        times = [row["event_time"] for row in self.world.rows]
        before = self.chance.choice(times).isoformat() + "Z" if times and self.likely(0.4) else None  # type: ignore[attr-defined]
        return {
            "insight": "timeline",
            "project": self.world.project_id,
            "person_id": self.chance.choice(USERS if kind == "user" else DEVICES),
            "person_kind": kind,
            "before": before,
            "limit": self.maybe(0.3, 1, 5),
        }


def _counts_persons(of: Question) -> bool:
    wanted = ("persons", "first_ever", "active")
    plain = not any(of.get(name) for name in ("formulas", "compare", "moving"))
    labels = [series.get("label") for series in of["series"]]
    is_clear = all(label is None or labels.count(label) == 1 for label in labels)
    return plain and is_clear and all(series.get("measure") in wanted for series in of["series"])


def _told(question: Question) -> Question:
    """The question without the options that are left out."""
    return {key: value for key, value in question.items() if value is not None}


def _says_something(question: Question, row: tuple[object, ...]) -> bool:
    insight = question["insight"]
    if insight == "funnel":
        return row[2] == min(3, len(question["steps"])) and row[4] != 0
    figures = {"trends": row[3:4], "retention": row[4:5], "lifecycle": row[1:-1], "stickiness": row[1:]}
    return any(figure not in (None, 0) for figure in figures.get(insight, row))
