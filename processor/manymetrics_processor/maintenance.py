"""Keep the tables small: merge little files, expire snapshots, remove files that nothing refers to."""

from __future__ import annotations

from manymetrics_processor.lake import Lake


class Maintenance:
    """What is done inline, between commits."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._commits = 0

    def after_commit(self) -> None:
        """Count a commit, and do what is due."""
        self._commits += 1
