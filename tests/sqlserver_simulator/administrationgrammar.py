"""Grammar of CREATE, ALTER, DROP, GRANT and their kin, KILL and DBCC."""

from __future__ import annotations

from typing import Any

from . import syntax as s
from .backupgrammar import BackupGrammar
from .errors import not_modelled
from .sqltypes import SqlType

STATEMENTS = frozenset(
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


class AdministrationGrammar(BackupGrammar):
    """What administers databases, logins and sessions."""

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
            if self.token.upper in STATEMENTS and words[-1:] != ["WITH"]:
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
