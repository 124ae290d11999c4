"""Ports that a test's servers may listen on. It imports nothing of the product: servers in other processes ask too."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from itertools import cycle
from random import sample

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = cycle(sample(range(16_000 + 1_000 * _WORKER, 17_000 + 1_000 * _WORKER), 1_000))  # shuffled, for another run


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that nobody else is given until it is used.

    Below those that systems give away by themselves; from a range of this worker's, each once.
    """
    while True:
        port = next(_PORTS)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
