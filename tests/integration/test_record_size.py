"""Events and what rides on them, each at its limit: what the API answers 200 is in a record that Kinesis takes."""

from __future__ import annotations

import base64
import gzip
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from zstandard import frame_content_size

from manymetrics.events import MAX_MENDED_BYTES
from manymetrics.limits import MAX_EVENT_BYTES, MAX_SENT_AT_BYTES, MAX_SHARED_BYTES
from manymetrics.records import PLAIN
from manymetrics_processor.decode.batch import StreamRecord, decode
from tests.in_process import App, ask, aws_app, basic
from tests.kinesis_stub import KinesisStub, kinesis_stub
from tests.refusals import refusal_of

_RANDOM = random.Random(1)
_PRINTABLE = bytes(
    (b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.,:;!#$%&()*+/<=>?@[]^`{|}~ '" * 3)[:256]
)
# By name: text inside a JSON string, of so many bytes or a few less, that may weigh more or less in a record.
TEXTS: dict[str, Callable[[int], bytes]] = {
    "zstd makes little of it smaller": lambda size: _RANDOM.randbytes(size).translate(_PRINTABLE),
    "zstd makes nothing remain of it": lambda size: b"x" * size,
    "escapes": lambda size: b"\\u0001" * (size // 6),
    "three bytes a letter": lambda size: "\u20ac".encode() * (size // 3),
    "faults to mend": lambda size: b"\\ud800" * (size // 6),
}
SHARED = ["context", "integrations", "anonymousId"]
SIZES = {
    "one at the limit": [MAX_EVENT_BYTES],
    "one over it": [MAX_EVENT_BYTES + 1],
    "some at the limit": [MAX_EVENT_BYTES, 300, MAX_EVENT_BYTES, 300, MAX_EVENT_BYTES],
    "many": [30_000] * 45,
}
HEADERS = basic("wk_shop:") | {
    "content-type": "application/json",
    "user-agent": "\u00e9" * 1_024,  # each takes two bytes in a record
}


@pytest.fixture(scope="module")
def stub() -> Iterator[KinesisStub]:
    with kinesis_stub() as one:
        yield one


@pytest.fixture(scope="module")
def api(stub: KinesisStub) -> Iterator[App]:
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        environ.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
        yield aws_app(
            {
                "AWS_REGION": "eu-west-1",
                "AWS_ENDPOINT_URL_KINESIS": stub.url,
                "MANYMETRICS_STREAM": "events",
                "MANYMETRICS_WRITE_KEYS": "wk_shop:shop",
            }
        )


def _event(number: int, size: int, text: Callable[[int], bytes]) -> bytes:
    """Of exactly this size."""
    head = b'{"type":"track","event":"E","userId":"u","messageId":"m%d","properties":{"p":"' % number
    middle = head + text(size - len(head) - 3)
    return middle + b"x" * (size - len(middle) - 3) + b'"}}'


def _shared(name: str, size: int, text: Callable[[int], bytes]) -> bytes:
    """Of exactly this size or a few bytes less."""
    if name == "anonymousId":
        return b'"' + text(size - 2) + b'"'
    return b'{"a":"' + text(size - 8) + b'"}'


def _most(text: str) -> int:
    return MAX_MENDED_BYTES // len(SHARED) if text == "faults to mend" else MAX_SHARED_BYTES


def _body(sizes: list[int], shared: list[str], text: str) -> bytes:
    fields = [b'"%s":%s' % (name.encode(), _shared(name, _most(text), TEXTS[text])) for name in shared]
    fields.append(b'"sentAt":"%s"' % (b"2" * (MAX_SENT_AT_BYTES - 2)))
    batch = b",".join(_event(number, size, TEXTS[text]) for number, size in enumerate(sizes))
    return b'{%s,"batch":[%s]}' % (b",".join(fields), batch)


def _refused(calls: list[tuple[dict[str, str], bytes, dict[str, Any]]]) -> list[Any]:
    """What Kinesis would have to say about the requests."""
    return [
        refusal_of(
            "kinesis",
            "PutRecords",
            call | {"Records": [{**one, "Data": base64.b64decode(one["Data"])} for one in call["Records"]]},
        )
        for _, _, call in calls
    ]


def _plain_bytes(record: bytes) -> int:
    """What it took if nothing in it could be compressed."""
    return len(record) if record[0] == PLAIN else 9 + frame_content_size(record[9:])


def _ended(landed: list[bytes]) -> tuple[int, int]:
    """As the processor takes them apart: rows of events, and dead letters."""
    batch = decode([StreamRecord("shard", number, one, 0) for number, one in enumerate(landed)], "stream")
    return len(batch.events.record), len(batch.letters.record)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "shared", [[], *([one] for one in SHARED), SHARED], ids=lambda names: "+".join(names) or "none"
)
@pytest.mark.parametrize("sizes", SIZES)
def test_what_is_answered_200_is_in_records_that_kinesis_takes_and_ends_as_a_row_or_a_letter(
    api: App, stub: KinesisStub, text: str, shared: list[str], sizes: str
) -> None:
    stub.landed.clear()
    stub.calls.clear()
    body = _body(SIZES[sizes], shared, text)
    gzipped = {"content-encoding": "gzip"} if len(shared) == 1 else {}

    reply = ask(api, "POST", "/v1/batch", HEADERS | gzipped, gzip.compress(body, 1) if gzipped else body)

    assert (reply.status, reply.body) == (200, b'{"success": true}')
    assert _refused(stub.calls) == [None] * len(stub.calls)
    assert max(map(_plain_bytes, stub.landed)) < 1_000_000
    assert _ended(stub.landed) == _expected(SIZES[sizes], shared, text)


def _expected(sizes: list[int], shared: list[str], text: str) -> tuple[int, int]:
    """A row gets its batch's context, which counts as its event's own; no row takes an id so long."""
    beside = len(_shared("context", _most(text), TEXTS[text])) if "context" in shared else 0
    stored = 0 if "anonymousId" in shared else sum(size + beside <= MAX_EVENT_BYTES for size in sizes)
    return stored, len(sizes) - stored
