"""``python -m tests.conformance.rehearsal_process URL FOLDER ...``: the command, over an emulation that others started.

So it can be killed, and the AWS that it changed is still there. No Athena.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sample.conformance.__main__ import main
from tests.conformance.rehearsal import Rehearsal
from tests.strict_moto import Aws

if __name__ == "__main__":
    url, folder, *arguments = sys.argv[1:]
    running = Rehearsal(Aws(url), Path(folder) / "sample" / "sample", Path(folder) / "build" / "aws-conformance", None)
    sys.exit(main(arguments, lambda _region: running.world))
