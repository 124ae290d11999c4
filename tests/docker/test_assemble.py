"""How the processor's image is put together: a jar that differs, and a trim that finds nothing, stop the build."""

from __future__ import annotations

import hashlib
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

import assemble
from tests.conftest import ROOT
from tests.local_http import serving, url_of

JAR = b"a jar"
POM = """\
<project>
  <properties><iceberg.sha256>{sha256}</iceberg.sha256></properties>
  <dependencies>
    <dependency><groupId>a.b</groupId><artifactId>iceberg</artifactId><version>1</version><scope>provided</scope></dependency>
    <dependency><groupId>a.b</groupId><artifactId>trino</artifactId><version>2</version><scope>test</scope></dependency>
  </dependencies>
</project>
"""


class Maven(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # named by http.server
        self.send_response(200 if self.path == "/a/b/iceberg/1/iceberg-1.jar" else 404)
        self.end_headers()
        self.wfile.write(JAR)

    def log_message(self, *_arguments: object) -> None:
        return


def fetch(folder: Path, sha256: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    (folder / "pom.xml").write_text(POM.format(sha256=sha256))
    with serving(Maven) as server:
        monkeypatch.setattr(assemble, "MAVEN", url_of(server))
        assemble.fetch_jars(folder / "pom.xml", folder / "jars")
    return {path.name: path.read_bytes() for path in (folder / "jars").iterdir()}


def test_the_jars_of_the_pom_that_spark_needs_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fetch(tmp_path, hashlib.sha256(JAR).hexdigest(), monkeypatch) == {"iceberg-1.jar": JAR}


@pytest.mark.parametrize("sha256", ["0" * 64, ""], ids=["another", "none"])
def test_a_jar_that_differs_stops_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sha256: str) -> None:
    with pytest.raises(SystemExit, match=rf"has the sha256 {hashlib.sha256(JAR).hexdigest()}, not {sha256}$"):
        fetch(tmp_path, sha256, monkeypatch)


def test_the_pom_of_the_tests_says_both_jars_and_their_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = dict[str, str]()
    monkeypatch.setattr(assemble, "fetch", lambda url, _path, sha256: asked.update({url.rpartition("/")[2]: sha256}))

    assemble.fetch_jars(ROOT / "tests" / "jvm" / "pom.xml", tmp_path / "jars")

    assert [name.rpartition("-")[0] for name in asked] == ["iceberg-spark-runtime-4.1_2.13", "iceberg-aws-bundle"]
    assert {len(sha256) for sha256 in asked.values()} == {64}


def test_a_trim_leaves_the_rest_and_one_that_finds_nothing_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "a" / "tests").mkdir(parents=True)
    (tmp_path / "a" / "code.py").write_text("x = 1")
    (tmp_path / "a" / "tests" / "test.py").write_text("")

    assemble.trim(tmp_path, ("**/tests",))
    assemble.compile_all(tmp_path)

    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["__pycache__", "code.py"]
    with pytest.raises(SystemExit, match=r"no file matches \*\*/tests any more"):
        assemble.trim(tmp_path, ("**/tests",))


def test_what_cannot_be_compiled_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("x =")

    with pytest.raises(SystemExit, match="can't be compiled"):
        assemble.compile_all(tmp_path)
