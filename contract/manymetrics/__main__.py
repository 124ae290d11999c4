"""``python -m manymetrics``: deprecated alias of ``manymetrics_cli.__main__``, kept for one release."""

from manymetrics_cli.__main__ import main

raise SystemExit(main())
