"""``python -m manymetrics``: the former path of ``manymetrics_cli.__main__``, kept for one release."""

from manymetrics_cli.__main__ import main

raise SystemExit(main())
