"""Addresses and user agents that are not kept: what is cut, in which fields, and by whose rule."""

from __future__ import annotations

import json
import time

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from manymetrics.records import Stamp, pack, unpack
from manymetrics_processor.enrich import privacy
from manymetrics_processor.enrich.privacy import KEEP, Mask, Privacy, cut_address, mask_record, read_privacy

ADDRESS, AGENT = "203.0.113.77", "Mozilla/5.0 (X11; Linux x86_64) Firefox/144.0"
STAMP = Stamp(1, "r", "shop", "browser", ip=ADDRESS, user_agent=AGENT)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.77", "203.0.113.0"),
        ("255.255.255.255", "255.255.255.0"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
        ("2001:DB8::1", "2001:db8::"),
        ("::ffff:203.0.113.77", "203.0.113.0"),
        ("fe80::1%eth0", "fe80::"),
        ("no address", None),
        ("", None),
        (None, None),
    ],
)
def test_an_address_is_truncated_to_its_network(address: str | None, network: str | None) -> None:
    assert cut_address(address, "truncate") == network
    assert cut_address(address, "drop") is None
    assert cut_address(address, "keep") == address


@pytest.mark.parametrize(
    ("raw", "truncated"),
    [
        ({"context": {"ip": "198.51.100.9"}}, {"context": {"ip": "198.51.100.0"}}),
        ({"context": {"ip": "2001:db8:7::9"}}, {"context": {"ip": "2001:db8:7::"}}),
        ({"properties": {"client_ip": "198.51.100.9"}}, {"properties": {"client_ip": "198.51.100.0"}}),
        ({"traits": {"ipAddress": "198.51.100.9"}}, {"traits": {"ipAddress": "198.51.100.0"}}),
        ({"x": f"from {ADDRESS}, port 1"}, {"x": "from 203.0.113.0, port 1"}),
        ({"x": ADDRESS + "9", "y": "1" + ADDRESS}, {"x": ADDRESS + "9", "y": "1" + ADDRESS}),
        ({"ship": "10.1", "tip": "see 1.2.3.4", "version": "1.2.3.4"}, None),
        ({"ip": 5, "zip": "10.0.0"}, None),
    ],
)
def test_addresses_in_an_event_are_cut_and_nothing_else(raw: object, truncated: object) -> None:
    text = json.dumps(raw)

    assert json.loads(Mask(Privacy("truncate", "keep"), STAMP).mask(text.encode())) == (truncated or raw)
    assert Mask(Privacy("keep", "drop"), STAMP).mask(text.encode()) == text.encode()
    dropped = Mask(Privacy("drop", "keep"), STAMP).mask(text.encode())
    json.loads(dropped)
    assert b"198.51.100" not in dropped
    assert ADDRESS not in json.loads(dropped).values()


def test_user_agents_and_client_hints_are_removed_wherever_a_client_puts_them() -> None:
    hints = {"brands": [{"brand": 'A {"}', "version": "1"}], "mobile": False, "platform": "macOS"}
    raw = {"context": {"userAgent": AGENT, "userAgentData": hints, "os": {"name": "x"}}, "properties": {"note": AGENT}}
    for separators in ((",", ":"), (", ", ": ")):
        masked = Mask(Privacy("keep", "drop"), STAMP).mask(json.dumps(raw, separators=separators).encode())

        assert json.loads(masked) == {
            "context": {"userAgent": None, "userAgentData": None, "os": {"name": "x"}},
            "properties": {"note": ""},
        }


@pytest.mark.parametrize("rule", ["truncate", "drop"])
@pytest.mark.parametrize(
    "sends",
    [
        "x",
        '"ip":"198.51.100.9',
        '{"ip":"198.51.100.9"',
        '{"ip":["198.51.100.9',
        '{"ip":"198.51.100.9","x":NaN}',
        '{"userAgent":"SecretBrowser',
        '{"userAgentData":{"brands":[{"brand":"SecretBrowser',
        "",
    ],
)
def test_what_is_no_json_is_masked_too(sends: str, rule: str) -> None:
    masked = Mask(Privacy(rule, "drop"), STAMP).mask(sends.encode())

    assert b"198.51.100.9" not in masked
    assert b"SecretBrowser" not in masked


@pytest.mark.parametrize("rule", ["truncate", "drop"])
@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (rb'{"ip":"198.51.100.\u0039"}', b'{"ip":"198.51.100.0"}'),
        (rb'{"\u0069p":"198.51.100.9"}', b'{"ip":"198.51.100.0"}'),
        (rb'{"x":"\ud800\u0032\u00303.0.113.77"}', '{"x":"\ufffd203.0.113.0"}'.encode()),
        (rb'{"x":"\\u0032 \ud83d\ude203.0.113.77"}', '{"x":"\\\\u0032 \U0001f6203.0.113.77"}'.encode()),
        (b'{"ip"%b: "198.51.100.9"}' % (b" " * 50), b'{"ip"%b: "198.51.100.0"}' % (b" " * 50)),
        (b'{"%b_ip":"198.51.100.9"}' % (b"x" * 50), b'{"%b_ip":"198.51.100.0"}' % (b"x" * 50)),
        (b'{"ip":"198.51.100.9:443"}', b'{"ip":"198.51.100.0"}'),
        (b'{"ip":"[2001:db8:1:2::3]:443"}', b'{"ip":"2001:db8:1::"}'),
        (b'{"ip":"fe80:1:2:3::4%eth0"}', b'{"ip":"fe80:1:2::"}'),
        (b'{"ip":["198.51.100.9", "198.51.100.8"]}', b'{"ip":["198.51.100.0", "198.51.100.0"]}'),
        (b'{"ip":"198.51.100.9, 198.51.100.8"}', b'{"ip":"198.51.100.0, 198.51.100.0"}'),
        (b'{"x":"http://203.0.113.77:80/?%3D203.0.113.77"}', b'{"x":"http://203.0.113.0:80/?%3D203.0.113.0"}'),
        (b'{"x":"::ffff:203.0.113.77."}', b'{"x":"::ffff:203.0.113.0."}'),
    ],
)
def test_no_way_to_write_an_address_gets_around_the_rule(raw: bytes, kept: bytes, rule: str) -> None:
    masked = Mask(Privacy(rule, "keep"), STAMP).mask(raw)

    json.loads(masked)
    if rule == "truncate":
        assert masked == kept
    else:
        assert not any(address in masked for address in (b"198.51.100", b"2001", b"fe80", b"203.0.113.77"))


@pytest.mark.parametrize("written", ["2001:DB8:1:2::9", "2001:db8:1:2:0:0:0:9", "2001%3Adb8%3A1%3A2%3A%3A9"])
def test_a_senders_ipv6_address_is_found_however_it_is_written(written: str) -> None:
    mask = Mask(Privacy("truncate", "keep"), msgspec.structs.replace(STAMP, ip="2001:db8:1:2::9"))

    assert mask.mask(json.dumps({"x": f"?a={written}&b"}).encode()) == b'{"x": "?a=2001:db8:1::&b"}'


@pytest.mark.parametrize("agent", ["1", "true", ",", "}", "a", "userId", '"', "\\"])
def test_a_user_agent_that_is_none_damages_no_event(agent: str) -> None:
    raw = b'{"userId":"a","b":{"c":[1,true]},"d":"\\\\"}'

    assert Mask(Privacy("keep", "drop"), msgspec.structs.replace(STAMP, user_agent=agent)).mask(raw) == raw


@pytest.mark.parametrize("hints", [[{"brand": AGENT}], {"a": {"b": {"c": [{"d": AGENT + '"}'}]}}}, "x"])
@pytest.mark.parametrize("name", ["userAgentData", "userAgent", "User-Agent", "user_agent", "browserUserAgent"])
def test_fields_of_user_agents_are_emptied_whatever_they_hold(name: str, hints: object) -> None:
    raw = json.dumps({"a": {name: hints, "b": 1}, "c": 2}).encode()

    assert json.loads(Mask(Privacy("keep", "drop"), STAMP).mask(raw)) == {"a": {name: None, "b": 1}, "c": 2}


@pytest.mark.parametrize(
    "damaged", [b'"ip":[', b'"ip":"', b'"userAgent":"', b'"userAgentData":{', b'{"a":', b'"', b"\\u0031", b"1:2"]
)
def test_damaged_json_takes_time_by_its_length(damaged: bytes) -> None:
    mask = Mask(Privacy("truncate", "drop"), STAMP)

    def seconds(size: int) -> float:
        raw = damaged * (size // len(damaged)) + b'"x\\'
        start = time.process_time()
        mask.mask(raw)
        return time.process_time() - start

    assert seconds(400_000) < 2  # quadratic: minutes


_fields = st.sampled_from(["ip", "remoteAddress", "x", "userAgent", "userAgentData", "context", 'q"', "\\ip"])
_values = st.recursive(
    st.sampled_from([ADDRESS, AGENT, "198.51.100.9", "a", '"', "\\", "{", "}", "é\x00"]) | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_fields, inner, max_size=3),
    max_leaves=8,
)


@given(_values, st.sampled_from(["keep", "truncate", "drop"]), st.sampled_from(["keep", "drop"]), st.booleans())
@example(value={"ip": [AGENT, None]}, ip="truncate", agent="keep", ascii_only=False)
@example(value={"ip": [";", "198.51.100.9", ";", 1, "x"]}, ip="drop", agent="drop", ascii_only=True)
def test_json_stays_json(value: object, ip: str, agent: str, ascii_only: bool) -> None:
    masked = Mask(Privacy(ip, agent), STAMP).mask(json.dumps({"a": value}, ensure_ascii=ascii_only).encode())

    json.loads(masked)
    assert ip == "keep" or ADDRESS.encode() not in masked
    assert agent == "keep" or AGENT.encode() not in masked


def test_a_record_keeps_its_events_and_loses_what_may_not_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    stamp = msgspec.structs.replace(STAMP, ip_rule="truncate", context=b'{"ip":"198.51.100.9"}')
    [record] = pack(stamp, [b'{"event":"A"}', b'{"context":{"ip":"198.51.100.10"}}'])

    masked = unpack(mask_record(record))

    assert masked.stamp.ip == "203.0.113.0"
    assert masked.stamp.user_agent == AGENT
    assert masked.stamp.context == b'{"ip":"198.51.100.0"}'
    assert masked.events == [b'{"event":"A"}', b'{"context":{"ip":"198.51.100.0"}}']
    [plain] = pack(STAMP, [b"{}"])
    assert mask_record(plain) is plain
    assert mask_record(b"\x01 damaged 203.0.113.77") == b"\x01 damaged 203.0.113.77"
    monkeypatch.setattr(privacy, "own_privacy", lambda: Privacy("drop", "keep"))
    assert b"203" not in mask_record(b"\x01 damaged 203.0.113.77")
    assert unpack(mask_record(plain)).stamp.ip is None


def test_what_a_write_key_says_wins_over_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_privacy(STAMP) == KEEP
    monkeypatch.setattr(privacy, "own_privacy", lambda: Privacy("drop", "drop"))
    assert read_privacy(STAMP) == Privacy("drop", "drop")
    own = msgspec.structs.replace(STAMP, ip_rule="keep", user_agent_rule="keep")
    assert read_privacy(own) == KEEP
