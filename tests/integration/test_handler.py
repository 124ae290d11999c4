"""The processor's handler, and the runner that drives it: moto's Kinesis, Glue and S3."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from pyiceberg.exceptions import CommitStateUnknownException

from manymetrics.books import parse_books, property_name
from manymetrics.settings import Settings, SettingsError
from manymetrics.tables import DEAD_LETTERS, EVENTS, NAMESPACE
from manymetrics_processor.decode import arrow as columns
from manymetrics_processor.decode import batch as decode_module
from manymetrics_processor.ingest import factory, pipeline
from manymetrics_processor.ingest import lambda_records as delivery
from manymetrics_processor.ingest import processor as processor_module
from manymetrics_processor.ingest.factory import make_catalog, make_event_source, make_processor
from manymetrics_processor.ingest.kinesis_poller import EventSource, Options
from manymetrics_processor.ingest.processor import Processor
from manymetrics_processor.lake.lake import Lake, current_books
from manymetrics_processor.lake.object_storage import delete_files, list_files, write_bytes
from manymetrics_processor.operations.replay_objects import SOURCE
from tests.integration.micro_batches import counts, kinesis_event, message_ids, packed, rows, track
from tests.live_server import MANYMETRICS, eventually
from tests.strict_moto import Aws

STREAM = "events"
QUICK = Options(window_s=0.1)


class World:
    """A stream, the tables, and what a test does with them."""

    def __init__(self, aws: Aws, warehouse: str, kinesis_url: str | None = None, database: str = NAMESPACE) -> None:
        self.aws, self.kinesis = aws, Aws(kinesis_url or aws.url).client("kinesis")
        self.settings = Settings(warehouse=warehouse, database=database, stream=STREAM, engine="arrow")
        self.environ = {
            "MANYMETRICS_WAREHOUSE": warehouse,
            "MANYMETRICS_DATABASE": database,
            "MANYMETRICS_STREAM": STREAM,
            "MANYMETRICS_ENGINE": "arrow",
            **aws.environ,
        }
        self.make_stream()
        self.lake = Lake(make_catalog(self.settings, self.environ), database=database)

    def make_stream(self, shards: int = 1) -> None:
        if STREAM in self.kinesis.list_streams()["StreamNames"]:
            self.kinesis.delete_stream(StreamName=STREAM)
            self._until("stream_not_exists")
        self.kinesis.create_stream(StreamName=STREAM, ShardCount=shards)
        self.until_active()
        self.arn: str = self.kinesis.describe_stream_summary(StreamName=STREAM)["StreamDescriptionSummary"]["StreamARN"]

    def until_active(self) -> None:
        self._until("stream_exists")

    def _until(self, state: str) -> None:
        self.kinesis.get_waiter(state).wait(StreamName=STREAM, WaiterConfig={"Delay": 0.05, "MaxAttempts": 400})

    def put(self, *records: bytes, key: str = "k") -> None:
        for record in records:
            self.kinesis.put_record(StreamName=STREAM, Data=record, PartitionKey=key)

    def processor(self) -> Processor:
        return make_processor(self.settings, make_catalog(self.settings, self.environ), self.environ)

    def event(self, *records: tuple[int, bytes]) -> dict[str, Any]:
        return kinesis_event(self.arn, *records)

    @property
    def books(self) -> Mapping[str, int]:
        return counts(current_books(self.lake.load(EVENTS), factory.stream_name(self.kinesis, self.arn)))

    @contextmanager
    def running(self, options: Options = QUICK, wrap: Callable[[EventSource], None] | None = None) -> Iterator[None]:
        source = make_event_source(self.environ, options)
        if wrap is not None:
            wrap(source)
        stop = threading.Event()
        thread = threading.Thread(target=source.run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@pytest.fixture
def world(aws_lake: tuple[Aws, str]) -> World:
    return World(*aws_lake)


@pytest.fixture
def either(aws_lake: tuple[Aws, str], kinesis_url: str, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world with a stream of moto's, then of another Kinesis."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis_url)
    return World(*aws_lake, kinesis_url)


class Clock:
    """Lambda's context, with so much time left."""

    def __init__(self, left_s: float) -> None:
        self._left_s = left_s

    def get_remaining_time_in_millis(self) -> int:
        return round(self._left_s * 1_000)


# --- the handler ------------------------------------------------------------------------------------------


def test_a_kinesis_event_becomes_rows_once(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    event = world.event((1, packed([track("a"), track("b"), b"{}"])), (2, packed([track("a")])))

    assert world.processor().handle(event, Clock(60)) == {"batchItemFailures": []}
    assert world.processor().handle(event, Clock(60)) == {"batchItemFailures": []}

    assert message_ids(world.lake) == ["a", "b"]
    assert world.books == {"received": 4, "stored": 2, "duplicate": 1, "dead_lettered:unknown_type": 1}
    assert '"stored": 2, "duplicate": 1, "dead_lettered": 1' in capsys.readouterr().out


def test_one_poison_record_among_many_harms_only_itself(world: World) -> None:
    good = [(n, packed([track(f"m{n}")])) for n in range(1, 10_000)]
    records = [*good[:500], (500_000, b"\xff poison"), *((n + 500_000, data) for n, data in good[500:])]

    assert world.processor().handle(world.event(*records), Clock(60)) == {"batchItemFailures": []}

    assert len(message_ids(world.lake)) == 9_999
    [letter] = rows(world.lake, DEAD_LETTERS)
    assert letter["reason"] == "unreadable_record"


def test_an_event_that_can_not_be_stored_costs_no_other_and_no_second_delivery(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = columns.to_arrow

    def to_arrow(table: Any, of: Any) -> Any:  # noqa: ANN401  # as the real one
        if any("poison" in row for row in of):
            raise ValueError
        return real(table, of)

    monkeypatch.setattr(decode_module, "to_arrow", to_arrow)
    event = world.event((1, packed([track("a"), track("poison")])), (2, packed([track("b")])))

    assert world.processor().handle(event, None) == {"batchItemFailures": []}

    assert message_ids(world.lake) == ["a", "b"]
    assert world.books == {"received": 3, "stored": 2, "dead_lettered:unstorable": 1}


def test_what_fails_for_our_reasons_is_delivered_again_from_the_first_record_that_is_not_committed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "MAX_EVENTS", 2)
    processor, real, calls = world.processor(), pipeline.run, list[int]()

    def out_of_reach(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # as the real one
        calls.append(1)
        if len(calls) == 2:
            raise OSError("S3 is out of reach")
        return real(*arguments, **options)

    monkeypatch.setattr(pipeline, "run", out_of_reach)
    event = world.event(*((n, packed([track(f"m{n}")])) for n in range(1, 6)))

    assert processor.handle(event, Clock(60)) == {"batchItemFailures": [{"itemIdentifier": "3"}]}
    assert message_ids(world.lake) == ["m1", "m2"]
    assert processor.handle({"Records": event["Records"][2:]}, Clock(60)) == {"batchItemFailures": []}
    assert message_ids(world.lake) == [f"m{n}" for n in range(1, 6)]


def test_no_commit_is_begun_without_time_for_it(world: World) -> None:
    event = world.event((7, packed([track("a")])))

    assert world.processor().handle(event, Clock(processor_module.RESERVE_S - 1)) == {
        "batchItemFailures": [{"itemIdentifier": "7"}]
    }
    assert message_ids(world.lake) == []


@pytest.mark.parametrize("lands", [True, False])
def test_an_answer_that_is_lost_costs_neither_a_row_nor_a_table(
    world: World, monkeypatch: pytest.MonkeyPatch, *, lands: bool
) -> None:
    processor, lost = world.processor(), list[str]()
    glue = processor._lake._catalog.glue  # type: ignore[attr-defined]
    real = glue.update_table

    def once_unanswered(**arguments: Any) -> Any:  # noqa: ANN401  # as the real one
        if not lost and "events" in arguments["TableInput"]["Name"]:
            lost.append("answer")
            if lands:
                real(**arguments)
            raise CommitStateUnknownException("no answer")
        return real(**arguments)

    processor.handle({"action": "ensure_tables"}, None)
    monkeypatch.setattr(glue, "update_table", once_unanswered)
    processor.handle(world.event((1, packed([track("a"), track("a")]))), Clock(60))

    assert lost == ["answer"]
    assert message_ids(world.lake) == ["a"]
    assert world.books == {"received": 2, "stored": 1, "duplicate": 1}


def test_actions(world: World) -> None:
    processor = world.processor()

    made = processor.handle({"action": "ensure_tables"}, Clock(60))
    for number in range(9):
        processor.handle(world.event((number, packed([track(f"m{number}")]))), Clock(60))
    kept = processor.handle({"action": "maintain"}, Clock(60))

    assert made == {
        "tables": {name: f"{world.settings.warehouse}/manymetrics/{name}" for name in ("events", "dead_letters")}
    }
    assert [(report["table"], report["files_before"], report["files_after"]) for report in kept["tables"]] == [
        ("events", 9, 1),
        ("dead_letters", 0, 0),
    ]
    with pytest.raises(ValueError, match="ensure_tables"):
        processor.handle({"action": "dance"}, Clock(60))


@pytest.mark.parametrize("named", ["AccessDeniedException", "AWS Error ACCESS_DENIED during HeadObject operation"])
def test_a_role_that_is_new_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    ensure, asked = Lake.ensure_tables, list[None]()

    def denied_twice(lake: Lake) -> None:
        asked.append(None)
        if len(asked) < 3:
            raise ClientError({"Error": {"Code": named}}, "GetTable") if "AWS" not in named else OSError(named)
        ensure(lake)

    monkeypatch.setattr(Lake, "ensure_tables", denied_twice)
    monkeypatch.setattr(processor_module, "NEW_ROLE_RETRY_S", 0.0)

    assert world.processor().handle({"action": "ensure_tables"}, Clock(60))["tables"].keys() == {
        "events",
        "dead_letters",
    }
    assert len(asked) == 3


def test_a_role_that_stays_without_its_rights_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_lake: Lake) -> None:
        raise OSError("AWS Error ACCESS_DENIED")

    monkeypatch.setattr(Lake, "ensure_tables", denied)
    monkeypatch.setattr(processor_module, "NEW_ROLE_S", -1.0)

    with pytest.raises(OSError, match="ACCESS_DENIED"):
        world.processor().handle({"action": "ensure_tables"}, Clock(60))


def test_a_missing_warehouse_is_named(world: World) -> None:
    with pytest.raises(SettingsError, match="MANYMETRICS_WAREHOUSE"):
        make_catalog(Settings(), world.environ)


# --- the runner -------------------------------------------------------------------------------------------


def test_the_runner_commits_what_the_stream_holds_and_what_comes(either: World) -> None:
    either.put(*(packed([track(f"m{n}")]) for n in range(20)))
    with either.running():
        eventually(lambda: len(message_ids(either.lake)) == 20 or None)
        either.put(packed([track("late")]))
        eventually(lambda: len(message_ids(either.lake)) == 21 or None)
    with either.running():  # goes on where the tables are
        either.put(packed([track("later"), track("late")]))
        eventually(lambda: len(message_ids(either.lake)) == 22 or None)

    assert either.books == {"received": 23, "stored": 22, "duplicate": 1}


def test_a_shard_that_is_split_under_load_loses_nothing(either: World) -> None:
    with either.running():
        for number in range(60):
            either.put(packed([track(f"m{number}")]), key=f"k{number}")
            if number == 20:
                either.kinesis.split_shard(
                    StreamName=STREAM, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**127)
                )
        eventually(lambda: len(message_ids(either.lake)) == 60 or None)

    assert message_ids(either.lake) == sorted(f"m{n}" for n in range(60))
    assert either.books == {"received": 60, "stored": 60}
    assert len({row["_shard"] for row in rows(either.lake)}) > 1


def test_shards_that_are_merged_are_read_to_their_end_before_their_child(either: World) -> None:
    either.make_stream(shards=2)
    keys = [f"k{number}" for number in range(40)]
    for number, key in enumerate(keys):
        either.put(packed([track(f"m{number}"), track(f"again-{number % 10}", event="First")]), key=key)
    either.kinesis.merge_shards(
        StreamName=STREAM, ShardToMerge="shardId-000000000000", AdjacentShardToMerge="shardId-000000000001"
    )
    either.until_active()
    for number in range(10):
        either.put(packed([track(f"again-{number}", event="Late")]))

    shards = list[str]()
    with either.running(Options(window_s=0.1, batch_size=5), noting(lambda one: shards.append(one["eventID"][:20]))):
        eventually(lambda: (len(set(shards)) == 3 and either.books["received"] >= 90) or None)

    kept = current_books(either.lake.load(EVENTS), factory.stream_name(either.kinesis, either.arn))
    assert (list(kept.arrived_at), kept.ended) == (
        ["shardId-000000000002"],
        ["shardId-000000000000", "shardId-000000000001"],
    )
    assert abs(kept.arrived_at["shardId-000000000002"] / 1e6 - time.time()) < 60
    assert shards.index("shardId-000000000002") == len(shards) - shards.count("shardId-000000000002")
    assert message_ids(either.lake) == sorted([*(f"m{n}" for n in range(40)), *(f"again-{n}" for n in range(10))])
    assert "Late" not in {row["event"] for row in rows(either.lake)}
    assert either.books["stored"] == 50


def noting(note: Callable[[dict[str, Any]], None]) -> Callable[[EventSource], None]:
    """For ``World.running``: each record is told of as it is delivered."""

    def wrap(source: EventSource) -> None:
        real = source._call

        def call(event: dict[str, Any]) -> Mapping[str, Any]:
            for one in event["Records"]:
                note(one)
            return real(event)

        source._call = call

    return wrap


def test_a_stream_that_is_made_again_is_read_from_its_first_record(either: World) -> None:
    either.put(*(packed([track(f"old-{n}")]) for n in range(5)))
    with either.running():
        eventually(lambda: len(message_ids(either.lake)) == 5 or None)
        either.make_stream()
        either.put(*(packed([track(f"new-{n}")]) for n in range(3)))
        eventually(lambda: len(message_ids(either.lake)) == 8 or None)

    assert either.books == {"received": 3, "stored": 3}


def test_a_runner_that_starts_again_reads_on_after_the_last_sequence_number_that_is_committed(either: World) -> None:
    either.put(*(packed([track(f"m{n}")]) for n in range(10)))
    with either.running():
        eventually(lambda: len(message_ids(either.lake)) == 10 or None)
    either.put(packed([track("next")]))
    delivered = list[str]()
    with either.running(wrap=noting(lambda one: delivered.append(one["kinesis"]["sequenceNumber"]))):
        eventually(lambda: len(message_ids(either.lake)) == 11 or None)

    [row] = [row for row in rows(either.lake) if row["message_id"] == "next"]
    assert delivered == [row["_sequence"]]


# --- what is given up, and the archive --------------------------------------------------------------------


def replay(world: World, location: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [str(MANYMETRICS), "replay", location],
        env={"PATH": "/usr/bin:/bin", **world.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {"said": done.stderr}


def test_an_outage_past_the_record_age_goes_to_s3_and_replay_brings_it_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = threading.Event()
    outage.set()
    real = pipeline.run

    def out_of_reach(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # as the real one
        if outage.is_set():
            raise OSError("Glue is out of reach")
        return real(*arguments, **options)

    monkeypatch.setattr(pipeline, "run", out_of_reach)
    failures = f"{world.settings.warehouse}/failures"
    world.put(packed([track("a"), track("b")]), packed([{"type": "nonsense"}]))
    with world.running(Options(window_s=0.1, max_record_age_s=1)):
        eventually(lambda: list(list_files(world.lake.io, failures)) or None)
        outage.clear()
        world.put(packed([track("c"), track("a")]))
        eventually(lambda: message_ids(world.lake) == ["a", "c"] or None)

    assert replay(world, failures) == (0, {**NOTHING, "objects": 1, "stored": 1, "duplicate": 1, "dead_lettered": 1})
    assert message_ids(world.lake) == ["a", "b", "c"]
    assert replay(world, failures) == (0, {**NOTHING, "objects": 1, "records_passed_over": 2})
    assert message_ids(world.lake) == ["a", "b", "c"]
    assert counts(current_books(world.lake.load(EVENTS), SOURCE)) == {
        "received": 3,
        "stored": 1,
        "duplicate": 1,
        "dead_lettered:unknown_type": 1,
    }
    assert {row["_stream"] for row in rows(world.lake)} == {factory.stream_name(world.kinesis, world.arn)}


def test_a_batch_that_was_given_up_moves_no_time_when_it_is_replayed(world: World) -> None:
    world.processor().handle(world.event((9, packed([track("a")]))), Clock(60))
    before = world.lake.load(EVENTS).properties
    stream = factory.stream_name(world.kinesis, world.arn)
    body = {"KinesisBatchInfo": {"streamArn": world.arn}, "payload": world.event((3, packed([track("b")])))}
    write_bytes(world.lake.io, f"{world.settings.warehouse}/failures/one", json.dumps(body).encode())

    assert replay(world, f"{world.settings.warehouse}/failures")[1]["stored"] == 1

    after = world.lake.load(EVENTS).properties
    assert after[property_name(stream)] == before[property_name(stream)]
    assert parse_books(SOURCE, after).arrived_at == {}


def test_shards_that_can_not_be_listed_cost_no_commit(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def denied(_arn: str) -> dict[str, list[str]]:
        raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "ListShards")

    processor = world.processor()
    processor._list_shards = denied

    assert processor.handle(world.event((1, packed([track("a")]))), Clock(60)) == {"batchItemFailures": []}

    assert message_ids(world.lake) == ["a"]
    assert "can't be listed" in caplog.text


def test_a_process_lists_the_shards_once_and_again_after_a_resharding(world: World) -> None:
    processor, listed = world.processor(), list[str]()
    real = processor._list_shards

    def counted(arn: str) -> Mapping[str, Sequence[str]]:
        listed.append(arn)
        return real(arn)

    processor._list_shards = counted
    for number in range(3):
        processor.handle(world.event((number, packed([track(f"a{number}")]))), Clock(60))
    assert len(listed) == 1
    world.kinesis.split_shard(StreamName=STREAM, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**127))
    child = kinesis_event(world.arn, (7, packed([track("b")])), shard="shardId-000000000001")
    processor.handle(child, Clock(60))

    assert len(listed) == 2
    kept = current_books(world.lake.load(EVENTS), factory.stream_name(world.kinesis, world.arn))
    assert kept.ended == ["shardId-000000000000"]
    assert kept.arrived_at.keys() == {"shardId-000000000001", "shardId-000000000002"}
    assert kept.arrived_at["shardId-000000000002"] == 0


def test_lost_tables_are_made_again_from_the_archive(world: World) -> None:
    world.settings = replace(world.settings, archive=f"{world.settings.warehouse}/archive")
    processor = world.processor()
    for number in range(12):
        event = world.event((number, packed([track(f"m{number}"), track(f"m{number - 1}"), b"{}"])))
        assert processor.handle(event, Clock(60)) == {"batchItemFailures": []}
        assert processor.handle(event, Clock(60)) == {"batchItemFailures": []}
    before, letters, books = message_ids(world.lake), rows(world.lake, DEAD_LETTERS), world.books
    assert replay(world, world.settings.archive) == (0, {**NOTHING, "objects": 12, "records_passed_over": 12})

    delete_files(
        world.lake.io, [one for one, _ in list_files(world.lake.io, f"{world.settings.warehouse}/manymetrics")]
    )
    world.aws.client("glue").delete_database(Name="manymetrics")
    status, report = replay(world, world.settings.archive)

    assert (status, report["stored"], report["dead_lettered"]) == (0, 13, 12)
    assert message_ids(world.lake) == before
    assert [{**one, "detail": None} for one in rows(world.lake, DEAD_LETTERS)] == [
        {**one, "detail": None} for one in letters
    ]
    assert world.books == books


def test_replay_names_what_it_cant_use(world: World) -> None:
    world.lake.ensure_tables()
    write_bytes(world.lake.io, f"{world.settings.warehouse}/odd/one", b"{")

    assert replay(world, f"{world.settings.warehouse}/nothing") == (
        1,
        {"said": f"manymetrics: there is nothing to replay at {world.settings.warehouse}/nothing\n"},
    )
    assert replay(world, f"{world.settings.warehouse}/odd") == (
        1,
        {**NOTHING, "unreadable_objects": [f"{world.settings.warehouse}/odd/one"]},
    )


NOTHING = {
    "objects": 0,
    "stored": 0,
    "duplicate": 0,
    "dead_lettered": 0,
    "records_passed_over": 0,
    "unreadable_objects": list[str](),
}
