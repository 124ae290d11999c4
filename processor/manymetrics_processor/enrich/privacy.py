"""Truncates or removes addresses and user agents in rows, dead letters and archived records, after enrichment.

A write key's rules apply, else the processor's settings MANYMETRICS_IP and MANYMETRICS_USER_AGENT. `truncate` keeps the
network: /24 of IPv4, /48 of IPv6.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import msgspec
import pyarrow as pa

from manymetrics.records import PLAIN, Record, Stamp, UnreadableRecordError, pack_again, unpack
from manymetrics.settings import Settings
from manymetrics.tables import EVENTS

_SETTINGS = ("MANYMETRICS_IP", "MANYMETRICS_USER_AGENT")
_PREFIXES = {4: 24, 6: 48}
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Privacy(NamedTuple):
    """``ip``: keep, truncate or drop; ``user_agent``: keep or drop."""

    ip: str = "keep"
    user_agent: str = "keep"


KEEP = Privacy()


@cache
def own_privacy() -> Privacy:
    """Return the rules in this process's settings."""
    settings = Settings.read({name: os.environ[name] for name in _SETTINGS if name in os.environ})
    return Privacy(settings.ip, settings.user_agent)


def read_privacy(stamp: Stamp) -> Privacy:
    """Return the rules for a request's events."""
    own = own_privacy()
    if not stamp.ip_rule and not stamp.user_agent_rule:
        return own
    return Privacy(stamp.ip_rule or own.ip, stamp.user_agent_rule or own.user_agent)


def cut_address(address: str | None, rule: str) -> str | None:
    """Apply ``rule`` to an address; returns None for an invalid address unless ``rule`` is keep."""
    if address is None or rule == "keep":
        return address
    if rule == "drop":
        return None
    ip = _read_address(address)
    if ip is None:
        return None
    return _find_network(ip)


@lru_cache(maxsize=4_096)
def _find_network(ip: _Address) -> str:
    shift = ip.max_prefixlen - _PREFIXES[ip.version]
    return str(type(ip)(int(ip) >> shift << shift))


def make_mask(stamp: Stamp) -> Mask | None:
    """Return the mask for a request's events; None if everything is kept."""
    privacy = read_privacy(stamp)
    return None if privacy == KEEP else Mask(privacy, stamp)


class Mask:
    """Masks the texts of one request's events. ``stamp``: the request's data, with its address and user agent."""

    def __init__(self, privacy: Privacy, stamp: Stamp) -> None:
        self._privacy = privacy
        self._sender = _read_address(stamp.ip) if privacy.ip != "keep" and stamp.ip else None
        self._sender_sign = _find_sign(self._sender) if self._sender is not None else b""
        self._sender_kept = (cut_address(stamp.ip, privacy.ip) or "").encode()
        self._agent = stamp.user_agent if privacy.user_agent == "drop" and _is_product(stamp.user_agent) else None
        self.stamp = self._mask_stamp(stamp)
        """The request's data, masked."""

    def mask(self, raw: bytes) -> bytes:
        """Mask JSON, even if damaged or cut; valid JSON stays valid. Never raises.

        Masks the sender's address wherever it stands, other addresses in fields whose names end with `ip` or `address`,
        and the fields that hold user agents and client hints. Escapes that JSON doesn't need are resolved first.
        """
        if b"\\u" in raw or b"\\/" in raw:
            raw = _ESCAPE.sub(_resolve, raw)
        if self._privacy.ip != "keep":
            raw = self._without_sender(_ADDRESS_FIELD.sub(self._cut_field, raw))
        if self._privacy.user_agent == "drop":
            raw = _without_agent_fields(raw)
            if self._agent is not None:
                raw = raw.replace(msgspec.json.encode(self._agent)[1:-1], b"")
        return raw

    def mask_text(self, text: str) -> str | None:
        """Mask a text that is not JSON; None if nothing is left."""
        if self._sender is not None and self._sender_sign.decode() in text.lower():
            text = self._without_sender(text.encode()).decode()
        if self._agent is not None:
            text = text.replace(self._agent, "")
        return text or None

    def mask_column(self, name: str, text: str) -> str | None:
        """Mask a value of a column of `events`."""
        if name == "context_ip":
            return cut_address(text, self._privacy.ip)
        if name == "context_user_agent":
            return None if self._privacy.user_agent == "drop" else text
        return self.mask(text.encode()).decode() if name in _JSON_COLUMNS else self.mask_text(text)

    def _without_sender(self, raw: bytes) -> bytes:
        if self._sender is None or self._sender_sign not in raw.lower():
            return raw
        return _find_spellings(self._sender).sub(self._sender_kept, raw)

    def _cut_field(self, match: re.Match[bytes]) -> bytes:
        return match[1] + _STRINGS.sub(self._cut_addresses, match[2])

    def _cut_addresses(self, match: re.Match[bytes]) -> bytes:
        """Cut the comma-separated addresses of a JSON string; unchanged if it contains anything else."""
        is_cut = len(match[0]) == 1 or not match[0].endswith(b'"')
        inside = match[0][1:] if is_cut else match[0][1:-1]
        if not _ADDRESSES.fullmatch(inside):
            return match[0]
        hosts = [_HOST_PORT.sub(rb"\1", part.strip()).decode() for part in inside.split(b",")]
        if not is_cut and not all(_read_address(host) is not None for host in hosts):
            return match[0]
        kept = [one for host in hosts if (one := cut_address(host, self._privacy.ip)) is not None]
        return b'"%b"' % ", ".join(kept).encode() if kept else b"null"

    def _mask_stamp(self, stamp: Stamp) -> Stamp:
        names = ("sent_at", "context", "integrations", "anonymous_id")
        texts = {name: self.mask(getattr(stamp, name)) for name in names}
        agent = None if self._privacy.user_agent == "drop" else stamp.user_agent
        return msgspec.structs.replace(stamp, ip=cut_address(stamp.ip, self._privacy.ip), user_agent=agent, **texts)


def _is_product(user_agent: str | None) -> bool:
    """Return whether a user agent can be searched for: long enough, and not like JSON outside of strings."""
    return user_agent is not None and "/" in user_agent and len(user_agent) >= _SHORTEST_AGENT


_SHORTEST_AGENT = 8


def _read_address(text: str) -> _Address | None:
    """Parse an address, without its zone, IPv4-mapped ones as IPv4; None if it is invalid."""
    return _parse_address(text) if len(text) <= _LONGEST_ADDRESS else None


_LONGEST_ADDRESS = 100  # with its zone; bounds the memory of what is cached


@lru_cache(maxsize=4_096)
def _parse_address(text: str) -> _Address | None:
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


@lru_cache(maxsize=4_096)
def _find_sign(ip: _Address) -> bytes:
    """Return a lower-case part of every spelling of an address; texts without it need no search by pattern."""
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip).encode()
    return max((part.lstrip("0") for part in ip.exploded.split(":")), key=len).encode()


@lru_cache(maxsize=1_024)
def _find_spellings(ip: _Address) -> re.Pattern[bytes]:
    """Compile a pattern of an address's spellings in texts, including URLs."""
    if isinstance(ip, ipaddress.IPv4Address):
        return re.compile(rb"(?:(?<![0-9])|(?<=%%[0-9A-Fa-f]{2}))%b(?!\.?[0-9])" % re.escape(str(ip).encode()))
    parts = [part.lstrip("0") or "0" for part in ip.exploded.split(":")]
    spellings = "|".join(sorted({ip.compressed, ip.exploded, ":".join(parts)}, key=len, reverse=True))
    written = spellings.replace(":", "(?::|%3a)").encode()
    return re.compile(rb"(?:(?<![0-9a-f:])|(?<=%%[0-9a-f]{2}))(?:%b)(?!:?[0-9a-f])" % written, re.IGNORECASE)


_ESCAPE = re.compile(rb"\\(?:u[0-9A-Fa-f]{4}(?:\\u[0-9A-Fa-f]{4})*|.)", re.DOTALL)


def _resolve(match: re.Match[bytes]) -> bytes:
    """Decode escapes that JSON doesn't require; lone surrogates become U+FFFD."""
    if match[0] == rb"\/":
        return b"/"
    if not match[0].startswith(rb"\u"):
        return match[0]
    units = bytes.fromhex(match[0].replace(rb"\u", b"").decode())
    return msgspec.json.encode(units.decode("utf-16-be", "replace"))[1:-1]


_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'  # also one that was cut
_COLON = rb'"[ \t\r\n]*+:[ \t\r\n]*+'
_ADDRESS_FIELD = re.compile(
    rb'((?:ip|Ip|IP|[Aa]ddress)%b)(%b|\[(?:[^\]"]|%b)*+(?:\]|\Z))' % (_COLON, _STRING, _STRING), re.DOTALL
)
_STRINGS = re.compile(_STRING, re.DOTALL)
_ADDRESSES = re.compile(rb"[0-9A-Za-z:.%,\[\] ]{2,400}")
_HOST_PORT = re.compile(
    rb"\A\[?([0-9A-Fa-f:]+|[0-9A-Fa-f:]*[0-9.]+)(?:%[0-9A-Za-z]+)?(?:\](?::[0-9]+)?|(?<=[0-9])(?<!:):[0-9]+)?\Z"
)
_AGENT_FIELD = re.compile(rb'user[_-]?agent(?:data)?%b(?=["\[{])' % _COLON, re.IGNORECASE)
_BRACKET = re.compile(rb"(?P<string>%b)|(?P<opens>[\[{])|[\]}]" % _STRING, re.DOTALL)


def _without_agent_fields(raw: bytes) -> bytes:
    """Replace the values of user agent and hint fields by null; up to the end if the value was cut."""
    kept, at = [], 0
    while (field := _AGENT_FIELD.search(raw, at)) is not None:
        kept += [raw[at : field.end()], b"null"]
        at = _find_end(raw, field.end())
    return b"".join([*kept, raw[at:]]) if kept else raw


def _find_end(raw: bytes, start: int) -> int:
    """Return the end of the JSON string, array or object that begins at ``start``."""
    depth = 0
    for part in _BRACKET.finditer(raw, start):
        if part["string"] is None:
            depth += 1 if part["opens"] else -1
        if depth == 0:
            return part.end()
    return len(raw)


def mask_record(data: bytes) -> bytes:
    """Mask a stream record; returned unchanged if everything is kept.

    Bytes that aren't a record are replaced by PLAIN and at most 8 zeros, unless the settings keep everything.
    """
    try:
        record = unpack(data)
    except UnreadableRecordError:
        return data if own_privacy() == KEEP else bytes([PLAIN]) + bytes(min(len(data), 8))
    mask = make_mask(record.stamp)
    if mask is None:
        return data
    return pack_again(Record(mask.stamp, [mask.mask(event) for event in record.events], record.cuts))


_JSON_COLUMNS = frozenset(column.name for column in EVENTS.columns if column.json)
# Not from the client, but for `message_id`: later copies of an event are told by it.
_UNMASKED = frozenset({"message_id", "project_id", "type", "key_kind", "request_id", "repairs", "enrichment_version"})
_MASKED_COLUMNS = tuple(
    column.name
    for column in EVENTS.columns
    if column.type == "string" and column.name not in _UNMASKED and not column.name.startswith("_")
)


def mask_rows(rows: pa.Table, masks: Sequence[Mask | None]) -> pa.Table:
    """Mask rows of `events`; ``masks`` has one item per row."""
    places = [(place, mask) for place, mask in enumerate(masks) if mask is not None]
    if not places:
        return rows
    for name in _MASKED_COLUMNS:
        if rows[name].null_count == len(rows):
            continue
        values = rows[name].to_pylist()
        for place, mask in places:
            if values[place] is not None:
                values[place] = mask.mask_column(name, values[place])
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))
    return rows
