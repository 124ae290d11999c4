"""``manymetrics insight`` and its short forms, over a real folder. What the figures mean is tested with the oracle."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import manymetrics_cli.commands.insight
import manymetrics_insights.asking.ask
from manymetrics_cli.insight_arguments import SHORT_FORMS
from manymetrics_cli.main import main
from manymetrics_insights.questions.models import question_schema
from tests.insights.lakes import Lake, Row

Insight = Callable[..., tuple[int, str, str]]

RANGE = ("--from", "2026-03-01", "--to", "2026-03-15")
FUNNEL = ("funnel", "Viewed", "Bought", *RANGE)
COMMAND = [sys.executable, "-m", "manymetrics_cli"]
DAY = datetime(2026, 3, 1, 12)
NO_BOOKS = "complete-through is unknown: no commit has noted it yet"  # of tables that no committer made


@pytest.fixture
def shop(lake: Lake) -> Lake:
    """Ten persons who viewed on one day each; every second one bought an hour later, for 10.5 each."""
    events: list[Row] = []
    for number in range(10):
        at = DAY + timedelta(days=number)
        person: Row = {"user_id": f"u{number}", "received_at": at, "properties": '{"total": 10.5}'}
        events.append({"event": "Viewed", "event_time": at, **person})
        if number % 2:
            events.append({"event": "Bought", "event_time": at + timedelta(hours=1), **person})
    lake.append_events(*events)
    return lake


@pytest.fixture
def insight(shop: Lake, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Insight:
    """The command line: exit status, standard output and standard error. It is always the same time."""
    monkeypatch.setattr(manymetrics_insights.asking.ask, "now_utc", lambda: DAY + timedelta(days=30))

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main([*arguments, "--data-dir", str(shop.data_dir)])
        except SystemExit as exited:  # of argparse
            status = int(str(exited.code))
        out, error = capfd.readouterr()
        return status, out, error.replace(f"note: {NO_BOOKS}\n", "")

    return run


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Give text on standard input."""

    def put(text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    return put


def answer_of(insight: Insight, *arguments: str) -> dict[str, Any]:
    status, out, error = insight(*arguments, "-o", "json")
    assert (status, error) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_question_is_answered_as_a_table(insight: Insight) -> None:
    status, out, error = insight(*FUNNEL)

    steps = [line.split() for line in out.splitlines()[2:]]
    assert [(step[2], step[3], step[4]) for step in steps] == [("1", "Viewed", "10"), ("2", "Bought", "5")]
    assert (status, error.startswith("(2 rows, ")) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        (("trends", "Bought", "--measure", "sum", "--property", "total"), 14),
        (("funnel", "Viewed", "Bought"), 2),
        (("retention", "--born", "Viewed", "--return", "any", "--interval", "week", "--periods", "1"), 6),
        (("lifecycle",), 3),
        (("stickiness", "Viewed"), None),
        (("sessions",), None),
        (("paths",), None),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_each_short_form_is_answered(insight: Insight, arguments: tuple[str, ...], rows: int | None) -> None:
    found = answer_of(insight, *arguments, *RANGE)

    assert found["question"]["insight"] == arguments[0]
    assert rows is None or len(found["rows"]) == rows


def test_persons_of_an_answer_and_the_timeline_of_one(insight: Insight, give: Callable[[str], None]) -> None:
    give(json.dumps(answer_of(insight, *FUNNEL)))

    found = answer_of(insight, "persons", "-", "--cell", "step=2", "--figure", "dropped")

    assert [row[0] for row in found["rows"]] == ["u0", "u2", "u4", "u6", "u8"]
    assert [row[2] for row in answer_of(insight, "timeline", "u1")["rows"]] == ["Bought", "Viewed"]


def test_a_short_form_and_its_question_are_one(insight: Insight, tmp_path: Path, give: Callable[[str], None]) -> None:
    asked = {
        "insight": "funnel",
        "steps": [{"event": "Viewed"}, {"event": "Bought"}],
        "from": "2026-03-01",
        "to": "2026-03-15",
    }
    short = answer_of(insight, *FUNNEL)
    (tmp_path / "q.json").write_text(json.dumps(asked), encoding="utf-8-sig")
    give(json.dumps(asked))

    for name in (str(tmp_path / "q.json"), "-"):
        found = answer_of(insight, "insight", name)
        assert [found[part] for part in ("hash", "columns", "rows")] == [
            short[part] for part in ("hash", "columns", "rows")
        ]


def test_all_formats_hold_the_same_rows(insight: Insight, tmp_path: Path) -> None:
    arguments = ("trends", "Bought", "--measure", "sum:total", "--from", "2026-03-02", "--to", "2026-03-04")
    found = answer_of(insight, *arguments)
    for name in ("rows.csv", "rows.ndjson", "rows.parquet", "rows.json"):
        assert insight(*arguments, "--to", str(tmp_path / name))[0] == 0

    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    lines = (tmp_path / "rows.ndjson").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert (tmp_path / "rows.csv").read_text().splitlines() == [
        ",".join(found["columns"]),
        *(f"{row['series']},,{row['bucket']},{row['value']},false" for row in rows),
    ]
    assert json.loads((tmp_path / "rows.json").read_text())["rows"] == found["rows"]
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.column("value").to_pylist() == [Decimal("10.5"), 0]
    assert [str(field.type) for field in table.schema] == ["string", "string", "string", "decimal128(38, 9)", "bool"]


def test_to_is_the_last_day_or_a_file(insight: Insight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    status, out, error = insight(*FUNNEL, "--to", "rows.csv")

    assert (status, out, error) == (0, "", "")
    assert (tmp_path / "rows.csv").read_text().startswith("segment,")
    status, _, error = insight("funnel", "Viewed", "Bought", "--from", "2026-03-01", "--to", "2026-03-32")
    assert (status, error) == (
        2,
        "manymetrics funnel: to: '2026-03-32' is not a date: write the year, month and day, as in 2026-09-05\n",
    )


def test_an_answer_is_a_question_too(insight: Insight, tmp_path: Path) -> None:
    path = tmp_path / "answer.json"
    insight(*FUNNEL, "-o", "json", "--to", str(path))

    again = answer_of(insight, "insight", str(path))

    assert again["rows"] == json.loads(path.read_text())["rows"]


def test_a_refusal_does_not_control_the_terminal(insight: Insight, give: Callable[[str], None]) -> None:
    give(json.dumps({"insight": "stickiness", "\x1b[31m\nfield": 1}))

    assert insight("insight", "-") == (2, "", "manymetrics insight: \\x1b[31m\\nfield: unknown field\n")


def test_a_refused_question_names_the_path_and_is_2(insight: Insight, give: Callable[[str], None]) -> None:
    give('{"insight": "funnel", "steps": [{"event": "A"}, {"event": 3}], "windo": "7d"}')

    status, out, error = insight("insight", "-")

    assert (status, out) == (2, "")
    assert error.splitlines() == [
        "manymetrics insight: steps[1].event: must be a text",
        "manymetrics insight: windo: unknown field",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("funnel", "A"), "steps: takes at least 2, got 1"),
        (("funnel", "A", "B", "--step-where", "3", "properties.a=1"), "'3' is not a number from 1 to 2"),
        (("trends", "A", "--where", "plan"), "has no operator"),
        (("trends", "A", "--by", "contry"), "there is no column 'contry'"),
        (("trends", "A", "--limit", "many"), "'many' is not a whole number"),
        (("trends", "A", "--interval", "fortnight"), "invalid choice: 'fortnight'"),
        (("trends", "A", "--json", "{"), "is not JSON"),
        (("insight",), "QUESTION.json --schema --verify --diff is required"),
    ],
)
def test_arguments_that_are_refused_are_2(insight: Insight, arguments: tuple[str, ...], said: str) -> None:
    status, out, error = insight(*arguments)

    assert (status, out) == (2, "")
    assert said in error


def test_files_that_are_no_question_or_answer_are_named(insight: Insight, tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("{")
    (tmp_path / "latin.json").write_bytes(b'{"insight": "\xe9"}')
    for name in ("text.json", "latin.json"):
        status, _, error = insight("insight", str(tmp_path / name))
        assert (status, error.startswith(f"manymetrics insight: {tmp_path / name} is not JSON: ")) == (2, True)
    status, _, error = insight("insight", "--verify", str(tmp_path / "text.json"))
    assert (status, "is not JSON" in error) == (2, True)
    assert insight("insight", str(tmp_path / "none.json")) == (
        1,
        "",
        f"manymetrics insight: {tmp_path / 'none.json'} can't be read: No such file or directory.\n",
    )


def test_without_tables_the_cure_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["stickiness", "--data-dir", str(tmp_path / "none")]) == 2
    assert "there is no data directory" in capfd.readouterr().err


def test_hostile_names_neither_control_the_terminal_nor_reach_sql(insight: Insight) -> None:
    for name in ("'; DROP TABLE events; --", "\x1b[31m", "<img onerror=alert(1)>", '"', "\\", "${x}", "a\nb"):
        status, out, error = insight("funnel", name, "Viewed", *RANGE)
        assert status == 0, error
        assert "\x1b" not in out + error
        assert out.splitlines()[2].split()[-5:] == ["0", "NULL", "NULL", "NULL", "0"]


def test_notes_are_printed_and_in_the_answer(shop: Lake, insight: Insight, capfd: pytest.CaptureFixture[str]) -> None:
    unseen = "no event 'Vieved' was ever received: did you mean 'Viewed'?"

    assert answer_of(insight, "stickiness", "Viewed", *RANGE)["notes"] == [NO_BOOKS]
    assert main(["funnel", "Vieved", "Bought", *RANGE, "-o", "csv", "--data-dir", str(shop.data_dir)]) == 0
    assert capfd.readouterr().err == f"note: {NO_BOOKS}\nnote: {unseen}\n"


def test_the_schema_is_printed(insight: Insight) -> None:
    status, out, error = insight("insight", "--schema")

    assert (status, json.loads(out), error) == (0, question_schema(), "")


def test_the_sql_is_printed_and_nothing_is_asked(insight: Insight, monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer_of(insight, *FUNNEL)
    monkeypatch.setattr(manymetrics_cli.commands.insight, "_ask", None)

    status, out, error = insight(*FUNNEL, "--sql")

    assert (status, out, error) == (0, f"{found['sql']}\n", "")


def test_an_answer_is_verified(insight: Insight, shop: Lake, tmp_path: Path) -> None:
    path = tmp_path / "answer.json"
    insight(*FUNNEL, "-o", "json", "--to", str(path))
    shop.append_events({"event": "Viewed", "user_id": "late", "event_time": DAY, "received_at": DAY})  # a new snapshot

    status, out, error = insight("insight", "--verify", str(path))

    assert (status, out) == (0, "")
    assert error.startswith("the same: sql, columns and 2 rows of snapshot ")


def test_an_answer_that_was_changed_is_not_verified(insight: Insight, tmp_path: Path) -> None:
    found = answer_of(insight, *FUNNEL)
    found["rows"][1][4] = 6
    (tmp_path / "answer.json").write_text(json.dumps(found))

    status, out, error = insight("insight", "--verify", str(tmp_path / "answer.json"), "-o", "ndjson")

    assert (status, error) == (1, "")
    row = {"segment": None, "bucket": None, "step": 2, "column": "persons", "before": 6, "after": 5}
    assert [json.loads(line) for line in out.splitlines()] == [row]


def test_where_the_snapshot_has_expired_it_is_3_with_what_differs_now(
    insight: Insight, shop: Lake, tmp_path: Path
) -> None:
    path = tmp_path / "answer.json"
    insight(*FUNNEL, "-o", "json", "--to", str(path))
    shop.append_events({"event": "Viewed", "user_id": "late", "event_time": DAY, "received_at": DAY})
    table = shop.table("events")
    newest = table.current_snapshot()
    assert newest is not None
    old = [snapshot.snapshot_id for snapshot in table.snapshots() if snapshot.snapshot_id != newest.snapshot_id]
    table.maintenance.expire_snapshots().by_ids(old).commit()

    status, out, error = insight("insight", "--verify", str(path), "-o", "ndjson")

    assert (status, "has expired; compared with" in error) == (3, True)
    changed = [json.loads(line) for line in out.splitlines()]
    assert [(one["step"], one["column"], one["after"]) for one in changed][:1] == [(1, "persons", 11)]


def test_two_answers_are_compared(insight: Insight, tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    insight(*FUNNEL, "-o", "json", "--to", str(first))
    insight(
        "funnel", "Viewed", "Bought", "--from", "2026-03-03", "--to", "2026-03-15", "-o", "json", "--to", str(second)
    )

    assert insight("insight", "--diff", str(first), str(first)) == (0, "", "(0 cells differ)\n")
    status, out, error = insight("insight", "--diff", str(first), str(second), "-o", "csv")
    assert (status, error) == (1, "note: the questions differ in from\n")
    assert ",,1,persons,10,8" in out.splitlines()
    insight("stickiness", *RANGE, "-o", "json", "--to", str(second))
    assert insight("insight", "--diff", str(first), str(second)) == (
        2,
        "",
        "manymetrics insight: one answer is of funnel, the other of stickiness\n",
    )


def test_athena_needs_the_tables_on_aws(insight: Insight, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MANYMETRICS_WAREHOUSE", raising=False)

    assert insight(*FUNNEL, "--engine", "athena") == (
        1,
        "",
        "manymetrics funnel: Athena reads the tables on AWS: set MANYMETRICS_WAREHOUSE, and leave out --data-dir.\n",
    )


@pytest.mark.parametrize("name", ["insight", *SHORT_FORMS])
def test_each_has_help_with_examples(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])

    text = capfd.readouterr().out
    assert f"examples:\n  manymetrics {'funnel' if name == 'persons' else name}" in text


def on_terminal(lake: Lake, *arguments: str, **environment: str) -> str:
    """What is shown on a terminal that is not standard error, where progress would be shown too."""
    terminal, end = pty.openpty()
    environ = os.environ | {"MANYMETRICS_DATA_DIR": str(lake.data_dir), "COLUMNS": "120", "TERM": "xterm"} | environment
    subprocess.run([*COMMAND, *arguments], env=environ, stdout=end, stderr=subprocess.DEVNULL, check=False)
    os.close(end)
    text = b""
    try:
        while piece := os.read(terminal, 4096):
            text += piece
    except OSError:  # what Linux says at the end of a terminal
        pass
    os.close(terminal)
    return text.decode().replace("\r\n", "\n")


def test_on_a_terminal_there_are_charts_and_colours(shop: Lake) -> None:
    assert "\x1b[36m█" in on_terminal(shop, *FUNNEL)
    plain = on_terminal(shop, *FUNNEL, NO_COLOR="1")
    assert " 2 Bought  ███████████████░░░░░░░░░░░░░░░  5  50.0 %  5 dropped" in plain
    assert "\x1b" not in plain
    assert on_terminal(shop, *FUNNEL, "-o", "csv").startswith("segment,bucket,step,")
    assert on_terminal(shop, *FUNNEL, "-o", "parquet") == ""


_SLOW = "SELECT SUM(HASH(a.range * b.range) % 7) FROM range(1000000) a, range(1000000) b"
_ASK_SLOWLY = f"""
import sys
from manymetrics_insights.asking import ask
ask.answer = lambda _question, session, _context: session.connection.execute({_SLOW!r}).fetchall()
from manymetrics_cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("command", "shown"),
    [([*COMMAND, "query", _SLOW], None), ([sys.executable, "-c", _ASK_SLOWLY, "stickiness"], b"asking duckdb, 1 s")],
    ids=["query", "insight"],
)
def test_ctrl_c_ends_what_duckdb_computes(shop: Lake, command: list[str], shown: bytes | None) -> None:
    terminal, end = pty.openpty()
    environ = os.environ | {"MANYMETRICS_DATA_DIR": str(shop.data_dir)}
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=end) as running:
        os.close(end)
        if shown is None:  # it shows no progress, but it has threads once DuckDB runs
            while len(list(Path(f"/proc/{running.pid}/task").iterdir())) < 2:
                time.sleep(0.05)
            time.sleep(0.5)
        else:
            assert shown in read_until(terminal, shown)
        running.send_signal(signal.SIGINT)

        assert running.wait(timeout=20) == 130
    os.close(terminal)


def read_until(terminal: int, text: bytes) -> bytes:
    seen, until = b"", time.monotonic() + 20
    while text not in seen and time.monotonic() < until:
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 4096)
    return seen
