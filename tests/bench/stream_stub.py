"""A stream that takes all and keeps nothing: PutRecord and PutRecords over HTTP, in a process of its own.

``python -m tests.bench.stream_stub DESCRIPTOR`` listens on a socket that it is given.
"""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_LANDED = {"SequenceNumber": "49590338271490256608559692538361571095921575989136588898", "ShardId": "shardId-0"}


@contextmanager
def stream_stub() -> Iterator[str]:
    """Its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        descriptor = listening.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.stream_stub", str(descriptor)], pass_fds=[descriptor]
        )
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            process.terminate()
            process.wait(timeout=10)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            many = {"FailedRecordCount": 0, "Records": [_LANDED] * body.count(b'"Data"')}
            answer = json.dumps(many if b"putrecords" in head else _LANDED).encode()
            about = b"content-type: application/x-amz-json-1.1\r\ncontent-length: %d" % len(answer)
            writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (about, answer))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _main(descriptor: int) -> None:
    server = await asyncio.start_server(_serve, sock=socket.socket(fileno=descriptor), limit=10_000_000)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
