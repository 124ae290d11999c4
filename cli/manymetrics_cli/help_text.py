"""How the commands' ``--help`` is laid out."""

from __future__ import annotations

import argparse


class KeepExamples(argparse.HelpFormatter):
    """Fill descriptions, and keep the lines of what has lines already, as examples have."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)
