"""One micro-batch after the other into real tables: what is stored, what isn't, and what the books say."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from manymetrics.outcomes import Reason
from manymetrics.tables import DEAD_LETTERS
from manymetrics_processor.decode.row import make_row
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.lake import Lake
from manymetrics_processor.lake.maintenance import maintain
from manymetrics_processor.lake.object_storage import open_parquet
from tests.integration.micro_batches import (
    STREAM,
    make_lake,
    message_ids,
    record,
    rows,
    track,
)

BAD = {"type": "track", "event": "E"}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return make_lake(tmp_path)


def test_a_fault_of_ours_in_one_event_is_a_dead_letter_and_stops_no_other(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_rows_of(monkeypatch, "b")

    committed = pipeline.run([record(1, track("a"), track("b"), track("c"))], STREAM, lake, Window())

    assert committed.outcomes == [b"sxs"]
    [letter] = rows(lake, DEAD_LETTERS)
    assert (letter["reason"], letter["detail"]) == (Reason.UNPROCESSABLE.value, "ZeroDivisionError")


def break_rows_of(monkeypatch: pytest.MonkeyPatch, message_id: str) -> None:
    def broken(event: Any, *rest: Any) -> Any:  # noqa: ANN401  # as the real one
        return 1 // 0 if event.message_id == message_id else make_row(event, *rest)

    monkeypatch.setattr("manymetrics_processor.decode.batch.make_row", broken)


def test_a_file_that_can_not_be_written_whole_leaves_nothing_behind(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_a_full_disk(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pq.ParquetWriter, "write_table", on_a_full_disk)
        with pytest.raises(OSError, match="No space left"):
            pipeline.run([record(1, track("m-1"))], STREAM, lake, Window())

    assert list(tmp_path.rglob("*.parquet")) == []
    pipeline.run([record(1, track("m-1"))], STREAM, lake, Window())
    assert message_ids(lake) == ["m-1"]


# --- resends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [True, False], ids=["one process", "restarted"])
@pytest.mark.parametrize(
    ("days", "outcome"), [(0, b"d"), (7, b"d"), (8, b"s"), (-7, b"d"), (-8, b"s"), (-30, b"s"), (30, b"s")]
)
def test_a_resend_counts_as_one_up_to_seven_days_apart_either_way(
    lake: Lake, days: int, outcome: bytes, *, kept: bool
) -> None:
    window = Window(7)
    pipeline.run([record(1, track("a"))], STREAM, lake, window)

    committed = pipeline.run([record(2, track("a"), day=days)], STREAM, lake, window if kept else Window(7))

    assert committed.outcomes == [outcome]


@pytest.mark.parametrize("kept", [True, False], ids=["one process", "restarted"])
def test_the_windows_length_is_a_setting(lake: Lake, *, kept: bool) -> None:
    window = Window(0)
    pipeline.run([record(1, track("a"))], STREAM, lake, window)

    committed = pipeline.run(
        [record(2, track("a")), record(3, track("a"), day=1)], STREAM, lake, window if kept else Window(0)
    )

    assert committed.outcomes == [b"d", b"s"]


def test_what_others_stored_and_merged_in_twenty_commits_is_known(lake: Lake, tmp_path: Path) -> None:
    window, theirs = Window(), make_lake(tmp_path)
    pipeline.run([record(1, track("ours"))], STREAM, lake, window)
    pipeline.run([record(1, track("theirs"))], "theirs", theirs, Window())
    for number in range(20):
        pipeline.run([record(number, track(f"theirs-{number}"))], "theirs-2", theirs, Window())
    maintain(theirs, keep_snapshots=2)

    committed = pipeline.run([record(9, track("theirs"), track("ours"))], STREAM, lake, window)

    assert committed.outcomes == [b"dd"]
    assert len(message_ids(lake)) == len(set(message_ids(lake)))


# --- what it costs ----------------------------------------------------------------------------------------


class Reads:
    """How many data files the window reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, real = 0, open_parquet

        def counting(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # as the real one
            self.count += 1
            return real(*arguments, **options)

        monkeypatch.setattr("manymetrics_processor.dedup.window.open_parquet", counting)


def test_a_running_process_reads_no_file_of_its_own_however_many_there_are(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, own = Reads(monkeypatch), Window()

    for number in range(20):
        pipeline.run([record(number, track(f"m{number}"), BAD)], STREAM, lake, own)
        if number % 10 == 9:
            maintain(lake, keep_snapshots=3)

    assert (reads.count, len(own)) == (0, 20)


def test_of_another_processs_commits_each_file_is_read_once(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, theirs = Window(), make_lake(tmp_path)
    pipeline.run([record(0, track("m"))], STREAM, lake, own)
    for number in range(5):
        pipeline.run([record(number, track(f"theirs-{number}"))], "theirs", theirs, Window())
    reads = Reads(monkeypatch)

    for number in range(1, 6):
        pipeline.run([record(number, track(f"m{number}"))], STREAM, lake, own)

    assert reads.count == 5


def test_the_window_holds_no_ids_of_days_that_are_past(lake: Lake) -> None:
    own = Window(2)

    for day in range(12):
        pipeline.run([record(day, *[track(f"m{day}-{number}") for number in range(10)], day=day)], STREAM, lake, own)

    assert len(own) <= 10 * (2 + 1 + 1)
