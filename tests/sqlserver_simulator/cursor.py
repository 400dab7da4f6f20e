"""A place in a list of tokens."""

from __future__ import annotations

from .errors import SqlError
from .lexer import Token

RESERVED = frozenset(
    [
        "SELECT",
        "FROM",
        "WHERE",
        "GROUP",
        "HAVING",
        "ORDER",
        "UNION",
        "EXCEPT",
        "INTERSECT",
        "ON",
        "JOIN",
        "INNER",
        "LEFT",
        "RIGHT",
        "FULL",
        "CROSS",
        "OUTER",
        "AND",
        "OR",
        "NOT",
        "IN",
        "IS",
        "NULL",
        "LIKE",
        "BETWEEN",
        "EXISTS",
        "CASE",
        "WHEN",
        "THEN",
        "ELSE",
        "END",
        "AS",
        "TOP",
        "DISTINCT",
        "INTO",
        "SET",
        "VALUES",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "BACKUP",
        "RESTORE",
        "USE",
        "DECLARE",
        "IF",
        "WHILE",
        "CREATE",
        "ALTER",
        "DROP",
        "INSERT",
        "UPDATE",
        "DELETE",
        "EXEC",
        "EXECUTE",
        "PRINT",
        "RAISERROR",
        "WAITFOR",
        "KILL",
        "DBCC",
        "GRANT",
        "DENY",
        "REVOKE",
        "WITH",
        "OPTION",
        "FOR",
        "RETURN",
        "CHECKPOINT",
        "COLLATE",
        "PRIMARY",
        "KEY",
        "UNIQUE",
        "CHECK",
        "DEFAULT",
        "IDENTITY",
        "TO",
    ]
)


class TokenCursor:
    """A place in a token list, and the questions a recursive-descent parser asks."""

    def __init__(self, found: list[Token]) -> None:
        self.found = found
        self.at = 0

    @property
    def token(self) -> Token:
        return self.found[self.at]

    def peek(self, ahead: int = 1) -> Token:
        return self.found[min(self.at + ahead, len(self.found) - 1)]

    def advance(self) -> Token:
        token = self.found[self.at]
        if token.kind != "end":
            self.at += 1
        return token

    def is_word(self, *words: str) -> bool:
        return all(self.peek(i).upper == word for i, word in enumerate(words))

    def take(self, *words: str) -> bool:
        """Consume these words if they come next, in this order."""
        if self.is_word(*words):
            self.at += len(words)
            return True
        return False

    def expect(self, *words: str) -> None:
        if not self.take(*words):
            raise self.wrong()

    def wrong(self, token: Token | None = None) -> SqlError:
        near = token or self.token
        if near.kind == "end":
            near = self.found[max(self.at - 1, 0)]
        if near.kind == "word" and near.upper in RESERVED:
            return SqlError(156, f"Incorrect syntax near the keyword '{near.text}'.", 15)
        return SqlError(102, f"Incorrect syntax near '{near.text}'.", 15)

    def name(self) -> str:
        """One identifier."""
        token = self.token
        if token.kind == "name" or (token.kind == "word" and token.upper not in RESERVED):
            return self.advance().text
        raise self.wrong()

    def parts(self) -> tuple[str, ...]:
        """A dotted name; an empty part (``msdb..backupset``) becomes ''."""
        found = [self.name()]
        while self.take("."):
            found.append("" if self.is_word(".") else self.name())
        return tuple(found)

    def string(self) -> str:
        if self.token.kind != "string":
            raise self.wrong()
        return self.advance().text

    def integer(self) -> int:
        sign = -1 if self.take("-") else 1
        if self.token.kind != "number":
            raise self.wrong()
        return sign * int(self.advance().text)
