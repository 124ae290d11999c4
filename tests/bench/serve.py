"""One server of the bench, in a process of its own: ``python -m tests.bench.serve APP FD CORE FOLDER``.

FD is a listening socket that the bench opened, so connections may come before the server is up. CORE is the core it
stays on; FOLDER is for what it keeps.
"""

import os
import socket
import sys
from pathlib import Path

import uvicorn

from manymetrics_api.collect import Front
from manymetrics_api.http_protocol import HttpProtocol
from tests.bench.apps import APPS


def main(name: str, descriptor: int, core: int, folder: Path) -> None:
    os.sched_setaffinity(0, {core})
    folder.mkdir()
    app = APPS[name](folder)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=HttpProtocol if isinstance(app, Front) else "httptools",  # the product's as `manymetrics serve` has it
        access_log=False,
        log_level="error",
        proxy_headers=False,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
