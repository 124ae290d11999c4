r"""The regular expressions of ``matches``: what RE2 (DuckDB) and Joni (Athena, Trino) read alike.

Characters, ``.``, classes such as ``[a-z_]`` and ``[^/]``, ``\d \w \s`` (ASCII) and their opposites, groups,
``|``, ``* + ?`` (lazy too) and ``{m,n}``, ``^`` and ``$`` for the begin and end of the text. Refused: look-around,
back references, named groups, flags, ``\b``, POSIX classes. Measured on Trino 476 and DuckDB 2.0.
"""

from __future__ import annotations

import re
import warnings
from typing import Final

_CLASSES: Final = {"d": "0-9", "w": "0-9A-Za-z_", "s": r" \t\n\r\f"}
_CONTROLS: Final = "tnrf"
_PUNCTUATION: Final = frozenset(r"""\^$.|?*+()[]{}/-_"'#&~%@!<>=,;: `""")
_REPEAT: Final = re.compile(r"\{([0-9]{1,3})(,([0-9]{1,3})?)?\}")
MAX_REPEAT: Final = 200
_CURE: Final = "see docs/insights.md for what both engines read alike"


def parse_pattern(pattern: str) -> str:
    """Return the pattern as both engines take it. Raises ValueError."""
    try:
        with warnings.catch_warnings(action="error"):  # of what a later Python would read as sets of sets
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return _Parser(pattern).parse()


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0

    def parse(self) -> str:
        out = []
        while self.at < len(self.pattern):
            out.append(self._one())
        return "".join(out)

    def _one(self) -> str:
        character = self._next()
        if character == "\\":
            return self._escape()
        if character == "[":
            return self._set()
        if character == ".":
            return r"[^\n]"
        if character == "^":
            return r"\A"
        if character == "$":
            return r"\z"
        if character == "(":
            if self._peek() == "?":
                if self.pattern[self.at : self.at + 2] != "?:":
                    raise self._refused("groups with (?")
                self.at += 2
                return "(?:"
            return "(?:"
        if character in "*+?":
            return self._lazy(character)
        if character == "{":
            match = _REPEAT.match(self.pattern, self.at - 1)
            if match is None:
                return r"\{"
            low, high = int(match[1]), int(match[3] or match[1])
            if max(low, high) > MAX_REPEAT:
                raise ValueError(f"{match[0]} repeats more than {MAX_REPEAT} times")
            self.at = match.end()
            return self._lazy(match[0])
        if character == "}":
            return r"\}"
        if character == "]":
            return r"\]"
        return character

    def _lazy(self, repeat: str) -> str:
        if self._peek() == "+":
            raise self._refused(f"{repeat}+")
        if self._peek() == "?":
            self.at += 1  # lazy: finds the same texts
        return repeat

    def _escape(self) -> str:
        character = self._next()
        if character.lower() in _CLASSES:
            negated = "^" if character.isupper() else ""
            return f"[{negated}{_CLASSES[character.lower()]}]"
        if character in _CONTROLS:
            return f"\\{character}"
        if character in _PUNCTUATION:
            return re.escape(character)
        raise self._refused(f"\\{character}")

    def _set(self) -> str:
        out = ["["]
        if self._peek() == "^":
            self.at += 1
            out.append("^")
        begin = self.at
        while self.at < len(self.pattern):
            character = self._next()
            if character == "]" and self.at - 1 > begin:
                return "".join([*out, "]"])
            out.append(self._in_set(character))
        raise self._refused("[")

    def _in_set(self, character: str) -> str:
        if character == "\\":
            escaped = self._next()
            if escaped in _CLASSES:
                return _CLASSES[escaped]
            if escaped in _CONTROLS:
                return f"\\{escaped}"
            if escaped in _PUNCTUATION:
                return re.escape(escaped) if escaped not in "-]^\\[" else f"\\{escaped}"
            raise self._refused(f"\\{escaped} in [ ]")
        if character == "[" and self._peek() in ":.=":
            raise self._refused(f"[{self._peek()} in [ ]")
        if character == "-":  # of a range, or itself at the borders
            first = self.pattern[self.at - 2] in "[^" and self.at - 2 >= 0
            return r"\-" if first or self._peek() == "]" else "-"
        return f"\\{character}" if character in "[]^&" else character

    def _peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def _next(self) -> str:
        character = self.pattern[self.at]
        self.at += 1
        return character

    def _refused(self, what: str) -> ValueError:
        return ValueError(f"{self.pattern!r}: {what} can't be used, {_CURE}")
