"""A browser key is public, so what is sent with one makes no event of a server key a duplicate, nor the other way."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from manymetrics.tables import EVENTS
from manymetrics_processor.decode.ids import dedup_digest
from manymetrics_processor.dedup import window
from manymetrics_processor.dedup.id_store import KeptIds
from manymetrics_processor.dedup.window import Window, read_ids
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.ingest.raw_archive import Archive
from manymetrics_processor.jobs.backfill import backfill
from manymetrics_processor.jobs.compact import Limits, compact
from manymetrics_processor.lake.lake import Lake, live_files, local_catalog
from manymetrics_processor.lake.maintenance import merge_small_files
from manymetrics_processor.operations import replay_dead_letters as replay
from tests.in_process_cluster import InProcessCluster
from tests.integration.micro_batches import NOW, STREAM, make_lake, message_ids, record, track
from tests.integration.micro_batches import rows as stored_rows

KINDS = ["browser", "server"]
BOTH = [("browser", "server"), ("server", "browser")]
SAME = [("browser", "browser"), ("server", "server")]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return make_lake(tmp_path)


def commit(lake: Lake, window: Window, sequence: int, kind: str, *ids: str) -> list[bytes | None]:
    return pipeline.run([record(sequence, *map(track, ids), key_kind=kind)], STREAM, lake, window).outcomes


@pytest.mark.parametrize("kept", [True, False], ids=["one process", "restarted"])
@pytest.mark.parametrize(("first", "second"), BOTH + SAME)
def test_ids_of_the_two_kinds_do_not_meet(lake: Lake, first: str, second: str, *, kept: bool) -> None:
    own = Window()
    commit(lake, own, 1, first, "order-1")

    assert commit(lake, own if kept else Window(), 2, second, "order-1") == [b"d" if first == second else b"s"]


@pytest.mark.parametrize(("first", "second"), BOTH)
def test_nor_in_one_batch(lake: Lake, first: str, second: str) -> None:
    sent = [record(1, track("a"), track("a"), key_kind=first), record(2, track("a"), key_kind=second)]

    assert pipeline.run(sent, STREAM, lake, Window()).outcomes == [b"sd", b"s"]


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize(("first", "second"), BOTH)
def test_nor_where_others_committed_them(lake: Lake, tmp_path: Path, first: str, second: str, *, merged: bool) -> None:
    own = Window()
    commit(lake, own, 1, "browser", "ours")
    theirs = make_lake(tmp_path)
    for number in range(3):
        pipeline.run([record(number, track(f"m{number}"), key_kind=first)], "theirs", theirs, Window())
    if merged:
        merge_small_files(theirs, EVENTS)

    assert commit(lake, own, 2, second, "m0", "m1", "ours") == [b"ss" + (b"d" if second == "browser" else b"s")]
    assert commit(lake, own, 3, first, "m0", "m1") == [b"dd"]


def test_compaction_leaves_one_of_each_kind(lake: Lake) -> None:
    for number in range(4):
        commit(lake, Window(days=-1), number, KINDS[number % 2], "a", "b")

    compact(lake, InProcessCluster(), Limits())

    found = sorted((row["message_id"], row["key_kind"]) for row in stored_rows(lake))
    assert found == [(name, kind) for name in "ab" for kind in KINDS]


@pytest.mark.parametrize(("first", "second"), BOTH + SAME)
def test_a_replay_goes_by_the_kind_of_the_key_that_had_sent_the_letter(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("manymetrics_processor.decode.batch.make_row", lambda *_: 1 // 0)
        commit(lake, Window(), 1, first, "a")
    commit(lake, Window(), 2, second, "a")

    report = replay.replay(lake, Window())

    assert (report.stored, report.duplicate) == ((0, 1) if first == second else (1, 0))


@pytest.mark.parametrize(("first", "second"), BOTH + SAME)
def test_the_archive_is_backfilled_by_the_kind_of_its_keys(lake: Lake, tmp_path: Path, first: str, second: str) -> None:
    commit(lake, Window(), 1, first, "a")
    Archive(f"file://{tmp_path}/warehouse/archive", lake.io).put("s", [record(1, track("a"), key_kind=second)])

    report = backfill(
        local_catalog(tmp_path), InProcessCluster(), f"file://{tmp_path}/warehouse/archive", source="test"
    )

    assert report.duplicate == (first == second)


@pytest.mark.parametrize(("sent_with", "counts_as"), BOTH + SAME)
def test_lines_are_backfilled_as_the_kind_that_the_operator_names(
    lake: Lake, tmp_path: Path, sent_with: str, counts_as: str
) -> None:
    commit(lake, Window(), 1, sent_with, "a")
    line = track("a", context={"ip": "192.0.2.7"}), track("b", context={"ip": "192.0.2.7"})
    home = tmp_path / "warehouse" / "exported"
    home.mkdir()
    (home / "a.ndjson").write_bytes(b"\n".join(map(msgspec.json.encode, line)))
    os.utime(home / "a.ndjson", (NOW // 1_000_000,) * 2)

    def run(source: str) -> Any:  # noqa: ANN401  # a Report
        options: dict[str, Any] = {"project": "shop", "key_kind": counts_as}
        return backfill(local_catalog(tmp_path), InProcessCluster(), str(home), source=source, **options)

    assert run("one").duplicate == (sent_with == counts_as)
    assert run("two").duplicate == 2
    [b] = [row for row in stored_rows(lake) if row["message_id"] == "b"]
    assert (b["key_kind"], b["context_ip"]) == (counts_as, "192.0.2.7")


# --- what landed before -----------------------------------------------------------------------------------


def test_a_browsers_ids_are_the_bytes_that_they_were() -> None:
    for project, message in [("shop", "m"), ("a", ""), ("\u00e9", "\0shop\0m"), ("shop", None)]:
        old = hashlib.blake2b(f"{project}\0{message}".encode(), digest_size=16).digest()

        assert [dedup_digest(project, message, kind) for kind in ("browser", None)] == [old, old]


def test_no_browsers_id_is_a_servers_whatever_it_holds() -> None:
    ids = ["", "\0", "m", "\0m", "a\0m", "\0a\0m", "\0\0a\0m"]
    made = [dedup_digest(project, one, kind) for project in ("a", "aa") for one in ids for kind in KINDS]

    assert len(set(made)) == len(made)


def test_a_file_from_before_there_were_kinds_is_a_browsers(lake: Lake) -> None:
    commit(lake, Window(), 1, "browser", "a")
    [file] = live_files(lake.load(EVENTS))
    path = Path(file.file_path.removeprefix("file://"))
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.drop_columns(["key_kind"]), path)

    [known] = read_ids(lake.io, file.file_path)
    assert known.tobytes() == dedup_digest("shop", "a", "browser")
    assert commit(lake, Window(), 2, "browser", "a") == [b"d"]


def test_kept_ids_of_before_are_not_used(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "KEEP_EVERY_COMMITS", 1)
    home = f"file://{tmp_path}/warehouse/ids"

    def with_kept() -> Window:
        return Window(kept=KeptIds(lake.io, home))

    def old_digest(project: object, message: object, _kind: object) -> bytes:
        return dedup_digest(project, message, "browser")

    with monkeypatch.context() as patched:
        for user in ("decode.batch", "dedup.window"):
            patched.setattr(f"manymetrics_processor.{user}.dedup_digest", old_digest)
        own = with_kept()
        commit(lake, own, 1, "server", "a")
        own.keep()
    state = tmp_path / "warehouse" / "ids" / "state.json"
    old = msgspec.json.decode(state.read_bytes())
    old["runs"] = old.pop("day_runs")
    del old["version"]
    state.write_bytes(msgspec.json.encode(old))

    own = with_kept()

    assert commit(lake, own, 2, "server", "a") == [b"d"]  # read from the table
    assert commit(lake, own, 3, "browser", "a") == [b"s"]
    own.keep()
    assert commit(lake, with_kept(), 4, "server", "a") == [b"d"]
    assert message_ids(lake) == ["a", "a"]
    assert "runs" not in msgspec.json.decode(state.read_bytes())  # what an older process needs to use it


def test_every_maker_of_ids_names_the_kind() -> None:
    with pytest.raises(TypeError):
        dedup_digest("shop", "m")  # type: ignore[call-arg]
