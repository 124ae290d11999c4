"""Make the class archive that lets Spark's JVM start in half the time.

    python -m manymetrics_processor.class_archive --jars FOLDER [--java-home FOLDER] ARCHIVE

A session commits a batch, so that the JVM notes which classes that takes; then the JVM writes those down in the form in
which it maps them. Where a container image is made there is no AWS, so the batch goes to the little S3 and Glue here.
The archive holds for these jars, at these paths, and for this Java; with others the JVM does without it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from unittest import mock

from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.io import FileIO
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.metadata import TableMetadataUtil

from manymetrics.records import Stamp, pack
from manymetrics.tables import EVENTS
from manymetrics_processor.decode.batch import StreamRecord, decode
from manymetrics_processor.lake.lake import Lake, local_catalog
from manymetrics_processor.lake.spark.engine import SparkEngine
from manymetrics_processor.lake.spark.session import (
    SparkSettings,
    java_command,
    java_environ,
    start_session,
    stop_session,
)

_BUCKET, _DATABASE = "warm-up", "warm_up"  # the classes are the same with any
_LOCATION = f"s3://{_BUCKET}/events"
# Where an image is built, the machine's own name need not resolve. Spark looks it up for an address, and again where it
# finds keys in the environment, so these stand elsewhere.
_WITHOUT_A_NAME = {
    "SPARK_LOCAL_IP": "127.0.0.1",
    "JAVA_TOOL_OPTIONS": "-Daws.accessKeyId=none -Daws.secretAccessKey=none",
}
_BATCHES = 2  # the second merges no manifests, but refreshes after a commit


def build_class_archive(settings: SparkSettings, archive: Path) -> None:
    """Write the archive for sessions with these settings."""
    with tempfile.TemporaryDirectory(dir=settings.temp) as folder, _little_aws() as aws:
        classes = Path(folder, "classes")
        _warm_up(replace(settings, endpoint=aws.url, warehouse=_LOCATION, class_archive=None), aws, classes)
        subprocess.run(  # noqa: S603  # our own command
            [
                *java_command(settings),
                "-Xshare:dump",
                f"-XX:SharedClassListFile={classes}",
                f"-XX:SharedArchiveFile={archive.absolute()}",
                "-Xlog:disable",  # it names each class that can't be archived
            ],
            env=java_environ(settings),
            check=True,
        )


def _warm_up(settings: SparkSettings, aws: _LittleAws, classes: Path) -> None:
    lake = Lake(local_catalog(classes.parent))
    lake.ensure_tables()
    text = lake.load(EVENTS).metadata.model_dump_json().replace(lake.home(EVENTS), _LOCATION)
    metadata = TableMetadataUtil.parse_raw(text)
    aws.add_table(f"{_LOCATION}/metadata/00000-start.metadata.json", text)
    with mock.patch.dict(os.environ, _WITHOUT_A_NAME):
        session = start_session(settings, class_list=classes)
    engine = SparkEngine(session)
    stamp = Stamp(received_at=1_764_000_000_000_000, request_id="r", project_id="p", key_kind="server")
    for number in range(_BATCHES):
        events = [
            b'{"type":"track","event":"e","userId":"u","messageId":"%d","properties":{"a":1}}' % n for n in range(1000)
        ]
        batch = decode([StreamRecord("s", number, data, 0) for data in pack(stamp, events)], "warm-up")
        table = IcebergTable(
            (_DATABASE, EVENTS.name), metadata, aws.location, cast("FileIO", None), NoopCatalog("none")
        )
        files = engine.stage(EVENTS, table, batch.events)
        if not files:
            raise RuntimeError("the batch that should load all classes has no rows")
        engine.append(EVENTS, table, files, {"warm": "up"}, {"warm": "up"})
    stop_session(session)


class _LittleAws:
    """An S3 with one bucket and a Glue with one table, in memory; no more of them than a commit takes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.objects: dict[str, bytes] = {}
        self._table: dict[str, Any] = {}
        self._version = 0

    @property
    def location(self) -> str:
        """Of the table's newest metadata."""
        return str(self._table["Parameters"]["metadata_location"])

    def add_table(self, location: str, metadata: str) -> None:
        self.objects[location.removeprefix("s3:/")] = metadata.encode()
        parameters = {"table_type": "ICEBERG", "metadata_location": location}
        self._table = {"Name": EVENTS.name, "DatabaseName": _DATABASE, "Parameters": parameters}

    def glue(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        if operation == "UpdateTable":
            self._table |= request["TableInput"]
            self._version += 1
        return {"Table": {**self._table, "VersionId": str(self._version)}} if operation == "GetTable" else {}


@contextmanager
def _little_aws() -> Iterator[_LittleAws]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.aws = _LittleAws(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]  # for the handler
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.aws  # type: ignore[attr-defined]  # as above
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def _aws(self) -> _LittleAws:
        return cast("_LittleAws", self.server.aws)  # type: ignore[attr-defined]  # set where the server is made

    def do_POST(self) -> None:
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        self._answer(200, json.dumps(self._aws.glue(operation, json.loads(self._body() or b"{}"))).encode())

    def do_PUT(self) -> None:
        self._aws.objects[self._key] = self._body()
        self._answer(200, ETag='"0"')

    def do_DELETE(self) -> None:
        self._aws.objects.pop(self._key, None)
        self._answer(204)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        data = self._aws.objects.get(self._key)
        if data is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        part = data[int(first or 0) : int(last) + 1 if last else None]
        self._answer(206 if first else 200, part, ETag='"0"')

    @property
    def _key(self) -> str:
        return self.path.partition("?")[0]

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return _unchunked(body) if "aws-chunked" in self.headers.get("Content-Encoding", "") else body

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        return


def _unchunked(body: bytes) -> bytes:
    """The SDK sends ``<hex length>[;signature]``, CRLF, the data, CRLF, and at last a chunk of nothing."""
    data = b""
    while body:
        head, _, body = body.partition(b"\r\n")
        length = int(head.partition(b";")[0], 16)
        if not length:
            break
        data, body = data + body[:length], body[length + 2 :]
    return data


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m manymetrics_processor.class_archive", description=__doc__)
    parser.add_argument("--jars", type=Path, required=True, help="the folder of Iceberg's two jars")
    parser.add_argument("--java-home", type=Path, help="else the java of the PATH")
    parser.add_argument("--heap-mb", type=int, default=1024, help="as the sessions will have")
    parser.add_argument("archive", type=Path)
    given = parser.parse_args(arguments)
    settings = SparkSettings(
        warehouse="", region="us-east-1", jars=given.jars, java_home=given.java_home, heap_mb=given.heap_mb
    )
    build_class_archive(settings, given.archive)


if __name__ == "__main__":
    main()
