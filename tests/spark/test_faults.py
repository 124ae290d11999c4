"""What both engines promise when S3, Glue, a rival or kill -9 comes between: each event once, and books that say so."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from py4j.protocol import Py4JJavaError

from manymetrics.tables import DEAD_LETTERS
from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.lake import CommitContentionError, Lake
from tests.aws_path import processor_environ
from tests.faulty_aws import Calls, Fault, FaultyAws
from tests.integration.micro_batches import STREAM, books, counts, message_ids, rows
from tests.spark.conftest import Tables
from tests.spark.doomed_processor import Doomed, batch_of
from tests.strict_moto import Aws

OUT_OF_REACH = (OSError, Py4JJavaError, CommitContentionError)  # what a batch fails with that is to come again


def check_exact(tables: Tables, batches: int) -> None:
    """The tables and the books after so many batches."""
    assert message_ids(tables.sound) == ["again", *sorted(f"m{n}" for n in range(batches))]
    assert [row["_sequence"] for row in rows(tables.sound, DEAD_LETTERS)] == [str(n) for n in range(batches)]
    assert counts(books(tables.sound)) == {
        "received": 3 * batches,
        "stored": 1 + batches,
        "duplicate": batches - 1,
        "dead_lettered:unknown_type": batches,
    }


@pytest.mark.parametrize("fault", ["lost", "error after", "unavailable", "throttled"])
@pytest.mark.parametrize("times", [1, 99])
def test_whatever_becomes_of_glues_answer_the_table_is_readable_and_exact(
    tables: Tables, glue: Calls, fault: Fault, times: int
) -> None:
    lake = tables.make_lake()
    pipeline.run(batch_of(0), STREAM, lake, Window())

    if fault == "throttled" and tables.engine == "spark":
        times = min(times, 9)  # Java's SDK waits long
    batches = 4 if times == 1 else 2
    for number in range(1, batches):
        glue.faults = [fault] * times
        _deliver(number, lake, glue)

    check_exact(tables, batches)


@pytest.mark.parametrize("fault", ["reset", "lost"])
@pytest.mark.parametrize("outage", [True, False])
def test_a_reset_in_any_put_of_a_commit_costs_nothing(
    tables: Tables, faulty: FaultyAws, fault: Fault, *, outage: bool
) -> None:
    lake, puts = tables.make_lake(), faulty["PUT"]
    pipeline.run(batch_of(0), STREAM, lake, Window())
    puts.reset()
    pipeline.run(batch_of(1), STREAM, lake, Window())
    a_commit = puts.count
    assert a_commit == 8  # a data file, a manifest, their list and the metadata, for each table

    numbers = range(a_commit) if tables.engine == "arrow" or not outage else (4, 7)  # Java's SDK waits long
    for delivered, number in enumerate(numbers, 2):
        puts.faults, puts.every = [*[None] * number, fault], fault if outage else None
        _deliver(delivered, lake, puts)

    check_exact(tables, 2 + len(numbers))


def _deliver(number: int, lake: Lake, calls: Calls) -> None:
    try:
        pipeline.run(batch_of(number), STREAM, lake, Window())
    except OUT_OF_REACH:  # the outage lasts longer than a commit: the batch comes again
        calls.reset()
        pipeline.run(batch_of(number), STREAM, lake, Window())
    calls.reset()


EACH_STEP = [
    *(("PUT", number, "before") for number in range(1, 9)),
    *(("UpdateTable", number, moment) for number in (1, 2) for moment in ("before", "after")),  # of letters, of events
]
SOME_STEPS = [("PUT", 5, "before"), ("PUT", 8, "before"), ("UpdateTable", 2, "before"), ("UpdateTable", 2, "after")]


@pytest.mark.parametrize(
    ("tables", "step"),
    [
        *(pytest.param("arrow", step) for step in EACH_STEP),
        *(pytest.param("spark", step, marks=pytest.mark.jvm) for step in SOME_STEPS),  # each starts a JVM
    ],
    indirect=["tables"],
)
def test_a_processor_that_is_killed_at_any_step_of_a_commit_loses_and_doubles_nothing(
    tables: Tables, faulty: FaultyAws, step: tuple[str, int, str], tmp_path: Path
) -> None:
    name, at, moment = step
    pipeline.run(batch_of(0), STREAM, tables.sound, Window())
    environ = processor_environ(Aws(faulty.url), tables.engine)
    doomed = Doomed(1, {**environ, "TMPDIR": str(tmp_path)})

    def kill(number: int) -> None:
        if number == at:
            doomed.kill()

    faulty.reset()
    faulty[name].faults = [*[None] * (at - 1), "reset" if moment == "before" else "lost"]
    setattr(faulty[name], moment, kill)
    assert doomed.wait() == -signal.SIGKILL
    faulty.reset()
    lake = tables.make_lake()
    for number in (1, 2):
        pipeline.run(batch_of(number), STREAM, lake, Window())

    check_exact(tables, 3)


def test_a_batch_that_two_processors_get_at_once_is_committed_by_one_of_them(tables: Tables, glue: Calls) -> None:
    pipeline.run(batch_of(0), STREAM, tables.make_lake(), Window())
    both = threading.Barrier(2, timeout=60)
    glue.reset()

    def wait_for_the_other(number: int) -> None:
        if number <= 4:  # both come with letters, and both with events
            both.wait()

    glue.before = wait_for_the_other
    at_once(*[lambda: pipeline.run(batch_of(1), STREAM, tables.make_lake(), Window()) for _ in range(2)])

    assert glue.count == 4
    check_exact(tables, 2)


def test_a_batch_that_comes_again_in_other_slices_to_two_processors_is_committed_once(tables: Tables) -> None:
    records = [one for number in range(12) for one in batch_of(number)]

    def deliver(seed: int) -> None:
        """From wherever it has come to, or from before: as a shard's reader does that was interrupted."""
        chance, lake, window, done = random.Random(seed), tables.make_lake(), Window(), 0
        while done < len(records):
            start, end = max(0, done - chance.randrange(4)), done + chance.randint(1, 4)
            until_committed(records[start:end], lake, window)
            done = end

    at_once(lambda: deliver(1), lambda: deliver(2))

    check_exact(tables, 12)


def until_committed(some: Sequence[StreamRecord], lake: Lake, window: Window) -> None:
    while True:
        try:
            pipeline.run(some, STREAM, lake, window)
        except CommitContentionError:
            continue
        return


def at_once(*acts: Callable[[], object]) -> None:
    """Raises what one of them raised."""
    errors = list[BaseException]()

    def guarded(act: Callable[[], object]) -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001  # raised below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error
