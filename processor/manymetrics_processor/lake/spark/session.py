"""Start a JVM with a Spark session, once per process.

    python -- py4j, 127.0.0.1 --> java: Spark (driver and executor in one), Iceberg, the AWS SDK

The JVM is started without ``spark-submit``, which would start a second one to build the command line. It exits with
this process, which holds the other end of its stdin. It writes only below the temporary folder, binds only 127.0.0.1,
and logs only errors, to stderr.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyspark import SparkConf, SparkContext
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

CATALOG = "lake"
START_TIMEOUT_S = 120.0
ENDING_S = 1.0  # a killed JVM closes its sockets first: it still existed 40 ms later, on 2 busy cores (2026-11-25)

# The module options of Spark's own launcher (org.apache.spark.launcher.JavaModuleOptions), without the incubating
# vector module: it is for ML, it warns at each start, and small Java runtimes lack it.
_OPENED = (
    *(f"java.base/java.{name}" for name in ("lang", "lang.invoke", "lang.reflect", "io", "net", "nio", "util")),
    *(f"java.base/java.util.{name}" for name in ("concurrent", "concurrent.atomic")),
    *(f"java.base/{name}" for name in ("jdk.internal.ref", "sun.nio.ch", "sun.nio.cs", "sun.security.action")),
    "java.base/sun.util.calendar",
)
_JVM_OPTIONS = (
    *(f"--add-opens={package}=ALL-UNNAMED" for package in _OPENED),
    "-Djdk.reflect.useDirectMethodHandle=false",
    "-Dio.netty.tryReflectionSetAccessible=true",
    "-XX:+UseSerialGC",  # one small heap on at most two cores: G1 costs memory and threads
    "-XX:TieredStopAtLevel=1",  # C2 pays off after minutes of work; a Lambda runs for seconds
    "-XX:ReservedCodeCacheSize=240m",  # C1's default of 48 MB causes two full collections at startup, 0.3 s of CPU
    "-XX:-UsePerfData",
    "-Xss4m",
    "-Djava.awt.headless=true",
    "-Dfile.encoding=UTF-8",
    "-Duser.timezone=UTC",
    # Without an SDK retry, Iceberg treats Glue's 500 as a failed commit, although it may have landed. Overrides
    # AWS_MAX_ATTEMPTS.
    "-Daws.maxAttempts=4",
)
_LOG4J = """\
rootLogger.level = error
rootLogger.appenderRef.stderr.ref = stderr
logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer
logger.gateway.level = error
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %d{yyyy-MM-dd HH:mm:ss} %p %c{1}: %m%n%ex{short}
"""


class SessionStartError(Exception):
    """The JVM did not start; the message holds its output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkSettings:
    """The settings of a Spark session.

    ``jars``: the folder of Iceberg's two jars, which may be Spark's own.
    ``class_archive``: a class data sharing archive for the JVM to map; used if the file exists.
    ``endpoint``: an AWS endpoint for tests.
    """

    warehouse: str
    region: str
    jars: Path
    temp: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    java_home: Path | None = None
    class_archive: Path | None = None
    endpoint: str | None = None
    heap_mb: int = 832  # a commit of 20,000 events, the most, takes 1.56 GB with Python in it (2026-11-28)
    catalog: Mapping[str, str] = field(default_factory=dict)  # additional catalog properties, or overrides


def start_session(settings: SparkSettings, *, class_list: Path | None = None) -> SparkSession:
    """Start the JVM and a session in it. ``class_list``: the file for the list of loaded classes, written at exit."""
    home = Path(tempfile.mkdtemp(prefix="spark-", dir=settings.temp))
    process = _start_jvm(settings, home, class_list)
    try:
        port, secret = _wait_for_gateway(process, home)
        with _environ(PYSPARK_GATEWAY_PORT=str(port), PYSPARK_GATEWAY_SECRET=secret):
            gateway: Any = launch_gateway()  # type: ignore[no-untyped-call]  # connects to the JVM named in the environment
        _name_the_user(gateway)
        conf = SparkConf(loadDefaults=False, _jvm=gateway.jvm)
        conf.setAll(list(spark_conf(settings, home).items()))
        context = SparkContext(gateway=gateway, conf=conf)
    except BaseException:
        process.kill()
        process.wait()
        shutil.rmtree(home, ignore_errors=True)
        raise
    session: SparkSession = SparkSession(context)
    _running[id(session)] = process, home
    return session


def _name_the_user(gateway: Any) -> None:  # noqa: ANN401  # py4j has no types
    """Set a user name: Hadoop needs one, and fails for users without a name, as in containers."""
    users = gateway.jvm.org.apache.hadoop.security.UserGroupInformation
    users.setLoginUser(users.createRemoteUser("manymetrics"))


def stop_session(session: SparkSession) -> None:
    """Stop the session and its JVM, and remove their temporary files."""
    process, home = _running.pop(id(session))
    gateway: Any = SparkContext._gateway  # noqa: SLF001  # pyspark has no API to disconnect
    session.stop()
    gateway.shutdown()
    SparkContext._gateway = SparkContext._jvm = None  # noqa: SLF001  # else the next session would use this JVM
    assert process.stdin is not None  # noqa: S101  # it was opened as a pipe
    process.stdin.close()
    process.wait(timeout=START_TIMEOUT_S)
    shutil.rmtree(home, ignore_errors=True)


def is_running(session: SparkSession) -> bool:
    """Return whether the session's JVM is running. One that exited, mostly out of memory, is never restarted.

    For use after a failure: it waits for a JVM that has closed its sockets and is about to exit, as when killed.
    """
    try:
        _running[id(session)][0].wait(ENDING_S)
    except subprocess.TimeoutExpired:
        return True
    return False


def maps_archive(session: SparkSession, archive: Path) -> bool:
    """Return whether the session's JVM uses its class archive, which it silently ignores if a jar has changed."""
    maps = Path(f"/proc/{_running[id(session)][0].pid}/maps")
    return not maps.exists() or str(archive.absolute()) in maps.read_text()


_running: dict[int, tuple[subprocess.Popen[bytes], Path]] = {}


def spark_conf(settings: SparkSettings, home: Path) -> dict[str, str]:
    """Return Spark's configuration: small, local, quiet, with the catalog ``lake``."""
    return {
        "spark.app.name": "manymetrics",
        "spark.master": "local[2]",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": f"{settings.heap_mb}m",
        "spark.local.dir": str(home),
        "spark.sql.warehouse.dir": f"file://{home}/warehouse",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.timestampType": "TIMESTAMP_NTZ",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "1000000",
        **{f"spark.sql.catalog.{CATALOG}{name}": value for name, value in _catalog(settings).items()},
    }


def _catalog(settings: SparkSettings) -> dict[str, str]:
    properties = {
        "": "org.apache.iceberg.spark.SparkCatalog",
        ".type": "glue",
        ".io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        ".warehouse": settings.warehouse,
        ".client.region": settings.region,
        ".cache-enabled": "false",
        # Iceberg deletes the metadata of a commit that it believes failed, though it may have landed: see SparkEngine.
        ".s3.delete-enabled": "false",
    }
    if settings.endpoint:
        properties[".glue.endpoint"] = properties[".s3.endpoint"] = settings.endpoint
        properties[".s3.path-style-access"] = "true"
    return properties | {f".{name}": value for name, value in settings.catalog.items()}


def _start_jvm(settings: SparkSettings, home: Path, class_list: Path | None) -> subprocess.Popen[bytes]:
    log4j = home / "log4j2.properties"
    log4j.write_text(_LOG4J)
    command = [
        *java_command(settings),
        *_sharing(settings.class_archive, class_list),
        f"-Djava.io.tmpdir={home}",
        f"-Duser.home={home}",
        f"-Dlog4j2.configurationFile={log4j}",
        "org.apache.spark.api.python.PythonGatewayServer",
    ]
    return subprocess.Popen(  # noqa: S603  # a fixed command
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd=home,
        env={
            **java_environ(settings),
            "_PYSPARK_DRIVER_CONN_INFO_PATH": str(home / "gateway"),
        },
        start_new_session=True,  # Ctrl-C is for this process, which finishes the current batch first
    )


def java_command(settings: SparkSettings) -> list[str]:
    """Return the JVM's command line, without parts that vary per use. A class archive only fits this command line."""
    java = str(settings.java_home.absolute() / "bin" / "java") if settings.java_home else "java"
    return [java, *_heap(settings.heap_mb), *_JVM_OPTIONS]


def _heap(most_mb: int) -> Iterator[str]:
    """Size the initial heap for about what a commit allocates.

    Otherwise the heap grows too late, and every other commit has a full collection: one of 18,300 events took 1.16 s of
    CPU instead of 1.00, with 190 MB less (2026-11-28).
    """
    yield f"-Xmx{most_mb}m"
    yield f"-Xms{most_mb * 3 // 4}m"
    yield f"-Xmn{most_mb * 7 // 16}m"


def java_environ(settings: SparkSettings) -> dict[str, str]:
    """Return the environment of the JVM: this process's, and the class path."""
    return {**os.environ, "CLASSPATH": os.pathsep.join(map(str, class_path(settings.jars)))}


def _sharing(archive: Path | None, class_list: Path | None) -> list[str]:
    if class_list is not None:
        return ["-Xshare:off", f"-XX:DumpLoadedClassList={class_list}"]
    if archive is not None and archive.is_file():
        return ["-Xshare:auto", f"-XX:SharedArchiveFile={archive.absolute()}"]
    return []


def class_path(jars: Path) -> list[Path]:
    """Return the class path of Iceberg's and Spark's jars, in a fixed order, since a class archive depends on it."""
    import pyspark

    own = Path(pyspark.__file__).parent / "jars"
    found = {jar.name: jar for folder in (own, jars.absolute()) for jar in sorted(folder.glob("*.jar"))}
    return [found[name] for name in sorted(found)]


def _wait_for_gateway(process: subprocess.Popen[bytes], home: Path) -> tuple[int, str]:
    until = time.monotonic() + START_TIMEOUT_S
    told = home / "gateway"
    while not told.is_file():  # moved there atomically
        if process.poll() is not None:
            raise SessionStartError(f"java exited with {process.returncode}: see its output above")
        if time.monotonic() > until:
            raise SessionStartError(f"java did not respond within {START_TIMEOUT_S:.0f} s")
        time.sleep(0.01)
    port, length = struct.unpack_from(">ii", said := told.read_bytes())
    return port, said[8 : 8 + length].decode()


@contextlib.contextmanager
def _environ(**values: str) -> Iterator[None]:
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]
