"""Whose address an event gets: the peer's, or what so many trusted proxies say."""

import pytest

from manymetrics.records import unpack
from manymetrics.settings import Settings
from tests.in_process import CLIENT_IP, EVENT, Api, ask, basic


def _ip(proxies: int, forwarded: list[str], client: str = CLIENT_IP) -> str | None:
    api = Api(settings=Settings(trusted_proxies=proxies), hot=True)
    headers = [*basic("wk_shop:").items(), *(("x-forwarded-for", value) for value in forwarded)]
    ask(api.app, "POST", "/v1/track", headers, EVENT, client=client)
    return unpack(api.sink.records[0]).stamp.ip


@pytest.mark.parametrize("forwarded", [["1.2.3.4"], ["1.2.3.4, 127.0.0.1"], []])
def test_without_a_trusted_proxy_nobody_is_believed(forwarded: list[str]) -> None:
    assert _ip(0, forwarded) == CLIENT_IP


@pytest.mark.parametrize("proxies", [0, 1])
def test_a_link_local_address_is_stored_without_its_zone(proxies: int) -> None:
    assert _ip(proxies, [], client="fe80::1%eth0") == "fe80::1"


@pytest.mark.parametrize("proxies", [0, 1])
def test_an_ipv4_address_that_a_socket_of_both_families_shows_is_ipv4(proxies: int) -> None:
    assert _ip(proxies, [], client="::ffff:1.2.3.4") == "1.2.3.4"


@pytest.mark.parametrize(
    ("proxies", "forwarded", "ip"),
    [
        (1, ["9.9.9.9, 1.2.3.4"], "1.2.3.4"),
        (1, ["9.9.9.9", "1.2.3.4"], "1.2.3.4"),
        (2, ["9.9.9.9, 1.2.3.4, 10.0.0.1"], "1.2.3.4"),
        (2, ["9.9.9.9, 1.2.3.4", "10.0.0.1"], "1.2.3.4"),
        (2, ["1.2.3.4"], "1.2.3.4"),
        (1, ["2001:db8::1"], "2001:db8::1"),
        (1, ["unknown"], CLIENT_IP),
        (1, [""], CLIENT_IP),
        (1, [], CLIENT_IP),
        (1, ["1.2.3.4:5678"], "1.2.3.4"),  # as Azure's gateway writes it
        (1, ["9.9.9.9:1, 1.2.3.4:5678"], "1.2.3.4"),
        (1, ["[2001:db8::1]:5678"], "2001:db8::1"),
        (1, ["[2001:DB8::1]"], "2001:db8::1"),
        (1, ['"[2001:db8::1]:5678"'], "2001:db8::1"),
        (1, ["::ffff:1.2.3.4"], "1.2.3.4"),
        (1, ["[::ffff:102:304]:80"], "1.2.3.4"),
        (1, ["host:80"], CLIENT_IP),
        (1, ["[1.2.3.4"], "1.2.3.4"),
        (1, ["[]:80"], CLIENT_IP),
        (1, ["9.9.9.9, " * 1_000 + "1.2.3.4"], "1.2.3.4"),
        (1, ["\xff"], CLIENT_IP),
        (1, ["1.2.3.4, "], "1.2.3.4"),
        (1, ["1.2.3.4,,\t, "], "1.2.3.4"),
        (2, ["9.9.9.9, 1.2.3.4, , 10.0.0.1,"], "1.2.3.4"),
        (1, [", ,"], CLIENT_IP),
        (1, ["fe80::1%<script>"], "fe80::1"),
        (1, ["[fe80::1%25eth0]:80"], "fe80::1"),
        (1, ["%<script>"], CLIENT_IP),
    ],
)
def test_so_many_hops_from_the_right_are_believed(proxies: int, forwarded: list[str], ip: str) -> None:
    assert _ip(proxies, forwarded) == ip
