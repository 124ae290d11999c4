"""The dedup ids beside the table: a new process knows them without reading the table, and is right without them too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manymetrics_processor.dedup import window as window_module
from manymetrics_processor.dedup.id_store import KeptIds
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.lake import Lake
from manymetrics_processor.lake.object_storage import open_parquet
from tests.integration.micro_batches import STREAM, make_lake, message_ids, record, track


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return make_lake(tmp_path)


@pytest.fixture
def home(tmp_path: Path) -> str:
    return f"file://{tmp_path}/warehouse/ids"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The data files that windows read."""
    found = list[str]()

    def noted(io: Any, location: str) -> Any:  # noqa: ANN401  # as the real one
        found.append(location)
        return open_parquet(io, location)

    monkeypatch.setattr("manymetrics_processor.dedup.window.open_parquet", noted)
    return found


def window(lake: Lake, home: str, **options: Any) -> Window:  # noqa: ANN401  # as Window takes
    return Window(kept=KeptIds(lake.io, home), **options)


def commit(lake: Lake, own: Window, sequence: int, *ids: str, day: int = 0) -> None:
    pipeline.run([record(sequence, *(track(one) for one in ids), day=day)], STREAM, lake, own)
    own.keep()


def test_a_new_process_reads_only_what_was_committed_since(
    lake: Lake, home: str, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_module, "KEEP_EVERY_COMMITS", 3)
    own = window(lake, home)
    for number in range(8):
        commit(lake, own, number, f"m{number}")

    fresh = window(lake, home)
    commit(lake, fresh, 10, *(f"m{number}" for number in range(8)), "new")

    assert len(reads) == 1  # of eight files; seven ids were kept
    assert message_ids(lake) == sorted(["new", *(f"m{number}" for number in range(8))])


@pytest.mark.parametrize("damage", ["absent", "no run", "not JSON", "another table", "another version", "cut"])
def test_what_is_absent_or_damaged_is_read_from_the_table(
    lake: Lake, home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(window_module, "KEEP_EVERY_COMMITS", 1)
    commit(lake, window(lake, home), 1, "a", "b")
    [state], [run] = (
        (tmp_path / "warehouse" / "ids").glob("state.json"),
        (tmp_path / "warehouse" / "ids" / "runs").iterdir(),
    )
    match damage:
        case "absent":
            state.unlink()
        case "no run":
            run.unlink()
        case "not JSON":
            state.write_bytes(b"{")
        case "another table":
            state.write_bytes(state.read_bytes().replace(b'"table_uuid":"', b'"table_uuid":"0'))
        case "another version":
            state.write_bytes(state.read_bytes().replace(b'"version":2', b'"version":3'))
        case _:
            run.write_bytes(run.read_bytes()[:-3])

    commit(lake, window(lake, home), 2, "a", "b", "c")

    assert message_ids(lake) == ["a", "b", "c"]


def test_two_processes_that_keep_their_ids_know_each_others(
    lake: Lake, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_module, "KEEP_EVERY_COMMITS", 2)
    one, other = window(lake, home), window(lake, home)
    for number in range(6):
        commit(lake, one, 2 * number, f"a{number}", f"b{number - 1}")
        commit(lake, other, 2 * number + 1, f"b{number}", f"a{number}")

    commit(lake, window(lake, home), 100, *(f"{c}{n}" for c in "ab" for n in range(6)))

    assert len(message_ids(lake)) == len(set(message_ids(lake))) == 13


def test_with_too_many_ids_the_oldest_day_is_forgotten_and_the_newest_is_not(
    lake: Lake, home: str, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_module, "KEEP_EVERY_COMMITS", 1)
    own = window(lake, home, max_ids=5)
    commit(lake, own, 1, "a", "b", "c", day=0)
    assert own.days_held == 1
    commit(lake, own, 2, "d", "e", "f", day=2)
    assert own.days_held == 1
    assert len(own) == 3

    fresh = window(lake, home, max_ids=5)
    commit(lake, fresh, 3, "a", "d", day=2)

    assert reads == []
    assert message_ids(lake) == ["a", "a", "b", "c", "d", "e", "f"]
