from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import manymetrics_insights.reader.session
from manymetrics_cli.main import main
from manymetrics_insights.reader.folder import Folder
from manymetrics_insights.reader.iceberg import Source
from manymetrics_insights.reader.session import Session, open_session
from manymetrics_insights.views import View
from tests.insights.lakes import Lake, Row

Query = Callable[..., tuple[int, str, str]]

COMMAND = [sys.executable, "-c", "import sys; from manymetrics_cli.main import main; sys.exit(main())", "query"]


def run_command(lake: Lake, *arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"MANYMETRICS_DATA_DIR": str(lake.data_dir)}
    return subprocess.run([*COMMAND, *arguments], env=environment, capture_output=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_rows_come_as_an_aligned_table_with_their_count_beside_it(lake: Lake, query: Query) -> None:
    lake.append_events({"event": "Buy"}, {"event": "Buy"}, {"event": "Look"})

    sql = "SELECT event, COUNT(*) AS n FROM events GROUP BY event ORDER BY event"

    assert query(sql) == (0, "event  n\n-----  -\nBuy    2\nLook   1\n", "(2 rows)\n")
    assert query(f"{sql} LIMIT 1") == (0, "event  n\n-----  -\nBuy    2\n", "(1 row)\n")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("csv", "event,n\r\nBuy,1\r\n"),
        ("json", '[\n{"event":"Buy","n":1}\n]\n'),
        ("ndjson", '{"event":"Buy","n":1}\n'),
    ],
)
def test_rows_come_as(lake: Lake, query: Query, tmp_path: Path, output: str, expected: str) -> None:
    lake.append_events({"event": "Buy"})
    file = tmp_path / "rows"

    sql = "SELECT event, 1 AS n FROM events"

    assert query(sql, "-o", output) == (0, expected, "")
    assert query(sql, "-o", output, "--to", str(file)) == (0, "", "")
    assert file.read_bytes() == expected.encode()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "sql", ["SELECT event, properties FROM events -- all", "FROM (SELECT event, properties FROM events);"]
)
def test_rows_come_as_parquet_in_a_file_or_a_pipe(lake: Lake, tmp_path: Path, sql: str) -> None:
    lake.append_events({"event": "Buy", "properties": "{}"})
    file, piped = tmp_path / "it's.parquet", tmp_path / "piped.parquet"

    assert run_command(lake, sql, "-o", "parquet", "--to", str(file)).returncode == 0
    piped.write_bytes(run_command(lake, sql, "-o", "parquet").stdout)

    assert pq.read_table(file).to_pylist() == pq.read_table(piped).to_pylist() == [{"event": "Buy", "properties": "{}"}]


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("rows.csv", b"a\r\n1\r\n"),
        ("rows.json", b'[\n{"a":1}\n]\n'),
        ("rows.ndjson", b'{"a":1}\n'),
        ("rows.jsonl", b'{"a":1}\n'),
        ("ROWS.CSV", b"a\r\n1\r\n"),
        ("rows.parquet", b"PAR1"),
        ("rows.txt", b"a\n-\n1\n"),
        ("rows", b"a\n-\n1\n"),
    ],
)
def test_the_ending_of_a_file_says_the_format_where_nothing_else_does(
    query: Query, tmp_path: Path, name: str, begins: bytes
) -> None:
    assert query("SELECT 1 AS a", "--to", str(tmp_path / name))[:2] == (0, "")

    assert (tmp_path / name).read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("output", "name"),
    [("csv", "rows.parquet"), ("table", "rows.json"), ("parquet", "rows.csv"), ("json", "rows.jsonl")],
)
def test_a_format_that_the_ending_of_the_file_contradicts_is_refused(
    query: Query, tmp_path: Path, output: str, name: str
) -> None:
    status, out, err = query("SELECT 1 AS a", "-o", output, "--to", str(tmp_path / name))

    assert (status, out, f"-o is {output}" in err) == (1, "", True)
    assert not (tmp_path / name).exists()


def read_pipe(path: Path, into: list[bytes]) -> threading.Thread:
    reader = threading.Thread(target=lambda: into.append(path.read_bytes()), daemon=True)
    reader.start()
    return reader


@pytest.mark.parametrize("output", ["csv", "parquet"])
def test_a_pipe_is_written_into_and_stays_one(query: Query, tmp_path: Path, output: str) -> None:
    pipe, link, came = tmp_path / "pipe", tmp_path / "link", list[bytes]()
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        reader = read_pipe(path, came)
        assert query("SELECT 1 AS a", "-o", output, "--to", str(path)) == (0, "", "")
        reader.join(10)

    assert (pipe.is_fifo(), link.is_symlink()) == (True, True)
    assert came[0] == came[1]
    assert came[0].startswith(b"a\r\n1" if output == "csv" else b"PAR1")


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a device")
@pytest.mark.parametrize("output", ["csv", "parquet"])
def test_a_device_is_written_into_and_stays_one(query: Query, tmp_path: Path, output: str) -> None:
    null = tmp_path / "null"  # one of the test's own: the machine's would be gone where this fails
    os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))

    assert query("SELECT 1 AS a", "-o", output, "--to", str(null)) == (0, "", "")

    assert null.is_char_device()


def test_standard_output_may_be_named_as_a_file(lake: Lake) -> None:
    assert run_command(lake, "SELECT 1 AS a", "-o", "csv", "--to", "/proc/self/fd/1").stdout == b"a\r\n1\r\n"


@pytest.mark.parametrize("output", ["csv", "parquet"])
def test_a_file_keeps_its_mode_and_a_link_its_target(query: Query, tmp_path: Path, output: str) -> None:
    file, link, dangling = tmp_path / "rows", tmp_path / "link", tmp_path / "dangling"
    file.write_text("old")
    file.chmod(0o640)
    (tmp_path / "folder").mkdir()
    link.symlink_to("rows")
    dangling.symlink_to("folder/new")

    for path in (link, dangling):
        assert query("SELECT 1 AS a", "-o", output, "--to", str(path)) == (0, "", "")

    assert (link.readlink(), dangling.readlink()) == (Path("rows"), Path("folder/new"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert file.read_bytes() == (tmp_path / "folder" / "new").read_bytes() != b"old"


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("", "is not a file name"),
        ("folder/", "is not a file name: add one, as in folder/rows.csv"),
        ("folder", "folder is a folder: name a file in it, as in --to folder/rows.csv"),
        (".", "is a folder"),
        ("link-to-folder", "is a folder"),
        ("none/rows.csv", "There is no folder"),
        ("file/rows.csv", "Not a directory"),
        ("loop", "symbolic links"),
        ("x" * 300, "File name too long"),
    ],
)
@pytest.mark.parametrize("output", ["csv", "parquet"])
def test_what_cannot_be_written_to_is_said_in_a_message(
    lake: Lake, tmp_path: Path, to: str, said: str, output: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link-to-folder").symlink_to("folder")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.rglob("*"))

    ended = run_command(lake, "SELECT 1", "-o", output, "--to", to, cwd=tmp_path)

    assert (ended.returncode in {1, 2}, ended.stdout, said in ended.stderr.decode()) == (True, b"", True)
    assert "Traceback" not in ended.stderr.decode()
    assert sorted(tmp_path.rglob("*")) == before


def test_the_statement_comes_from_standard_input_or_a_file(lake: Lake, query: Query, tmp_path: Path) -> None:
    file = tmp_path / "one.sql"
    file.write_text("SELECT 'é' AS a\n;\n", "utf-8")

    assert query("--file", str(file), "-o", "csv")[:2] == (0, "a\r\né\r\n")
    assert run_command(lake, "-", "-o", "csv", input=file.read_bytes()).stdout == "a\r\né\r\n".encode()


SEVERAL = """\
-- first
SELECT 1 AS a; /* then;
both */ SELECT 'x;y' AS b
;
-- and
SELECT nope FROM events;
SELECT 4"""


def test_each_statement_of_a_file_runs_until_one_fails_which_is_named_by_its_line(
    lake: Lake, query: Query, tmp_path: Path
) -> None:
    good, rows = write(lake, SEVERAL.replace("nope", "COUNT(*) AS c")), tmp_path / "rows"

    assert query("--file", str(good), "-o", "ndjson")[:2] == (0, '{"a":1}\n{"b":"x;y"}\n{"c":0}\n{"4":4}\n')
    assert query("--file", str(good), "-o", "ndjson", "--to", str(rows))[0] == 0
    assert rows.read_text() == '{"a":1}\n{"b":"x;y"}\n{"c":0}\n{"4":4}\n'
    assert "--file" in query(SEVERAL)[2]

    status, out, err = query("--file", str(write(lake, SEVERAL)), "-o", "ndjson")
    assert (status, out) == (1, '{"a":1}\n{"b":"x;y"}\n')
    assert err.startswith("manymetrics query: statement at line 6: Binder Error")
    assert query("--file", str(write(lake, SEVERAL)), "--to", str(rows))[0] == 1
    assert rows.read_text().startswith('{"a":1}')
    piped = run_command(lake, "-", "-o", "ndjson", input=b"SELECT 1 AS a; SELECT 2 AS b")
    assert piped.stdout == b'{"a":1}\n{"b":2}\n'


def test_above_each_of_several_tables_stands_which_statement_it_is_of(lake: Lake, query: Query, tmp_path: Path) -> None:
    several = """\
-- a file of questions

-- users: how many
-- there are
SELECT 1 AS a; -- that was one
/* not\x1b[2J
   many */
SELECT 2 AS b;
SELECT '
-- no comment' AS c; SELECT 4 AS d"""
    expected = """\
-- users: how many
-- there are
a
-
1

/* not\\x1b[2J
many */
b
-
2

-- statement 3, line 9
c
---------------
\\n-- no comment

-- statement 4, line 10
d
-
4
"""

    assert query("--file", str(write(lake, several))) == (0, expected, "(1 row)\n" * 4)
    assert query("--file", str(write(lake, several)), "--to", str(tmp_path / "rows"))[0] == 0
    assert (tmp_path / "rows").read_text() == expected
    assert query("--file", str(write(lake, "-- one alone\nSELECT 1 AS a"))) == (0, "a\n-\n1\n", "(1 row)\n")


@pytest.mark.parametrize("output", ["csv", "json", "parquet"])
def test_several_statements_are_refused_where_their_results_make_no_whole_file(
    lake: Lake, query: Query, tmp_path: Path, output: str
) -> None:
    file, rows = write(lake, "SELECT 1 AS a; SELECT 2 AS a"), tmp_path / f"rows.{output}"

    for more in (["--to", str(rows)], ["-o", output]):
        status, out, err = query("--file", str(file), *more)

        assert (status, out, "holds one result, but there are 2 statements" in err) == (1, "", True)
    assert not rows.exists()


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SHOW TABLES", "person_events"),
        ("DESCRIBE events", "context_campaign_source"),
        ("SUMMARIZE events", "message_id"),
        ("VALUES (1), (2)", "2"),
        ("WITH a AS (SELECT 5 AS b) SELECT b FROM a", "5"),
        ("FROM events", "message_id"),
        ("EXPLAIN SELECT COUNT(*) FROM events", "\n│"),
        ("EXPLAIN ANALYZE SELECT 1", "\n│"),
        ("explain (analyze, format json) select 1", "{"),
        ("SELECT * FROM range(3)", "2"),
        ("WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 4) SELECT * FROM t", "4"),
        ("SELECT 1 UNION SELECT 2 EXCEPT SELECT 3", "1"),
    ],
)
def test_statements_that_read_run(query: Query, sql: str, expected: str) -> None:
    status, out, _ = query(sql)

    assert (status, expected in out) == (0, True)


@pytest.mark.parametrize(
    "sql",
    [
        "DROP VIEW events",
        "CREATE TABLE t AS SELECT 1",
        "INSERT INTO events VALUES (1)",
        "UPDATE events SET event = ''",
        "DELETE FROM events",
        "COPY (SELECT 1) TO '{file}'",
        "COPY (SELECT 1) TO '{file}' (USE_TMP_FILE false)",
        "WITH a AS (COPY (SELECT 1) TO '{file}' (USE_TMP_FILE false)) SELECT * FROM a",
        "SELECT (WITH a AS (COPY (SELECT 1) TO '{file}' (USE_TMP_FILE false)) SELECT * FROM a)",
        "WITH a AS (INSERT INTO events VALUES (1) RETURNING *) SELECT * FROM a",
        "SUMMARIZE WITH a AS (COPY (SELECT 1) TO '{file}' (USE_TMP_FILE false)) SELECT * FROM a",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{file}' (USE_TMP_FILE false)",
        "EXPLAIN ANALYZE WITH a AS (COPY (SELECT 1) TO '{file}' (USE_TMP_FILE false)) SELECT * FROM a",
        "/* x */ EXPLAIN /* y */ ANALYZE COPY (SELECT 1) TO '{file}' (USE_TMP_FILE false)",
        (
            "FROM json_execute_serialized_sql(json_serialize_sql("
            "'WITH a AS (COPY (SELECT 1) TO ''{file}'' (USE_TMP_FILE false)) SELECT * FROM a'))"
        ),
        "FROM query('SELECT 1')",
        "FROM read_text('/etc/hosts')",
        "FROM read_parquet('{file}')",
        "FROM '{file}'",
        "FROM glob('/*')",
        "ATTACH '{file}.db'",
        "INSTALL httpfs",
        "LOAD icu",
        "SET enable_external_access = true",
        "PRAGMA enable_profiling",
        "CALL pragma_version()",
        "EXPORT DATABASE '{file}'",
        "PREPARE p AS SELECT 1",
        "SELECT 1; DROP VIEW events",
        "",
        "-- nothing",
    ],
)
def test_statements_that_could_write_or_reach_further_are_refused_in_one_line(
    lake: Lake, query: Query, sql: str
) -> None:
    lake.append_events({"event": "Buy"})
    before = {path: path.read_bytes() for path in lake.data_dir.rglob("*") if path.is_file()}
    file = next(path for path in before if path.suffix == ".parquet")

    status, out, err = query("--file", str(write(lake, sql.replace("{file}", str(file)))))

    assert (status, out.replace("-- statement 1, line 1\n1\n-\n1\n", ""), err.replace("(1 row)\n", "").count("\n")) == (
        1,
        "",
        1,
    )
    assert "manymetrics query: " in err
    assert {path: path.read_bytes() for path in lake.data_dir.rglob("*") if path.is_file()} == before


def write(lake: Lake, sql: str) -> Path:
    file = lake.data_dir.parent / "statement.sql"
    file.write_text(sql, "utf-8")
    return file


@pytest.mark.parametrize("sql", ["FROM '/etc/hosts'", "SELECT * FROM 'rows.csv'", "SELECT nope FROM events", "SELEC 1"])
def test_what_cannot_be_answered_is_one_clean_message(query: Query, sql: str) -> None:
    status, out, err = query(sql)

    assert (status, out) == (1, "")
    assert err.startswith("manymetrics query: ")
    assert "Traceback" not in err


def test_a_session_reaches_neither_other_files_nor_python_variables(lake: Lake, tmp_path: Path) -> None:
    outside = tmp_path / "outside.csv"
    outside.write_text("a\n1\n", "utf-8")
    connection = open_session(Folder(lake.data_dir)).connection
    variable = pa.table({"a": [1]})

    with pytest.raises(duckdb.PermissionException):
        connection.execute(f"SELECT * FROM '{outside}'")
    with pytest.raises(duckdb.CatalogException):
        connection.execute("SELECT * FROM variable")
    with pytest.raises(duckdb.InvalidInputException, match="locked"):
        connection.execute("SET enable_external_access = true")
    assert variable.num_rows == 1


def test_a_table_that_is_no_terminal_is_not_cut(query: Query) -> None:
    assert query("SELECT repeat('x', 500) AS a")[1] == f"a\n{'-' * 500}\n{'x' * 500}\n"


def test_an_error_in_the_middle_of_the_rows_is_one_clean_message(query: Query) -> None:
    status, _, err = query(
        "SELECT CAST(CASE WHEN range < 90000 THEN '1' ELSE 'x' END AS int) FROM range(100000)", "-o", "csv"
    )

    assert (status, err.startswith("manymetrics query: ")) == (1, True)


def test_a_message_cannot_drive_the_terminal(query: Query) -> None:
    assert "\x1b" not in query('SELECT "\x1b[2J" FROM events')[2]


def test_no_data_directory_is_an_error_that_names_the_cure(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "SELECT 1", "--data-dir", "/nowhere"]) == 2

    assert "make run" in capfd.readouterr().err


def test_tables_and_columns_say_what_they_are_before_there_is_any_data(query: Query) -> None:
    tables = [json.loads(line) for line in query("--tables", "-o", "ndjson")[1].splitlines()]
    columns = [json.loads(line) for line in query("--describe", "events", "-o", "ndjson")[1].splitlines()]

    assert {"name": "events", "what": "Every event of every type, once."} in tables
    assert {"column": "user_id", "what": "The person, as the client names them."} in columns
    assert query("--describe", "nope")[0] == 1


JSON_SCALARS: list[tuple[str, str, str | None]] = [
    ('{"a":"x y"}', "$.a", "x y"),
    ('{"a":1.5}', "$.a", "1.5"),
    ('{"a":true}', "$.a", "true"),
    ('{"a":null}', "$.a", None),
    ('{"a":{"b":1}}', "$.a", None),
    ('{"a":[1]}', "$.a", None),
    ('{"a":{"b":["x","y"]}}', "$.a.b[1]", "y"),
    ('{"a b":{"größe":"é"}}', '$["a b"]["größe"]', "é"),
    ('{"a.b":1}', '$["a.b"]', "1"),
    ("{}", "$.a", None),
    ("{broken", "$.a", None),
    ("", "$.a", None),
    ('"x"', "$", "x"),
]


def test_json_extract_scalar_answers_as_trinos_does(lake: Lake, rows_of: Callable[[str], list[Row]]) -> None:
    texts: list[Row] = [{"message_id": str(case), "properties": text} for case, (text, _, _) in enumerate(JSON_SCALARS)]
    lake.append_events(*texts, {"message_id": "null"})

    def answer(case: int | str, path: str) -> object:
        sql = f"SELECT json_extract_scalar(properties, '{path}') AS v FROM events WHERE message_id = '{case}'"
        return rows_of(sql)[0]["v"]

    found = [(text, path, answer(case, path)) for case, (text, path, _) in enumerate(JSON_SCALARS)]
    assert found == JSON_SCALARS
    assert answer("null", "$.a") is None


def test_a_query_starts_again_where_maintenance_deletes_a_planned_file(
    lake: Lake, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.append_events({"event": "Buy"})
    opened: list[Session] = []

    def open_then_compact(source: Source, *, writable: Path | None = None, more: Sequence[View] = ()) -> Session:
        opened.append(open_session(source, writable=writable, more=more))
        if len(opened) == 1:
            compact(lake)
        return opened[-1]

    monkeypatch.setattr(manymetrics_insights.reader.session, "open_session", open_then_compact)

    assert query("SELECT event FROM events", "-o", "csv") == (0, "event\r\nBuy\r\n", "")
    assert len(opened) == 2


def test_a_file_that_stays_lost_is_named_after_a_few_attempts(lake: Lake, query: Query) -> None:
    lake.append_events({"event": "Buy"})
    file = next(lake.data_dir.rglob("*.parquet"))
    file.unlink()

    status, out, err = query("SELECT event FROM events")

    assert (status, out, str(file) in err) == (1, "", True)


@pytest.mark.parametrize("kind", ["*.parquet", "*.avro", "*.metadata.json"])
def test_a_lost_file_of_one_table_stops_only_what_needs_that_table(lake: Lake, query: Query, kind: str) -> None:
    lake.append_events({"event": "Buy"})
    lake.append_dead_letters({"reason": "no_identity"})
    for file in (lake.data_dir / "warehouse" / "manymetrics" / "dead_letters").rglob(kind):
        file.unlink()

    assert query("SELECT event FROM events", "-o", "csv") == (0, "event\r\nBuy\r\n", "")
    assert query("SELECT 1 AS a", "-o", "csv") == (0, "a\r\n1\r\n", "")
    assert query("SELECT COUNT(*) AS n FROM users", "-o", "csv")[0] == 0
    status, out, err = query("SELECT reason FROM dead_letters")
    assert (status, out, "is missing" in err, "manymetrics doctor" in err) == (1, "", True, True)


def compact(lake: Lake) -> None:
    old = list(lake.data_dir.rglob("*.parquet"))
    table = lake.table("events")
    table.overwrite(table.scan().to_arrow())
    for path in old:
        path.unlink()


def test_a_query_imports_nothing_that_is_slow_to_import(lake: Lake) -> None:
    lake.append_events({"event": "Buy"})
    code = "import sys; from manymetrics_cli.main import main; main(); print(*sys.modules)"
    environment = os.environ | {"MANYMETRICS_DATA_DIR": str(lake.data_dir)}

    done = subprocess.run(
        [sys.executable, "-c", code, "query", "SELECT * FROM users"], env=environment, capture_output=True, check=True
    )

    loaded = {name.split(".")[0] for name in done.stdout.decode().split()}
    assert (
        loaded & {"numpy", "pyarrow", "pandas", "pyiceberg", "sqlalchemy", "boto3", "fsspec", "fastapi", "pydantic"}
        == set()
    )
    assert "duckdb" in loaded


def test_a_reader_that_has_enough_ends_the_query_quietly(lake: Lake) -> None:
    command = subprocess.Popen(
        [*COMMAND, "FROM range(10000000)", "-o", "csv", "--data-dir", str(lake.data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert command.stdout is not None
    assert command.stderr is not None

    assert command.stdout.readline() == b"range\r\n"
    command.stdout.close()

    assert command.stderr.read() == b""
    command.stderr.close()
    command.wait()


def test_on_a_terminal_cells_are_cut_controls_escaped_and_parquet_refused(lake: Lake) -> None:
    assert on_terminal(lake, "SELECT repeat('x', 100) AS a") == f"a\n{'-' * 60}\n{'x' * 59}…\n(1 row)\n"
    assert on_terminal(lake, "SELECT chr(27) || 'x' AS a", "-o", "csv") == "a\n\\x1bx\n"
    assert "redirect it" in on_terminal(lake, "SELECT 1", "-o", "parquet")


def on_terminal(lake: Lake, *arguments: str) -> str:
    terminal, end = pty.openpty()
    environment = os.environ | {"MANYMETRICS_DATA_DIR": str(lake.data_dir)}
    subprocess.run([*COMMAND, *arguments], env=environment, stdout=end, stderr=end, check=False)
    os.close(end)
    text = b""
    try:
        while piece := os.read(terminal, 4096):
            text += piece
    except OSError:  # what Linux says at the end of a terminal
        pass
    os.close(terminal)
    return text.decode().replace("\r\n", "\n")


def test_a_large_answer_streams_in_flat_memory(lake: Lake) -> None:
    code = (
        "import resource, sys; from manymetrics_cli.main import main; main();"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    peaks = []
    for rows in (2_000, 200_000):
        sql = f"SELECT range, repeat('x', 100) AS text FROM range({rows})"
        done = subprocess.run(
            [sys.executable, "-c", code, "query", sql, "-o", "csv", "--data-dir", str(lake.data_dir)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=True,
        )
        peaks.append(int(done.stderr))

    assert peaks[1] - peaks[0] < 20_000  # kB; as text alone the answer is 22,000
