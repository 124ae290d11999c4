"""Computes the enriched columns of `events` rows: browser, device, bot, location and source of the visit.

Pure except for the GeoIP files. Each distinct user agent, address and referrer of a batch is parsed once, so an event
costs little more than building its columns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import cache, reduce
from importlib.metadata import version
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manymetrics.settings import Settings
from manymetrics.tables import EVENTS
from manymetrics_processor.enrich.agents import Agent, Said, read_agent
from manymetrics_processor.enrich.geo import GeoIP, Location, geoip_paths
from manymetrics_processor.enrich.sources import QUERY_FIELDS, Arrival, Source, read_source

RULES = "1"  # version of this package's rules: increase it when their results change
_PACKAGES = ("ua-parser-builtins", "crawler-user-agents", "publicsuffixlist")

ENRICHED_COLUMNS = tuple(column for column in EVENTS.columns if column.enriched)

Codes = npt.NDArray[np.int64]


@cache
def geoip() -> GeoIP:
    """Return the GeoIP files configured in this process's environment, which decoders and clusters share."""
    given = {name: os.environ[name] for name in ("MANYMETRICS_GEOIP", "MANYMETRICS_DATA_DIR") if name in os.environ}
    return GeoIP(geoip_paths(Settings.read(given)))


def rules_version(geo: GeoIP) -> str:
    """Return the versions of the rules: ours, the packages' and the files'."""
    own = ["rules=" + RULES, *(f"{name}={_version(name)}" for name in _PACKAGES)]
    return " ".join([*own, *(["geoip=" + geo.version] if geo.version else [])])


_version = cache(version)


def enrich(rows: pa.Table, geo: GeoIP | None = None, *, keeps_unknown: bool = False) -> pa.Table:
    """Compute the enriched columns from the others, replacing their previous values.

    ``keeps_unknown``: keep the values of columns whose address or user agent was not kept.
    """
    geo = geoip() if geo is None else geo
    geo.refresh()
    hints = _hints(rows["context"])
    agents = _columns(Agent._fields, *_agents(rows, hints))
    places = _columns(_GEO_COLUMNS, *_locations(rows, geo))
    if keeps_unknown and "enrichment_version" in rows.column_names:
        has_agent = pc.or_(pc.is_valid(rows["context_user_agent"]), pc.is_valid(hints))
        agents = _where(has_agent, agents, rows)
        places = _where(_has_place(rows["context_ip"], places), places, rows)
    made = agents | places | _columns(Source._fields, *_sources(rows))
    made["enrichment_version"] = pa.repeat(pa.scalar(rules_version(geo), pa.string()), len(rows))
    left = {name: rows[name] for name in rows.column_names if name not in made}
    fields = [rows.schema.field(name) for name in left] + [pa.field(name, _TYPES[name]) for name in made]
    return pa.Table.from_arrays([*left.values(), *made.values()], schema=pa.schema(fields))


def _has_place(addresses: pa.ChunkedArray, places: dict[str, pa.Array]) -> pa.ChunkedArray:
    """Return whether an address is not truncated, or has a location; false if there is none.

    The first address of a network, which truncation leaves, may have no location where the full one had.
    """
    is_whole = pc.invert(pc.match_substring_regex(addresses, r"(?:\.0|::)$"))
    found = [pc.is_valid(array) for array in places.values()]
    return pc.fill_null(pc.or_(is_whole, reduce(pc.or_, found)), False)  # noqa: FBT003  # Arrow's signature


def _where(is_known: pa.ChunkedArray, made: dict[str, pa.Array], rows: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Return the new values where ``is_known`` or if the row was never enriched; otherwise the stored ones."""
    chosen = pc.or_(is_known, pc.is_null(rows["enrichment_version"]))
    return {name: pc.if_else(chosen, array, rows[name]) for name, array in made.items()}


_GEO_COLUMNS = ("geo_country", "geo_region", "geo_city", "asn")
_TYPES = {column.name: pa.int64() if column.type == "long" else pa.string() for column in ENRICHED_COLUMNS}


def _columns(names: Sequence[str], found: Sequence[tuple[Any, ...]], codes: Codes) -> dict[str, pa.Array]:
    """Expand the distinct results in ``found`` to columns; ``codes``: each row's index in it."""
    places = pa.array(codes)
    values = zip(*found, strict=True) if found else ([] for _ in names)
    return {name: _column(name, of, places) for name, of in zip(names, values, strict=True)}


def _column(name: str, values: Sequence[Any], places: pa.Array) -> pa.Array:
    array = pa.array(values, type=_TYPES[name])
    return pa.nulls(len(places), array.type) if array.null_count == len(array) else array.take(places)


def _agents(rows: pa.Table, hints: pa.Array) -> tuple[list[Agent], Codes]:
    brand = pc.coalesce(rows["context_device_brand"], rows["context_device_manufacturer"])
    said = [
        rows["context_user_agent"],
        hints,
        *(rows[f"context_{name}"] for name in ("os_name", "os_version", "device_type")),
        brand,
        *(rows[f"context_{name}"] for name in ("device_model", "app_name")),
        rows["key_kind"],
    ]
    return _each(read_agent, Said._make, said)


class _Rest(msgspec.Struct, gc=False):
    userAgentData: msgspec.Raw = msgspec.Raw()  # noqa: N815  # as in the context


_rest_decoder = msgspec.json.Decoder(_Rest)


def _hints(context: pa.ChunkedArray) -> pa.Array:
    """Extract `userAgentData` from the rest of the context, as JSON text."""
    held = pc.match_substring(context, '"userAgentData"')
    if not pc.any(held).as_py():
        return pa.nulls(len(context), pa.string())
    texts, codes = _encode(pc.if_else(held, context, None))
    return pa.array(list(map(_hint, texts)), pa.string()).take(pa.array(codes))


def _hint(context: str | None) -> str | None:
    if context is None:
        return None
    try:
        hints = bytes(_rest_decoder.decode(context).userAgentData)
        return str(hints, "utf-8") if hints not in _NO_HINTS else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


_NO_HINTS = (b"", b"null")  # null is what privacy leaves of them


def _locations(rows: pa.Table, geo: GeoIP) -> tuple[list[Location], Codes]:
    addresses, codes = _encode(rows["context_ip"])
    return list(map(geo.find, addresses)), codes


def _sources(rows: pa.Table) -> tuple[list[Source], Codes]:
    referrer, url, search = (rows[f"context_page_{name}"] for name in ("referrer", "url", "search"))
    query = pc.if_else(pc.equal(pc.fill_null(pc.utf8_length(search), 0), 0), url, search)
    said = [
        _origin(referrer),
        _host(url),
        _told(query),
        *(rows[f"context_campaign_{name}"] for name in ("source", "medium", "name")),
    ]
    return _each(read_source, Arrival._make, said)


def _told(queries: pa.ChunkedArray) -> pa.Array:
    """Return the queries that name a source, and null for the others."""
    return _map_distinct(queries, lambda one: pc.if_else(pc.match_substring_regex(one, QUERY_FIELDS), one, None))


def _origin(urls: pa.ChunkedArray) -> pa.Array:
    """Return each URL up to its path: scheme, host, port and user; null if it has no scheme."""

    def extract(distinct: pa.Array) -> pa.Array:
        found = pc.struct_field(pc.extract_regex(distinct, _ORIGIN), "found")
        return pc.if_else(pc.equal(found, ""), None, found)

    return _map_distinct(urls, extract)


_ORIGIN = r"^(?P<found>[A-Za-z][A-Za-z0-9+.-]*:/*[^/?#]*)"


def _map_distinct(column: pa.ChunkedArray, function: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Apply a function to the distinct values only."""
    encoded = column.combine_chunks().dictionary_encode()
    return function(encoded.dictionary).take(encoded.indices)


def _host(urls: pa.ChunkedArray) -> pa.Array:
    """Return the part of each URL between the second and third slash; faster than a regular expression."""
    parts = pc.split_pattern(urls.combine_chunks(), "/", max_splits=3)
    lengths = pc.fill_null(pc.list_value_length(parts), 0).to_numpy()
    return parts.values.take(pa.array(parts.offsets.to_numpy()[:-1] + 2, mask=lengths < 3))


def _each(
    read: Callable[[Any], Any], make: Callable[[Iterable[Any]], Any], columns: Sequence[pa.ChunkedArray | pa.Array]
) -> tuple[list[Any], Codes]:
    """Return the results for the distinct combinations of values, and each row's index in them."""
    encoded = [_encode(column) for column in columns]
    rows, size = np.zeros(len(columns[0]), dtype=np.int64), 1
    for values, codes in encoded:
        rows = rows * len(values) + codes
        size *= max(1, len(values))
        if size > 2**40:  # renumber the combinations so far to avoid overflow
            known, rows = _number(rows)
            size = len(known)
    _, rows = _number(rows)
    firsts = np.zeros(rows.max(initial=-1) + 1, dtype=np.int64)
    firsts[rows[::-1]] = np.arange(len(rows))[::-1]
    distinct = zip(*([values[code] for code in codes[firsts].tolist()] for values, codes in encoded), strict=True)
    return [read(make(one)) for one in distinct], rows


def _number(codes: Codes) -> tuple[pa.Array, Codes]:
    """Return the distinct codes, and each one's index; a hash table is five times as fast as numpy's sort."""
    encoded = pa.array(codes).dictionary_encode()
    return encoded.dictionary, encoded.indices.to_numpy().astype(np.int64)


def _encode(column: pa.ChunkedArray | pa.Array) -> tuple[list[Any], Codes]:
    """Return the distinct values of a column, including null, and each row's index in them."""
    if column.null_count == len(column):
        return [None], np.zeros(len(column), dtype=np.int64)
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = array.dictionary_encode(null_encoding="encode")
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
