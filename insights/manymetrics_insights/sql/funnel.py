"""Funnels: the deepest chain of steps of each person, or of each session.

    e (events that match a step, or are excluded) -> rows (numbered in their order) -> forward -> winners -> chains

A chain is a row for each step, in the order of rows, with the last within the window of the first. ``forward`` carries,
for each step k and row, the chain that ends there and begins latest, by one running maximum a step. That is enough:
of two chains that are possible, the one with the later row at each step is possible too, and whatever may follow one
of them may follow it. So the first row at which the deepest step is reached has the winning entry. The rows that serve
the steps between are then found backward from there, by running minima: the same argument, mirrored.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from manymetrics_insights.questions.base import seconds
from manymetrics_insights.questions.models import AtStep, Exclusion, Funnel, QuestionError
from manymetrics_insights.sql import text
from manymetrics_insights.sql.rendered import Rendered
from manymetrics_insights.sql.rows import ACTIVE, Rows
from manymetrics_insights.sql.scope import Scope, resolve_range
from manymetrics_insights.sql.segments import Segments, combined
from manymetrics_insights.sql.sessionize import number_sessions
from manymetrics_insights.sql.statement import Statement, values

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
        self._add_chains()
        return Rendered(self._answer(), COLUMNS, changes_at=self._changes_at(), used=frozenset(self.used))

    def members(self) -> tuple[Statement, str]:
        """Return the statement, and a query of segment, bucket, step, figure and person."""
        self._add_chains()
        person = "c.person, c.place, c.n"
        reached = f"SELECT {person}, c.k AS step, 'persons' AS figure\nFROM chain_steps AS c"
        dropped = (
            f"SELECT {person}, c.depth + 1 AS step, 'dropped' AS figure\nFROM chain_steps AS c\n"
            f"WHERE c.k = 1 AND c.depth < {self.steps}"
        )
        immature = (
            f"SELECT {person}, b.k AS step, 'immature' AS figure\nFROM chain_steps AS c\nCROSS JOIN step_labels AS b\n"
            f"WHERE c.k = 1 AND {self._is_immature('c')}"
        )
        return self.statement, (
            "SELECT g.label AS segment, b.bucket, m.step, m.figure, m.person\nFROM (\n"
            f"{reached}\nUNION ALL\n{dropped}\nUNION ALL\n{immature}\n) AS m\n"
            f"JOIN {self.segments.shown()} AS g ON g.place = m.place\nJOIN buckets AS b ON b.n = m.n"
        )

    # The rows.

    def _add_chains(self) -> None:
        """Add ``chain_steps``: for each unit and reached step k, its time t, that of the entry, depth, place and n."""
        self._add_rows()
        if self.question.order == "any":
            self._add_any()
        else:
            self._add_forward()
            self._add_backward()
        self._drop_excluded()
        self._place()

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
        if not self.stops:
            return source
        frames = {"before": ("MAX", ""), "after": ("MIN", " DESC")}
        columns = [
            f"{function}(CASE WHEN x{j} THEN event_time END) OVER (PARTITION BY person ORDER BY event_time{order}"
            f" GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS x{j}_{side}"
            for j in range(1, len(self.stops) + 1)
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
        """Add ``winners``: of each unit the depth, the number and time of the winning entry."""
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
        self._add_winners()

    def _kept(self, step: int) -> list[str]:
        """Return the columns that the next passes need."""
        flags = [f"m{k}" for k in range(1, self.steps + 1)]
        between = [f"x{j}_{side}" for j in range(1, len(self.stops) + 1) for side in ("before", "after")]
        breakdown = self.segments.columns
        done = [f"{letter}{k}" for k in range(1, step) for letter in ("s", "e")]
        return [*self.unit, "event_time", "i", "hold", *flags, *between, *breakdown, *done]

    def _add_winners(self) -> None:
        levels = range(1, self.steps + 1)
        picked = [
            f"MIN(CASE WHEN s{k} IS NOT NULL THEN i END) AS r{k},"
            f" MIN_BY(e{k}, CASE WHEN s{k} IS NOT NULL THEN i END) AS e{k},"
            f" MIN_BY(s{k}, CASE WHEN s{k} IS NOT NULL THEN i END) AS s{k}"
            for k in levels
        ]
        last = f"forward_{self.steps}"
        units = ", ".join([*self.unit, "hold"])
        self.statement.add(
            "reached",
            f"SELECT {units}, {', '.join(picked)}\nFROM {last}\nWHERE {' OR '.join(f's{k} IS NOT NULL' for k in levels)}\nGROUP BY {units}",
        )
        deepest = [
            f"CASE {' '.join(f'WHEN r{k} IS NOT NULL THEN {value.format(k=k)}' for k in reversed(levels))} END AS {name}"
            for name, value in {"depth": "{k}", "reach": "r{k}", "entry": "e{k}", "entered_at": "s{k}"}.items()
        ]
        self.statement.add("candidates", f"SELECT {units}, {', '.join(deepest)}\nFROM reached")
        self._pick_winner("candidates", units)

    def _pick_winner(self, candidates: str, columns: str) -> None:
        """Add ``winners``: deepest, then reached first, then entered last."""
        if not self.question.hold and self.question.order != "any":
            self.statement.add("winners", f"SELECT * FROM {candidates}")
            return
        order = f"ROW_NUMBER() OVER (PARTITION BY {', '.join(self.unit)} ORDER BY depth DESC, reach, entry DESC)"
        self.statement.add(
            "winners",
            f"SELECT {columns}, depth, reach, entry, entered_at\nFROM (\nSELECT {candidates}.*, {order} AS preference\n"
            f"FROM {candidates}\n) AS preferred\nWHERE preference = 1",
        )

    def _add_backward(self) -> None:
        """Add ``chains``: of each winner, the rows i that serve the reached steps k, each the earliest that can."""
        question = self.question
        join = " AND ".join(f"w.{column} = r.{column}" for column in [*self.unit, *(["hold"] if question.hold else [])])
        if question.order == "strict":
            join = " AND ".join(f"w.{column} = r.{column}" for column in self.unit)
            self.statement.add(
                "chains",
                f"SELECT {self._listed('r')}, r.i - w.entry + 1 AS k, r.i, r.event_time, w.depth, w.entered_at\n"
                f"FROM step_rows AS r\nJOIN winners AS w ON {join} AND r.i >= w.entry AND r.i < w.entry + w.depth",
            )
            return
        breakdown = "".join(f", r.{column}" for column in self.segments.columns)
        self.statement.add(
            f"backward_{self.steps + 1}",
            f"SELECT {self._listed('r')}, r.i, r.event_time, w.entry, w.depth, w.entered_at{breakdown}"
            + "".join(f", r.m{k}" for k in range(2, self.steps + 1))
            + "".join(f", r.x{j}_after" for j in range(1, len(self.stops) + 1))
            + f"\nFROM step_rows AS r\nJOIN winners AS w ON {join} AND r.i >= w.entry"
            f"\nWHERE w.depth >= 2 AND r.event_time <= w.entered_at + {text.seconds(self.window_s)}",
        )
        unit = ", ".join(self.unit)
        window = f"(PARTITION BY {unit} ORDER BY i DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
        for step in range(self.steps, 1, -1):
            later = range(step + 1, self.steps + 1)
            source = f"backward_{step + 1}"
            names = [f"{letter}{k}" for k in later for letter in ("i", "t")]
            carried = "".join(
                f", MIN({letter}{step + 1}_{k}) OVER {window} AS {letter}{k}" for k in later for letter in ("i", "t")
            )
            valid = [f"m{step}"]
            if step < self.steps:
                valid.append(f"(depth = {step} OR i{step + 1} IS NOT NULL)")
            valid.append(f"depth >= {step} AND i > entry")
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
            kept = [*self.unit, "i", "event_time", "entry", "depth", "entered_at", *self.segments.columns]
            kept += [f"m{k}" for k in range(2, step)] + [f"x{j}_after" for j in range(1, len(self.stops) + 1)]
            inner = f"SELECT {source}.*{carried}\nFROM {source}"
            self.statement.add(
                f"backward_{step}", f"SELECT {', '.join([*kept, *columns])}\nFROM (\n{inner}\n) AS carried"
            )
        steps = range(2, self.steps + 1)
        found = ", ".join(f"MIN(i2_{k}) AS i{k}, MIN(t2_{k}) AS t{k}" for k in steps)
        self.statement.add(
            "served", f"SELECT {unit}, {found}\nFROM backward_2\nWHERE i2_2 IS NOT NULL\nGROUP BY {unit}"
        )
        on = " AND ".join(f"s.{column} = w.{column}" for column in self.unit)
        number = " ".join(f"WHEN {k} THEN s.i{k}" for k in steps)
        time = " ".join(f"WHEN {k} THEN s.t{k}" for k in steps)
        self.statement.add("step_numbers", values("k", [f"({k})" for k in range(1, self.steps + 1)]))
        self.statement.add(
            "chains",
            f"SELECT {self._listed('w')}, n.k, CASE n.k {number} ELSE w.entry END AS i,"
            f" CASE n.k {time} ELSE w.entered_at END AS event_time, w.depth, w.entered_at\n"
            f"FROM winners AS w\nJOIN step_numbers AS n ON n.k <= w.depth\nLEFT JOIN served AS s ON {on}",
        )

    def _listed(self, alias: str) -> str:
        return ", ".join(f"{alias}.{column}" for column in self.unit)

    # Chains in any order.

    def _add_any(self) -> None:
        """Add ``chains`` where steps count in any order: of each row as entry, the first row of each step from it on."""
        levels = range(1, self.steps + 1)
        units = ", ".join([*self.unit, "hold"])
        window = f"(PARTITION BY {units} ORDER BY i ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)"
        firsts = "".join(
            f", MIN(CASE WHEN low = {k} THEN {column} END) OVER {window} AS {letter}{k}"
            for k in levels
            for letter, column in (("i", "i"), ("t", "event_time"))
        )
        after = "".join(f", x{j}_after" for j in range(1, len(self.stops) + 1))
        source = "step_rows"
        in_range = f"event_time < {text.timestamp(self.range.end)}"
        if self.question.reentry == "first":
            first = f"MIN(CASE WHEN {in_range} THEN i END) OVER (PARTITION BY {', '.join(self.unit)}) AS first_i"
            source = self.statement.add("entered", f"SELECT step_rows.*, {first}\nFROM step_rows")
            in_range += " AND entry = first_i"
            after += ", first_i"
        self.statement.add(
            "entries", f"SELECT {units}, i AS entry, event_time AS entered_at{after}{firsts}\nFROM {source}"
        )
        self.statement.add("step_numbers", values("s", [f"({k})" for k in levels]))
        number = " ".join(f"WHEN {k} THEN i{k}" for k in levels)
        time = " ".join(f"WHEN {k} THEN t{k}" for k in levels)
        after = "".join(f", x{j}_after" for j in range(1, len(self.stops) + 1))
        self.statement.add(
            "met",
            f"SELECT {units}, entry, entered_at{after}, CASE s {number} END AS i, CASE s {time} END AS event_time\n"
            f"FROM entries\nCROSS JOIN step_numbers\nWHERE {in_range.replace('event_time', 'entered_at')}",
        )
        order = f"ROW_NUMBER() OVER (PARTITION BY {units}, entry ORDER BY i) AS k"
        self.statement.add(
            "met_in_order",
            f"SELECT met.*, {order}\nFROM met\nWHERE event_time <= entered_at + {text.seconds(self.window_s)}",
        )
        source = "met_in_order"
        if self.stops:
            stopped = " OR ".join(
                f"k = {one.before or self.steps} AND event_time > x{j}_after" for j, one in enumerate(self.stops, 1)
            )
            cut = f"MIN(CASE WHEN {stopped} THEN k END) OVER (PARTITION BY {units}, entry) AS cut"
            self.statement.add("met_cut", f"SELECT met_in_order.*, {cut}\nFROM met_in_order")
            source = self.statement.add("met_before_cut", "SELECT * FROM met_cut WHERE cut IS NULL OR k < cut")
        self.statement.add(
            "candidates",
            f"SELECT {units}, entry, MIN(entered_at) AS entered_at, MAX(k) AS depth, MAX(i) AS reach\nFROM {source}\n"
            f"GROUP BY {units}, entry",
        )
        self._pick_winner("candidates", units)
        on = " AND ".join(f"w.{column} = r.{column}" for column in [*self.unit, "hold", "entry"])
        self.statement.add(
            "chains",
            f"SELECT {self._listed('r')}, r.k, r.i, r.event_time, w.depth, w.entered_at\nFROM {source} AS r\nJOIN winners AS w ON {on}",
        )

    # From chains to the answer.

    def _drop_excluded(self) -> None:
        """Add ``kept_chains``: with `exclusion: drop`, without units that had an excluded event inside."""
        if self.question.exclusion != "drop" or not self.question.exclude:
            self.statement.add("kept_chains", "SELECT * FROM chains")
            return
        unit = ", ".join(self.unit)
        spans = ", ".join(
            f"MIN(CASE WHEN k = {one.after} THEN event_time END) AS a{j},"
            f" MIN(CASE WHEN k = {one.before or self.steps} THEN event_time END) AS z{j}"
            for j, one in enumerate(self.question.exclude, 1)
        )
        self.statement.add("spans", f"SELECT {unit}, {spans}\nFROM chains\nGROUP BY {unit}")
        inside = " OR ".join(
            f"x.x{j} AND x.event_time > c.a{j} AND x.event_time < c.z{j}"
            for j in range(1, len(self.question.exclude) + 1)
        )
        self.statement.add(
            "dropped_units",
            f"SELECT DISTINCT {self._listed('c')}\nFROM spans AS c\nJOIN flagged AS x ON x.person = c.person AND ({inside})",
        )
        on = " AND ".join(f"d.{column} = c.{column}" for column in self.unit)
        self.statement.add(
            "kept_chains",
            f"SELECT c.*\nFROM chains AS c\nLEFT JOIN dropped_units AS d ON {on}\nWHERE d.person IS NULL",
        )

    def _place(self) -> None:
        """Add ``chain_steps`` with the place of the segment and the number n of the entry's bucket."""
        count, unit = self.segments.count, ", ".join(self.unit)
        source = "kept_chains"
        if count:
            on = " AND ".join(f"r.{column} = c.{column}" for column in [*self.unit, "i"])
            values_of_steps = ", ".join(f"r.{column}" for column in self.segments.columns)
            self.statement.add(
                "step_values", f"SELECT c.*, {values_of_steps}\nFROM kept_chains AS c\nJOIN step_rows AS r ON {on}"
            )
            attributed = ", ".join(f"{self._attributed(column)} AS {column}" for column in self.segments.columns)
            self.statement.add("attributed", f"SELECT {unit}, {attributed}\nFROM step_values\nGROUP BY {unit}")
            listed = ", ".join([*self.unit, *self.segments.columns])
            self.statement.add(
                "unit_segments", f"SELECT {listed}, {combined(self.segments.columns)} AS seg\nFROM attributed"
            )
            self.segments.rank("unit_segments", "COUNT(*)")
            self.statement.add(
                "unit_places", self.segments.placed("unit_segments", ", ".join(f"r.{c}" for c in self.unit))
            )
            on = " AND ".join(f"p.{column} = c.{column}" for column in self.unit)
            source = f"(SELECT c.*, p.place FROM kept_chains AS c JOIN unit_places AS p ON {on})"
        else:
            source = "(SELECT c.*, 0 AS place FROM kept_chains AS c)"
        interval = self.question.by_time
        buckets = self._buckets()
        self.statement.add("buckets", values("n, bucket", buckets))
        if interval is None:
            self.statement.add("chain_steps", f"SELECT c.*, 0 AS n\nFROM {source} AS c")
        else:
            bucket = self.range.calendar.bucket("entered_at", interval, self.range.start, self.range.end)
            self.statement.add(
                "chain_steps",
                f"SELECT c.*, b.n\nFROM (SELECT c.*, {bucket} AS bucket FROM {source} AS c) AS c\nJOIN buckets AS b ON b.bucket = c.bucket",
            )
        labels = [f"({k}, {text.literal(step.label or step.title)})" for k, step in enumerate(self.question.steps, 1)]
        self.statement.add("step_labels", values("k, label", labels))

    def _attributed(self, column: str) -> str:
        attribution = self.question.attribution
        if isinstance(attribution, AtStep):
            return f"MAX(CASE WHEN k = {attribution.step} THEN {column} END)"
        function = "MIN_BY" if attribution == "first" else "MAX_BY"
        return f"{function}({column}, CASE WHEN {column} IS NOT NULL THEN k END)"

    def _buckets(self) -> list[str]:
        interval = self.question.by_time
        if interval is None:
            return ["(0, CAST(NULL AS DATE))"]
        try:
            found = self.range.calendar.buckets(self.range.first, self.range.to, interval)
        except ValueError as error:
            raise QuestionError([(["by_time"], str(error))]) from None
        label = text.timestamp if interval == "hour" else text.day
        return [f"({bucket.number}, {label(bucket.label)})" for bucket in found]  # type: ignore[arg-type]

    def _is_immature(self, alias: str) -> str:
        until = self.scope.complete_through - timedelta(seconds=self.window_s)
        return f"({alias}.depth < {self.steps} AND {alias}.entered_at > {text.timestamp(until)})"

    def _changes_at(self) -> datetime | None:
        last_end = self.range.end + timedelta(seconds=self.window_s)
        return self.scope.complete_through if last_end > self.scope.complete_through else None

    def _answer(self) -> str:
        elapsed = f"{text.microseconds('event_time')} - {text.microseconds('entered_at')}"
        partition = "(PARTITION BY place, n, k"
        self.statement.add(
            "timed",
            f"SELECT place, n, k, depth, entered_at, took, ROW_NUMBER() OVER {partition} ORDER BY took) AS took_rank,"
            f" COUNT(*) OVER {partition}) AS took_count\nFROM (SELECT c.*, {elapsed} AS took FROM chain_steps AS c) AS c",
        )
        self.statement.add(
            "counted",
            "SELECT place, n, k, COUNT(*) AS persons,"
            " MIN(CASE WHEN took_rank * 100 >= took_count * 50 THEN took END) AS median_us,"
            " MIN(CASE WHEN took_rank * 100 >= took_count * 90 THEN took END) AS p90_us,"
            " CAST(SUM(took) AS DOUBLE) / COUNT(*) AS average_us,"
            f" COUNT(CASE WHEN {self._is_immature('timed')} THEN 1 END) AS immature\nFROM timed\nGROUP BY place, n, k",
        )
        shown = self.segments.shown()
        if self.segments.count:  # of nobody there is one segment, of no value
            none = f"SELECT {self.segments.limit + 1} AS place, {text.literal(self.segments.none_label)} AS label"
            shown = self.statement.add(
                "segments_or_none",
                f"SELECT place, label FROM {shown}\nUNION ALL\n{none} WHERE NOT EXISTS (SELECT 1 FROM {shown})",
            )
        self.statement.add(
            "filled",
            "SELECT g.place, g.label AS segment, b.n, b.bucket, s.k, s.label, COALESCE(c.persons, 0) AS persons,"
            " c.median_us, c.p90_us, c.average_us, c.immature\n"
            f"FROM {shown} AS g\nCROSS JOIN buckets AS b\nCROSS JOIN step_labels AS s\n"
            "LEFT JOIN counted AS c ON c.place = g.place AND c.n = b.n AND c.k = s.k",
        )
        window = "(PARTITION BY place, n ORDER BY k)"
        self.statement.add(
            "compared",
            f"SELECT filled.*, LAG(persons) OVER {window} AS persons_before, FIRST_VALUE(persons) OVER {window} AS persons_first,"
            f" COALESCE(FIRST_VALUE(immature) OVER {window}, 0) AS immature_of_all\nFROM filled",
        )
        second = "/ CAST(1000000 AS DOUBLE)"
        return self.statement.select(
            "SELECT segment, bucket, k AS step, label, persons,"
            " CAST(persons AS DOUBLE) / NULLIF(persons_before, 0) AS from_previous,"
            " CAST(persons AS DOUBLE) / NULLIF(persons_first, 0) AS from_first,"
            " COALESCE(persons_before - persons, 0) AS dropped,"
            f" CAST(median_us AS DOUBLE) {second} AS median_s, CAST(p90_us AS DOUBLE) {second} AS p90_s,"
            f" average_us {second} AS average_s, immature_of_all AS immature\nFROM compared\nORDER BY place, n, k"
        )
