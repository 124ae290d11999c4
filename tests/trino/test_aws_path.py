"""The whole way on AWS, with either engine: what was acknowledged is there once, as Athena's engine sees it."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import httpx
import pytest

from manymetrics.tables import EVENTS
from manymetrics_processor.ingest.factory import stream_name
from manymetrics_processor.lake.lake import Lake, current_books
from tests.aws_path import Runner, api_on_lambda, make_stream
from tests.live_server import eventually
from tests.trino_server import Trino

pytestmark = pytest.mark.jvm
REQUESTS, A_REQUEST = 60, 20


@pytest.mark.parametrize("engine", ["arrow", "spark"])
def test_each_acknowledged_event_is_there_once_through_kill_9(
    trino: Trino, lake: Lake, tmp_path: Path, engine: str
) -> None:
    chance = random.Random(4)
    arn = make_stream(trino.aws)
    runner = Runner(trino.aws, engine)
    runner.start()
    sent = list[str | None]()
    try:
        with (
            api_on_lambda(trino.aws, tmp_path, MANYMETRICS_WRITE_KEYS="wk_shop:shop") as url,
            httpx.Client(base_url=url, auth=("wk_shop", ""), timeout=30) as client,
        ):
            for number in range(REQUESTS):
                ids = [f"m{chance.randrange(900)}" if chance.random() < 0.9 else None for _ in range(A_REQUEST)]
                answer = client.post("/v1/batch", content=json.dumps({"batch": [_event(one) for one in ids]}))
                assert answer.status_code == 200
                sent += ids
                if number in {15, 40}:
                    runner.kill()
                    runner.start()
        stream = stream_name(trino.aws.client("kinesis"), arn)
        eventually(lambda: current_books(lake.load(EVENTS), stream).received == len(sent) or None, within_s=120)
        assert runner.stop() == 0
    finally:
        runner.kill()
        trino.aws.client("kinesis").delete_stream(StreamName="events")

    good, bad = {one for one in sent if one}, sent.count(None)
    rows = trino.ask("select message_id from events")
    [letters] = trino.ask("select count(*) n, count(distinct dead_letter_id) ids from dead_letters")
    books = current_books(lake.load(EVENTS), stream)
    assert Counter(row["message_id"] for row in rows) == dict.fromkeys(good, 1)
    assert (letters["n"], letters["ids"]) == (bad, bad)
    assert (books.stored, books.duplicate, sum(books.dead_lettered.values())) == (
        len(good),
        len(sent) - bad - len(good),
        bad,
    )


def _event(message_id: str | None) -> dict[str, str]:
    """Without an id: one of a type that there isn't."""
    if message_id is None:
        return {"type": "nonsense", "userId": "u"}
    return {"type": "track", "event": "E", "userId": "u", "messageId": message_id}
