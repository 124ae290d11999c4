from __future__ import annotations

import pytest

from tests.insights.oracle.by_hand import ask, at, column, event, page, stream
from tests.insights.oracle.paths import clean
from tests.insights.oracle.people import Row


def test_a_gap_of_exactly_30_minutes_goes_on() -> None:
    rows = [event("A", "1 10:00"), event("A", "1 10:30"), event("A", "1 11:00:00.000001")]

    found = ask("sessions", rows, detail=True)

    assert column(found, "start", "end") == [
        ("2026-03-01T10:00:00Z", "2026-03-01T10:30:00Z"),
        ("2026-03-01T11:00:00.000001Z", "2026-03-01T11:00:00.000001Z"),
    ]


def test_a_session_is_of_its_first_day_unless_cut_at_midnight() -> None:
    rows = [event("A", "1 23:50"), event("A", "2 00:10")]
    asked = {"to": "2026-03-03"}

    assert column(ask("sessions", rows, **asked), "sessions", "events") == [(1, 2), (0, 0)]
    assert column(ask("sessions", rows, cut_at_midnight=True, **asked), "sessions", "events") == [(1, 1), (1, 1)]


def test_a_session_that_began_before_the_range_is_not_counted() -> None:
    rows = [event("A", "0 23:50"), event("A", "1 00:10"), event("A", "1 12:00")]

    assert column(ask("sessions", rows, to="2026-03-02"), "sessions", "events") == [(1, 1)]


def test_events_without_a_device_are_in_no_session() -> None:
    rows = [
        event("A", "1", anonymous_id=None),
        event("A", "1", anonymous_id="null", repairs="anonymous_id_placeholder"),
        event("Error", "1"),
        event(None, "1", type="identify"),
    ]

    assert column(ask("sessions", rows, to="2026-03-02"), "sessions") == [0]


def test_the_sdks_sessions() -> None:
    rows = [event("A", "1 10:00", session_id="s"), event("A", "1 20:00", session_id="s"), event("A", "1 10:01")]

    assert column(ask("sessions", rows, source="sdk", to="2026-03-02"), "sessions", "events") == [(1, 2)]


@pytest.mark.parametrize(
    ("rows", "is_engaged"),
    [
        ([page("/", "1")], False),
        ([page("/", "1"), event("Home", "1", type="screen")], True),
        ([event("A", "1")], True),
        ([event("Element Clicked", "1")], False),
        ([page("/", "1"), event("Rage Click", "1 00:00:09.999999")], False),
        ([page("/", "1"), event("Rage Click", "1 00:00:10")], True),
        ([page("/", "1"), event("Page Left", "1 00:00:20", properties={"engagedMs": 9_999})], False),
        ([page("/", "1"), event("Page Left", "1 00:00:01", properties={"engagedMs": 10_000})], True),
        ([page("/", "1"), event("Page Left", "1 00:00:20", properties={"engagedMs": "much"})], True),
    ],
)
def test_engaged(rows: list[Row], is_engaged: object) -> None:
    assert column(ask("sessions", rows, detail=True), "engaged") == [is_engaged]


def test_figures_of_a_day() -> None:
    rows = [
        page("/a", "1 10:00", context_campaign_source="news"),
        page("/b", "1 10:10", source="google", context_campaign_name="spring"),
        page("/a", "1 10:00", "bob"),
        event("A", "1 15:00", "bob"),
    ]

    found = ask("sessions", rows, to="2026-03-02", converted={"event": "A"})

    assert list(found[0].values())[2:] == [3, 2, 1, 2, 1, 3, 4, 200.0, 0.0, False]
    details = ask("sessions", rows, detail=True)
    assert column(details, "entry_page", "exit_page", "source", "campaign", "converted")[0] == (
        "/a",
        "/b",
        "news",
        "spring",
        None,
    )


def test_where_keeps_whole_sessions() -> None:
    rows = [page("/a", "1 10:00"), page("/b", "1 10:01"), page("/a", "1 15:00")]
    where = [{"column": "context_page_path", "is": "/b"}]

    assert column(ask("sessions", rows, to="2026-03-02", where=where), "sessions", "pages") == [(1, 2)]


def test_sessions_by_their_entry_page() -> None:
    rows = [page("/a", "1 10:00"), page("/a", "1 12:00"), page("/b", "1 14:00"), event("A", "1 16:00")]

    found = ask("sessions", rows, by=[{"column": "entry_page"}], limit=1, to="2026-03-02")

    assert column(found, "segment", "sessions") == [("/a", 2), ("(none)", 1), ("(other)", 1)]


def test_urls_are_cleaned() -> None:
    assert clean("/") == "/"
    assert clean("/a/?b=1#c") == "/a"
    assert clean("/users/42/7b0c3c1e-0000-4000-8000-00000000000F/edit") == "/users/:id/:id/edit"
    assert clean("/v2") == "/v2"


def test_paths_from_the_start_of_sessions() -> None:
    rows = [
        *(page(path, f"1 10:0{minute}") for minute, path in enumerate(("/a", "/a/", "/b", "/c"))),
        page("/a", "1 10:00", "bob"),
    ]

    found = ask("paths", rows, depth=3)

    assert [tuple(row.values()) for row in found] == [
        (1, "/a", "(exit)", 1, 1),
        (1, "/a", "/b", 1, 1),
        (2, "/b", "/c", 1, 1),
    ]


def test_paths_from_a_start_and_back_from_an_end() -> None:
    rows = stream("X@0 A@1 B@2 A@3 C@4")

    assert [tuple(row.values())[:3] for row in ask("paths", rows, start={"event": "A"}, depth=4)] == [
        (1, "A", "B"),
        (2, "B", "A"),
        (3, "A", "C"),
    ]
    assert [tuple(row.values())[:3] for row in ask("paths", rows, end={"event": "B"})] == [
        (1, "A", "B"),
        (2, "X", "A"),
        (3, "(entry)", "X"),
    ]


def test_the_rest_of_a_step_is_other() -> None:
    rows = [row for name, text in (("a", "A@0 B@1"), ("b", "A@0 B@1"), ("c", "A@0 C@1")) for row in stream(text, name)]

    found = ask("paths", rows, limit=1, depth=2)

    assert [tuple(row.values()) for row in found] == [(1, "A", "B", 2, 2), (1, "A", "(other)", 1, 1)]


def test_paths_of_a_person_within_a_window_of_the_start() -> None:
    rows = [event("A", "1"), event("B", "2"), event("C", "2 00:00:00.000001")]

    found = ask("paths", rows, unit="person", window="24h", start={"event": "A"})

    assert [tuple(row.values())[:3] for row in found] == [(1, "A", "B"), (2, "B", "(exit)")]


def test_paths_of_a_person_back_from_the_first_end_of_the_range() -> None:
    rows = [event("B", "0 23:50"), event("A", "0 23:55"), event("B", "1 00:30")]

    found = ask("paths", rows, unit="person", window="1h", end={"event": "B"})

    assert [tuple(row.values())[:3] for row in found] == [(1, "A", "B"), (2, "B", "A"), (3, "(entry)", "B")]


def test_the_persons_of_a_cell() -> None:
    rows = [*stream("A@0 B@1"), *stream("A@0", "bob", traits={"plan": "ignored"})]
    rows.append(event(None, "2", "bob", type="identify", traits={"plan": "pro", "n": 1.5}))
    of = {"insight": "funnel", "from": "2026-03-01", "to": "2026-03-02", "steps": [{"event": "A"}, {"event": "B"}]}

    found = ask("persons", rows, of=of, cell={"step": 2}, figure="dropped")

    assert [tuple(row.values()) for row in found] == [
        ("bob", "user", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z", 2, '{"n": 1.5, "plan": "pro"}')
    ]


def test_the_timeline_is_newest_first() -> None:
    rows = [event("A", "1 10:00"), event("B", "1 10:10"), event("A", "1", "bob")]
    rows += [event("Error", "2"), event("Error", "2 00:00:00.000001")]

    found = ask("timeline", rows, person_id="ann", person_kind="user", before="2026-03-02T00:00:00Z")

    assert column(found, "event", "session") == [("B", "2026-03-01T10:00:00Z"), ("A", "2026-03-01T10:00:00Z")]
    assert column(ask("timeline", rows, person_id="ann", person_kind="user", limit=1), "event") == ["Error"]


def test_sessions_know_when_they_are_incomplete() -> None:
    found = ask("sessions", [], to="2026-03-03", complete_through=at("2 12:00"))

    assert column(found, "incomplete", "duration_average_s") == [(False, None), (True, None)]
