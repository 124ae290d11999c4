"""Cut or remove addresses and user agents from rows, dead letters and archived records, once enrichment has read them.

A project's keys say what is kept; if they don't, the settings MANYMETRICS_IP and MANYMETRICS_USER_AGENT of the
processor do. `truncate` keeps the network: /24 of IPv4, /48 of IPv6.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import msgspec
import pyarrow as pa

from manymetrics.records import PLAIN, Record, Stamp, UnreadableRecordError, pack_again, unpack
from manymetrics.settings import Settings

_SETTINGS = ("MANYMETRICS_IP", "MANYMETRICS_USER_AGENT")
_PREFIXES = {4: 24, 6: 48}


class Privacy(NamedTuple):
    """``ip``: keep, truncate or drop; ``user_agent``: keep or drop."""

    ip: str = "keep"
    user_agent: str = "keep"


KEEP = Privacy()


@cache
def own_privacy() -> Privacy:
    """What the settings of this process say."""
    settings = Settings.read({name: os.environ[name] for name in _SETTINGS if name in os.environ})
    return Privacy(settings.ip, settings.user_agent)


def read_privacy(stamp: Stamp) -> Privacy:
    """What is to be kept of a request's events."""
    own = own_privacy()
    return Privacy(stamp.ip_rule or own.ip, stamp.user_agent_rule or own.user_agent)


def cut_address(address: str | None, rule: str) -> str | None:
    """What is kept of an address; nothing if ``rule`` is not keep and it is none."""
    if address is None or rule == "keep":
        return address
    if rule == "drop":
        return None
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return str(ipaddress.ip_network((ip, _PREFIXES[ip.version]), strict=False).network_address)


def make_mask(stamp: Stamp) -> Mask | None:
    """The mask of a request's events; None if all may be kept."""
    privacy = read_privacy(stamp)
    return None if privacy == KEEP else Mask(privacy, stamp)


class Mask:
    """Masks the texts of one request's events. ``stamp``: its facts, with its address and user agent."""

    def __init__(self, privacy: Privacy, stamp: Stamp) -> None:
        self._privacy = privacy
        self._address = stamp.ip if privacy.ip != "keep" else None
        self._agent = stamp.user_agent if privacy.user_agent == "drop" else None
        self.stamp = self._mask_stamp(stamp)
        """The facts of the request as they may be kept."""

    def mask(self, raw: bytes) -> bytes:
        """JSON, also damaged JSON, without what may not be kept. Never raises.

        Masks the sender's address wherever it stands, other addresses in fields whose names end with `ip` or `address`,
        and the fields that hold user agents and client hints.
        """
        if self._privacy.ip != "keep":
            raw = _ADDRESS_FIELD.sub(self._cut_field, raw)
            raw = self._without(raw, self._address)
        if self._privacy.user_agent == "drop":
            raw = _AGENT_FIELD.sub(rb"\1null", raw)
            raw = self._without(raw, self._agent)
        return raw

    def mask_column(self, name: str, text: str) -> str | None:
        """Mask a value of a column of `events`."""
        if name == "context_ip":
            return cut_address(text, self._privacy.ip)
        if name == "context_user_agent":
            return None if self._privacy.user_agent == "drop" else text
        return self.mask(text.encode()).decode()

    def _without(self, raw: bytes, text: str | None) -> bytes:
        if not text:
            return raw
        written = msgspec.json.encode(text)[1:-1]
        if written not in raw:
            return raw
        kept = cut_address(text, self._privacy.ip) if text == self._address else None
        return re.sub(rb"(?<![0-9A-Za-z.:])%b(?![0-9A-Za-z.:])" % re.escape(written), (kept or "").encode(), raw)

    def _cut_field(self, match: re.Match[bytes]) -> bytes:
        try:
            ipaddress.ip_address(match[2].decode("latin-1"))
        except ValueError:
            return match[0]
        kept = cut_address(match[2].decode("latin-1"), self._privacy.ip)
        return match[1] + (b"null" if kept is None else b'"%b"' % kept.encode())

    def _mask_stamp(self, stamp: Stamp) -> Stamp:
        texts = {name: self.mask(getattr(stamp, name)) for name in ("context", "integrations")}
        agent = None if self._privacy.user_agent == "drop" else stamp.user_agent
        return msgspec.structs.replace(stamp, ip=cut_address(stamp.ip, self._privacy.ip), user_agent=agent, **texts)


_ADDRESS_FIELD = re.compile(
    rb'("[^"\\]{0,40}(?:ip|Ip|IP|address|Address)"[ \t\r\n]{0,20}:[ \t\r\n]{0,20})"([0-9A-Fa-f:.]{2,45})"'
)
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_AGENT_FIELD = re.compile(
    rb'("(?:user_?[aA]gent|User-Agent|userAgentData)"[ \t\r\n]{0,20}:[ \t\r\n]{0,20})'
    rb'(?:%b|\{[^{}"]*+(?:(?:%b|\{(?:[^{}"]|%b)*+\})[^{}"]*+)*+\})' % (_STRING, _STRING, _STRING),
    re.DOTALL,
)


def mask_record(data: bytes) -> bytes:
    """A stream record without what may not be kept; as it is if all may be.

    Of bytes that are no record nothing is kept but their number, if the settings don't keep all.
    """
    try:
        record = unpack(data)
    except UnreadableRecordError:
        return data if own_privacy() == KEEP else bytes([PLAIN]) + bytes(min(len(data), 8))
    mask = make_mask(record.stamp)
    if mask is None:
        return data
    return pack_again(Record(mask.stamp, [mask.mask(event) for event in record.events], record.cuts))


_TEXTS = ("properties", "traits", "context", "extra")


def mask_rows(rows: pa.Table, masks: Sequence[Mask | None]) -> pa.Table:
    """Rows of `events` without what may not be kept; ``masks`` has an item per row."""
    places = [place for place, mask in enumerate(masks) if mask is not None]
    if not places:
        return rows
    for name in ("context_ip", "context_user_agent", *_TEXTS):
        values = rows[name].to_pylist()
        for place in places:
            mask = masks[place]
            if mask is not None and values[place] is not None:
                values[place] = mask.mask_column(name, values[place])
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, rows.schema.field(at), pa.array(values, rows.schema.field(at).type))
    return rows
