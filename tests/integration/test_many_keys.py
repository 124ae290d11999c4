"""A client can't slow others down by what it names: 20,000 new keys in one event, and the events after it."""

import json
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

from manymetrics.tables import EVENTS
from manymetrics_api.keys import KeyTable
from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.lake.lake import Lake, local_catalog
from tests.in_process import NOW, SHOP, Api


class Line:
    """The way of a batch from its bytes to its rows, in this process; batches get numbers as they come."""

    def __init__(self, data_dir: Path) -> None:
        self._api = Api(KeyTable([SHOP]))
        self._catalog = local_catalog(data_dir)
        self._lake, self._window, self._sequences = Lake(self._catalog), Window(), count(1)
        self._lake.ensure_tables()

    def cpu_of(self, events: list[dict[str, object]]) -> float:
        """Seconds of CPU from the request to the commit."""
        body = json.dumps({"batch": events}).encode()
        began = time.process_time()
        assert self._api.post("/v1/batch", body).status == 200
        records = [StreamRecord("shard", next(self._sequences), data, NOW) for data in self._api.sink.records]
        pipeline.run(records, "stream", self._lake, self._window)
        took = time.process_time() - began
        self._api.sink.records.clear()
        return took

    def columns(self) -> list[str]:
        """Of the table as it stands."""
        return [field.name for field in self._catalog.load_table("manymetrics.events").schema().fields]


def _batches() -> Iterator[list[dict[str, object]]]:
    for batch in count():
        yield [
            {"type": "track", "userId": f"u{n}", "event": "A", "messageId": f"{batch}-{n}", "properties": {"price": n}}
            for n in range(2_000)
        ]


def test_20_000_new_keys_add_no_column_and_leave_the_next_batches_as_quick_as_they_were(tmp_path: Path) -> None:
    explosion: dict[str, object] = {"userId": "u", "type": "track", "event": "A"}
    explosion["properties"] = {f"key {number}": number for number in range(20_000)}
    exploded, calm = Line(tmp_path / "exploded"), Line(tmp_path / "calm")
    exploded.cpu_of([explosion])
    calm.cpu_of([{"userId": "u", "type": "track", "event": "A"}])

    # Side by side and by turns, and the least of each: the machine is never quiet, and a slowdown would be in all.
    costs, slower = list[tuple[float, float]](), float("inf")
    for batch in islice(_batches(), 60):
        costs.append((exploded.cpu_of(batch), calm.cpu_of(batch)))
        slower = min(cost for cost, _ in costs) / min(cost for _, cost in costs)
        if len(costs) >= 12 and slower < 1.15:
            break

    assert slower < 1.15
    assert exploded.columns() == list(EVENTS.column_names)
