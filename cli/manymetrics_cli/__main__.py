"""Where the ``manymetrics`` program begins: its first half second is imports, and Ctrl-C may come in them too."""

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
