"""One server of the bench, in a process of its own: ``python -m tests.bench.serve APP FD CORE``.

FD is a listening socket that the bench opened, so connections may come before the server is up. CORE is the core it
stays on, or -1.
"""

import os
import socket
import sys

import uvicorn

from tests.bench.apps import APPS


def main(name: str, descriptor: int, core: int) -> None:
    if core >= 0:
        os.sched_setaffinity(0, {core})
    config = uvicorn.Config(
        APPS[name](), loop="uvloop", http="httptools", access_log=False, log_level="warning", server_header=False
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
