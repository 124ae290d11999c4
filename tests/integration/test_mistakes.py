"""What a user does wrong is said in a line with its cure, by every command: never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from manymetrics_api.sinks.local_stream import open_stream
from tests.integration.micro_batches import NOW, make_lake, packed, track
from tests.live_server import MANYMETRICS, LiveServer, eventually

LONG = "SELECT a.range, md5(CAST(b.range AS VARCHAR)) FROM range(100000000) a, range(100000) b"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    make_lake(tmp_path / "data")
    return tmp_path / "data"


def shell(line: str, data_dir: Path, stdin: bytes = b"") -> tuple[int, str, str]:
    """A line as typed, where $M is the command and $D the data directory: exit status, output and errors."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MANYMETRICS_")}
    environ = clean | {"M": str(MANYMETRICS), "D": str(data_dir)}
    ended = subprocess.run(["bash", "-c", line], env=environ, input=stdin, capture_output=True, check=False, timeout=60)
    out, err = ended.stdout.decode(), ended.stderr.decode()
    assert "Traceback" not in err
    return ended.returncode, out, err


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("$M query --data-dir $D --file latin1.sql", 1, "latin1.sql is not UTF-8 (line 2)"),
        ("$M query --data-dir $D - < latin1.sql", 1, "standard input is not UTF-8 (line 2)"),
        ('$M query --data-dir $D "$(cat latin1.sql)"', 2, "sql is not UTF-8"),
        ("$M query --data-dir $D --file utf16.sql", 1, "iconv -f utf-16"),
        ('$M erase --data-dir $D --user-id "$(cat latin1.sql)"', 2, "user_id is not UTF-8"),
        ("$M query --data-dir $D --file none.sql", 1, "none.sql can't be read"),
        ("$M query --data-dir $D --file $D", 1, "Is a directory"),
        ("$M query --data-dir $D ''", 1, "No statement found"),
        ("$M query --data-dir $D ' ; -- x'", 1, "No statement found"),
        ("$M query --data-dir $D - <&-", 1, "No statement found"),
        ("$M query --data-dir $D 'select usr_id from events'", 1, '"user_id"'),
        ("$M query --data-dir $D 'select * from event'", 1, "Did you mean events?"),
        ("$M query --data-dir $D 'select * from purchases'", 1, "There are: events, dead_letters"),
        ("$M query --data-dir $D 'select 1' >&-", 2, "standard output is closed"),
        ("$M query --data-dir $D 'select 1' -o parquet >&-", 2, "standard output is closed"),
        ("$M query --data-dir $D --tables >&-", 2, "standard output is closed"),
        ("$M erase --data-dir $D --user-id u --yes >&-", 2, "standard output is closed"),
        ("$M doctor --data-dir $D >&-", 2, "standard output is closed"),
        ("$M query --data-dir $D 'select 1' --to rows.csv -o csv >&-", 0, ""),
        ("$M query --data-dir $D 'from range(100000)' 2>&- | head -1", 0, ""),
        ("$M doctor --data-dir ''", 2, "--data-dir: it is empty: name a directory (`.` is the current one)"),
        ("$M serve --data-dir '' --port 0", 2, "it is empty: name a directory"),
        ("$M backup --data-dir $D ''", 2, "it is empty: name a directory"),
        ("$M backup --data-dir $D 'a*b'", 2, "is not allowed in the path of a data directory: name another one\n"),
        ("$M backup --data-dir $D /proc/none", 2, "/proc/none can't be written"),
        ("MANYMETRICS_DATA_DIR= $M query 'select 1'", 2, "no data directory at .manymetrics"),
        (
            "$M serve --data-dir $D --port 99999",
            2,
            "it must be a whole number from 0 (any free port) to 65535",
        ),
        ("$M serve --data-dir $D --host nope.invalid", 1, "there is no such host: name an address of this machine"),
        ("$M serve --data-dir $D --host 192.0.2.1", 1, "this machine has no such address"),
        (
            "$M query --data-dir $D 'select 1' > /dev/full",
            1,
            "The disk that the rows are written to is full: free some space",
        ),
        ("$M query --data-dir $D 'select 1' --to $D/catalog.db", 1, "belongs to the server's data"),
        ("cd $D && $M query --data-dir . 'select 1' --to ./keys.json", 1, "belongs to the server's data"),
        ("$M query --data-dir $D 'select 1' --to $D/warehouse/a.csv", 1, "belongs to the server's data"),
        ("$M query --data-dir $D 'select 1' --to $D/rows.csv", 0, ""),
        ("$M replay --data-dir $D ''", 2, "the location is empty: pass"),
        ("LC_ALL=C PYTHONIOENCODING=ascii $M query --data-dir $D \"select 'é'\"", 0, ""),
    ],
)
def test_a_mistake_is_said_in_a_line(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, status: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin1.sql").write_bytes("SELECT\n'café' AS a".encode("latin1"))
    (tmp_path / "utf16.sql").write_bytes("SELECT 'é' AS a".encode("utf-16"))

    ended, _, err = shell(line, data_dir)

    assert (ended, said in err) == (status, True)


@pytest.mark.parametrize(
    "words",
    ["serve", "query 1", "tail", "replay", "erase --user-id u", "maintain", "recover", "doctor"],
)
def test_a_data_folder_that_is_a_file_is_told(tmp_path: Path, words: str) -> None:
    file = tmp_path / "file"
    file.touch()

    assert shell(f"$M {words} --data-dir $D", file) == (
        2,
        "",
        f"manymetrics: the data directory {file} is a file: name a directory with --data-dir\n",
    )


def test_a_package_that_is_missing_is_named_with_what_installs_it(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "boto3.py").write_text("raise ModuleNotFoundError(\"No module named 'boto3'\", name='boto3')")

    status, _, err = shell(f"PYTHONPATH={tmp_path} $M replay s3://bucket/prefix", data_dir)

    assert (status, err) == (1, f"manymetrics: boto3 is not installed: {sys.executable} -m pip install boto3\n")


@pytest.mark.parametrize("more", [[], ["-o", "csv"], ["-o", "parquet", "--to", "rows.parquet"]], ids=str)
@pytest.mark.parametrize("sql", [LONG, "SELECT count(*) FROM range(100000000) a, range(100000) b"], ids=["rows", "sum"])
def test_ctrl_c_ends_a_query(data_dir: Path, tmp_path: Path, sql: str, more: list[str]) -> None:
    running = subprocess.Popen(
        [MANYMETRICS, "query", "--data-dir", data_dir, sql, *more],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # as a terminal has it
    )
    time.sleep(2)
    running.send_signal(signal.SIGINT)

    assert (running.communicate(timeout=15)[1], running.returncode) == (b"", 130)
    assert list(tmp_path.iterdir()) == [data_dir]


@pytest.mark.parametrize("after_s", [0.05, 0.1, 0.2, 0.4])
def test_ctrl_c_in_the_first_moments_is_no_traceback(data_dir: Path, after_s: float) -> None:
    running = subprocess.Popen(
        [MANYMETRICS, "query", "--data-dir", data_dir, LONG],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # as a terminal has it
    )
    time.sleep(after_s)
    running.send_signal(signal.SIGINT)

    _, said = running.communicate(timeout=15)
    # Before Python has put its own handler there, the system ends it.
    assert (running.returncode in {130, -signal.SIGINT}, b"manymetrics" in said) == (True, False)


def test_ctrl_c_twice_ends_a_server_without_a_traceback(tmp_path: Path) -> None:
    server = LiveServer(tmp_path / "data")
    server.start()
    server.process.send_signal(signal.SIGINT)  # type: ignore[union-attr]  # it was started

    server.stop(signal.SIGINT)

    assert "Traceback" not in server.log.read_text()


def test_tail_ends_when_its_reader_does(data_dir: Path) -> None:
    with closing(open_stream(data_dir / "stream.db")) as database:
        database.execute("insert into records (arrived_at, data) values (?, ?)", (NOW, packed([track("a")])))
    tail = subprocess.Popen(
        [MANYMETRICS, "tail", "--since-start", "--data-dir", data_dir], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert tail.stdout is not None
    assert tail.stdout.readline()
    tail.stdout.close()

    eventually(lambda: tail.poll() is not None or None, within_s=10)
    assert tail.stderr is not None
    assert tail.stderr.read() == b""
    tail.stderr.close()
