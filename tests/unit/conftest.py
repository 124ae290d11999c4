"""Unit tests run without a network: what opens a connection is an integration test."""

import socket
from collections.abc import Callable
from typing import NoReturn

import pytest

_OPENERS = ("connect", "connect_ex", "bind")


@pytest.fixture(autouse=True)
def sockets_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Event loops still work: they wake themselves through a pair that is born connected."""
    for opener in _OPENERS:
        monkeypatch.setattr(socket.socket, opener, _refuser(opener))
    monkeypatch.setattr(socket, "getaddrinfo", _refuser("getaddrinfo"))


def _refuser(name: str) -> Callable[..., NoReturn]:
    def refuse(*arguments: object, **_options: object) -> NoReturn:
        pytest.fail(f"a unit test called socket {name}{arguments[1:]}: move it to tests/integration")

    return refuse
