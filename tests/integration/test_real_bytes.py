"""How many bytes real events take, of those that were received: a bill rests on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from uuid import UUID

import pytest

from manymetrics.records import compress
from manymetrics.tables import EVENTS
from manymetrics_cli.cost.measured import RECORD_SIZES, read_measured
from manymetrics_processor.decode.batch import StreamRecord, decode
from manymetrics_processor.lake.arrow_engine import ArrowEngine
from manymetrics_processor.lake.lake import live_files
from manymetrics_processor.lake.maintenance import merge_small_files
from tests.integration.micro_batches import NOW, STREAM, make_lake, packed
from tests.real_data import PROJECTS, read_events

A_COMMIT = 1_000
MEASURED = read_measured()


def records(events: Sequence[bytes], size: int) -> Iterator[bytes]:
    """As the API packs requests of so many events: each from somewhere else, with an id of its own."""
    of_requests = Random(20)
    for start in range(0, len(events), size):
        yield packed(
            list(events[start : start + size]),
            received_at=NOW + start * 5_000 + of_requests.randrange(90_000),
            request_id=str(UUID(int=of_requests.getrandbits(128))),
            ip=str(of_requests.randrange(1, 224)) + "." + ".".join(str(of_requests.randrange(256)) for _ in range(3)),
        )


@pytest.mark.parametrize("size", RECORD_SIZES)
def test_the_stream_takes_as_much_of_real_events_as_a_bill_says(shared_data: Path, size: int) -> None:
    read = [read_events(shared_data, name) for name in PROJECTS]

    taken = sum(len(compress(data)) for events in read for data in records(events, size))

    received = sum(len(event) for events in read for event in events)
    assert taken / received == pytest.approx(MEASURED.stream_ratio[size], rel=0.02)


def test_the_table_takes_as_much_of_real_events_as_a_bill_says_once_they_are_merged(
    shared_data: Path, tmp_path: Path
) -> None:
    engine, received, taken = ArrowEngine(), 0, 0
    for name in PROJECTS:
        lake, events = make_lake(tmp_path / name), read_events(shared_data, name)
        for start in range(0, len(events), A_COMMIT):
            some = records(events[start : start + A_COMMIT], 20)
            batch = decode([StreamRecord("0", number, data, NOW) for number, data in enumerate(some)], STREAM)
            iceberg = lake.load(EVENTS)
            engine.append(EVENTS, iceberg, engine.stage(EVENTS, iceberg, batch.events), {}, {})

        merge_small_files(lake, EVENTS)

        received += sum(map(len, events))
        taken += sum(file.file_size_in_bytes for file in live_files(lake.load(EVENTS)))
    assert taken / received == pytest.approx(MEASURED.table_ratio, rel=0.02)
