"""Formulas over series: letters, numbers, ``+ - * /`` and parentheses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, TypeAlias

_SYMBOL: Final = re.compile(r"\s*(?:([0-9]{1,12}(?:\.[0-9]{1,9})?)|([A-Z])|([-+*/()]))")
_MAX_DEPTH: Final = 50


@dataclass(frozen=True, slots=True)
class Operation:
    """``left operator right``."""

    operator: str
    left: Formula
    right: Formula


Formula: TypeAlias = "Operation | str | Decimal"


def parse_formula(text: str, letters: str) -> Formula:
    """Parse a formula; ``letters`` are those that a series has. Raises ValueError."""
    symbols, at = [], 0
    while text[at:].strip():
        match = _SYMBOL.match(text, at)
        if match is None:
            raise ValueError(
                f"formula {text!r}: {text[at:].strip()[0]!r} is not a letter, a number or one of + - * / ( )"
            )
        if match[2] and match[2] not in letters:
            raise ValueError(f"formula {text!r}: there is no series {match[2]}: they are {', '.join(letters)}")
        symbols.append(match[1] or match[2] or match[3])
        at = match.end()
    parser = _Parser(text, symbols)
    found = parser.sum(0)
    if parser.symbols:
        raise parser.error()
    return found


class _Parser:
    def __init__(self, text: str, symbols: list[str]) -> None:
        self.text = text
        self.symbols = symbols[::-1]

    def error(self) -> ValueError:
        where = f"before {self.symbols[-1]!r}" if self.symbols else "at its end"
        return ValueError(f"formula {self.text!r} is incomplete {where}: write it as in A / B or (A - B) * 100")

    def sum(self, depth: int) -> Formula:
        left = self.product(depth)
        while self.symbols and self.symbols[-1] in "+-":
            left = Operation(self.symbols.pop(), left, self.product(depth))
        return left

    def product(self, depth: int) -> Formula:
        left = self.one(depth)
        while self.symbols and self.symbols[-1] in "*/":
            left = Operation(self.symbols.pop(), left, self.one(depth))
        return left

    def one(self, depth: int) -> Formula:
        if not self.symbols or depth > _MAX_DEPTH:
            raise self.error()
        symbol = self.symbols.pop()
        if symbol == "(":
            inner = self.sum(depth + 1)
            if not self.symbols or self.symbols.pop() != ")":
                raise self.error()
            return inner
        if symbol == "-":
            return Operation("-", Decimal(0), self.one(depth + 1))
        if symbol in "+*/)":
            self.symbols.append(symbol)
            raise self.error()
        return Decimal(symbol) if symbol[0].isdigit() else symbol
