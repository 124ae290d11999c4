"""Deprecated alias of ``manymetrics_cli.one_machine``, kept for one release."""

from manymetrics_cli.one_machine import create_local_app

__all__ = ["create_local_app"]
