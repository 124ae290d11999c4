"""The whole way on AWS, here: HTTP -> the API's function -> Kinesis -> the runner -> Glue and S3.

The gateway turns HTTP into payload 2.0 and hands it to the real awslambdaric; the runner and the query are the
product's own commands.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from manymetrics.records import count_events
from tests.conftest import ROOT
from tests.gateway_payloads import http_api
from tests.glue_lake import BUCKET
from tests.jvm_home import spark_environ
from tests.live_server import MANYMETRICS
from tests.local_http import serving, url_of
from tests.runtime_api import RuntimeApi
from tests.strict_moto import Aws

STREAM = "events"
WAREHOUSE = f"s3://{BUCKET}/warehouse"
MOST_BYTES = 6_000_000  # a gateway takes less; Lambda itself no more


@contextmanager
def api_on_lambda(aws: Aws, folder: Path, **settings: str) -> Iterator[str]:
    """The URL of a gateway before the API's function, which runs from the source at hand."""
    path = os.pathsep.join(
        [str(ROOT / "contract"), str(ROOT / "api"), *(entry for entry in sys.path if entry.endswith("site-packages"))]
    )
    environ = {**aws.environ, "MANYMETRICS_STREAM": STREAM, "PYTHONPATH": path, **settings}
    with (
        RuntimeApi("manymetrics_api.lambda_handler.handler", environ, cwd=folder) as function,
        serving(_gateway(function)) as server,
    ):
        yield url_of(server)


def _gateway(function: RuntimeApi) -> type[BaseHTTPRequestHandler]:
    one_at_a_time = threading.Lock()

    class Gateway(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if length > MOST_BYTES:
                self.close_connection = True
                self._send(413, b"", {})
                return
            body = self.rfile.read(length)
            if len(body) < length:  # the client went away: a gateway hands on whole requests alone
                self.close_connection = True
                return
            payload = http_api(self.command, self.path, dict(self.headers.items()), body)
            with one_at_a_time:
                done = function.invoke(payload)
            if done.error is not None:
                self._send(502, b"", {})
                return
            answer = done.response
            text = answer.get("body") or ""
            self._send(
                answer["statusCode"],
                base64.b64decode(text) if answer.get("isBase64Encoded") else text.encode(),
                answer.get("headers") or {},
            )

        do_GET = do_POST = do_OPTIONS = do_PUT = do_HEAD = _answer  # noqa: N815  # named by http.server

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() != "content-length":
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            return

    return Gateway


def processor_environ(aws: Aws, engine: str, stream: str = STREAM) -> dict[str, str]:
    """The environment of a process of the processor."""
    environ = {
        "PATH": "/usr/bin:/bin",
        **aws.environ,
        "MANYMETRICS_STREAM": stream,
        "MANYMETRICS_WAREHOUSE": WAREHOUSE,
        "MANYMETRICS_ENGINE": engine,
    }
    if engine == "spark":
        environ |= spark_environ()
    return environ


class Runner:
    """``manymetrics stream run`` in a process of its own, which can be killed and started again."""

    def __init__(self, aws: Aws, engine: str, *options: str, stream: str = STREAM) -> None:
        self._environ = processor_environ(aws, engine, stream)
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(MANYMETRICS), "stream", "run", "--window-s", "0.5", *self._options]
        self._process = subprocess.Popen(
            command, env=self._environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self) -> None:
        """With -9; a JVM of its own ends by itself, as its input does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """With SIGTERM. Returns the exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(60)


def query(aws: Aws, sql: str) -> list[dict[str, Any]]:
    """The rows that ``manymetrics query`` prints."""
    done = subprocess.run(
        [MANYMETRICS, "query", sql, "-o", "ndjson"],
        env={"PATH": "/usr/bin:/bin", **aws.environ, "MANYMETRICS_WAREHOUSE": WAREHOUSE},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def make_stream(aws: Aws, shards: int = 2, name: str = STREAM) -> str:
    """Returns the stream's ARN. One of that name is made anew."""
    kinesis = aws.client("kinesis")
    if name in kinesis.list_streams()["StreamNames"]:
        kinesis.delete_stream(StreamName=name)
    kinesis.create_stream(StreamName=name, ShardCount=shards)
    return str(kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"])


def events_in(aws: Aws, arn: str) -> int:
    """How many events a stream holds, in all its shards."""
    kinesis, count = aws.client("kinesis"), 0
    for shard in kinesis.list_shards(StreamARN=arn)["Shards"]:
        start = {"StreamARN": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        iterator = kinesis.get_shard_iterator(**start)["ShardIterator"]
        while iterator:
            page = kinesis.get_records(StreamARN=arn, ShardIterator=iterator)
            if not page["Records"]:
                break
            count += sum(count_events(record["Data"]) for record in page["Records"])
            iterator = page.get("NextShardIterator")
    return count
