"""`manymetrics geoip` and `manymetrics enrich`, and what doctor and the metrics say of GeoIP files."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from manymetrics.settings import Settings
from manymetrics_cli.commands import doctor, geoip
from manymetrics_cli.main import main
from manymetrics_cli.one_machine import geoip_unusable, open_geoip
from manymetrics_processor.dedup.window import Window
from manymetrics_processor.ingest import pipeline
from tests.integration.micro_batches import STREAM, make_lake, record, rows, track
from tests.local_http import serving, url_of

LONDON = "81.2.69.142"


@pytest.fixture
def city(shared_data: Path) -> bytes:
    """MaxMind's test file."""
    return (shared_data / "GeoLite2-City-Test.mmdb").read_bytes()


def archive(name: str, data: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


@pytest.fixture
def site(city: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A web server's files, with the npm registry's answer at /latest."""
    files = {
        "/city.mmdb": city,
        "/city.mmdb.gz": gzip.compress(city),
        "/city.tar.gz": archive("GeoLite2-City_20261101/GeoLite2-City.mmdb", city),
        "/empty.tar.gz": archive("README", b"none"),
        "/text.mmdb": b"no database",
        "/cut.tar.gz": archive("city.mmdb", city)[:2_000],
        "/damaged.tar.gz": archive("city.mmdb", city)[:2_000] + b"\xff" * 100,
        "/short.mmdb": city,
        "/package.tgz": archive(geoip.MEMBER, city),
    }

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = files.get(self.path)
            self.send_response(404 if found is None else 200)
            if self.path == "/short.mmdb":
                self.send_header("content-length", str(len(city) + 1))
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, *_: object) -> None:
            pass

    with serving(Site) as server:
        url = url_of(server)
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(files["/package.tgz"]).digest()).decode()
        files["/latest"] = json.dumps({"dist": {"tarball": f"{url}/package.tgz", "integrity": integrity}}).encode()
        monkeypatch.setattr(geoip, "PACKAGE", f"{url}/latest")
        files["url"] = url.encode()
        yield files


def fetch(home: Path, *more: str) -> int:
    return main(["geoip", "fetch", "--data-dir", str(home), *more])


@pytest.mark.parametrize(("name", "stored"), [("city.mmdb", "city"), ("city.mmdb.gz", "city"), ("city.tar.gz", "city")])
def test_a_file_is_fetched_in_each_form(
    site: dict[str, bytes], tmp_path: Path, city: bytes, name: str, stored: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(tmp_path, "--url", f"{site['url'].decode()}/{name}") == 0
    assert (tmp_path / "geoip" / f"{stored}.mmdb").read_bytes() == city
    assert re.search(r"city\.mmdb: GeoLite2-City@\d{4}-\d\d-\d\d\. Restart", capsys.readouterr().out)
    assert main(["geoip", "lookup", "--data-dir", str(tmp_path), LONDON]) == 0
    assert json.loads(capsys.readouterr().out)["city"] == "London"


def test_the_package_is_fetched_by_its_hash_and_its_licence_is_said(
    site: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(tmp_path) == 0
    assert "CC BY 4.0" in capsys.readouterr().err
    before = (tmp_path / "geoip/country.mmdb").read_bytes()
    site["/package.tgz"] += b"x"

    assert fetch(tmp_path) == 1

    assert "doesn't match the registry's hash" in capsys.readouterr().err
    assert (tmp_path / "geoip/country.mmdb").read_bytes() == before
    site["/latest"] = b"{}"
    assert fetch(tmp_path) == 1
    assert "unexpected response from" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "geoip").iterdir()] == ["country.mmdb"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("{site}/text.mmdb", "not usable"),
        ("{site}/empty.tar.gz", "has no .mmdb file"),
        ("{site}/absent.mmdb", "can't be read"),
        ("{site}/cut.tar.gz", "can't be read"),
        ("{site}/damaged.tar.gz", "can't be read"),
        ("{site}/short.mmdb", "can't be read"),
        ("file:///etc/passwd", "not an http"),
        ("http://127.0.0.1:1/x.mmdb", "can't be read"),
    ],
)
def test_what_is_no_file_changes_nothing(
    site: dict[str, bytes], tmp_path: Path, url: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(tmp_path, "--url", url.format(site=site["url"].decode())) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.mmdb"))


def test_without_a_file_lookup_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["geoip", "lookup", "--data-dir", str(tmp_path), LONDON]) == 1
    assert "geoip fetch" in capsys.readouterr().err


def test_doctor_and_a_metric_tell_of_files_that_can_t_be_used(
    tmp_path: Path, city: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good.mmdb").write_bytes(city)
    (tmp_path / "bad.mmdb").write_bytes(city[:9_000])
    files = f"{tmp_path}/good.mmdb, {tmp_path}/bad.mmdb,{tmp_path}/absent.mmdb"
    monkeypatch.setenv("MANYMETRICS_GEOIP", files)
    open_geoip.cache_clear()

    findings = list(doctor.check_geoip(Settings(geoip=files)))

    assert [finding.state for finding in findings] == ["ok", "warn", "warn"]
    assert geoip_unusable(tmp_path) == 2
    open_geoip.cache_clear()
    assert list(doctor.check_geoip(Settings(data_dir=tmp_path / "none"))) == []


def test_history_gets_places_once_there_is_a_file(
    site: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    event = track("a", context={"ip": LONDON})
    pipeline.run([record(1, event)], STREAM, make_lake(home), Window(7))
    assert rows(make_lake(home))[0]["geo_city"] is None
    fetch(home, "--url", f"{site['url'].decode()}/city.mmdb")
    enrich = ["enrich", "--data-dir", str(home)]
    capsys.readouterr()

    assert main([*enrich, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out) == {"would_rewrite_files": 1, "events": 1, "files_up_to_date": 0}
    assert main([*enrich, "--from", "2030-01-01"]) == 0
    assert json.loads(capsys.readouterr().out)["files_rewritten"] == 0
    assert main(enrich) == 0

    receipt = capsys.readouterr()
    assert json.loads(receipt.out)["rows_rewritten"] == 1
    assert "1 of 1 files rewritten" in receipt.err
    assert rows(make_lake(home))[0]["geo_city"] == "London"
    assert main([*enrich, "--from", "2026-02-01", "--to", "2026-01-01"]) == 2
    with pytest.raises(SystemExit):
        main([*enrich, "--from", "yesterday"])
    assert "write it as 2026-01-31" in capsys.readouterr().err
