"""MMDB files: several forms, several at once, wrong ones, and what is cached."""

from __future__ import annotations

import gzip
import ipaddress
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from manymetrics_processor.enrich import geo
from manymetrics_processor.enrich.geo import NOWHERE, GeoIP, Location, to_location


@pytest.fixture
def city(shared_data: Path) -> Path:
    """MaxMind's test file, which holds what its source says."""
    return shared_data / "GeoLite2-City-Test.mmdb"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            {
                "country": {"iso_code": "GB"},
                "subdivisions": [{"iso_code": "ENG", "names": {"en": "England"}}, {"names": {"en": "Kent"}}],
                "city": {"names": {"en": "Dover", "de": "X"}},
            },
            Location("GB", "England", "Dover", None),
        ),
        ({"registered_country": {"iso_code": "FR"}}, Location("FR", None, None, None)),
        ({"country": {"names": {"en": "X"}}, "registered_country": {"iso_code": "FR"}}, NOWHERE),
        ({"autonomous_system_number": 15169, "autonomous_system_organization": "G"}, Location(None, None, None, 15169)),
        ({"country": "US", "region": "Ohio", "city": "Akron", "asn": "AS7018"}, Location("US", "Ohio", "Akron", 7018)),
        ({"country_code": "JP", "state1": "Tokyo", "city": "Chiyoda"}, Location("JP", "Tokyo", "Chiyoda", None)),
        ({"country_code": "JP", "country": "Japan"}, Location("JP", None, None, None)),
        (
            {"country": {"iso_code": "USA"}, "asn": "ASX", "city": {"names": {"de": "Wien"}}, "subdivisions": []},
            NOWHERE,
        ),
        ({"asn": -1, "country": 5, "city": 7, "subdivisions": {"names": 1}}, NOWHERE),
        ({}, NOWHERE),
    ],
)
def test_a_record_of_each_form_is_read(record: dict[str, Any], expected: Location) -> None:
    assert to_location(record) == expected


def test_each_network_of_the_test_file_is_where_its_source_says(city: Path) -> None:
    [*entries] = json.loads(gzip.decompress(city.with_name("GeoLite2-City-Test.source.json.gz").read_bytes()))
    found = GeoIP([city])
    found.refresh()
    networks = {ipaddress.ip_network(name): record for entry in entries for name, record in entry.items()}
    assert len(networks) > 200

    for network, record in networks.items():
        inner = [other for other in networks if other != network and other.version == network.version]
        smaller = [other for other in inner if other.subnet_of(network)]  # type: ignore[arg-type]  # of one version
        for address in (network[0], network[-1]):
            if not any(address in other for other in smaller):
                expected = to_location(record)
                assert found.find(str(address)) == expected, address
                assert found.find(str(address)) == expected


def test_addresses_are_found_however_they_are_written(city: Path) -> None:
    found = GeoIP([city])
    found.refresh()

    london = Location("GB", "England", "London", None)
    for address in ("81.2.69.142", "::ffff:81.2.69.142", "::ffff:5102:458e"):
        assert found.find(address) == london
    assert found.find("2001:218::1").country == "JP"
    assert found.find("2001:0218:0000::1%eth0") == found.find("2001:218::1")
    assert found.find(None) == NOWHERE
    for address in (
        "",
        "x",
        "81.2.69",
        "81.2.69.142:80",
        "[::1]",
        "127.0.0.1",
        "10.0.0.1",
        "::1",
        "81.2.69.\x00",
    ):
        assert found.find(address) == NOWHERE


def test_what_is_cached_is_no_more_than_the_file_says_of_a_whole_network(city: Path) -> None:
    small, whole = "2.125.160.217", "89.160.20.113"  # a /29; and one that is all of its /24, or not
    found = GeoIP([city])
    found.refresh()

    assert found.find(small).city == "Boxford"
    assert found.find("2.125.160.1") == NOWHERE
    assert found.find(whole).city == "Link\u00f6ping"
    assert found.find("89.160.20.1") == NOWHERE


def test_files_that_can_t_be_used_are_passed_over_and_said(
    city: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "text.mmdb").write_text("no database")
    (tmp_path / "cut.mmdb").write_bytes(city.read_bytes()[:9_000])
    found = GeoIP([tmp_path / "text.mmdb", tmp_path / "cut.mmdb", tmp_path / "absent.mmdb", tmp_path, city])

    states = found.states

    assert [bool(state.error) for state in states] == [True, True, True, True, False]
    assert "No such file" in states[2].error
    assert states[4].version.startswith("GeoLite2-City@20")
    assert found.version == states[4].version
    assert found.find("81.2.69.142").city == "London"
    assert len(caplog.records) == 4
    assert "81.2" not in caplog.text


_LOOKS_INTO_DAMAGED_FILES = """
import random, sys
from pathlib import Path
from manymetrics_processor.enrich.geo import GeoIP

data, path = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
metadata = data.rindex(b"MaxMind.com")
for seed in range(int(sys.argv[3])):
    chance, damaged = random.Random(seed), bytearray(data)
    for _ in range(chance.choice([1, 3, 20])):
        place = chance.randrange(metadata) if seed % 2 else chance.randrange(metadata, len(data))
        damaged[place] = chance.randrange(256)
    path.write_bytes(damaged)
    found = GeoIP([path])
    found.refresh()
    for address in ("81.2.69.142", "2001:218::1", "89.160.20.112", "::ffff:81.2.69.142", "1.1.1.1"):
        found.find(address)
    path.unlink()
print("done")
"""


def test_no_damage_to_a_file_stops_the_events(city: Path, tmp_path: Path) -> None:
    """In a process of its own, since maxminddb's part in C can abort."""
    given = [sys.executable, "-c", _LOOKS_INTO_DAMAGED_FILES, str(city), str(tmp_path / "damaged.mmdb"), "300"]

    done = subprocess.run(given, capture_output=True, check=False)

    assert (done.returncode, done.stdout) == (0, b"done\n"), done.stderr[-2_000:]


def test_a_file_that_was_replaced_is_opened_again(city: Path, tmp_path: Path) -> None:
    now, path = 0.0, tmp_path / "city.mmdb"
    found = GeoIP([path], clock=lambda: now)
    found.refresh()
    assert found.find("81.2.69.142") == NOWHERE
    shutil.copy(city, tmp_path / "new")
    (tmp_path / "new").replace(path)
    found.refresh()
    assert found.find("81.2.69.142") == NOWHERE
    now = geo.LOOK_EVERY_S

    found.refresh()

    assert found.find("81.2.69.142").city == "London"
    path.unlink()
    now *= 2
    found.refresh()
    assert found.find("81.2.69.142") == NOWHERE
