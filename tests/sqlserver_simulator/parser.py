"""Grammar of batches and of every statement but BACKUP and RESTORE."""

from __future__ import annotations

from typing import Any

from . import syntax as s
from .backupgrammar import BackupGrammar
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


class Parser(BackupGrammar):
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
        if word in _STATEMENTS and handler is not None:
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
            if self.token.kind in {"name", "word"} and self.token.upper not in _STATEMENTS:
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
        is_word = self.token.kind == "word" and self.token.upper not in _STATEMENTS
        if named and (self.token.kind == "name" or is_word):
            name = self.name()
        return s.Transaction(action, name)

    def _commit(self) -> s.Statement:
        return self._end_of_transaction("COMMIT")

    def _rollback(self) -> s.Statement:
        return self._end_of_transaction("ROLLBACK")

    def _create(self) -> s.Statement:
        if self.take("DATABASE"):
            return self._create_database()
        if self.take("TABLE"):
            return self._create_table()
        if self.take("CREDENTIAL"):
            return self._credential("CREATE")
        if self.token.upper in {"LOGIN", "USER", "ROLE"}:
            return self._principal("CREATE")
        raise not_modelled(f"CREATE {self.token.text}")

    def _create_database(self) -> s.Statement:
        name = self.name()
        collation = snapshot = None
        if self.take("ON"):
            self.take("PRIMARY")
            self._skip_parentheses()
            while self.take(","):
                self._skip_parentheses()
            if self.take("AS", "SNAPSHOT", "OF"):
                snapshot = self.name()
            elif self.take("LOG", "ON"):
                self._skip_parentheses()
        if self.take("COLLATE"):
            collation = self.name()
        return s.CreateDatabase(name, collation, snapshot)

    def _create_table(self) -> s.Statement:
        parts = self.parts()
        self.expect("(")
        found: list[tuple[str, SqlType, bool, bool]] = []
        while True:
            if self.token.upper in {"CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK"}:
                self._column_rest()
            else:
                name = self.name()
                kind = self.type()
                found.append((name, kind, *self._column_rest()))
            if self.take(")"):
                return s.CreateTable(parts, tuple(found))
            self.expect(",")

    def _column_rest(self) -> tuple[bool, bool]:
        """Skip constraints up to the comma or the parenthesis; IDENTITY, and whether NULL fits."""
        identity, nullable = False, True
        while self.token.text not in {",", ")"}:
            if self.token.text == "(":
                self._skip_parentheses()
                continue
            if self.token.kind == "end":
                raise self.wrong()
            identity = identity or self.is_word("IDENTITY")
            if self.is_word("NOT", "NULL") or self.is_word("PRIMARY", "KEY"):
                nullable = False
            self.advance()
        return identity, nullable and not identity

    def _alter(self) -> s.Statement:
        if self.take("DATABASE"):
            return self._alter_database()
        if self.take("CREDENTIAL"):
            return self._credential("ALTER")
        if self.take("AUTHORIZATION"):
            self.expect("ON")
            self.expect("DATABASE")
            self.expect("::")
            database = self.name()
            self.expect("TO")
            return s.AlterAuthorization(database, self.name())
        if self.take("SERVER", "ROLE"):
            return self._membership("server")
        if self.is_word("ROLE"):
            self.advance()
            return self._membership("database")
        if self.token.upper in {"LOGIN", "USER"}:
            return self._principal("ALTER")
        raise not_modelled(f"ALTER {self.token.text}")

    def _membership(self, level: str) -> s.Statement:
        role = self.name()
        action = self.advance().upper
        self.expect("MEMBER")
        return s.Principal(f"{action} MEMBER", self.name(), {"role": role, "level": level})

    def _alter_database(self) -> s.Statement:
        name = self.name()
        if self.take("MODIFY", "NAME"):
            self.expect("=")
            return s.AlterDatabase(name, "MODIFY NAME", values={"name": self.name()})
        if self.take("ADD", "FILE") or self.is_word("ADD", "LOG", "FILE"):
            log = self.take("ADD", "LOG", "FILE")
            values = self._file_specification()
            if self.take("TO", "FILEGROUP"):
                values["filegroup"] = self.name()
            return s.AlterDatabase(name, "ADD LOG FILE" if log else "ADD FILE", values=values)
        if self.take("REMOVE", "FILE"):
            return s.AlterDatabase(name, "REMOVE FILE", values={"name": self.name()})
        self.expect("SET")
        words: list[str] = []
        while self.token.kind in {"word", "number", "operator"} and self.token.text != ";":
            if self.token.upper in _STATEMENTS and words[-1:] != ["WITH"]:
                break
            words.append(self.advance().upper)
        return s.AlterDatabase(name, "SET", tuple(word for word in words if word not in "=()"))

    def _file_specification(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        self.expect("(")
        while not self.take(")"):
            key = self.name().upper()
            self.expect("=")
            values[key.lower()] = self.advance().text
            if self.token.kind == "word":
                self.advance()  # the unit of a size
            self.take(",")
        return values

    def _drop(self) -> s.Statement:
        if self.take("DATABASE"):
            if_exists = self.take("IF", "EXISTS")
            names = [self.name()]
            while self.take(","):
                names.append(self.name())
            return s.DropDatabase(tuple(names), if_exists)
        if self.take("TABLE"):
            if_exists = self.take("IF", "EXISTS")
            return s.DropTable(self.parts(), if_exists)
        if self.take("CREDENTIAL"):
            return s.Credential("DROP", self.name())
        if self.token.upper in {"LOGIN", "USER", "ROLE"}:
            return self._principal("DROP")
        raise not_modelled(f"DROP {self.token.text}")

    def _credential(self, action: str) -> s.Statement:
        name = self.name()
        identity = secret = None
        self.expect("WITH")
        while True:
            key = self.advance().upper
            self.expect("=")
            value = self.string()
            if key == "IDENTITY":
                identity = value
            elif key == "SECRET":
                secret = value
            else:
                raise self.wrong()
            if not self.take(","):
                return s.Credential(action, name, identity, secret)

    def _principal(self, action: str) -> s.Statement:
        kind = self.advance().upper
        name = self.name()
        values: dict[str, Any] = {}
        if self.take("FOR", "LOGIN"):
            values["login"] = self.name()
        if self.take("FROM", "WINDOWS"):
            values["windows"] = True
        if self.take("WITH"):
            while True:
                key = self.name().upper()
                self.expect("=")
                values[key.lower()] = self.advance().text
                if not self.take(","):
                    break
        return s.Principal(f"{action} {kind}", name, values)

    def _permission(self, action: str) -> s.Statement:
        permissions: list[str] = []
        words: list[str] = []
        while not self.is_word("TO") and not self.is_word("ON") and not self.is_word("FROM"):
            if self.take(","):
                permissions.append(" ".join(words))
                words = []
            else:
                words.append(self.advance().text.upper())
        permissions.append(" ".join(words))
        on: list[str] = []
        if self.take("ON"):
            while not (self.is_word("TO") or self.is_word("FROM")):
                on.append(self.advance().text)
        if not self.take("TO"):
            self.expect("FROM")
        principals = [self.name()]
        while self.take(","):
            principals.append(self.name())
        return s.Permission(action, tuple(permissions), tuple(on), tuple(principals))

    def _grant(self) -> s.Statement:
        return self._permission("GRANT")

    def _deny(self) -> s.Statement:
        return self._permission("DENY")

    def _revoke(self) -> s.Statement:
        return self._permission("REVOKE")

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

    def _kill(self) -> s.Statement:
        session = self.integer()
        status_only = self.take("WITH")
        if status_only:
            self.expect("STATUSONLY")
        return s.Kill(session, status_only)

    def _dbcc(self) -> s.Statement:
        command = self.name().upper()
        arguments: list[str] = []
        options: list[str] = []
        if self.take("("):
            while not self.take(")"):
                arguments.append(self.advance().text)
                self.take(",")
        if self.take("WITH"):
            options.append(self.name().upper())
            while self.take(","):
                options.append(self.name().upper())
        return s.Dbcc(command, tuple(arguments), tuple(options))

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
            self.token.upper not in _STATEMENTS
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


_STATEMENTS = frozenset(
    [
        "USE",
        "SET",
        "DECLARE",
        "IF",
        "WHILE",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "CREATE",
        "ALTER",
        "DROP",
        "GRANT",
        "DENY",
        "REVOKE",
        "INSERT",
        "UPDATE",
        "DELETE",
        "KILL",
        "DBCC",
        "EXEC",
        "EXECUTE",
        "PRINT",
        "RAISERROR",
        "WAITFOR",
        "CHECKPOINT",
        "RETURN",
        "BACKUP",
        "RESTORE",
        "SELECT",
        "END",
        "ELSE",
    ]
)
