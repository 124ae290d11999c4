"""The ids of the window, against programs so plain that they are right."""

from __future__ import annotations

import errno
import mmap
import tempfile
from pathlib import Path
from typing import IO, NamedTuple
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from manymetrics_processor.decode.ids import Ids, to_ids
from manymetrics_processor.dedup import index as dedup
from manymetrics_processor.dedup.index import DedupIndex, Run
from manymetrics_processor.dedup.window import resends_within

Id = tuple[int, int]

# Few ids, of which many share their first half.
ids = st.tuples(st.sampled_from([0, 1, 2**63, 2**64 - 1]), st.integers(0, 3))
days = st.integers(20_500, 20_520)


def array_of(some: list[Id]) -> Ids:
    return np.array(some, dtype=np.uint64).reshape(-1, 2)


class Add(NamedTuple):
    day: int
    ids: list[Id]


class Ask(NamedTuple):
    day: int
    ids: list[Id]


class Forget(NamedTuple):
    before: int


some_ids = st.lists(ids, max_size=12)
steps = st.lists(
    st.builds(Add, days, some_ids) | st.builds(Ask, days, some_ids) | st.builds(Forget, days), min_size=1, max_size=30
)


@pytest.mark.parametrize("large_ids", [dedup.LARGE_IDS, 3])
@given(steps, st.integers(0, 9))
@example([Add(1, [(1, 1)]), Add(1, [(1, 2)]), Add(2, [(1, 3)]), Ask(1, [(1, 1), (1, 2), (1, 3), (1, 0), (0, 1)])], 1)
def test_the_index_holds_what_a_plain_list_holds(
    large_ids: int, steps: list[Add | Ask | Forget], window_days: int
) -> None:
    with patch.object(dedup, "LARGE_IDS", large_ids):
        check_against_a_plain_list(steps, window_days)


def check_against_a_plain_list(steps: list[Add | Ask | Forget], window_days: int) -> None:
    index, known = DedupIndex(window_days), list[tuple[int, Id]]()

    for step in steps:
        match step:
            case Add(day, some):
                index.add(day, array_of(some))
                known += [(day, one) for one in some]
            case Forget(before):
                index.forget_before(before)
                known = [(day, one) for day, one in known if day >= before]
            case Ask(asked, some):
                expected = [
                    any(one == other and abs(asked - day) <= window_days for day, other in known) for one in some
                ]
                assert index.holds(asked, array_of(some)).tolist() == expected
        assert len(index) == len(known)


def test_a_hundred_thousand_ids_of_many_days_are_each_found_on_their_day_alone() -> None:
    chance = np.random.default_rng(7)
    index, by_day = DedupIndex(window_days=0), dict[int, list[Ids]]()

    for day in (1, 2, 1, 3, 3, 2, 1):
        some = chance.integers(0, 2**63, size=(15_000, 2), dtype=np.uint64)
        index.add(day, some)
        by_day.setdefault(day, []).append(some)

    for day in (1, 2, 3, 4):
        for other, parts in by_day.items():
            found = index.holds(day, np.concatenate(parts))
            assert found.all() if other == day else not found.any()


def test_adding_little_by_little_leaves_few_runs_a_day() -> None:
    index = DedupIndex()

    for number in range(1_000):
        index.add(1, array_of([(number, number)]))

    assert len(index._runs[1]) <= 10
    assert index.holds(1, array_of([(number, number) for number in range(1_000)])).all()


def is_in_a_file(half: npt.NDArray[np.uint64]) -> bool:
    base: object = half
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def test_a_large_run_lies_in_a_file_without_a_name_and_is_merged_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(dedup, "LARGE_IDS", 100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    index = DedupIndex()

    for number in range(500):
        index.add(number // 450, array_of([(number, number)]))

    sizes = [len(run) for run in index.runs[0]]
    assert sum(sizes) == 450
    assert sum(size >= 100 for size in sizes) >= 2
    assert sum(size < 100 for size in sizes) <= 1
    for run in index.runs[0]:
        assert [is_in_a_file(run.first), is_in_a_file(run.second)] == [len(run) >= 100] * 2
        assert list(Run.decode(run.encode(), "kept").first) == list(run.first)
    assert index.holds(0, array_of([(number, number) for number in range(500)])).all()
    assert list(tmp_path.iterdir()) == []


def test_where_the_temp_folder_is_full_a_large_run_stays_in_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(**_: object) -> IO[bytes]:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(dedup, "LARGE_IDS", 2)
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    index = DedupIndex()

    index.add(1, array_of([(1, 1), (2, 2)]))

    assert index.holds(1, array_of([(1, 1), (2, 2), (3, 3)])).tolist() == [True, True, False]
    assert "no space" in caplog.text


def test_an_empty_index_holds_nothing() -> None:
    index = DedupIndex()

    assert index.holds(1, array_of([])).tolist() == []
    assert index.holds(1, array_of([(1, 1)])).tolist() == [False]


def test_after_clear_nothing_is_known() -> None:
    index = DedupIndex()
    index.add(1, array_of([(1, 1)]))

    index.clear()

    assert (len(index), index.holds(1, array_of([(1, 1)])).tolist()) == (0, [False])


@given(st.lists(st.binary(min_size=16, max_size=16)))
def test_digests_keep_all_of_their_bytes(digests: list[bytes]) -> None:
    assert [row.tobytes() for row in to_ids(digests)] == digests


@given(st.lists(st.tuples(ids, days), max_size=40), st.integers(0, 9))
@example([((1, 1), 5), ((1, 1), 15), ((1, 1), 6), ((1, 1), 14)], 7)
def test_resends_within_a_batch_are_those_of_a_plain_loop(batch: list[tuple[Id, int]], window_days: int) -> None:
    again = resends_within(
        array_of([one for one, _ in batch]), np.array([day for _, day in batch], dtype=np.int64), window_days
    )

    assert sorted(again.tolist()) == plain_resends(batch, window_days)


def plain_resends(batch: list[tuple[Id, int]], window_days: int) -> list[int]:
    """One after the other, as if each were a batch of its own."""
    taken = list[tuple[Id, int]]()
    again = []
    for at, (one, day) in enumerate(batch):
        if any(one == other and abs(day - taken_on) <= window_days for other, taken_on in taken):
            again.append(at)
        else:
            taken.append((one, day))
    return again
