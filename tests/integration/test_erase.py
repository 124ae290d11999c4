"""A person is taken out whole: out of the tables, their old snapshots and files; and nobody else is."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manymetrics.tables import DEAD_LETTERS, EVENTS
from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.lake import Lake, live_files
from manymetrics_processor.lake.maintenance import ORPHAN_AGE_S, Maintenance, maintain
from manymetrics_processor.operations import erase_tables as erase_module
from manymetrics_processor.operations.erase_tables import Person, Receipt, count, erase, with_linked_ids
from tests.integration.micro_batches import (
    NOW,
    SHARD,
    STREAM,
    books,
    file_paths,
    make_lake,
    message_ids,
    packed,
    record,
    rows,
    track,
)

JANE = "jane@example.com"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return make_lake(tmp_path)


def commit(lake: Lake, *events: dict[str, Any] | bytes, sequence: int = 1, **stamp: Any) -> None:  # noqa: ANN401  # as record
    pipeline.run([record(sequence, *events, **stamp)], STREAM, lake, Window())


def anonymous(message_id: str, device: str, **fields: object) -> dict[str, Any]:
    return track(message_id, userId=None, anonymousId=device, **fields)


def at(hour: int) -> str:
    return f"2025-11-24T{hour:02}:00:00Z"


def erase_jane(lake: Lake, **person: Any) -> list[Receipt]:  # noqa: ANN401  # what a person takes
    return erase(lake, with_linked_ids(lake, Person(JANE, **person)))


def bytes_on_disk(data_dir: Path) -> str:
    """What all files of the tables hold, the Parquet ones as text."""
    return "\n".join(
        str(pq.ParquetFile(path).read().to_pylist()) if path.suffix == ".parquet" else str(path.read_bytes())
        for path in file_paths(data_dir)
    )


# --- who goes ---------------------------------------------------------------------------------------------


def test_a_user_goes_with_the_anonymous_events_of_their_device_and_nobody_else_does(lake: Lake) -> None:
    commit(
        lake,
        track("1", userId=JANE, anonymousId="phone", timestamp=at(9)),
        anonymous("2", "phone", timestamp=at(8)),
        anonymous("3", "other phone"),
        track("4", userId="bob", anonymousId="his phone"),
        track("5", userId=JANE.upper()),
    )

    erase_jane(lake)

    assert message_ids(lake) == ["3", "4", "5"]


@pytest.mark.parametrize(("janes_hour", "kept"), [(9, ["2", "3"]), (11, ["2"])])
def test_a_shared_devices_anonymous_events_go_with_its_last_user(lake: Lake, janes_hour: int, kept: list[str]) -> None:
    commit(
        lake,
        track("1", userId=JANE, anonymousId="shared", timestamp=at(janes_hour)),
        track("2", userId="bob", anonymousId="shared", timestamp=at(10)),
        anonymous("3", "shared", timestamp=at(12)),
    )

    erase_jane(lake)

    assert message_ids(lake) == kept


def test_users_at_the_same_time_are_told_apart_by_message_id(lake: Lake) -> None:
    commit(
        lake,
        track("2", userId=JANE, anonymousId="shared", timestamp=at(9)),
        track("1", userId="bob", anonymousId="shared", timestamp=at(9)),
        anonymous("3", "shared"),
    )

    erase_jane(lake)

    assert message_ids(lake) == ["1"]


def test_an_alias_links_the_device_that_it_names(lake: Lake) -> None:
    commit(
        lake,
        {"type": "alias", "messageId": "1", "userId": JANE, "previousId": "phone"},
        anonymous("2", "phone"),
        {"type": "alias", "messageId": "3", "userId": "bob", "previousId": JANE},
    )

    erase_jane(lake)

    assert message_ids(lake) == []


@pytest.mark.parametrize("nobody", ["undefined", "null", " "])
def test_an_id_that_names_nobody_links_nobody(lake: Lake, nobody: str) -> None:
    """Whether the rows are flagged, as today's are, or were stored before."""
    commit(
        lake,
        track("1", userId=JANE, anonymousId=nobody),
        anonymous("2", nobody),
        track("3", userId=nobody, anonymousId="phone", timestamp=at(12)),
        track("4", userId=JANE, anonymousId="phone", timestamp=at(9)),
        anonymous("5", "phone"),
        anonymous("6", "other phone"),
        track("7", userId=nobody, anonymousId="other phone"),
        {"type": "alias", "messageId": "8", "userId": JANE, "previousId": nobody},
        f'{{"type":"track","messageId":"9","anonymousId":"{nobody}"}}'.encode(),
    )

    assert with_linked_ids(lake, Person(nobody)) == Person(nobody)
    assert repr(nobody) in Person(nobody).caution
    assert not Person(JANE).caution
    erase_jane(lake)

    assert message_ids(lake) == ["2", "3", "6", "7"]
    assert count(lake, Person(anonymous_ids=frozenset({nobody})))["dead_letters"] == 1


def test_a_device_of_the_same_name_in_another_project_is_another_device(lake: Lake) -> None:
    commit(lake, track("1", userId=JANE, anonymousId="1"), anonymous("2", "1"))
    commit(lake, anonymous("3", "1"), track("4", userId="bob", anonymousId="1"), sequence=2, project_id="other")

    erase_jane(lake)

    assert message_ids(lake) == ["3", "4"]


def test_in_every_project_or_in_one(lake: Lake) -> None:
    bad = {"type": "track", "userId": JANE}
    commit(lake, track("1", userId=JANE), bad)
    commit(lake, track("2", userId=JANE), bad, sequence=2, project_id="other")

    erase_jane(lake, project_id="other")
    assert message_ids(lake) == ["1"]
    assert [one["project_id"] for one in rows(lake, DEAD_LETTERS)] == ["shop"]

    erase_jane(lake)
    assert (message_ids(lake), rows(lake, DEAD_LETTERS)) == ([], [])


def test_a_device_alone_goes_without_the_events_of_who_was_known_on_it(lake: Lake) -> None:
    commit(lake, anonymous("1", "phone"), track("2", userId=JANE, anonymousId="phone"), anonymous("3", "tablet"))

    erase(lake, with_linked_ids(lake, Person(anonymous_ids=frozenset({"phone"}))))

    assert message_ids(lake) == ["2", "3"]


# --- dead letters -----------------------------------------------------------------------------------------

NAME = 'Jané "J" \\ 😀/7'
SPELLINGS = [
    r'"Jané \"J\" \\ 😀/7"',
    r'"Jan\u00e9 \"J\" \\ \ud83d\ude00/7"',
    r'"Jan\u00E9 \"J\" \\ \uD83D\uDE00\/7"',
    r'"\u004a\u0061n\u00e9 \u0022J\u0022 \u005c \uD83D\uDE00\u002f7"',
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    "letter",
    [
        '{"userId": %s}',
        '{"userId": {"is": [%s]}, "type": "track"}',
        '{"broken": "no end, "userId":%s',
        '{"userId"  :\n%s, "type": "track", "event": 7e999}}}',
    ],
)
def test_dead_letters_go_that_hold_the_id_in_any_spelling(lake: Lake, letter: str, spelling: str) -> None:
    pipeline.run([StreamRecord(SHARD, 1, packed([(letter % spelling).encode()]), NOW)], STREAM, lake, Window())
    assert count(lake, Person(NAME))["dead_letters"] == 1

    erase(lake, Person(NAME))

    assert rows(lake, DEAD_LETTERS) == []


@pytest.mark.parametrize(
    "data",
    [
        packed([b'{"userId": "jane@example.com", "no utf-8": "\xff"}']),
        b"\x01 damaged " + packed([msgspec.json.encode(track("1", userId=JANE))]),
        packed([b'{"type": "nonsense"}'], context=b'{"traits": {"email": "jane\\u0040example.com"}}'),
        packed([b'{"type": "nonsense"}'], anonymous_id=b'"jane\\u0040example.com"'),
    ],
    ids=["not UTF-8", "unreadable record", "in the batch's context", "the batch's anonymous id"],
)
def test_dead_letters_go_whose_bytes_are_kept_as_base64(lake: Lake, data: bytes) -> None:
    pipeline.run([StreamRecord(SHARD, 1, data, NOW)], STREAM, lake, Window())
    assert len(rows(lake, DEAD_LETTERS)) == 1

    erase_jane(lake, project_id="shop")

    assert rows(lake, DEAD_LETTERS) == []


@pytest.mark.parametrize(
    ("user_id", "raw", "goes"),
    [
        ("12", '{"userId": 12}', True),
        ("12", '{"userId":12,"a":1}', True),
        ("12", '{"userId": 12.5}', False),
        ("12.5", '{"userId": 12.5}', True),
        ("12", '{"userId": 123}', False),
        ("12", '{"userId": -12}', False),
        ("-12", '{"anonymousId": -12}', True),
        ("12", '{"price": 12}', False),
        ("jane", '{"userId": "jane doe"}', False),
        ("jane", '{"userId": "Jane"}', False),
        ("a.c", '{"userId": "abc"}', False),
        ("\\ud800", r'{"userId": "\ud800"}', True),
    ],
)
def test_dead_letters_of_others_stay(lake: Lake, user_id: str, raw: str, *, goes: bool) -> None:
    pipeline.run([StreamRecord(SHARD, 1, packed([raw.encode()]), NOW)], STREAM, lake, Window())

    erase(lake, Person(user_id))

    assert (rows(lake, DEAD_LETTERS) == []) == goes


@pytest.mark.parametrize(("anonymous_id", "goes"), [(b"12", True), (b"123", False), (b'"12"', True), (b'"123"', False)])
def test_a_dead_letter_goes_with_whom_its_batch_names(lake: Lake, anonymous_id: bytes, *, goes: bool) -> None:
    commit(lake, b'{"type": "nonsense"}', anonymous_id=anonymous_id)

    erase(lake, Person(anonymous_ids=frozenset({"12"})))

    assert (rows(lake, DEAD_LETTERS) == []) == goes


texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\/u'), min_size=1, max_size=6)


@given(user_id=texts, other=texts, escaped=st.booleans())
def test_a_letter_mentions_an_id_where_it_holds_it_as_a_string(user_id: str, other: str, *, escaped: bool) -> None:
    raw = msgspec.json.encode({"x": other, "y": [user_id]}).decode()
    if escaped:
        raw = "".join(c if c.isascii() else _escape(c) for c in raw)
    letter = {"raw": raw, "raw_encoding": "utf-8", "stamp": None}

    assert erase_module._mentions(letter, frozenset({user_id}))
    assert erase_module._mentions(letter, frozenset({user_id + "!"})) == (other == user_id + "!")


def _escape(character: str) -> str:
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def test_an_empty_id_is_in_nobodys_letter(lake: Lake) -> None:
    commit(lake, b'{"userId":"joe","name":""}')

    assert count(lake, Person("", frozenset({"", "phone"})))["dead_letters"] == 0


# --- what is left -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("breaks_at", [1, 2])
def test_what_broke_off_is_run_again_and_knows_their_devices_still(
    breaks_at: int, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(lake, track("1", userId=JANE, anonymousId="phone"), anonymous("2", "phone"), b'{"anonymousId":"phone"}')
    erase_from, calls = erase_module._erase_from, iter(range(1, 9))

    def broken(*arguments: Any) -> Receipt:  # noqa: ANN401  # as the real one
        if next(calls) == breaks_at:
            raise KeyboardInterrupt
        return erase_from(*arguments)

    with monkeypatch.context() as breaking:
        breaking.setattr(erase_module, "_erase_from", broken)
        with pytest.raises(KeyboardInterrupt):
            erase_jane(lake)
    erase_jane(lake)

    assert (rows(lake), rows(lake, DEAD_LETTERS)) == ([], [])


@pytest.mark.parametrize("while_it", ["_holds", "_without"])
def test_files_that_are_merged_and_removed_meanwhile_are_looked_at_anew(
    while_it: str, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        commit(lake, track(f"{number}", userId=JANE), track(f"b{number}"), sequence=number)
    looks = getattr(erase_module, while_it)
    raced: list[object] = []

    def overtaken(*arguments: Any) -> Any:  # noqa: ANN401  # as the real one
        if not raced:
            raced.append(maintain(make_lake(tmp_path), keep_snapshots=1))
        return looks(*arguments)

    monkeypatch.setattr(erase_module, while_it, overtaken)

    assert erase_jane(lake)[0].rows_erased == 10
    assert message_ids(lake) == sorted(f"b{number}" for number in range(10))


@pytest.mark.parametrize("bytes_at_once", [1, 10**9])
def test_many_files_go_in_as_many_commits_as_their_size_asks_for(
    bytes_at_once: int, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase_module, "_BYTES_AT_ONCE", bytes_at_once)
    for number in range(4):
        commit(lake, track(f"{number}", userId=JANE if number else "joe"), track(f"b{number}"), sequence=number)

    events, _ = erase_jane(lake)

    assert (events.rows_erased, events.files_rewritten) == (3, 3)
    assert message_ids(lake) == ["0", "b0", "b1", "b2", "b3"]


def test_no_snapshot_or_file_holds_anything_of_the_person(lake: Lake, tmp_path: Path) -> None:
    for number in range(12):
        events = [track(f"{number}", userId=JANE, anonymousId="janes phone", properties={"of": "Jane"})]
        bad = [b'{"userId":"jane@example.com"}', b'{"anonymousId":"janes phone","type":7}']
        commit(lake, *events, *bad, track(f"bob-{number}", userId="bob"), b'{"userId":"bob"}', sequence=number)
    maintain(lake, keep_snapshots=4)
    commit(lake, anonymous("last", "janes phone"), sequence=20)
    assert "jane" in bytes_on_disk(tmp_path)

    erase_jane(lake)

    left = bytes_on_disk(tmp_path)
    assert ("jane" in left, "Jane" in left, "bob" in left) == (False, False, True)
    assert len(lake.load(EVENTS).metadata.snapshots) == 1
    assert len(message_ids(lake)) == len(rows(lake, DEAD_LETTERS)) == 12


def test_the_receipt_says_what_went(lake: Lake) -> None:
    commit(lake, track("1", userId=JANE), track("2"), b'{"userId":"jane@example.com"}')
    commit(lake, track("3"), sequence=2)
    commit(lake, track("4", userId=JANE), sequence=3)
    before = books(lake)

    events, letters = erase_jane(lake)

    names = ("rows_before", "rows_erased", "files_before", "files_rewritten", "files_after", "files_left")
    assert [getattr(events, name) for name in names] == [4, 2, 3, 2, 2, 0]
    assert [getattr(letters, name) for name in names] == [1, 1, 1, 1, 0, 0]
    assert (events.table, letters.table) == ("events", "dead_letters")
    assert books(lake) == before  # the books say what came; the erasure is no event


def test_a_count_says_what_would_go_and_erases_nothing(lake: Lake) -> None:
    commit(
        lake, track("1", userId=JANE, anonymousId="phone"), anonymous("2", "phone"), b'{"userId":"jane@example.com"}'
    )

    person = with_linked_ids(lake, Person(JANE))

    assert count(lake, person) == {"events": 2, "dead_letters": 1}
    assert person.device_ids == ["phone"]
    assert message_ids(lake) == ["1", "2"]


def test_a_second_erasure_finds_nobody(lake: Lake, tmp_path: Path) -> None:
    commit(lake, track("1", userId=JANE), track("2"))
    erase_jane(lake)
    before = file_paths(tmp_path)

    assert [one.rows_erased for one in erase_jane(lake)] == [0, 0]
    assert file_paths(tmp_path) == before


def test_files_that_a_killed_commit_left_are_removed_or_told_of(lake: Lake, tmp_path: Path) -> None:
    commit(lake, track("1", userId=JANE))
    [file] = live_files(lake.load(EVENTS))
    path = Path(file.file_path.removeprefix("file://"))
    old, young = path.with_name("old.parquet"), path.with_name("young.parquet")
    for orphan in (old, young):
        shutil.copy(path, orphan)
    os.utime(old, (time.time() - ORPHAN_AGE_S - 1,) * 2)

    events, _ = erase_jane(lake)

    assert (old.exists(), young.exists(), events.files_left) == (False, True, 1)
    os.utime(young, (time.time() - ORPHAN_AGE_S - 1,) * 2)
    maintain(lake)
    assert "jane" not in bytes_on_disk(tmp_path)


def test_files_that_are_kept_for_queries_are_told_of(lake: Lake) -> None:
    for number in range(24):
        commit(lake, track(f"{number}", userId=JANE), sequence=number)
        if number % 12 == 11:
            Maintenance(lake).after_commit()

    events, _ = erase_jane(lake)

    assert events.files_left >= 12


def test_a_server_that_wins_thirty_races_keeps_nobody_in_the_tables(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(lake, track("jane", userId=JANE), track("bob", userId="bob"))
    server, replace_files, tries = make_lake(tmp_path), lake.replace_files, list[int]()

    def overtaken(*arguments: Any) -> None:  # noqa: ANN401  # as the real one
        tries.append(len(tries))
        if len(tries) <= 30:
            commit(server, track(f"new-{len(tries)}", userId="bob"), sequence=1 + len(tries))
        replace_files(*arguments)

    monkeypatch.setattr(lake, "replace_files", overtaken)

    events, _ = erase_jane(lake)

    assert (events.rows_erased, len(tries)) == (1, 31)
    assert [row["user_id"] for row in rows(lake)] == ["bob"] * 31


def test_a_server_may_commit_and_tidy_up_meanwhile(lake: Lake, tmp_path: Path) -> None:
    for number in range(10):
        commit(lake, track(f"jane-{number}", userId=JANE), track(f"bob-{number}", userId="bob"), sequence=number)
    server, stop, committed = make_lake(tmp_path), threading.Event(), list[int]()

    def serve() -> None:
        window, inline = Window(), Maintenance(server)
        while not stop.is_set():
            number = len(committed)
            one = record(number, track(f"new-{number}", userId="bob"), b"[]")
            pipeline.run([one], "server", server, window)
            inline.after_commit()
            committed.append(number)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        events, _ = erase_jane(lake)
    finally:
        stop.set()
        thread.join(30)

    assert committed
    assert events.rows_erased == 10
    assert {row["user_id"] for row in rows(lake)} == {"bob"}
    assert len(rows(lake)) == 10 + len(committed)
    assert books(lake, "server").stored == len(committed)
