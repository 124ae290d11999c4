"""Trino 476, the engine of Athena, over the Glue and S3 of ``strict_moto``.

Its catalog is named as Athena's, since a view in Glue names it. An administrator's waits are off: it expires and
removes at once what a test wants gone.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.glue_lake import BUCKET
from tests.jvm_home import jvm_part
from tests.ports import free_port
from tests.strict_moto import CREDENTIALS, REGION, Aws

CATALOG = "awsdatacatalog"
READY_WITHIN_S = 180
_JVM = (
    "-Xmx1G",
    "-Xms256M",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # tests are short: compiling well costs more than it gives
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:ReservedCodeCacheSize=256M",
    "-Djdk.attach.allowAttachSelf=true",
    "-Dfile.encoding=UTF-8",
    "-Duser.timezone=UTC",
    "-XX:+EnableDynamicAgentLoading",
    "--enable-native-access=ALL-UNNAMED",
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trino:
    """A running server, and the AWS that it reads."""

    port: int
    aws: Aws

    def ask(self, sql: str, schema: str = "manymetrics") -> list[Row]:
        """A statement's rows, by column name. Times are naive UTC."""
        from trino.dbapi import Connection

        with closing(
            Connection("127.0.0.1", self.port, "test", catalog=CATALOG, schema=schema, timezone="UTC")
        ) as connection:
            cursor = connection.cursor()
            cursor.execute(sql)
            rows = cursor.fetchall()
            names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in rows]


@contextmanager
def trino_server(aws: Aws, folder: Path) -> Iterator[Trino]:
    """A server of its own until the block ends; its files and logs are in ``folder``."""
    java, home, port = str(jvm_part("java25") / "bin" / "java"), jvm_part("trino"), free_port()
    _write_settings(folder, home, port, aws)
    aws.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    command = [java, *_JVM, f"-Dconfig={folder}/config.properties", "-cp", f"{home}/lib/*"]
    with (folder / "trino.out").open("wb") as output:
        process = subprocess.Popen(
            [*command, "io.trino.server.TrinoServer"], cwd=folder, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        trino = Trino(port, aws)
        _wait_until_ready(trino, process, folder)
        yield trino
    finally:
        process.kill()  # it holds nothing that is to be kept, and takes seconds to end by itself
        process.wait()


def _write_settings(folder: Path, home: Path, port: int, aws: Aws) -> None:
    (folder / "catalog").mkdir()
    (folder / "config.properties").write_text(f"""\
coordinator=true
node-scheduler.include-coordinator=true
http-server.http.port={port}
discovery.uri=http://127.0.0.1:{port}
query.max-memory=256MB
query.max-memory-per-node=256MB
memory.heap-headroom-per-node=256MB
plugin.dir={home}/plugin
catalog.config-dir={folder}/catalog
node.environment=test
node.id=test
node.internal-address=127.0.0.1
node.bind-ip=127.0.0.1
log.path={folder}/trino.log
""")
    (folder / "catalog" / f"{CATALOG}.properties").write_text(f"""\
connector.name=iceberg
iceberg.catalog.type=glue
iceberg.expire-snapshots.min-retention=0s
iceberg.remove-orphan-files.min-retention=0s
hive.metastore.glue.region={REGION}
hive.metastore.glue.endpoint-url={aws.url}
hive.metastore.glue.aws-access-key={CREDENTIALS["AWS_ACCESS_KEY_ID"]}
hive.metastore.glue.aws-secret-key={CREDENTIALS["AWS_SECRET_ACCESS_KEY"]}
fs.native-s3.enabled=true
s3.endpoint={aws.url}
s3.region={REGION}
s3.path-style-access=true
s3.aws-access-key={CREDENTIALS["AWS_ACCESS_KEY_ID"]}
s3.aws-secret-key={CREDENTIALS["AWS_SECRET_ACCESS_KEY"]}
""")


def _wait_until_ready(trino: Trino, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Only work on this very catalog proves it: it answers on HTTP, and names itself a node, seconds before."""
    from requests.exceptions import ConnectionError as RefusedError
    from trino.exceptions import Error

    until, last = time.monotonic() + READY_WITHIN_S, "no answer"
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"Trino ended early, see {folder}/trino.out")
        try:
            trino.ask(f"CREATE SCHEMA IF NOT EXISTS ready WITH (location = 's3://{BUCKET}/ready')")
            trino.ask("CREATE TABLE IF NOT EXISTS ready.ready AS SELECT 1 AS one")
            assert trino.ask("SELECT one FROM ready.ready") == [{"one": 1}]
        except (Error, RefusedError) as error:
            last = str(error)
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(f"Trino was not ready within {READY_WITHIN_S} s: {last}, see {folder}/trino.out")
