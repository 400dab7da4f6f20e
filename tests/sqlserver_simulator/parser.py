"""Grammar of batches and of every statement but BACKUP and RESTORE."""

from __future__ import annotations

from . import syntax as s
from .administrationgrammar import STATEMENTS, AdministrationGrammar
from .errors import not_modelled
from .lexer import tokens
from .sqltypes import INT, SqlType

_IGNORED_SETS = frozenset(
    [
        "ARITHABORT",
        "NUMERIC_ROUNDABORT",
        "ANSI_NULLS",
        "ANSI_PADDING",
        "ANSI_WARNINGS",
        "ANSI_NULL_DFLT_ON",
        "CONCAT_NULL_YIELDS_NULL",
        "CURSOR_CLOSE_ON_COMMIT",
        "QUOTED_IDENTIFIER",
        "TEXTSIZE",
        "NOCOUNT",
        "XACT_ABORT",
        "LANGUAGE",
        "DATEFORMAT",
        "DATEFIRST",
        "LOCK_TIMEOUT",
        "DEADLOCK_PRIORITY",
        "IMPLICIT_TRANSACTIONS",
        "ROWCOUNT",
        "TRANSACTION",
        "FMTONLY",
        "ANSI_DEFAULTS",
        "STATISTICS",
        "CONTEXT_INFO",
    ]
)


def parse(sql: str) -> list[s.Statement]:
    """The statements of a batch. SqlError of severity 15 where it is wrong."""
    return Parser(tokens(sql)).batch()


class Parser(AdministrationGrammar):
    """Statements."""

    def batch(self) -> list[s.Statement]:
        found: list[s.Statement] = []
        while True:
            while self.take(";"):
                pass
            if self.token.kind == "end":
                return found
            found.append(self.statement())

    def statement(self) -> s.Statement:
        word = self.token.upper
        if word == "WITH" or word == "SELECT" or self.token.text == "(":
            return s.SelectStatement(self.query())
        if word == "BACKUP":
            return self.backup()
        if word == "RESTORE":
            return self.restore()
        handler = getattr(self, f"_{word.lower()}", None) if self.token.kind == "word" else None
        if word in STATEMENTS and handler is not None:
            self.advance()
            statement: s.Statement = handler()
            return statement
        if self.token.kind in {"word", "name"} and self.at == 0:
            return self._procedure(None)  # a procedure call may start a batch without EXEC
        raise self.wrong()

    def _use(self) -> s.Statement:
        return s.Use(self.name())

    def _set(self) -> s.Statement:
        if self.token.kind == "variable":
            name = self.advance().text
            self.expect("=")
            return s.SetVariable(name, self.condition())
        words: list[str] = []
        if self.token.upper not in _IGNORED_SETS:
            raise not_modelled(f"SET {self.token.text}")
        options = 1
        while self.take(",") or options:
            options = 0
            words.append(self.advance().text)
        first = words[0].upper()
        if first == "TRANSACTION":
            self.expect("ISOLATION")
            self.expect("LEVEL")
            words.append(self.advance().text)
            if words[-1].upper() in {"READ", "REPEATABLE"}:
                self.advance()
        elif first == "STATISTICS":
            self.advance()
            words.append(self.advance().text)
        else:
            sign = self.take("-")
            words.append(("-" if sign else "") + self.advance().text)
        return s.SetOption(tuple(words))

    def _declare(self) -> s.Statement:
        found: list[tuple[str, SqlType, s.Expression | None]] = []
        while True:
            if self.token.kind != "variable":
                raise self.wrong()
            name = self.advance().text
            self.take("AS")
            if self.is_word("TABLE"):
                raise not_modelled("table variables")
            kind = self.type()
            value = self.condition() if self.take("=") else None
            found.append((name, kind, value))
            if not self.take(","):
                return s.Declare(tuple(found))

    def _if(self) -> s.Statement:
        condition = self.condition()
        then = self.statement()
        self.take(";")
        otherwise = self.statement() if self.take("ELSE") else None
        return s.If(condition, then, otherwise)

    def _while(self) -> s.Statement:
        return s.While(self.condition(), self.statement())

    def _begin(self) -> s.Statement:
        if self.take("TRAN") or self.take("TRANSACTION"):
            name = mark = None
            if self.token.kind in {"name", "word"} and self.token.upper not in STATEMENTS:
                if not self.is_word("WITH"):
                    name = self.name()
                if self.take("WITH"):
                    self.expect("MARK")
                    mark = self.string() if self.token.kind == "string" else ""
            return s.Transaction("BEGIN", name, mark)
        if self.take("TRY"):
            body = self._until("END")
            self.expect("END")
            self.expect("TRY")
            self.take(";")
            self.expect("BEGIN")
            self.expect("CATCH")
            handler = self._until("END")
            self.expect("END")
            self.expect("CATCH")
            return s.TryCatch(body, handler)
        statements = self._until("END")
        self.expect("END")
        return s.Block(statements)

    def _until(self, word: str) -> tuple[s.Statement, ...]:
        found = []
        while True:
            while self.take(";"):
                pass
            if self.is_word(word):
                return tuple(found)
            if self.token.kind == "end":
                raise self.wrong()
            found.append(self.statement())

    def _end_of_transaction(self, action: str) -> s.Statement:
        name = None
        named = self.take("TRAN") or self.take("TRANSACTION") or self.take("WORK")
        is_word = self.token.kind == "word" and self.token.upper not in STATEMENTS
        if named and (self.token.kind == "name" or is_word):
            name = self.name()
        return s.Transaction(action, name)

    def _commit(self) -> s.Statement:
        return self._end_of_transaction("COMMIT")

    def _rollback(self) -> s.Statement:
        return self._end_of_transaction("ROLLBACK")

    def _insert(self) -> s.Statement:
        self.take("INTO")
        parts = self.parts()
        columns: list[str] = []
        if self.token.text == "(":
            self.advance()
            columns.append(self.name())
            while self.take(","):
                columns.append(self.name())
            self.expect(")")
        if self.take("DEFAULT", "VALUES"):
            return s.Insert(parts, tuple(columns), ((),))
        if self.take("VALUES"):
            return s.Insert(parts, tuple(columns), self.value_rows())
        if self.is_word("SELECT") or self.is_word("WITH"):
            return s.Insert(parts, tuple(columns), (), self.query())
        raise self.wrong()

    def _update(self) -> s.Statement:
        parts = self.parts()
        self.expect("SET")
        assignments = []
        while True:
            name = self.name()
            self.expect("=")
            assignments.append((name, self.expression()))
            if not self.take(","):
                break
        where = self.condition() if self.take("WHERE") else None
        return s.Update(parts, tuple(assignments), where)

    def _delete(self) -> s.Statement:
        self.take("FROM")
        parts = self.parts()
        return s.Delete(parts, self.condition() if self.take("WHERE") else None)

    def _exec(self) -> s.Statement:
        if self.take("("):
            text = self.expression()
            self.expect(")")
            return s.Execute(text)
        result = None
        if self.token.kind == "variable" and self.peek().text == "=":
            result = self.advance().text
            self.advance()
        return self._procedure(result)

    _execute = _exec

    def _procedure(self, result: str | None) -> s.Statement:
        parts = self.parts()
        arguments: list[tuple[str | None, s.Expression]] = []
        while self.token.kind in {"string", "number", "variable", "binary", "word", "name"} and (
            self.token.upper not in STATEMENTS
        ):
            name = None
            if self.token.kind == "variable" and self.peek().text == "=":
                name = self.advance().text
                self.advance()
            if self.token.kind == "word" and self.token.upper != "NULL":
                arguments.append((name, s.Literal(self.advance().text, SqlType("nvarchar", 256))))
            else:
                arguments.append((name, self.expression()))
            self.take("OUTPUT")
            if not self.take(","):
                break
        return s.Execute(None, parts, tuple(arguments), result)

    def _print(self) -> s.Statement:
        return s.Print(self.expression())

    def _raiserror(self) -> s.Statement:
        self.expect("(")
        found = [self.expression()]
        while self.take(","):
            found.append(self.expression())
        self.expect(")")
        if self.take("WITH"):
            self.name()
        default = s.Literal(1, INT)
        return s.Raise(found[0], found[1] if found[1:] else default, ([*found, default])[2])

    def _waitfor(self) -> s.Statement:
        self.expect("DELAY")
        hours, minutes, seconds = self.string().split(":")
        return s.WaitFor(int(hours) * 3600 + int(minutes) * 60 + float(seconds))

    def _checkpoint(self) -> s.Statement:
        return s.Checkpoint()

    def _return(self) -> s.Statement:
        return s.Return()
