"""Tokens of T-SQL: names, strings, numbers, variables, operators ([D] Transact-SQL reference,
"Identifiers" and "Constants")."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import SqlError

_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<comment>--[^\n]*|/\*.*?\*/)
  | (?P<string>[nN]?'(?:[^']|'')*')
  | (?P<quoted>\[(?:[^\]]|\]\])*\]|"(?:[^"]|"")*")
  | (?P<binary>0[xX][0-9A-Fa-f]*)
  | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
  | (?P<variable>@@?[\w$\#@]+)
  | (?P<word>[^\W\d][\w$\#@]*|\#+[\w$\#@]+)
  | (?P<operator><>|<=|>=|!=|\+=|-=|::|[=<>+\-*/%(),.;&|^~{}])
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """``kind``: word, name (quoted), string, binary, number, variable, operator or end.
    ``text`` is the value without quotes; ``wide`` says that a string was N'..'."""

    kind: str
    text: str
    line: int
    at: int
    wide: bool = False

    @property
    def upper(self) -> str:
        """The word in capitals, or the operator; empty for strings and quoted names."""
        return self.text.upper() if self.kind in {"word", "operator", "variable"} else ""


def tokens(sql: str) -> list[Token]:
    """Every token of a batch and an end token. SqlError 102/105/113 where it cannot be read."""
    found: list[Token] = []
    at, line = 0, 1
    while at < len(sql):
        match = _TOKEN.match(sql, at)
        if match is None:
            rest = sql[at : at + 30]
            if sql[at] in "'\"[" or sql[at : at + 2].upper() == "N'":
                raise SqlError(
                    105, f"Unclosed quotation mark after the character string '{rest[1:]}'.", 15
                )
            if sql.startswith("/*", at):
                raise SqlError(113, "Missing end comment mark '*/'.", 15)
            raise SqlError(102, f"Incorrect syntax near '{sql[at]}'.", 15)
        kind, text = match.lastgroup or "", match.group()
        if kind == "string":
            wide = text[0] in "nN"
            body = text[2:-1] if wide else text[1:-1]
            found.append(Token("string", body.replace("''", "'"), line, at, wide))
        elif kind == "quoted":
            close = "]" if text[0] == "[" else '"'
            found.append(Token("name", text[1:-1].replace(close * 2, close), line, at))
        elif kind not in {"space", "comment"}:
            found.append(Token(kind, text, line, at))
        line += text.count("\n")
        at = match.end()
    found.append(Token("end", "", line, at))
    return found
