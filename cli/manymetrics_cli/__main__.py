"""Entry point of the ``manymetrics`` program. Its first half second is imports, so Ctrl-C is caught around them too."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command of ``sys.argv``; returns its exit status, 130 after Ctrl-C."""
    try:
        from manymetrics_cli.main import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
