"""Funnels: the deepest chain of steps of each person, or of each session.

    e (events that match a step, or are excluded) -> rows (numbered in their order) -> forward -> winner -> backward
      -> units (one row each: depth, times of the steps, values) -> segments -> counted

A chain is a row for each step, in the order of rows, with the last within the window of the first. ``forward`` carries,
for each step k and row, the chain that ends there and begins latest, by one running maximum a step. That is enough:
of two chains that are possible, the one with the later row at each step is possible too, and whatever may follow one
of them may follow it. So the first row at which the deepest step is reached has the winning entry. The rows that serve
the steps between are then found backward from there, by running minima: the same argument, mirrored.

Each subquery is read once, by window functions in place of joins: Trino computes a subquery again for each reference,
and refuses statements of more than 150 stages.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from manymetrics_insights.questions.base import seconds
from manymetrics_insights.questions.models import AtStep, Exclusion, Funnel
from manymetrics_insights.sql import text
from manymetrics_insights.sql.rendered import Rendered
from manymetrics_insights.sql.rows import ACTIVE, Rows
from manymetrics_insights.sql.scope import PERSON_EVENTS, Scope, naming, resolve_range
from manymetrics_insights.sql.segments import Segments
from manymetrics_insights.sql.sessionize import number_sessions
from manymetrics_insights.sql.statement import Statement, values

_MANY: Final = 1_000_000_000_000  # more than the rows of any person
COLUMNS: Final = (
    "segment", "bucket", "step", "label", "persons", "from_previous", "from_first", "dropped", "median_s", "p90_s",
    "average_s", "immature",
)  # fmt: skip


class FunnelSql:
    """Renders one question. Raises QuestionError."""

    def __init__(self, question: Funnel, scope: Scope) -> None:
        self.question = question
        self.scope = scope
        self.statement = Statement()
        self.range = resolve_range(question, scope.now)
        self.steps = len(question.steps)
        self.window_s = seconds(question.window)
        self.segments = Segments(self.statement, len(question.by), question.limit)
        self.used: set[str] = set()
        # What is counted: a person, or a session of a person.
        self.unit = ["person", "session"] if question.count == "sessions" else ["person"]
        self.stops = question.exclude if question.exclusion == "stop" else ()

    def render(self) -> Rendered:
        self._add_units()
        return Rendered(self._answer(), COLUMNS, changes_at=self._changes_at(), used=frozenset(self.used))

    def members(self) -> tuple[Statement, str]:
        """Return the statement, and a query of segment, bucket, step, figure and person."""
        self._add_units()
        figures = {
            "persons": "u.depth >= s.k",
            "dropped": "u.depth = s.k - 1",
            "immature": self._is_immature("u"),
        }
        named = [f"({text.literal(figure)}, {place})" for place, figure in enumerate(figures)]
        self.statement.add("figures", values("figure, place", named))
        cases = " ".join(f"WHEN {place} THEN {condition}" for place, condition in enumerate(figures.values()))
        return self.statement, (
            "SELECT u.label AS segment, b.bucket, s.k AS step, f.figure, u.person\nFROM placed AS u\n"
            "JOIN buckets AS b ON b.n = u.n\nCROSS JOIN step_labels AS s\n"
            "CROSS JOIN figures AS f\n"
            f"WHERE u.person IS NOT NULL AND u.is_own AND CASE f.place {cases} END"
        )

    # The rows.

    def _add_units(self) -> None:
        """Add ``placed``: one row a unit, with depth, the times t1, t2, ... of its steps, place, label and n."""
        self._add_rows()
        if self.question.order == "any":
            self._add_any()
        else:
            self._add_forward()
            self._add_winner()
            if self.question.order == "loose":
                self._add_backward()
        self._add_values()
        self._add_places()

    def _add_rows(self) -> None:
        """Add ``step_rows``: rows in the numbered order of each unit, with flags, hold and breakdown values."""
        question = self.question
        rows = Rows(self.statement, self.scope, question, "e")
        rows.start, rows.end = self.range.start, self.range.end + timedelta(seconds=self.window_s)
        rows.filtered = question.count == "persons"  # a session's borders don't depend on the question's filters
        where = "" if rows.filtered else "".join(f" AND {rows.condition(one)}" for one in question.where)
        for one in (*question.steps, *question.exclude):
            rows.flag(one)  # keeps its rows
        flags = [rows.column(rows.matches(step) + where, "m") for step in question.steps]
        excluded = [rows.column(rows.matches(one) + where, "m") for one in question.exclude]
        columns = [f"{flag} AS m{k}" for k, flag in enumerate(flags, 1)]
        columns += [f"{flag} AS x{j}" for j, flag in enumerate(excluded, 1)]
        columns.append(f"{rows.value(question.hold)} AS hold" if question.hold else "0 AS hold")
        breakdown = [rows.value(by) for by in question.by]
        columns += [f"{value} AS b{place}" for place, value in enumerate(breakdown, 1)]
        any_step = " OR ".join(f"m{k}" for k in range(1, self.steps + 1))
        serves = any_step
        if question.order == "strict":
            rows.base("type", "event")
            rows.keep(ACTIVE)
            columns.append(f"{rows.column(ACTIVE + where)} AS is_active")
            serves = f"{any_step} OR is_active"
        if question.count == "sessions":
            columns.append(f"{rows.column(rows.of_session())} AS of_session")
        rows.finish()
        self.used |= rows.used
        source = self.statement.add("flagged", f"SELECT person, event_time, tie, {', '.join(columns)}\nFROM e")
        source = self._add_sessions(source) if question.count == "sessions" else self._with_excluded(source)
        low = " ".join(f"WHEN m{k} THEN {k}" for k in range(1, self.steps + 1))
        low = f"CASE {low} ELSE {self.steps + 1} END"
        keep = f"({serves})"
        if question.hold and question.order != "strict":
            keep += " AND hold IS NOT NULL"
        if question.count == "sessions":
            keep += " AND session IS NOT NULL"
        partition = ", ".join(self.unit)
        self.statement.add(
            "step_rows",
            f"SELECT {source}.*, {low} AS low,"
            f" ROW_NUMBER() OVER (PARTITION BY {partition} ORDER BY event_time, {low}, tie) AS i\nFROM {source}\nWHERE {keep}",
        )

    def _with_excluded(self, source: str) -> str:
        """Add the times of the excluded events before and after each row: strictly, of the person."""
        if not self.question.exclude:
            return source
        frames = {"before": ("MAX", ""), "after": ("MIN", " DESC")}
        columns = [
            f"{function}(CASE WHEN x{j} THEN event_time END) OVER (PARTITION BY person ORDER BY event_time{order}"
            f" GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS x{j}_{side}"
            for j in range(1, len(self.question.exclude) + 1)
            for side, (function, order) in frames.items()
        ]
        return self.statement.add("flagged_between", f"SELECT {source}.*, {', '.join(columns)}\nFROM {source}")

    def _add_sessions(self, source: str) -> str:
        between = self._with_excluded(source)
        of_sessions = self.statement.add("of_sessions", f"SELECT {between}.*\nFROM {between}\nWHERE of_session")
        return number_sessions(self.statement, of_sessions, "in_sessions")

    # Chains in order.

    def _stops_at(self, step: int) -> list[tuple[int, Exclusion]]:
        """Return the exclusions that end at a step, with their numbers."""
        return [(j, one) for j, one in enumerate(self.stops, 1) if (one.before or self.steps) == step]

    def _carried(self, step: int) -> list[int]:
        """Return the steps whose times a chain that has reached ``step`` must still know: the exclusions' begins."""
        return sorted(
            {one.after for one in self.stops if one.after <= step < (one.before or self.steps) and one.after > 1}
        )

    def _add_forward(self) -> None:
        """Add ``forward_1``, ...: at each row, the entry of the chain that ends there as step 1, 2, ..., if there is one."""
        question = self.question
        strict = question.order == "strict"
        partition = ", ".join(self.unit) if strict else ", ".join([*self.unit, "hold"])
        entry = f"m1 AND event_time < {text.timestamp(self.range.end)}"
        if strict and question.hold:
            entry += " AND hold IS NOT NULL"
        source = "step_rows"
        if question.reentry == "first":
            first = f"MIN(CASE WHEN {entry} THEN i END) OVER (PARTITION BY {', '.join(self.unit)}) AS first_i"
            source = self.statement.add("entered", f"SELECT step_rows.*, {first}\nFROM step_rows")
            entry += " AND i = first_i"
        self.statement.add(
            "forward_1",
            f"SELECT {source}.*, CASE WHEN {entry} THEN event_time END AS s1, CASE WHEN {entry} THEN i END AS e1\nFROM {source}",
        )
        window = f"(PARTITION BY {partition} ORDER BY i ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
        function = "MAX"
        if strict:
            window, function = f"(PARTITION BY {partition} ORDER BY i)", "LAG"
        for step in range(2, self.steps + 1):
            before = step - 1
            known = {f"s{before}": "s_before", f"e{before}": "e_before"}
            known |= {f"t{before}_{a}": f"t{a}_before" for a in self._carried(before)}
            if strict and question.hold:
                known["hold"] = "hold_before"
            carried = ", ".join(f"{function}({column}) OVER {window} AS {name}" for column, name in known.items())
            conditions = [f"m{step}", f"s_before >= event_time - {text.seconds(self.window_s)}"]
            if strict and question.hold:
                conditions.append("hold = hold_before")
            for j, one in self._stops_at(step):
                begin = "s_before" if one.after == 1 else f"t{one.after}_before"
                conditions.append(f"(x{j}_before IS NULL OR {begin} >= x{j}_before)")
            valid = " AND ".join(conditions)
            columns = [
                f"CASE WHEN {valid} THEN s_before END AS s{step}",
                f"CASE WHEN {valid} THEN e_before END AS e{step}",
            ]
            columns += [
                f"CASE WHEN {valid} THEN {'event_time' if a == step else f't{a}_before'} END AS t{step}_{a}"
                for a in self._carried(step)
            ]
            inner = f"SELECT forward_{before}.*, {carried}\nFROM forward_{before}"
            kept = self._kept(step)
            self.statement.add(
                f"forward_{step}", f"SELECT {', '.join([*kept, *columns])}\nFROM (\n{inner}\n) AS carried"
            )

    def _kept(self, step: int) -> list[str]:
        """Return the columns that the next passes need."""
        done = [f"{letter}{k}" for k in range(1, step) for letter in ("s", "e")]
        return [*self._row_columns(), *done]

    def _row_columns(self) -> list[str]:
        flags = [f"m{k}" for k in range(1, self.steps + 1)]
        between = [f"x{j}_{side}" for j in range(1, len(self.question.exclude) + 1) for side in ("before", "after")]
        return [*self.unit, "event_time", "i", "hold", *flags, *between, *self.segments.columns]

    def _add_winner(self) -> None:
        """Add ``won``: rows with depth, the number of the winning entry and its time; of the winning ``hold`` alone."""
        levels = range(1, self.steps + 1)
        deepest = {
            name: f"CASE {' '.join(f'WHEN s{k} IS NOT NULL THEN {value.format(k=k)}' for k in reversed(levels))} END"
            for name, value in {"reached": "{k}", "reached_from": "e{k}", "reached_since": "s{k}"}.items()
        }
        columns = ", ".join([*self._row_columns(), *(f"{sql} AS {name}" for name, sql in deepest.items())])
        self.statement.add("reached", f"SELECT {columns}\nFROM forward_{self.steps}")
        # Deepest, then the first row that reaches it, as one number; its entry is the latest.
        rank = f"({self.steps} - reached) * {_MANY} + i"
        unit = f"(PARTITION BY {', '.join(self.unit)})"
        self.statement.add(
            "with_best", f"SELECT r.*, {rank} AS reach_rank, MIN({rank}) OVER {unit} AS best_rank\nFROM reached AS r"
        )
        told = {"depth": "reached", "entry": "reached_from", "entered_at": "reached_since", "won_hold": "hold"}
        best = ", ".join(
            f"MAX(CASE WHEN reach_rank = best_rank THEN {sql} END) OVER {unit} AS {name}" for name, sql in told.items()
        )
        source = self.statement.add("with_winner", f"SELECT with_best.*, {best}\nFROM with_best")
        conditions = ["depth IS NOT NULL", "i >= entry"]
        if self.question.hold and self.question.order == "loose":
            conditions.append("hold = won_hold")
        self.statement.add("won", f"SELECT {source}.*\nFROM {source}\nWHERE {' AND '.join(conditions)}")

    def _add_backward(self) -> None:
        """Add ``served``: the rows of the winner; at the entry's, the numbers i2, i3, ... of the rows that serve."""
        unit = ", ".join(self.unit)
        window = f"(PARTITION BY {unit} ORDER BY i DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
        source, kept = "won", [*self._row_columns(), "depth", "entry", "entered_at"]
        for step in range(self.steps, 1, -1):
            later = range(step + 1, self.steps + 1)
            names = [f"{letter}{k}" for k in later for letter in ("i", "t")]
            carried = "".join(f", MIN({name[0]}{step + 1}_{name[1:]}) OVER {window} AS {name}" for name in names)
            valid = [f"m{step} AND depth >= {step} AND i > entry"]
            valid.append(f"event_time <= entered_at + {text.seconds(self.window_s)}")
            if step < self.steps:
                valid.append(f"(depth = {step} OR i{step + 1} IS NOT NULL)")
            for j, one in enumerate(self.stops, 1):
                if one.after == step:
                    before = one.before or self.steps
                    valid.append(f"(depth < {before} OR x{j}_after IS NULL OR t{before} <= x{j}_after)")
            condition = " AND ".join(valid)
            columns = [f"CASE WHEN {condition} THEN {name} END AS {name[0]}{step}_{name[1:]}" for name in names]
            columns += [
                f"CASE WHEN {condition} THEN i END AS i{step}_{step}",
                f"CASE WHEN {condition} THEN event_time END AS t{step}_{step}",
            ]
            inner = f"SELECT {source}.*{carried}\nFROM {source}"
            source = self.statement.add(
                f"backward_{step}", f"SELECT {', '.join([*kept, *columns])}\nFROM (\n{inner}\n) AS carried"
            )
        found = ", ".join(
            f"MIN({letter}2_{k}) OVER {window} AS {letter}{k}" for k in range(2, self.steps + 1) for letter in "it"
        )
        self.statement.add("served", f"SELECT {', '.join(kept)}, {found}\nFROM {source}")

    # Chains in any order.

    def _add_any(self) -> None:
        """Add ``served`` where steps count in any order: of each row as entry, the first row of each step from it on.

        The k-th step reached is the step whose row is the k-th of those.
        """
        question, levels = self.question, range(1, self.steps + 1)
        units = ", ".join([*self.unit, "hold"])
        window = f"(PARTITION BY {units} ORDER BY i ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)"
        firsts = "".join(
            f", MIN(CASE WHEN low = {k} THEN {column} END) OVER {window} AS {letter}_{k}"
            for k in levels
            for letter, column in (("i", "i"), ("t", "event_time"))
        )
        may_enter = f"event_time < {text.timestamp(self.range.end)}"
        first = f"MIN(CASE WHEN {may_enter} THEN i END) OVER (PARTITION BY {', '.join(self.unit)}) AS first_i"
        self.statement.add("entries", f"SELECT step_rows.*, {first}{firsts}\nFROM step_rows")
        if question.reentry == "first":
            may_enter += " AND i = first_i"
        in_time = f"event_time + {text.seconds(self.window_s)}"
        places = ", ".join(
            f"CASE WHEN t_{k} <= {in_time} THEN 1"
            + "".join(f" + CASE WHEN t_{j} <= {in_time} AND i_{j} < i_{k} THEN 1 ELSE 0 END" for j in levels if j != k)
            + f" END AS place_{k}"
            for k in levels
        )
        columns = ", ".join([*self._row_columns(), *(f"{letter}_{k}" for k in levels for letter in "it")])
        self.statement.add("places", f"SELECT {columns}, {may_enter} AS may_enter, {places}\nFROM entries")

        def at(letter: str, position: int) -> str:
            return f"COALESCE({', '.join(f'CASE WHEN place_{k} = {position} THEN {letter}_{k} END' for k in levels)})"

        sorted_columns = ", ".join(f"{at(letter, k)} AS {letter}{k}" for k in levels for letter in "it")
        columns = ", ".join([*self._row_columns(), "may_enter"])
        self.statement.add("in_order", f"SELECT {columns}, {sorted_columns}\nFROM places")
        stops = " ".join(
            f"WHEN t{one.before or self.steps} > x{j}_after THEN {(one.before or self.steps) - 1}"
            for j, one in sorted(enumerate(self.stops, 1), key=lambda stop: stop[1].before or self.steps)
        )
        depth = f"CASE {stops} {' '.join(f'WHEN i{k} IS NOT NULL THEN {k}' for k in reversed(levels))} END"
        self.statement.add(
            "entered", f"SELECT in_order.*, CASE WHEN may_enter THEN {depth} END AS reached\nFROM in_order"
        )
        reach = f"CASE reached {' '.join(f'WHEN {k} THEN i{k}' for k in levels)} END"
        order = f"(PARTITION BY {', '.join(self.unit)} ORDER BY reached DESC NULLS LAST, {reach}, i DESC)"
        self.statement.add("preferred", f"SELECT entered.*, ROW_NUMBER() OVER {order} AS preference\nFROM entered")
        unit = f"(PARTITION BY {', '.join(self.unit)})"
        won = "CASE WHEN preference = 1 THEN {0} END"
        told = {"depth": "reached", "entry": "i", "entered_at": "event_time"}
        told |= {f"{letter}{k}": f"{letter}{k}" for k in range(2, self.steps + 1) for letter in "it"}
        columns = ", ".join(
            [*self._row_columns(), *(f"MAX({won.format(sql)}) OVER {unit} AS {name}" for name, sql in told.items())]
        )
        self.statement.add("told", f"SELECT {columns}\nFROM preferred")
        self.statement.add("served", "SELECT * FROM told WHERE depth IS NOT NULL")

    # From units to the answer.

    def _add_values(self) -> None:
        """Add ``units``: one row a unit, with the times of its steps and the values of its breakdowns."""
        question, unit = self.question, f"(PARTITION BY {', '.join(self.unit)})"
        levels = range(1, self.steps + 1)
        if question.order != "strict" and not self.segments.count and question.exclusion == "stop":
            times = ", ".join(f"t{k}" for k in levels if k > 1)
            self.statement.add(
                "units",
                f"SELECT {', '.join(self.unit)}, depth, entered_at, entered_at AS t1, {times}\nFROM served\n"
                "WHERE i = entry",
            )
            return
        if question.order == "strict":
            numbers = {k: f"entry + {k - 1}" for k in levels}
            source = "won"
        else:
            # The numbers are at the entry's row: tell them to all rows of the unit.
            told = ", ".join(f"MAX(CASE WHEN i = entry THEN i{k} END) OVER {unit} AS n{k}" for k in levels if k > 1)
            columns = ", ".join([*self._row_columns(), "depth", "entry", "entered_at"])
            source = self.statement.add("numbered", f"SELECT {columns}, {told}\nFROM served")
            numbers = {k: "entry" if k == 1 else f"n{k}" for k in levels}

        def at_step(k: int, column: str) -> str:
            return f"MAX(CASE WHEN i = {numbers[k]} AND depth >= {k} THEN {column} END) OVER {unit}"

        found = [f"{at_step(k, 'event_time')} AS t{k}" for k in levels]
        steps = [question.attribution.step] if isinstance(question.attribution, AtStep) else list(levels)
        found += [f"{at_step(k, column)} AS {column}_{k}" for column in self.segments.columns for k in steps]
        drops = list(enumerate(question.exclude, 1)) if question.exclusion == "drop" else []
        found += [f"{at_step(one.before or self.steps, f'x{j}_before')} AS excluded_{j}" for j, one in drops]
        kept = ", ".join([*self.unit, "i", "depth", "entry", "entered_at", *found])
        self.statement.add("timed_rows", f"SELECT {kept}\nFROM {source}")
        conditions = ["i = entry"]
        conditions += [
            f"(excluded_{j} IS NULL OR depth < {one.before or self.steps} OR excluded_{j} <= t{one.after})"
            for j, one in drops
        ]
        members = "".join(f", {self._attributed(column, steps)} AS {column}" for column in self.segments.columns)
        times = ", ".join(f"t{k}" for k in levels)
        self.statement.add(
            "units",
            f"SELECT {', '.join(self.unit)}, depth, entered_at, {times}{members}\nFROM timed_rows\n"
            f"WHERE {' AND '.join(conditions)}",
        )

    def _add_places(self) -> None:
        """Add ``placed``: units with segment and bucket; where there is nobody, one without a person, of no value."""
        interval, segments = self.question.by_time, self.segments
        self.statement.add("buckets", values("n, bucket", self._buckets()))
        labels = [f"({k}, {text.literal(step.label or step.title)})" for k, step in enumerate(self.question.steps, 1)]
        self.statement.add("step_labels", values("k, label", labels))
        times = ", ".join(f"t{k}" for k in range(1, self.steps + 1))
        source = segments.place_by_windows("units", f"person, depth, entered_at, {times}")
        bucket = "CAST(NULL AS DATE)"
        if interval is not None:
            bucket = self.range.calendar.bucket("entered_at", interval, self.range.start, self.range.end)
        nobody = ", ".join(["CAST(NULL AS TIMESTAMP(6))"] * (self.steps + 1))
        kind = "TIMESTAMP(6)" if interval == "hour" else "DATE"
        person = "CAST(NULL AS VARCHAR)" if self.scope.events is PERSON_EVENTS else "CAST(NULL AS INTEGER)"
        none = (
            f"{segments.limit + 1}, {text.literal(segments.none_label)}"
            if segments.count
            else "0, CAST(NULL AS VARCHAR)"
        )
        self.statement.add(
            "or_nobody",
            f"SELECT person, depth, entered_at, {times}, place, label, {bucket} AS bucket\nFROM {source}\nUNION ALL\n"
            f"SELECT {person}, 0, {nobody}, {none}, CAST(NULL AS {kind})",
        )
        counted = "COUNT(person) OVER () AS units_of_all"
        first = "ROW_NUMBER() OVER (PARTITION BY place ORDER BY person) AS place_row"
        self.statement.add("with_count", f"SELECT or_nobody.*, {counted}, {first}\nFROM or_nobody")
        # Where there is a breakdown, nobody is a segment only if nobody came at all.
        keep = "person IS NOT NULL OR units_of_all = 0" if segments.count else "TRUE"
        own = "b.bucket = u.bucket" if interval is not None else "TRUE"
        self.statement.add(
            "placed",
            f"SELECT u.*, b.n, COALESCE({own}, FALSE) AS is_own\nFROM (SELECT * FROM with_count WHERE {keep}) AS u\n"
            f"JOIN buckets AS b ON {own} OR u.place_row = 1",
        )

    def _attributed(self, column: str, steps: list[int]) -> str:
        order = reversed(steps) if self.question.attribution == "last" else steps
        listed = ", ".join(f"{column}_{k}" for k in order)
        return f"COALESCE({listed})" if len(steps) > 1 else listed

    def _buckets(self) -> list[str]:
        interval = self.question.by_time
        if interval is None:
            return ["(0, CAST(NULL AS DATE))"]
        with naming("by_time"):
            found = self.range.calendar.buckets(self.range.first, self.range.to, interval)
        return [f"({bucket.number}, {bucket.literal})" for bucket in found]

    def _is_immature(self, alias: str) -> str:
        until = self.scope.complete_through - timedelta(seconds=self.window_s)
        return f"({alias}.depth < {self.steps} AND {alias}.entered_at > {text.timestamp(until)})"

    def _changes_at(self) -> datetime | None:
        last_end = self.range.end + timedelta(seconds=self.window_s)
        return self.scope.complete_through if last_end > self.scope.complete_through else None

    def _answer(self) -> str:
        time = " ".join(f"WHEN {k} THEN t{k}" for k in range(1, self.steps + 1))
        self.statement.add(
            "step_times",
            "SELECT u.place, u.label AS segment, u.n, s.k, s.label,"
            f" CASE WHEN u.is_own AND u.depth >= s.k THEN {text.microseconds(f'CASE s.k {time} END')}"
            f" - {text.microseconds('u.entered_at')} END AS took,"
            f" u.is_own AND u.depth > 0 AND {self._is_immature('u')} AS is_immature\n"
            "FROM placed AS u\nCROSS JOIN step_labels AS s",
        )
        partition = "(PARTITION BY place, n, k"
        self.statement.add(
            "ranked",
            f"SELECT step_times.*, ROW_NUMBER() OVER {partition} ORDER BY took NULLS LAST) AS took_rank,"
            f" COUNT(took) OVER {partition}) AS took_count\nFROM step_times",
        )
        self.statement.add(
            "counted",
            "SELECT place, segment, n, k, label, COUNT(took) AS persons,"
            " MIN(CASE WHEN took_rank * 100 >= took_count * 50 THEN took END) AS median_us,"
            " MIN(CASE WHEN took_rank * 100 >= took_count * 90 THEN took END) AS p90_us,"
            " CAST(SUM(took) AS DOUBLE) / NULLIF(COUNT(took), 0) AS average_us,"
            " COUNT(CASE WHEN is_immature THEN 1 END) AS immature\nFROM ranked\nGROUP BY place, segment, n, k, label",
        )
        window = "(PARTITION BY place, n ORDER BY k)"
        self.statement.add(
            "compared",
            f"SELECT counted.*, LAG(persons) OVER {window} AS persons_before,"
            f" FIRST_VALUE(persons) OVER {window} AS persons_first\nFROM counted",
        )
        second = "/ CAST(1000000 AS DOUBLE)"
        return self.statement.select(
            "SELECT c.segment, b.bucket, c.k AS step, c.label, c.persons,"
            " CAST(c.persons AS DOUBLE) / NULLIF(c.persons_before, 0) AS from_previous,"
            " CAST(c.persons AS DOUBLE) / NULLIF(c.persons_first, 0) AS from_first,"
            " COALESCE(c.persons_before - c.persons, 0) AS dropped,"
            f" CAST(c.median_us AS DOUBLE) {second} AS median_s, CAST(c.p90_us AS DOUBLE) {second} AS p90_s,"
            f" c.average_us {second} AS average_s, c.immature\nFROM compared AS c\nJOIN buckets AS b ON b.n = c.n\n"
            "ORDER BY c.place, c.n, c.k"
        )
