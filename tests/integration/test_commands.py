"""`manymetrics maintain`, `replay`, `erase` and `serve`: what they print, and that no mistake ends in a traceback."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from manymetrics.outcomes import Reason
from manymetrics.settings import Settings
from manymetrics.tables import DEAD_LETTERS
from manymetrics_api.keys import WriteKey, write_keys
from manymetrics_api.sinks.local_stream import SHARD, LocalSource, open_stream
from manymetrics_cli.commands import erase, serve
from manymetrics_cli.main import COMMANDS, main, make_parser
from manymetrics_cli.one_machine import ensure_keys, sample_data
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.errors import ConflictError
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.jobs import backfill, compact
from manymetrics_processor.lake.lake import Lake
from tests.integration.micro_batches import NOW, STREAM, make_lake, message_ids, packed, record, rows, track
from tests.live_server import MANYMETRICS, LiveServer, eventually, live_server

JANE = "jane@example.com"
NAMES = [module.__name__.rpartition(".")[2] for module in COMMANDS]

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return make_lake(tmp_path)


@pytest.fixture
def command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    """A command on the test's folder: exit status, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main([*arguments, "--data-dir", str(tmp_path)])
        return status, *capfd.readouterr()

    return run


# --- help and mistakes ------------------------------------------------------------------------------------


def started(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command as a shell starts it."""
    program = [sys.executable, "-c", "import sys; from manymetrics_cli.main import main; sys.exit(main())", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MANYMETRICS_")}
    return subprocess.run(program, env={**clean, **environ}, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", [*NAMES, "stream run"])
def test_each_command_has_a_help_that_says_what_it_does_with_examples(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])

    text = capfd.readouterr().out
    assert ended.value.code == 0
    assert text.startswith(f"usage: manymetrics {name}")
    examples = re.findall(rf"manymetrics ({name}.*)", text.partition("\nexamples:\n")[2])
    assert examples
    for example in examples:
        make_parser().parse_args(shlex.split(re.split(" [<>] ", example)[0]))
    assert all(
        re.search(r"\S", help_text) for help_text in re.findall(r"^  --\S+(.*(?:\n {10,}.*)*)", text, re.MULTILINE)
    )


def test_the_help_lists_each_command_with_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])

    text = capfd.readouterr().out
    assert all(re.search(rf"^    {name} +\S", text, re.MULTILINE) for name in NAMES)


@pytest.mark.parametrize(
    "arguments",
    [["maintain"], ["replay"], ["erase", "--user-id", "u"], ["tail"], ["query", "select 1 from events"]],
    ids=lambda arguments: arguments[0],
)
def test_without_a_data_folder_the_cure_is_said_in_a_line(arguments: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "none"

    ended = started(*arguments, "--data-dir", str(folder))

    assert (ended.returncode in {1, 2}, ended.stdout) == (True, "")
    assert "Traceback" not in ended.stderr
    assert (str(folder) in ended.stderr, "make run" in ended.stderr) == (True, True)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["serve", "replay", "doctor"])
def test_a_wrong_setting_is_said_in_a_line(name: str, tmp_path: Path) -> None:
    make_lake(tmp_path)

    ended = started(name, MANYMETRICS_DATA_DIR=str(tmp_path), MANYMETRICS_PORT="http")

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "manymetrics: MANYMETRICS_PORT takes a whole number, not 'http'\n"


def test_a_port_that_is_none_is_said_in_a_line(tmp_path: Path) -> None:
    ended = started("serve", "--port", "99999", MANYMETRICS_DATA_DIR=str(tmp_path))

    assert (ended.returncode, "Traceback" in ended.stderr, "65535" in ended.stderr) == (2, False, True)


def test_a_port_that_is_taken_is_said_in_a_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = started("serve", "--port", str(port), MANYMETRICS_DATA_DIR=str(tmp_path))

    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
    log_line, said = ended.stderr.splitlines()
    assert "in use" in json.loads(log_line)["message"]
    assert said.startswith(f"manymetrics: can't listen on 127.0.0.1:{port}: ")
    assert "--port" in said


def test_a_second_server_says_that_it_waits_for_the_first_and_why(tmp_path: Path) -> None:
    with live_server(tmp_path / "data") as first:
        second = LiveServer(tmp_path / "data")
        second.log, second.output = tmp_path / "second.log", tmp_path / "second.out"
        second.launch()
        said = eventually(lambda: second.log.read_text() or None)
        same_port = started("serve", "--port", str(first.port), MANYMETRICS_DATA_DIR=str(first.data_dir))

        assert re.match(rf"manymetrics: another server already commits in {first.data_dir} \(process \d+\): ", said)
        assert "--data-dir" in said
        assert "is ready" not in second.output.read_text()
        assert (same_port.returncode, "already" in same_port.stderr, "can't listen" in same_port.stderr) == (
            1,
            True,
            True,
        )
        first.stop()
        eventually(lambda: "is ready" in second.output.read_text() or None)
        second.stop()


def test_the_version_is_told() -> None:
    ended = started("--version")

    assert (ended.returncode, ended.stdout) == (0, f"manymetrics {metadata.version('manymetrics')}\n")


@pytest.mark.parametrize("arguments", [["maintain"], ["erase", "--user-id", "u", "--yes"]], ids=lambda some: some[0])
@pytest.mark.usefixtures("lake")
def test_a_race_that_is_lost_for_good_is_said_in_a_line(
    arguments: list[str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_arguments: object) -> None:
        raise ConflictError("events: a file was replaced by another commit")

    monkeypatch.setattr("manymetrics_processor.lake.maintenance.merge_small_files", lost)
    monkeypatch.setattr("manymetrics_processor.operations.erase_tables._erase_from", lost)

    status, out, err = command(*arguments)

    assert (status, out) == (1, "")
    assert err == "manymetrics: events: a file was replaced by another commit: run the command again\n"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["query", "--data-dri", "x", "select 1"], "query"),
        (["maintain", "--keep", "1", "2"], "maintain"),
        (["stream", "run", "--windows"], "stream run"),
        (["--data-dir", "x", "doctor"], ""),
    ],
)
def test_an_option_that_a_command_does_not_have_is_answered_with_its_own_usage(
    arguments: list[str], name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert capfd.readouterr().err.startswith(f"usage: manymetrics {name} [-h]".replace("  ", " "))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("maintain --keep-snapshots 0", "'0' is not a whole number of at least 1"),
        ("maintain --keep-snapshots=-5", "'-5' is not a whole number of at least 1"),
        ("maintain --keep-snapshots 1.5", "'1.5' is not a whole number of at least 1"),
        ("stream run --batch-size 0", "'0' is not a whole number of at least 1"),
        ("stream run --window-s=-1", "'-1' is not a number of at least 0"),
        ("stream run --window-s nan", "'nan' is not a number of at least 0"),
        ("stream run --retries=-2", "'-2' is not a whole number of at least -1"),
        ("stream run --max-record-age-s inf", "'inf' is not a number of at least 0"),
        ("cost --events 1M --peak 0", "'0' is not a number of at least 1"),
        ("cost --events 1M --peak much", "'much' is not a number of at least 1"),
    ],
)
def test_a_number_below_the_least_is_refused(arguments: str, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(arguments))

    assert (ended.value.code, said in capfd.readouterr().err) == (2, True)


@pytest.mark.parametrize(("main", "option"), [(compact.main, "--file-mb"), (backfill.main, "--commit-mb")])
@pytest.mark.parametrize("text", ["0", "-1", "x"])
def test_a_job_refuses_to_work_on_no_megabytes(
    main: Callable[[list[str]], int], option: str, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([f"{option}={text}", *(["s3://bucket/archive"] if option == "--commit-mb" else [])])

    said = f"{text!r} is not a whole number of megabytes of at least 1"
    assert (ended.value.code, said in capfd.readouterr().err) == (2, True)


# --- maintain ---------------------------------------------------------------------------------------------


def test_maintain_prints_a_line_a_table(lake: Lake, command: Command) -> None:
    for number in range(10):
        pipeline.run([record(number, track(f"{number}"))], STREAM, lake, Window())

    status, out, err = command("maintain", "--keep-snapshots", "1")

    events, letters = (json.loads(line) for line in out.splitlines())
    assert (status, err) == (0, "")
    assert (events["table"], events["files_before"], events["files_after"], events["snapshots_expired"]) == (
        "events",
        10,
        1,
        10,
    )
    assert letters == {
        "table": "dead_letters",
        "files_before": 0,
        "files_after": 0,
        "snapshots_expired": 0,
        "files_removed": 0,
    }
    assert len(message_ids(lake)) == 10


# --- replay -----------------------------------------------------------------------------------------------


@pytest.fixture
def letters(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Three that can be replayed, of two projects, and one that can't."""
    with monkeypatch.context() as broken:
        broken.setattr("manymetrics_processor.decode.batch.make_row", lambda *_: 1 // 0)
        some = [record(1, track("a"), track("b"), b"[]"), record(2, track("c"), project_id="other")]
        pipeline.run(some, STREAM, lake, Window())
    return rows(lake, DEAD_LETTERS)


@pytest.mark.usefixtures("letters")
def test_replay_prints_what_became_of_each(lake: Lake, command: Command) -> None:
    report = {"dry_run": False, "stored": 3, "duplicate": 0, "still_refused": {"not_an_object": 1}, "not_whole": 0}

    status, out, _ = command("replay")
    assert (status, json.loads(out)) == (0, report)
    assert message_ids(lake) == ["a", "b", "c"]

    _, out, _ = command("replay")
    assert json.loads(out) == {**report, "stored": 0}


@pytest.mark.usefixtures("letters")
def test_a_dry_run_says_what_would_be_stored(lake: Lake, command: Command) -> None:
    _, out, _ = command("replay", "--dry-run", "--reason", "unprocessable")

    report = {"dry_run": True, "stored": 3, "duplicate": 0, "still_refused": {}, "not_whole": 0}
    assert json.loads(out) == report
    assert message_ids(lake) == []


@pytest.mark.parametrize(
    ("option", "value", "stored"),
    [
        ("--project", "other", ["c"]),
        ("--reason", "unprocessable", ["a", "b", "c"]),
        ("--reason", "not_an_object", []),
        ("--id", "first", ["a"]),
        ("--id", "of none", []),
    ],
)
def test_only_what_is_chosen_is_replayed(
    lake: Lake, command: Command, letters: list[dict[str, Any]], option: str, value: str, stored: list[str]
) -> None:
    first = next(one["dead_letter_id"] for one in letters if '"a"' in one["raw"])

    command("replay", option, first if value == "first" else value)

    assert message_ids(lake) == stored


def test_a_reason_that_there_is_not_is_refused_with_all_that_there_are(
    command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command("replay", "--reason", "no_identty")

    err = capfd.readouterr().err
    assert (ended.value.code, "'no_identty'" in err) == (2, True)
    assert [reason.value for reason in Reason if reason.value not in err] == []


@pytest.mark.usefixtures("letters")
def test_a_replay_of_what_is_not_there_says_so(lake: Lake, command: Command) -> None:
    assert command("replay", "--id", "zzz") == (
        1,
        "",
        "manymetrics: no such dead letter: dead_letter_id=zzz\n",
    )

    status, out, err = command("replay", "--project", "nope", "--reason", "unstorable")

    assert (status, json.loads(out)["stored"]) == (0, 0)
    assert err == "There is no dead letter with reason=unstorable project_id=nope.\n"
    assert command("replay", "--project", "other")[2] == ""
    assert command("replay", "--project", "other")[2] == "All matching dead letters were replayed before.\n"
    [mended] = [one["dead_letter_id"] for one in rows(lake, DEAD_LETTERS) if one["stage"] == "replayed"]
    assert command("replay", "--id", mended)[::2] == (0, "All matching dead letters were replayed before.\n")


@pytest.mark.usefixtures("lake")
def test_a_replay_without_any_dead_letter_says_so(command: Command) -> None:
    assert command("replay")[2] == "There are no dead letters.\n"


@pytest.mark.parametrize("more", [["--dry-run"], ["--reason", "unstorable"], ["--id", "x"], ["--project", "p"]])
def test_what_a_replay_from_s3_would_ignore_is_refused(command: Command, more: list[str]) -> None:
    status, out, err = command("replay", "s3://bucket/prefix", *more)

    assert (status, out, "--dry-run apply to dead letters" in err) == (2, "", True)


# --- erase ------------------------------------------------------------------------------------------------


@pytest.fixture
def jane(lake: Lake, tmp_path: Path) -> None:
    """An event, its device's, and a dead letter of hers; one of bob; and her bytes in the stream's file."""
    put(tmp_path, packed([track("0", userId=JANE)]))
    events = [track("1", userId=JANE, anonymousId="phone"), track("2", userId=None, anonymousId="phone")]
    with closing(LocalSource(tmp_path / "stream.db")) as source:
        name = source.name()
    committed = record(1, *events, track("3"), {"type": "track", "userId": JANE}, shard=SHARD)
    pipeline.run([committed], name, lake, Window())


def put(data_dir: Path, data: bytes) -> None:
    """A record into the stream."""
    with closing(open_stream(data_dir / "stream.db")) as database:
        database.execute("insert into records (arrived_at, data) values (?, ?)", (NOW, data))


@pytest.mark.usefixtures("jane")
def test_erase_without_yes_says_what_would_go(lake: Lake, command: Command) -> None:
    status, out, err = command("erase", "--user-id", JANE)

    assert (status, err) == (0, "Nothing was erased. Add --yes to erase.\n")
    assert json.loads(out) == {"would_erase": {"events": 2, "dead_letters": 1}, "anonymous_ids": ["phone"]}
    assert message_ids(lake) == ["1", "2", "3"]


@pytest.mark.usefixtures("jane")
def test_erase_prints_a_receipt_and_leaves_no_byte(lake: Lake, tmp_path: Path, command: Command) -> None:
    status, out, _ = command("erase", "--user-id", JANE, "--yes")

    receipt = json.loads(out)
    assert (status, receipt["user_id"], receipt["anonymous_ids"], receipt["not_reached"]) == (0, JANE, ["phone"], [])
    assert [(one["table"], one["rows_before"], one["rows_erased"]) for one in receipt["tables"]] == [
        ("events", 3, 2),
        ("dead_letters", 1, 1),
    ]
    assert message_ids(lake) == ["3"]
    assert b"jane" not in b"".join(path.read_bytes() for path in tmp_path.glob("stream.db*"))


@pytest.mark.usefixtures("jane")
def test_erase_says_what_it_could_not_reach(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, packed([track("4", userId=JANE)]))
    monkeypatch.setattr(erase, "wait_until_committed", lambda _data_dir: 1)
    monkeypatch.setattr(erase, "scrub_stream", lambda _data_dir: False)

    status, out, _ = command("erase", "--user-id", JANE, "--yes")

    assert (status, json.loads(out)["not_reached"]) == (
        1,
        [
            "1 records still in the stream: start the server, then run this again",
            "the stream's file is in use: committed records stay in it for about a minute",
        ],
    )


@pytest.mark.usefixtures("lake")
def test_erase_of_nobody_is_refused(command: Command) -> None:
    assert command("erase", "--yes") == (
        2,
        "",
        "manymetrics: name the person: --user-id ID, or --anonymous-id ID\n",
    )


# --- serve ------------------------------------------------------------------------------------------------


def test_the_banner_shows_a_key_the_urls_and_lines_to_paste(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys.json", [WriteKey("wk_old", "p", revoked=True), WriteKey("wk_1", "p")])

    text = serve.banner(Settings(data_dir=tmp_path, port=8123))

    assert re.findall(r"http://\S+", text) == [
        "http://127.0.0.1:8123/docs",
        "http://127.0.0.1:8123/healthz",
        "http://127.0.0.1:8123/sample",
        "http://127.0.0.1:8123/v1/track",
    ]
    assert "write key   wk_1\n" in text
    assert "curl http://127.0.0.1:8123/v1/track -u wk_1: -d '" in text
    assert f'manymetrics query --data-dir {tmp_path} "select event, user_id, event_time from events"' in text
    body = re.search(r"-d '(.*)'", text)
    assert body is not None
    assert json.loads(body[1])["event"] == "Signed Up"


@pytest.mark.parametrize(
    ("folder", "options"),
    [
        (".manymetrics", []),
        ("it's data", ["--data-dir", "it's data"]),
        ("data", ["--data-dir", "./data", "--host", "::1"]),
        ("data", ["--data-dir", "data", "--host", "0.0.0.0"]),  # noqa: S104  # to listen on
        ("data", ["--data-dir", "data", "--host", "localhost"]),
    ],
)
def test_what_the_banner_prints_works_in_a_new_terminal(tmp_path: Path, folder: str, options: list[str]) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    clean = {"PATH": os.defpath, "HOME": str(tmp_path)}
    server = subprocess.Popen(
        [MANYMETRICS, "serve", "--port", "0", *options], cwd=home, env=clean, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        text = "".join(iter(server.stdout.readline, "Watch events arrive, with any errors:\n"))
        server.stdout.readline()
        tail = server.stdout.readline()

        def paste(line: str) -> str:
            return subprocess.check_output(["sh", "-c", line], cwd=elsewhere, env=clean, text=True)

        [curl] = re.findall(r"^  curl .*", text, re.MULTILINE)
        [query] = re.findall(r"^  .* query .*", text, re.MULTILINE)
        assert paste(curl) == '{"success": true}'
        eventually(lambda: "Signed Up" in paste(query) or None)
        assert "Signed Up" in paste(f"{tail.strip()} --since-start | head -1")
    finally:
        server.terminate()
        server.wait(20)
        if server.stdout is not None:
            server.stdout.close()
    assert (home / folder / "keys.json").exists()
    assert list(elsewhere.iterdir()) == []


def test_wherever_it_listens_the_banner_names_what_a_browser_on_this_machine_opens(tmp_path: Path) -> None:
    text = serve.banner(Settings(data_dir=tmp_path, host="0.0.0.0", write_keys="wk_1:p"))  # noqa: S104  # to listen on

    assert "http://127.0.0.1:8000/sample" in text


def test_the_sample_page_has_a_live_key_that_its_origin_may_use(tmp_path: Path) -> None:
    keys = [
        WriteKey("wk_old", "p", revoked=True),
        WriteKey("wk_site", "site", origins=("https://shop.example",)),
        WriteKey("wk_any", "p"),
    ]
    settings = Settings(data_dir=tmp_path)
    write_keys(tmp_path / "keys.json", keys)
    find = sample_data(settings, ensure_keys(settings)).find_key

    assert (find("http://127.0.0.1:8000"), find("https://shop.example")) == (keys[2], keys[1])
    write_keys(tmp_path / "keys.json", keys[:2])
    assert sample_data(settings, ensure_keys(settings)).find_key("http://127.0.0.1:8000") is None
