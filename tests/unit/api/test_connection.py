"""HTTP answers, however they are cut and whatever they are."""

import pytest

from manymetrics_api.aws.connection import Answer, parse_answer

PLAIN = b'HTTP/1.1 200 OK\r\nContent-Type: x\r\nContent-Length: 7\r\n\r\n{"a":1}'
CHUNKED = b'HTTP/1.1 400 Bad Request\r\ntransfer-encoding: chunked\r\n\r\n4;x=y\r\n{"a"\r\n3\r\n:1}\r\n0\r\n\r\n'


@pytest.mark.parametrize(
    ("whole", "answer"),
    [
        (PLAIN, Answer(200, b'{"a":1}', keeps=True)),
        (CHUNKED, Answer(400, b'{"a":1}', keeps=True)),
        (PLAIN.replace(b"Content-Type: x", b"Connection: Close"), Answer(200, b'{"a":1}', keeps=False)),
        (PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"), Answer(200, b'{"a":1}', keeps=False)),
    ],
)
def test_an_answer_is_read_once_it_is_whole(whole: bytes, answer: Answer) -> None:
    assert [parse_answer(whole[:cut]) for cut in range(len(whole))] == [None] * len(whole)
    assert parse_answer(whole) == answer


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 ok\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nno\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n",
        b"x" * 10_000_001,
    ],
)
def test_what_is_no_answer_is_told(nonsense: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_answer(nonsense)
