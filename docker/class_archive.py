"""Builds the class archive that halves the startup time of Spark's JVM.

    python docker/class_archive.py --jars FOLDER [--java-home FOLDER] ARCHIVE

A session commits two batches while the JVM records the classes that it loads; then the JVM writes them to an archive
that it can map into memory. Images are built without AWS, so the batches go to a small S3 and Glue in this process,
over TLS as on AWS: over HTTP, 560 classes of a start there would be missing (2026-11-30). The server's certificate is
signed by an authority, and both have RSA keys of 2048 bits, like Amazon's. Needs the processor with Spark, and
``cryptography``.

The archive is valid for these jars, at these paths, and for this Java; otherwise the JVM ignores it.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.io import FileIO
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.metadata import TableMetadataUtil

from manymetrics.records import Stamp, pack
from manymetrics.tables import EVENTS
from manymetrics_processor.decode.batch import Rows, StreamRecord, decode
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
_BATCHES = 2  # the second merges no manifests, but refreshes after a commit


def build_class_archive(settings: SparkSettings, archive: Path) -> None:
    """Write the archive for sessions with these settings."""
    with tempfile.TemporaryDirectory(dir=settings.temp) as folder:
        classes = Path(folder, "classes")
        warm_up(replace(settings, class_archive=None), Path(folder), classes)
        subprocess.run(
            [
                *java_command(settings),
                "-Xshare:dump",
                f"-XX:SharedClassListFile={classes}",
                f"-XX:SharedArchiveFile={archive.absolute()}",
                "-Xlog:disable",  # otherwise each class that can't be archived is logged
            ],
            env=java_environ(settings),
            check=True,
        )


def warm_up(settings: SparkSettings, folder: Path, classes: Path | None = None, options: str = "") -> None:
    """Commit batches to the AWS stand-in of this process.

    ``classes``: the file for the JVM's list of loaded classes. ``options``: additional Java options.
    """
    lake = Lake(local_catalog(folder))
    lake.ensure_tables()
    text = lake.load(EVENTS).metadata.model_dump_json().replace(lake.home(EVENTS), _LOCATION)
    metadata = TableMetadataUtil.parse_raw(text)
    trusted, certificate = _make_certificate(folder)
    with _little_aws(certificate) as aws:
        aws.add_table(f"{_LOCATION}/metadata/00000-start.metadata.json", text)
        environ = {
            # During an image build, the host name may not resolve. Spark looks it up for its address, and again if the
            # environment has AWS keys, so these are Java options.
            "SPARK_LOCAL_IP": "127.0.0.1",
            "JAVA_TOOL_OPTIONS": "-Daws.accessKeyId=none -Daws.secretAccessKey=none "
            f"-Djavax.net.ssl.trustStore={trusted} {options}",
        }
        with mock.patch.dict(os.environ, environ):
            session = start_session(replace(settings, endpoint=aws.url, warehouse=_LOCATION), class_list=classes)
        engine = SparkEngine(lambda: session)
        for number in range(_BATCHES):
            table = IcebergTable(
                (_DATABASE, EVENTS.name), metadata, aws.location, cast("FileIO", None), NoopCatalog("none")
            )
            files = engine.stage(EVENTS, table, _batch(number))
            if not files:
                raise RuntimeError("the batch that should load all classes has no rows")
            engine.append(EVENTS, table, files, {"warm": "up"}, {"warm": "up"})
        stop_session(session)


def _batch(number: int) -> Rows:
    stamp = Stamp(received_at=1_764_000_000_000_000, request_id="r", project_id="p", key_kind="server")
    events = [
        b'{"type":"track","event":"e","userId":"u","messageId":"%d","properties":{"a":1}}' % n for n in range(1000)
    ]
    return decode([StreamRecord("s", number, data, 0) for data in pack(stamp, events)], "warm-up").events


def _make_certificate(folder: Path) -> tuple[Path, Path]:
    """Create a Java trust store with an authority, and a PEM file with a server's key and certificate; for an hour."""
    keys = [rsa.generate_private_key(public_exponent=65_537, key_size=2048) for _ in range(2)]
    authority, server = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("authority", "server"))
    now = datetime.now(UTC)

    def signed(name: x509.Name, key: rsa.RSAPrivateKey, extension: x509.ExtensionType) -> x509.Certificate:
        builder = x509.CertificateBuilder(authority, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        return builder.add_extension(extension, critical=False).sign(keys[0], hashes.SHA256())

    root = signed(authority, keys[0], x509.BasicConstraints(ca=True, path_length=0))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = signed(server, keys[1], address)
    plain = serialization.NoEncryption()
    trusted, files = folder / "trusted.p12", folder / "server.pem"
    trusted.write_bytes(pkcs12.serialize_java_truststore([pkcs12.PKCS12Certificate(root, b"authority")], plain))
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files.write_bytes(keys[1].private_bytes(pem, form, plain) + leaf.public_bytes(pem))
    return trusted, files


class _LittleAws:
    """An S3 with one bucket and a Glue with one table, in memory; only the operations of a commit."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.objects: dict[str, bytes] = {}
        self._table: dict[str, Any] = {}
        self._version = 0

    @property
    def location(self) -> str:
        """The location of the table's latest metadata."""
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
def _little_aws(certificate: Path) -> Iterator[_LittleAws]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.aws = _LittleAws(f"https://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]  # for the handler
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
    """Decode the SDK's chunks: ``<hex length>[;signature]``, CRLF, the data, CRLF, and at the end an empty chunk."""
    data = b""
    while body:
        head, _, body = body.partition(b"\r\n")
        length = int(head.partition(b";")[0], 16)
        if not length:
            break
        data, body = data + body[:length], body[length + 2 :]
    return data


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
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
