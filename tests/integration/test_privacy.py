"""No full address and no user agent is left anywhere where the settings or a write key say so."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from manymetrics.records import Stamp, pack, unpack
from manymetrics.tables import DEAD_LETTERS
from manymetrics_api.keys import KeyTable, WriteKey
from manymetrics_api.sinks import SinkResult
from manymetrics_api.sinks.local_stream import SHARD, LocalSource, LocalStream
from manymetrics_processor.decode.batch import StreamRecord
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.enrich import privacy
from manymetrics_processor.enrich.privacy import Privacy
from manymetrics_processor.ingest import pipeline
from manymetrics_processor.ingest.raw_archive import encode
from manymetrics_processor.operations.replay_dead_letters import replay
from tests.in_process import Api, basic
from tests.integration.micro_batches import NOW, make_lake, rows
from tests.live_server import LiveServer, eventually

SENDER, NAMED, AGENT = "203.0.113.77", "198.51.100.99", "Mozilla/5.0 (X11; Linux) SecretBrowser/7.0"
SECRETS = (SENDER, NAMED, "SecretBrowser")
EVENTS = [
    {"type": "track", "event": "A", "userId": "u", "messageId": "good"},
    {"type": "track", "event": "A", "userId": "u", "messageId": "said", "context": {"ip": NAMED, "userAgent": AGENT}},
    {"type": "foo", "messageId": "bad", "context": {"ip": NAMED, "userAgent": AGENT}},
    {"type": "track", "userId": "u", "messageId": "unnamed", "properties": {"ip": SENDER}},
    {
        "type": "page",
        "name": SENDER,
        "userId": SENDER,
        "anonymousId": f"a-{SENDER}",
        "messageId": "texts",
        "sentAt": SENDER,
        "traits": {"x": AGENT},
        "properties": {"url": f"https://shop.example/?ip={SENDER}", "referrer": f"http://{SENDER}:80/", "title": AGENT},
        "context": {"device": {"id": SENDER}, "os": {"name": SENDER}, "campaign": {"source": SENDER}, "x": SENDER},
        "extra": SENDER,
    },
]


def files_with(folder: Path, *secrets: str) -> dict[str, list[str]]:
    """Which files hold which of the texts, in their bytes or in those of their Parquet columns."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if held := [secret for secret in secrets if secret.encode() in data]:
                found[str(path.relative_to(folder))] = held
    return found


def keep(home: Path, kind: str, **rules: Any) -> None:  # noqa: ANN401  # what a stamp takes
    """Store the events through the real stream, and commit them."""

    async def put() -> None:
        stream = LocalStream(home / "stream.db")
        stamp = Stamp(NOW, "r", "shop", kind, ip=SENDER, user_agent=AGENT, **rules)
        records = pack(stamp, [json.dumps(event).encode() for event in EVENTS])
        assert await stream.put(records) == [SinkResult.STORED]
        await stream.close()

    asyncio.run(put())
    with closing(LocalSource(home / "stream.db", overwrites=True)) as source:
        name = source.name()
        records = [StreamRecord(SHARD, one.sequence, one.data, one.arrived_at) for one in source.read(-1, 100, 10**9)]
        committed = pipeline.run(records, name, make_lake(home), Window(7))
        source.put_outcomes(
            (at.sequence, marks) for at, marks in zip(records, committed.outcomes, strict=True) if marks
        )
        assert source.drop_committed(records[-1].sequence, keep_s=-1) == 1
    (home / "archive.parquet").write_bytes(encode([(name, records)]))


@pytest.mark.parametrize("kind", ["browser", "server"])
@pytest.mark.parametrize("ip", ["keep", "truncate", "drop"])
def test_no_file_holds_an_address_that_is_not_kept(tmp_path: Path, ip: str, kind: str) -> None:
    keep(tmp_path, kind, ip_rule=ip, user_agent_rule="keep" if ip == "keep" else "drop")

    found = {row["message_id"]: row for row in rows(make_lake(tmp_path))}
    expected = {"keep": SENDER, "truncate": "203.0.113.0", "drop": None}[ip]
    assert found["good"]["context_ip"] == expected
    said = {"keep": NAMED, "truncate": "198.51.100.0", "drop": None}[ip]
    assert found["said"]["context_ip"] == (said if kind == "server" else expected)
    assert (found["said"]["context_user_agent"] == AGENT) == (ip == "keep")
    letters = rows(make_lake(tmp_path), DEAD_LETTERS)
    assert len(letters) == 2
    left = json.dumps([letters, list(found.values())], default=str)
    assert [secret in left for secret in SECRETS] == [ip == "keep"] * 3
    assert bool(files_with(tmp_path, *SECRETS)) == (ip == "keep")


def test_a_dead_letter_is_replayed_by_the_rule_of_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("manymetrics_processor.decode.batch.make_row", lambda *_: 1 // 0)
        keep(tmp_path, "server")
    assert SENDER in json.dumps(rows(make_lake(tmp_path), DEAD_LETTERS), default=str)
    monkeypatch.setattr(privacy, "own_privacy", lambda: Privacy("truncate", "drop"))

    report = replay(make_lake(tmp_path), Window(7))

    assert report.stored == 3
    found = {row["message_id"]: row for row in rows(make_lake(tmp_path))}
    assert (found["good"]["context_ip"], found["said"]["context_ip"]) == ("203.0.113.0", "198.51.100.0")
    assert found["good"]["context_user_agent"] is found["said"]["context_user_agent"] is None


def test_the_rule_of_a_write_key_goes_with_its_events() -> None:
    keys = [WriteKey(key="wk_a", project="a", ip="truncate", user_agent="drop"), WriteKey(key="wk_b", project="b")]
    api = Api(KeyTable(keys), hot=True)
    for key in ("wk_a", "wk_b"):
        api.ask("POST", "/v1/track", basic(f"{key}:"), b'{"userId":"u","event":"A"}')

    stamps = [unpack(record).stamp for record in api.sink.records]

    assert [(stamp.ip_rule, stamp.user_agent_rule) for stamp in stamps] == [("truncate", "drop"), ("", "")]


def test_a_server_that_drops_addresses_has_them_in_no_file_but_its_stream(tmp_path: Path) -> None:
    server = LiveServer(tmp_path / "home", trusted_proxies="1", ip="drop", user_agent="drop", write_keys="wk_shop:shop")
    server.start()
    try:
        for event in EVENTS:
            sent = server.post("/v1/track", json.dumps(event).encode(), x_forwarded_for=SENDER, user_agent=AGENT)
            assert sent.status_code == 200
        eventually(lambda: len(rows(make_lake(server.data_dir))) == 3 or None, within_s=30)
        eventually(lambda: len(rows(make_lake(server.data_dir), DEAD_LETTERS)) == 2 or None, within_s=30)
    finally:
        server.stop()

    assert not {name for name in files_with(tmp_path, *SECRETS) if "stream.db" not in name}
    assert {row["context_ip"] for row in rows(make_lake(server.data_dir))} == {None}
