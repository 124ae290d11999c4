"""Worked examples of other tools' public documentation, with the options that make them theirs."""

from __future__ import annotations

import pytest

from tests.insights.oracle.by_hand import ask, at, column, event, page, stream
from tests.insights.oracle.people import Row

A, B, C = {"event": "A"}, {"event": "B"}, {"event": "C"}


def reached(rows: list[Row], names: str, **options: object) -> list[object]:
    return column(ask("funnel", rows, steps=[{"event": name} for name in names], **options), "persons")


def test_mixpanel_classic_window_starts_with_the_first_entry() -> None:
    # https://docs.mixpanel.com/docs/reports/funnels/funnels-advanced
    # A at 1:00, again at 1:30, B at 1:45 and C at 2:15, within one hour: the classic rule stops at B, optimized
    # re-entry converts from 1:30.
    rows = stream("A@60 A@90 B@105 C@135")

    assert reached(rows, "ABC", window="1h", reentry="first") == [1, 1, 0]
    assert reached(rows, "ABC", window="1h") == [1, 1, 1]


def test_mixpanel_optimized_reentry_after_and_during_the_first_window() -> None:
    # https://docs.mixpanel.com/docs/reports/funnels/funnels-advanced
    after_it, during_it = stream("A@0 A@70 B@80"), stream("A@0 A@50 B@70")

    assert reached(after_it, "AB", window="1h") == reached(during_it, "AB", window="1h") == [1, 1]
    assert reached(after_it, "AB", window="1h", reentry="first") == [1, 0]


@pytest.mark.parametrize(("text", "seconds"), [("A@0 B@1 A@10 B@20", 60.0), ("A@0 A@1 A@2 B@5", 180.0)])
def test_mixpanel_takes_the_first_conversion_and_its_most_recent_entry(text: str, seconds: float) -> None:
    # https://docs.mixpanel.com/docs/reports/funnels/funnels-advanced
    found = ask("funnel", stream(text), steps=[A, B])

    assert column(found, "median_s")[1] == seconds


def test_mixpanel_loose_order() -> None:
    # https://help.mixpanel.com/hc/en-us/articles/115004561926
    # Another event between steps does no harm; a step that was left out ends the funnel before it.
    assert reached(stream("A@0 B@1 F@2 C@3 D@4 E@5"), "ABCDE") == [1, 1, 1, 1, 1]
    assert reached(stream("A@0 B@1 C@2 E@3"), "ABCDE") == [1, 1, 1, 0, 0]


def test_mixpanel_retention_counts_24_hours_from_birth() -> None:
    # https://docs.mixpanel.com/reference/retention-query
    # Interval 0 is within 24 hours of the born event, interval 1 from 24 to 48 hours, and so on; who came back in
    # interval 1 need not have done so in interval 0. Of 10 born, 9, 7 and 6.
    rows = [event("A", "2 18:00", f"u{n}") for n in range(10)]
    for hours, users in ((23, range(9)), (25, range(3, 10)), (71, range(6))):
        day, hour = divmod(18 + hours, 24)
        rows += [event("B", f"{2 + day} {hour}:00", f"u{n}") for n in users]

    found = ask("retention", rows, born=A, return_=B, period="rolling", periods=2)

    assert column(found, "size", "returned") == [(10, 9), (10, 7), (10, 6)]


def test_mixpanel_on_or_after() -> None:
    # https://help.mixpanel.com/hc/en-us/articles/360045484191-Advanced-Retention-Functionality
    # "On" wants the very unit of time, "on or after" that one or any later.
    rows = [event("A", "1"), event("B", "6")]
    asked = {"born": A, "return_": B, "period": "rolling", "periods": 6}

    assert column(ask("retention", rows, **asked), "returned") == [0, 0, 0, 0, 0, 1, 0]
    assert column(ask("retention", rows, when="on_or_after", **asked), "returned") == [1, 1, 1, 1, 1, 1, 0]


def test_mixpanel_sessions_end_at_midnight_of_the_project() -> None:
    # https://docs.mixpanel.com/docs/features/sessions
    rows = [event("A", "1 23:45"), event("A", "2 00:05")]

    found = ask("sessions", rows, cut_at_midnight=True, detail=True)

    assert column(found, "start") == ["2026-03-01T23:45:00Z", "2026-03-02T00:05:00Z"]


def test_amplitude_counts_a_search_once_per_conversion() -> None:
    # https://amplitude.com/docs/analytics/charts/funnel-analysis/funnel-analysis-how-amplitude-computes
    # Four searches and then a product added to the cart: one conversion.
    rows = stream("Search@0 Search@1 Search@2 Search@3 Cart@4")

    assert column(ask("funnel", rows, steps=[{"event": "Search"}, {"event": "Cart"}]), "persons") == [1, 1]


def test_amplitude_repeats_a_step() -> None:
    # https://amplitude.com/docs/analytics/charts/funnel-analysis/funnel-analysis-how-amplitude-computes
    # A, A, B: A at least twice and B later.
    assert reached(stream("A@0 B@1 A@2"), "AAB") == [1, 1, 0]
    assert reached(stream("A@0 A@1 B@2"), "AAB") == [1, 1, 1]


def test_amplitude_exact_order_ends_at_another_event() -> None:
    # https://amplitude.com/docs/analytics/charts/funnel-analysis/funnel-analysis-how-amplitude-computes
    assert reached(stream("A@0 X@1 B@2"), "AB", order="strict") == [1, 0]
    assert reached(stream("A@0 B@1"), "AB", order="strict") == [1, 1]


def test_amplitude_segments_by_the_first_step() -> None:
    # https://amplitude.com/docs/analytics/charts/funnel-analysis/funnel-analysis-how-amplitude-computes
    # B in Canada and then A in the United States: the person is in the United States.
    rows = [event("B", "1 10:00", geo_country="CA"), event("A", "1 11:00", geo_country="US")]

    found = ask("funnel", rows, steps=[A, B], by=[{"column": "geo_country"}], attribution={"step": 1})

    assert column(found, "segment", "persons") == [("US", 1), ("US", 0)]


def test_amplitude_conversion_of_three_entries_is_one_person() -> None:
    # https://amplitude.com/docs/faq/funnel-analysis
    # Step 1 on January 1, 5 and 20, step 2 on January 2 and 6: converted, once.
    rows = [event("A", "1"), event("A", "5"), event("A", "20"), event("B", "2"), event("B", "6")]

    assert reached(rows, "AB", window="1d") == [1, 1]


def test_amplitude_days_of_retention_roll_or_follow_the_calendar() -> None:
    # https://amplitude.com/docs/analytics/charts/retention-analysis/retention-analysis-time
    # By default day 1 is hour 24 to 48 after the start, by calendar the next date. (Amplitude rounds times down to the
    # hour before; we don't.)
    rows = [event("A", "1 17:59"), event("B", "2 17:00")]
    asked = {"born": A, "return_": B, "periods": 1}

    assert column(ask("retention", rows, period="rolling", **asked), "returned") == [1, 0]
    assert column(ask("retention", rows, **asked), "returned") == [0, 1]


def test_amplitude_averages_retention_over_those_who_got_that_far() -> None:
    # https://help.amplitude.com/hc/en-us/articles/4402840087181-FAQ-Retention-analysis-in-Amplitude
    # A point of the curve divides those who returned by those who reached that point in time.
    rows = [event("A", "1"), event("A", "1", "b"), event("A", "2", "c"), event("B", "2")]

    found = ask("retention", rows, born=A, return_=B, periods=1, mean="weighted", complete_through=at("3"))

    assert column(found, "cohort", "n", "rate")[-1] == ("(mean)", 1, 0.5)


def test_posthog_exclusions_take_the_person_out_of_the_whole_funnel() -> None:
    # https://github.com/PostHog/posthog/issues/5553
    # Who did the excluded event between the steps is dropped altogether, not only after step 1.
    rows = [*stream("A@0 X@1 B@2"), *stream("A@0 B@2", "bob")]
    asked = {"exclude": [{"event": "X"}]}

    assert reached(rows, "AB", exclusion="drop", **asked) == [1, 1]
    assert reached(rows, "AB", **asked) == [2, 1]


def test_posthog_retention_of_a_week() -> None:
    # https://posthog.com/docs/product-analytics/retention
    # Three persons on day 0, one of them again on day 1 and once more on day 5; day 0 is always 100 %.
    rows = [page("/", "12", name) for name in "abc"] + [page("/", "13", "a"), page("/", "17", "a")]

    found = ask("retention", rows, born={"any": True}, return_={"any": True}, periods=6)

    assert column(found, "rate") == [1.0, 0.333333333333, 0.0, 0.0, 0.0, 0.333333333333, 0.0]


def test_posthog_lifecycle() -> None:
    # https://posthog.com/docs/product-analytics/lifecycle
    # New: for the first time; returning: also in the interval before; resurrecting: not in that one, but earlier;
    # dormant: in the one before, not in this one.
    rows = [event("Sent", day) for day in ("2", "9", "23")]

    found = ask("lifecycle", rows, event={"event": "Sent"}, start_at="2026-03-02", to="2026-03-30")

    figures = ("new", "returning", "resurrecting", "dormant")
    assert column(found, *figures) == [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0)]


def test_ga4_sessions_go_on_over_midnight_and_engage_by_any_of_three() -> None:
    # https://accs-net.com/glossary/engaged-sessions/: ten seconds or longer, two views, or a key event
    rows = [page("/", "1 23:59:55"), event("Element Clicked", "2 00:00:05"), page("/", "2 12:00", "bob")]

    found = ask("sessions", rows, to="2026-03-03")

    assert column(found, "sessions", "engaged", "bounced") == [(1, 1, 0), (1, 0, 1)]
