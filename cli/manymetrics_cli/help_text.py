"""Format the ``--help`` of commands."""

from __future__ import annotations

import argparse


class KeepExamples(argparse.HelpFormatter):
    """Fill one-line descriptions; keep the line breaks of text that has some, such as examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


class ListCommands(KeepExamples):
    """Leave room for the longest command: argparse counts the indent of commands too small."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = len("definitions") + 4
