"""``python -m tests.bench.invoke HANDLER PAYLOADS``: a Lambda handler, called as often as its standard input says.

PAYLOADS is a file with a list of payloads for each number of events a request. A line in: that number, and how many
invocations. A line out: what they used of CPU, in seconds, of all the process's threads.
"""

import importlib
import json
import sys
import time
from pathlib import Path


def main(handler: str, path: str) -> None:
    module, _, name = handler.rpartition(".")
    handle = getattr(importlib.import_module(module), name)
    payloads = json.loads(Path(path).read_bytes())
    for line in sys.stdin:
        size, times = line.split()
        before_s = time.process_time()
        for number in range(int(times)):
            answer = handle(payloads[size][number % len(payloads[size])], None)
            if answer["statusCode"] != 200:
                raise RuntimeError(f"the bench measures what is stored, and this was not: {answer}")
        print(time.process_time() - before_s, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
