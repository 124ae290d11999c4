"""A person goes out of what lies beside the tables too, and what is replayed afterwards is as it was without them."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from manymetrics.records import Stamp, compress, pack, unpack
from manymetrics.tables import DEAD_LETTERS
from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import raw_archive as archive
from manymetrics_processor.ingest.lambda_records import parse_payload
from manymetrics_processor.ingest.pipeline import run
from manymetrics_processor.ingest.raw_archive import Archive
from manymetrics_processor.lake.lake import Lake
from manymetrics_processor.lake.object_storage import list_files, read_bytes, write_bytes
from manymetrics_processor.operations.erase_objects import ObjectsReceipt, erase_from_objects
from manymetrics_processor.operations.erase_tables import Person
from manymetrics_processor.operations.replay_objects import Report, replay_objects
from tests.integration.micro_batches import NOW, STREAM, books, counts, make_lake, message_ids, record, rows, track

JANE = "jane@example.com"
ARN = "arn:aws:kinesis:eu-west-1:1:stream/events"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return make_lake(tmp_path)


@pytest.fixture
def home(tmp_path: Path) -> str:
    return f"file://{tmp_path}/warehouse/objects"  # a local catalog opens files of its folder alone


def put_archive(lake: Lake, home: str, *records: StreamRecord) -> None:
    Archive(home, lake.io).put(STREAM, list(records))


def put_failed(lake: Lake, home: str, *records: StreamRecord) -> None:
    """A batch as Lambda's failure destination keeps it."""
    given = [
        {
            "eventID": f"{one.shard}:{one.sequence}",
            "kinesis": {
                "sequenceNumber": str(one.sequence),
                "approximateArrivalTimestamp": one.arrived_at / 1e6,
                "data": base64.b64encode(one.data).decode(),
            },
        }
        for one in records
    ]
    body = {"KinesisBatchInfo": {"streamArn": ARN}, "payload": msgspec.json.encode({"Records": given}).decode()}
    write_bytes(lake.io, f"{home}/failed.json", msgspec.json.encode(body))


def put_failed_as_object(lake: Lake, home: str, *records: StreamRecord) -> None:
    """The same with its payload as an object, not as text."""
    put_failed(lake, home, *records)
    body = msgspec.json.decode(read_bytes(lake.io, f"{home}/failed.json"))
    body["payload"] = msgspec.json.decode(body["payload"])
    write_bytes(lake.io, f"{home}/failed.json", msgspec.json.encode(body))


def replayed(lake: Lake, home: str) -> Report:
    return replay_objects(lake, Window(), home, lambda arn: arn)


def contents(lake: Lake, home: str) -> bytes:
    """All that the objects hold, unpacked."""
    found = b""
    for location, _ in list_files(lake.io, home):
        if location.endswith(archive.SUFFIX):
            records = [one.data for _, some in archive.read(lake.io, location) for one in some]
        else:
            body = msgspec.json.decode(read_bytes(lake.io, location))
            payload = parse_payload(body)
            records = [base64.b64decode(one["kinesis"]["data"]) for one in payload["Records"]]
        for data in records:
            one = unpack(data)
            found += msgspec.json.encode(one.stamp) + b"".join(one.events)
    return found


BAD = b'{"type":"track","userId":"jane@ex\\u0061mple.com"}'
MIXED = record(1, track("1"), track("2", userId=JANE), BAD, track(None, userId="other"), ip="203.0.113.7")
OWN = record(2, track("3", userId=JANE), ip="198.51.100.9", user_agent="JanesBrowser", context=b'{"ip":"198.51.100.9"}')
ANONYMOUS = record(3, track("4", userId=None, anonymousId="phone"), track("5", userId=None, anonymousId="other phone"))
PAYLOADS = ('{"Records":["a"]}', '{"Records":[{"eventID":1}]}', '{"Records":[{"eventID":"a","kinesis":null}]}', "{}")
PERSON = Person(JANE, linked=frozenset({("shop", "phone")}))


@pytest.mark.parametrize("put", [put_archive, put_failed, put_failed_as_object])
def test_a_person_goes_and_everybody_else_stays_in_place(put: Any, lake: Lake, home: str) -> None:  # noqa: ANN401  # one of the two
    put(lake, home, MIXED, OWN, ANONYMOUS)

    receipt = erase_from_objects(lake.io, home, PERSON)
    report = replayed(lake, home)

    assert receipt == ObjectsReceipt(home, objects=1, objects_rewritten=1, events_erased=4)
    left = contents(lake, home)
    for trace in (b"jane@", b"JanesBrowser", b"198.51.100.9", b'"4"'):
        assert trace not in left
    assert b"203.0.113.7" in left  # it is the request of others, too
    assert (report.stored, report.dead_lettered, report.unreadable_objects) == (3, 4, [])
    letters = [(row["_sequence"], row["_position"], row["reason"], row["raw"]) for row in rows(lake, DEAD_LETTERS)]
    assert letters == [
        ("1", 1, "erased", ""),
        ("1", 2, "erased", ""),
        ("2", 0, "erased", ""),
        ("3", 0, "erased", ""),
    ]
    assert all("203.0.113.7" not in str(row["stamp"]) for row in rows(lake, DEAD_LETTERS))


def test_a_device_that_the_batch_names_goes_with_its_events(lake: Lake, home: str) -> None:
    events = track("1", userId=None), track("2", userId=None, anonymousId="tablet")
    put_archive(lake, home, record(1, *events, anonymous_id=b'"phone"'))

    receipt = erase_from_objects(lake.io, home, Person(anonymous_ids=frozenset({"phone"})))
    replayed(lake, home)

    assert receipt.events_erased == 1
    assert base64.b64encode(b'"phone"') not in contents(lake, home)
    assert [row["anonymous_id"] for row in rows(lake)] == ["tablet"]


def test_a_replay_afterwards_doubles_nobody(lake: Lake, home: str, tmp_path: Path) -> None:
    run([MIXED, OWN, ANONYMOUS], STREAM, lake, Window())
    put_archive(lake, home, MIXED, OWN, ANONYMOUS)
    before = message_ids(lake)

    erase_from_objects(lake.io, home, PERSON)
    report = replayed(lake, home)
    anew = make_lake(tmp_path / "anew")
    copied = tmp_path / "anew" / "warehouse" / "objects"
    shutil.copytree(home.removeprefix("file://"), copied)
    replayed(anew, f"file://{copied}")

    assert report.records_passed_over == 3
    assert message_ids(lake) == before
    assert set(message_ids(anew)) == {row["message_id"] for row in rows(lake) if row["user_id"] != JANE} - {"4"}
    assert counts(books(anew)) == {"received": 7, "stored": 3, "dead_lettered:erased": 4}


def test_erasing_twice_or_trying_changes_no_object(lake: Lake, home: str) -> None:
    put_archive(lake, home, MIXED)
    [(location, _)] = list_files(lake.io, home)
    whole = read_bytes(lake.io, location)

    would = erase_from_objects(lake.io, home, PERSON, dry_run=True)
    assert (would.events_erased, read_bytes(lake.io, location)) == (2, whole)

    erase_from_objects(lake.io, home, PERSON)
    once = read_bytes(lake.io, location)
    assert erase_from_objects(lake.io, home, PERSON) == ObjectsReceipt(home, objects=1)
    assert read_bytes(lake.io, location) == once


def test_a_project_is_erased_from_alone(lake: Lake, home: str) -> None:
    put_archive(lake, home, record(1, track("1", userId=JANE)), record(2, track("2", userId=JANE), project_id="blog"))

    assert erase_from_objects(lake.io, home, Person(JANE, project_id="blog")).events_erased == 1
    assert b'"1"' in contents(lake, home)


def test_a_record_that_is_none_of_ours_goes_whole_where_it_names_them(lake: Lake, home: str) -> None:
    theirs, others = (
        StreamRecord("shard-0", n, b'{"userId":"%s"}' % who, NOW) for n, who in enumerate((JANE.encode(), b"joe"))
    )
    put_archive(lake, home, theirs, others)

    assert erase_from_objects(lake.io, home, Person(JANE)).events_erased == 1
    [(location, _)] = list_files(lake.io, home)
    assert [one.data for _, some in archive.read(lake.io, location) for one in some] == [b"", others.data]


def test_an_object_that_cannot_be_read_is_named(lake: Lake, home: str) -> None:
    write_bytes(lake.io, f"{home}/a{archive.SUFFIX}", b"?")
    for number, body in enumerate(({}, [], {"payload": None}, *({"payload": text} for text in PAYLOADS))):
        write_bytes(lake.io, f"{home}/b{number}.json", msgspec.json.encode(body))
    put_archive(lake, home, MIXED)
    [damaged] = [one for one, _ in list_files(lake.io, home) if "day=" in one]
    data = bytearray(read_bytes(lake.io, damaged))
    data[4:60] = b"\xff" * 56  # its footer is whole
    write_bytes(lake.io, damaged, bytes(data))

    receipt = erase_from_objects(lake.io, home, Person(JANE))

    assert sorted(receipt.unreadable) == sorted(one for one, _ in list_files(lake.io, home))
    assert receipt.objects == 9


@pytest.mark.parametrize("damage", [b"?", b"PAR1" + b"\0" * 200 + b"PAR1"])
def test_a_damaged_object_harms_only_itself_when_it_is_replayed(damage: bytes, lake: Lake, home: str) -> None:
    put_archive(lake, home, record(1, track("1")))
    write_bytes(lake.io, f"{home}/a{archive.SUFFIX}", damage)

    report = replayed(lake, home)

    assert report.unreadable_objects == [f"{home}/a{archive.SUFFIX}"]
    assert message_ids(lake) == ["1"]


def test_an_event_over_the_limit_keeps_its_facts_beside_one_that_goes(lake: Lake, home: str) -> None:
    large = msgspec.json.encode(track("large", properties={"text": "x" * 600_000}))
    [data] = pack(Stamp(NOW, "r", "shop", "server"), [msgspec.json.encode(track("1", userId=JANE)), large])
    put_archive(lake, home, StreamRecord("shard-0", 1, compress(data), NOW))

    erase_from_objects(lake.io, home, Person(JANE))
    replayed(lake, home)

    assert [row["reason"] for row in rows(lake, DEAD_LETTERS)] == ["erased", "too_large"]
