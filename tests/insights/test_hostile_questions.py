"""Hostile texts in every text field of a question: the right answer, no SQL in an error, no effect on the tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from manymetrics_insights.asking.answer import Answer
from manymetrics_insights.asking.ask import Context, answer
from manymetrics_insights.questions.models import parse_question
from manymetrics_insights.questions.patterns import parse_pattern
from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.session import Session, open_session
from tests.insights.lakes import NOON, make_lake
from tests.torture import read_naughty_strings

OURS = [
    "<img src=x onerror=alert(1)>",
    "'; DROP TABLE events; --",
    "' OR '1'='1",
    "a'b''c",
    'say "hi"',
    "back\\slash\\",
    "\\'; SELECT 1; --",
    "*/ SELECT 1 /*",
    "$1 ? :name {x} %s %%",
    "$[\"a\"]['b'].c",
    "\u0000nul\u0000",
    "tab\tline\nreturn\r",
    "\u2028\u202e\ufeff",
    "🙂\U0010ffff",
    "  spaces  ",
    "0",
    "(none)",
    "(other)",
    "null",
]
NOW = datetime(2026, 4, 1)
RANGE = {"from": "2026-03-14", "to": "2026-03-15", "project": "shop"}


def texts(shared_data: Path) -> list[str]:
    known = [text for text in read_naughty_strings(shared_data) if text] if shared_data.is_dir() else []
    return list(dict.fromkeys([*OURS, *known]))


@pytest.fixture(scope="module")
def hostile(shared_data: Path) -> list[str]:
    return texts(shared_data)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, hostile: list[str]) -> Iterator[Session]:
    lake = make_lake(tmp_path_factory.mktemp("hostile") / "data")
    lake.append_events(
        *(
            {
                "event": text,
                "user_id": text,
                "properties": json.dumps({text: {"key": text}}, ensure_ascii=False),
                "context_page_path": text,
                "event_time": NOON,
                "received_at": NOON,
            }
            for text in hostile
        )
    )
    opened = open_session(Folder(lake.data_dir))
    with closing(opened.connection):
        yield opened
        assert opened.connection.execute("SELECT COUNT(*) FROM events").fetchall() == [(len(hostile),)]


def ask(session: Session, question: dict[str, Any]) -> Answer:
    return answer(parse_question(RANGE | question), session, Context(NOW, NOW))


def test_events_properties_and_labels_stay_texts(session: Session, hostile: list[str]) -> None:
    for begin in range(0, len(hostile), 20):
        some = hostile[begin : begin + 20]
        series = [
            {
                "event": text,
                "label": f"{number} {text}"[:1_000],
                "where": [
                    {"property": [text, "key"], "is": text},
                    {"property": [text, "key"], "contains": text},
                    {"property": [text, "key"], "ends_with": text},
                    {"column": "context_page_path", "in": [text, "other"]},
                ],
            }
            for number, text in enumerate(some)
        ]

        rows = ask(session, {"insight": "trends", "series": series}).rows

        assert [(row[0], row[3]) for row in rows] == [(one["label"], 1) for one in series]


def test_breakdowns_name_each_text_once(session: Session, hostile: list[str]) -> None:
    question = {"insight": "trends", "series": [{"any": True}], "by": [{"column": "event"}], "limit": 1_000}
    alone = ask(session, question)
    twice = ask(session, question | {"by": [{"column": "event"}, {"column": "user_id"}]})

    assert sorted(str(row[1]) for row in alone.rows) == sorted(hostile)
    assert sorted(row[1] for row in twice.rows) == sorted([text, text] for text in hostile)  # type: ignore[type-var]


def test_the_persons_of_a_cell_are_those_of_its_text(session: Session, hostile: list[str]) -> None:
    of = RANGE | {"insight": "trends", "series": [{"any": True, "measure": "persons"}], "by": [{"column": "event"}]}
    for text in hostile[:: max(1, len(hostile) // 25)]:
        persons = {"insight": "persons", "of": of | {"limit": 1_000}, "cell": {"segment": text}}
        found = answer(parse_question(persons), session, Context(NOW, NOW))

        assert [row[0] for row in found.rows] == [text]


def test_a_timeline_and_a_project_may_have_any_name(session: Session, hostile: list[str]) -> None:
    for text in hostile[:: max(1, len(hostile) // 25)]:
        timeline = parse_question({"insight": "timeline", "project": "shop", "person_id": text})
        assert [row[2] for row in answer(timeline, session, Context(NOW, NOW)).rows] == [text]
        elsewhere = ask(session, {"insight": "stickiness", "project": text})
        assert [row[1] for row in elsewhere.rows] == [0]


def test_patterns_are_refused_or_run(session: Session, hostile: list[str]) -> None:
    taken: list[dict[str, Any]] = []
    for text in hostile:
        try:
            parse_pattern(text)
        except ValueError:
            continue
        taken.append({"any": True, "label": f"{len(taken)}", "where": [{"column": "event", "matches": text}]})
    assert len(taken) > len(OURS) / 2

    for begin in range(0, len(taken), 20):
        some = taken[begin : begin + 20]
        assert len(ask(session, {"insight": "trends", "series": some}).rows) == len(some)
